"""How evaluations look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from pointsman_server.cli.console import as_shown, count, make_table
from pointsman_server.evaluation.gain import Advice, Gain

if TYPE_CHECKING:
    from pointsman_server.evaluation.calibration import Calibration
    from pointsman_server.evaluation.calibration_file import Recalibration
    from pointsman_server.evaluation.economics import ThreeTiers
    from pointsman_server.evaluation.robustness import Robustness
    from pointsman_server.evaluation.routing import RoutingReport
    from pointsman_server.evaluation.slices import SliceFigures
    from pointsman_server.evaluation.tiers import Confusion, Recall, TierReport
    from pointsman_server.evaluation.trust import ConfidenceReport

_ADVICE = {
    Advice.ROUTE: "route by the score",
    Advice.ONE_TIER: "no gain shown: send all to {tier}",
    Advice.TRY_MORE: "not told: try more tiers at every score; until then {tier}",
}


def show_routing(console: Console, report: RoutingReport) -> None:
    """The main figures; the report has all."""
    from pointsman_server.evaluation.report import decimal, provenance
    from pointsman_server.evaluation.slices import Kind

    console.print(provenance(report).replace("**", ""))
    console.print(f"\n{report.prompts:,} prompts, {report.outcomes:,} outcomes of {count(report.models, 'model')}")
    console.print(
        f"mean APGR {decimal(report.mean_apgr)}, by lot 0.500, by length {decimal(report.mean_length_apgr)}; "
        f"lowest: {report.lowest}\n"
    )
    _show_slices(console, [part for part in report.slices if part.kind is not Kind.SUBSET])
    _show_triples(console, report.three_tiers)
    _show_calibration(console, report.calibration)
    _show_edits(console, report.robustness)


def show_confidence(console: Console, reports: Sequence[ConfidenceReport]) -> None:
    """Calibration errors of the confidence, one line for each error of the policy."""
    from pointsman_server.evaluation.report import decimal

    headings = ("the policy's quality is off by", "models", "answers", "without verdicts", "with", "each model, with")
    table = make_table(headings, right=headings[1:])
    for one in reports:
        off = f"{one.misjudged_log_odds:+.1f} log-odds" if one.misjudged_log_odds else "nothing"
        errors = map(decimal, (one.unjudged, one.judged, one.each_model))
        table.add_row(off, f"{one.models}", f"{one.answers:,}", *errors)
    console.print(table)


def _show_calibration(console: Console, lines: Sequence[Calibration]) -> None:
    from pointsman_server.evaluation.report import decimal

    headings = ("calibration error", "overall", "here", "each model", "recalibrated")
    table = make_table(headings, right=headings[1:])
    for line in lines:
        errors = (line.by_global_ability, line.by_source_ability, line.each_model, line.recalibrated)
        table.add_row(as_shown(line.source), *map(decimal, errors))
    console.print(table)
    console.print()


def _show_slices(console: Console, slices: Sequence[SliceFigures]) -> None:
    from pointsman_server.evaluation.report import decimal, percent, with_interval

    headings = ("slice", "prompts", "APGR [95 %]", "CPT50", "CPT80", "saved", "blind", "by length", "oracle")
    table = make_table(headings, right=headings[1:])
    for part in slices:
        thresholds = (decimal(part.cpt50, 2), decimal(part.cpt80, 2), percent(part.saved), percent(part.blind_saved))
        references = (decimal(part.length_apgr), decimal(part.oracle_apgr))
        table.add_row(as_shown(part.name), f"{part.prompts:,}", with_interval(part), *thresholds, *references)
    console.print(table)
    console.print()


def _show_triples(console: Console, found: Sequence[ThreeTiers]) -> None:
    from pointsman_server.evaluation.report import decimal, percent

    headings = ("three models", "chosen by", "target", "quality", "saved", "blind", "adequate")
    table = make_table(headings, right=headings[2:])
    for line in found:
        shares = (percent(line.saved), percent(line.blind_saved), percent(line.adequate))
        table.add_row(line.triple, line.chosen_by, decimal(line.kept_target, 2), decimal(line.quality), *shares)
    console.print(table)
    console.print()


def show_tiers(console: Console, report: TierReport) -> None:
    """Recalls, the confusion matrix, robustness and the misses."""
    console.print(f"{count(report.requests, 'request')}, {report.right:.1%} right\n")
    for heading, groups in (("tier", report.tiers), ("language", report.languages), ("trait", report.traits)):
        _show_recalls(console, heading, groups)
    _show_confusion(console, report.confusion)
    _show_edits(console, report.robustness)
    if report.misses:
        table = make_table(("miss", "labelled", "judged", "score"), right=("score",))
        for miss in report.misses:
            table.add_row(as_shown(miss.id), miss.labelled, miss.judged, f"{miss.score:.3f}")
        console.print(table)


def _show_recalls(console: Console, heading: str, groups: Iterable[Recall]) -> None:
    table = make_table((heading, "requests", "right", "share", "95 %"), right=("requests", "right", "share"))
    for line in groups:
        interval = f"{line.low:.1%} to {line.high:.1%}"
        table.add_row(as_shown(line.group), str(line.requests), str(line.right), f"{line.share:.1%}", interval)
    console.print(table)
    console.print()


def _show_confusion(console: Console, confusion: Confusion) -> None:
    judged = [f"judged {name}" for name in next(iter(confusion.values()))]
    table = make_table(("labelled", *judged), right=judged)
    for label, counts in confusion.items():
        table.add_row(label, *map(str, counts.values()))
    console.print(table)
    console.print()


def _show_edits(console: Console, lines: Sequence[Robustness]) -> None:
    table = make_table(("edit", "prompts", "tiers changed", "rank correlation"), right=("prompts", "tiers changed"))
    for line in lines:
        correlation = "-" if line.rank_correlation is None else f"{line.rank_correlation:.3f}"
        table.add_row(line.edit, f"{line.prompts:,}", f"{line.tiers_changed:.1%}", correlation)
    console.print(table)
    console.print()


def show_recalibration(console: Console, found: Recalibration) -> None:
    """What was learned, how far it can be trusted, and the advice."""
    console.print(f"{count(found.outcomes, 'outcome')} of {count(found.requests, 'request')}\n")
    table = make_table(
        ("tier", "model", "outcomes", "quality", "mean cost"), right=("outcomes", "quality", "mean cost")
    )
    for line in found.models:
        cost = "-" if line.cost_micro_usd is None else f"{line.cost_micro_usd:,.0f} µUSD"
        table.add_row(line.tier, as_shown(line.model), str(line.outcomes), f"{line.quality:.3f}", cost)
    console.print(table)
    console.print()
    _show_maps(console, found)
    _show_gains(console, found.gains)


def _show_maps(console: Console, found: Recalibration) -> None:
    table = make_table(("task", "tier", "labels", "probability, easiest to hardest"), right=("labels",))
    for (task, tier), fitted in sorted(found.maps.maps.items()):
        points = fitted.falling.points
        span = f"{points[0][1]:.3f} to {points[-1][1]:.3f}"
        table.add_row(as_shown(task or "all"), tier.name.lower(), str(fitted.labels), span)
    console.print(table)
    errors = found.cross_validation
    if errors is None:
        console.print("\nToo few outcomes for any map: a tier needs at least 20.\n")
        return
    console.print(
        f"\nOn requests not learned from, before and after: squared error {errors.brier_before:.4f}, "
        f"{errors.brier_after:.4f}; calibration error {errors.calibration_error_before:.3f}, "
        f"{errors.calibration_error_after:.3f}\n"
    )


def _show_gains(console: Console, gains: Sequence[Gain]) -> None:
    if not gains:
        console.print(
            "Whether routing pays cannot be told: that needs at least two tiers with 20 outcomes each, and "
            "cost_micro_usd for some outcomes of each tier."
        )
        return
    headings = ("task", "labels", "quality", "best tier", "saved", "blind", "gain [90 %]", "advice")
    table = make_table(headings, right=headings[1:-1])
    for line in gains:
        table.add_row(
            as_shown(line.task or "all"),
            str(line.labels),
            f"{line.quality:.3f}",
            f"{line.best_quality:.3f}",
            f"{line.saved:.1%}",
            f"{line.blind_saved:.1%}",
            f"{line.gain:+.1%} [{line.low:+.1%}, {line.high:+.1%}]",
            _ADVICE[line.advice].format(tier=line.tier.name.lower()),
        )
    console.print(table)
