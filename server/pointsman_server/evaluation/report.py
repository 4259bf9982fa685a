"""The report of an evaluation in Markdown: the figures, what each means, and what they do not show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import fill

from pointsman_server.evaluation.calibration import EVERYTHING
from pointsman_server.evaluation.economics import ThreeTiers
from pointsman_server.evaluation.judging import TIER_NAMES
from pointsman_server.evaluation.routing import LabelAgreement, RoutingReport
from pointsman_server.evaluation.slices import KEPT, LEAST_PROMPTS, Kind, SliceFigures

REPORT_FILE, PLOT_FILE = "routing-evaluation.md", "routing-evaluation.svg"

_NONE = "-"
_KEPT = f"{100 * KEPT:.0f} %"
_LINE_CHARS = 120

_SEEN = (
    "**These figures are not held out.** The shipped judge was trained on these very prompts, so it is judged on "
    "what it has seen. They show that nothing is broken, not how well unseen prompts are routed."
)

_UNSEEN = "The shipped judge's training record does not name this file of prompts among what it was trained on."

_GIVEN = (
    "The scores were read from a file, not made by the shipped judge; whether they are held out is for whoever made "
    "the file to say. Robustness is that of the shipped judge."
)


def write_report(report: RoutingReport, command: str) -> str:
    """The whole document; `command` is what produced it."""
    parts = (
        _head(report, command),
        _two_models(report),
        _three_models(report.three_tiers),
        _calibration(report),
        _labels(report.labels),
        _robustness(report),
        _subsets(report.of_kind(Kind.SUBSET)),
        _limits(),
    )
    lines = "\n\n".join("\n".join(part) for part in parts).split("\n")
    return "\n".join(map(_wrapped, lines)) + "\n"


def _wrapped(line: str) -> str:
    """Running text in lines of bounded length, so that two reports can be compared; tables as they are."""
    if line.startswith("|"):
        return line
    indent = "  " if line.startswith("- ") else ""
    return fill(line, _LINE_CHARS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def percent(value: float | None) -> str:
    """A share in percent."""
    return _NONE if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None, places: int = 3) -> str:
    """A number with so many places."""
    return _NONE if value is None else f"{value:.{places}f}"


def with_interval(part: SliceFigures) -> str:
    """The APGR with its interval."""
    if part.apgr_interval is None:
        return decimal(part.apgr)
    return f"{part.apgr:.3f} [{part.apgr_interval.low:.3f}, {part.apgr_interval.high:.3f}]"


def provenance(report: RoutingReport) -> str:
    """What is to be known before any figure is believed."""
    if report.scores_from:
        return f"{_GIVEN} ({report.scores_from})"
    return _SEEN if report.seen_in_training else _UNSEEN


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _head(report: RoutingReport, command: str) -> Iterator[str]:
    main = [part for part in report.slices if part.kind is not Kind.SUBSET]
    yield "# Evaluation of the routing"
    yield f"\nWritten by `{command}`; do not edit. How to run it: [evaluation.md](evaluation.md).\n"
    yield (
        f"{report.prompts:,} prompts with {report.outcomes:,} recorded outcomes of {report.models} models "
        f"(SHA-256 of the prompts' file: `{report.digest[:16]}…`). No model was called: the outcomes were recorded "
        "before.\n"
    )
    yield provenance(report)
    yield (
        f"\nMean APGR over {len(main)} slices: **{decimal(report.mean_apgr)}** (by lot 0.500, by prompt length alone "
        f"{decimal(report.mean_length_apgr)}); the lowest is {report.lowest or _NONE}.\n"
    )
    yield f"![Quality over cost]({PLOT_FILE})"


def _two_models(report: RoutingReport) -> Iterator[str]:
    yield "## Two models: which prompts need the stronger one\n"
    yield from _table(
        (
            "slice",
            "prompts",
            "weak → strong quality",
            "APGR [95 %]",
            "CPT 50 / 80",
            f"saved at {_KEPT}",
            "blind",
            "by length: APGR, saved",
            "oracle: APGR, saved",
        ),
        map(_slice_row, (*report.of_kind(Kind.SOURCE), *report.of_kind(Kind.MIX))),
    )
    yield (
        "\n- **APGR**: the prompts go to the strong model in the order of our score; this is the share of the quality "
        "gap between the models that is recovered, averaged over every possible share of prompts sent. 0.5 is the lot; "
        "above 1 is possible, because the weak model is sometimes right where the strong one is wrong. The interval is "
        "a bootstrap over prompts."
    )
    yield "- **CPT 50 / 80**: the share of prompts that must go to the strong model to recover 50 % or 80 % of the gap."
    yield (
        f"- **saved at {_KEPT}**: the part of the strong model's bill that is saved where its quality is first kept "
        f"to {_KEPT}. The threshold is picked with hindsight, so no user gets exactly this. **blind** is what a lot "
        "between the two models saves at the same quality: only the difference is the router's merit."
    )
    yield "- **by length** is the baseline of sorting by length; the **oracle** knows every outcome beforehand."
    yield (
        f"- Costs are list prices times tokens. {percent(report.guessed_answers)} of the answers have no recorded "
        "length and count as long as the folder's median answer; lengths become tokens at four characters each."
    )


def _slice_row(part: SliceFigures) -> tuple[str, ...]:
    return (
        part.name,
        f"{part.prompts:,}",
        f"{part.weak_quality:.3f} → {part.strong_quality:.3f}",
        with_interval(part),
        f"{decimal(part.cpt50, 2)} / {decimal(part.cpt80, 2)}",
        percent(part.saved),
        percent(part.blind_saved),
        f"{decimal(part.length_apgr)}, {percent(part.length_saved)}",
        f"{decimal(part.oracle_apgr)}, {percent(part.oracle_saved)}",
    )


def _three_models(found: Sequence[ThreeTiers]) -> Iterator[str]:
    yield "## Three models: thresholds fixed beforehand\n"
    if not found:
        yield "The folder has no family of three priced models that were asked the same prompts."
        return
    yield from _table(
        (
            "models",
            "chosen by",
            "target",
            "prompts",
            "quality",
            "saved",
            "blind",
            "adequate",
            "light / standard / advanced",
        ),
        map(_triple_row, found),
    )
    yield (
        "\nThe two thresholds of each line were fixed on one half of the prompts and measured on the other, both ways "
        "round, so a target can be missed: that is what a user would see. **quality** and **saved** are against "
        "always the strongest model. **blind** is what the cheapest lot between the three saves at the measured "
        "quality; where it is not below *saved*, routing gains nothing and one model for all is the better advice. "
        "**adequate** is the share of prompts on which the chosen model did as well as the strongest."
    )


def _triple_row(line: ThreeTiers) -> tuple[str, ...]:
    return (
        line.triple,
        line.chosen_by,
        decimal(line.kept_target, 2),
        f"{line.prompts:,}",
        decimal(line.quality),
        percent(line.saved),
        percent(line.blind_saved),
        percent(line.adequate),
        " / ".join(f"{100 * share:.0f} %" for share in line.shares),
    )


def _calibration(report: RoutingReport) -> Iterator[str]:
    yield "## Do stated probabilities come true\n"
    yield from _table(
        (
            "source",
            "models",
            "outcomes",
            "ability known overall",
            "ability known here",
            "the same, each model by itself",
            "recalibrated",
        ),
        (
            (
                f"**{line.source}**" if line.source == EVERYTHING else line.source,
                str(line.models),
                f"{line.outcomes:,}",
                decimal(line.by_global_ability),
                decimal(line.by_source_ability),
                decimal(line.each_model),
                decimal(line.recalibrated),
            )
            for line in report.calibration
        ),
    )
    yield (
        "\nExpected calibration error, ten bins, over all outcomes of the line together: how far the stated "
        "probability of a good answer is from the truth. It is stated as the engine states `expected_quality`, from "
        "the prompt's difficulty and discrimination and the model's ability. The ability is one number for each model, "
        "such that its mean statement is its mean outcome on one half of the prompts; the error is measured on the "
        "other half, both ways round. *Overall* it is learned from the whole folder, which is what a policy's "
        "`quality` can know; *here* from the source itself. *Each model by itself* is the mean of the models' own "
        "errors, where those of one do not make good those of another. *Recalibrated* is a falling map of the score "
        "for each model and source, learned and measured in the same way. A small error says nothing about usefulness: "
        "always stating the mean has none."
    )
    if report.learning:
        errors = ", ".join(f"{line.error:.3f} with {line.labels}" for line in report.learning)
        yield (
            f"\nHow many labels it takes: {errors} labels for each of {report.learning[0].cases} models on a source, "
            "each by itself, measured on prompts left over; without labels the model's ability overall is all that is "
            "known."
        )


def _labels(found: Sequence[LabelAgreement]) -> Iterator[str]:
    yield "## Tiers against recorded outcomes\n"
    yield (
        "The labels say which was the cheapest of three models that happened to be right once (for `tier_consensus`: "
        "which group of models is reliably right). The tier that we judge says how demanding the request is by the "
        "written rubric. These are different questions, and a model disagrees with itself on up to a fifth of such "
        "prompts. So agreement is told here and is no goal.\n"
    )
    rows = []
    for line in found:
        for label, judged in line.confusion.items():
            counts = " / ".join(str(judged[name]) for name in TIER_NAMES.values())
            rows.append((line.label, label, counts, "", ""))
        rows.append(
            (line.label, "**all with a tier**", f"{line.prompts:,}", percent(line.right), percent(line.majority))
        )
    yield from _table(
        ("labels", "labelled", "judged simple / medium / complex", "agreement", "always the commonest"), rows
    )


def _robustness(report: RoutingReport) -> Iterator[str]:
    yield "## Harmless edits\n"
    yield from _table(
        ("edit", "prompts", "tiers changed", "rank correlation of scores"),
        (
            (line.edit, f"{line.prompts:,}", percent(line.tiers_changed), decimal(line.rank_correlation))
            for line in report.robustness
        ),
    )
    yield "\nThe same prompts, changed in ways that leave what they ask for as it is, by fixed rules."


def _subsets(found: Sequence[SliceFigures]) -> Iterator[str]:
    yield "## Subsets\n"
    yield from _table(
        ("subset", "prompts", "weak → strong quality", "APGR [95 %]", "saved", "blind"),
        (
            (
                part.name,
                f"{part.prompts:,}",
                f"{part.weak_quality:.3f} → {part.strong_quality:.3f}",
                with_interval(part),
                percent(part.saved),
                percent(part.blind_saved),
            )
            for part in found
        ),
    )
    yield (
        f"\nSubsets with at least {LEAST_PROMPTS} prompts. With {len(found)} of them some intervals miss 0.5 by chance "
        "alone: one in forty on either side."
    )


def _limits() -> Iterator[str]:
    yield "## What these figures do not show\n"
    yield "- Anything about traffic unlike these prompts: chat, several turns, tools, other languages, your subjects."
    yield "- That a saving holds for another pair of models or other prices. Measure on your own outcomes."
    yield "- That the router knows which prompts fail. Most of what decides that is not in the prompt's text."
    yield "- Differences smaller than the intervals, and single runs: the recorded outcomes are one answer each."
    yield "- Agreement with the rubric's tiers; that is measured by `pointsman evaluate tiers` on labelled requests."
