"""A routing decision as tables: who answers, who else could, who may not, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from rich.text import Text

from pointsman.v1.answer_pb2 import Warning
from pointsman.v1.completion_pb2 import Tier
from pointsman.v1.decision_pb2 import (
    Complexity,
    ExclusionReason,
    Factor,
    RankedDeployment,
    RouteDecision,
    TaskType,
)
from pointsman.v1.router_service_pb2 import RouteResponse
from pointsman_server.cli.console import as_shown, make_table, seconds, usd

_SIMULATED = "simulated"
"""What the server calls every provider that is not real."""

_BAR_CELLS = 24
_NUMBER_COLUMNS = ("value", "score", "quality", "cost", "1st token")


def show_route(console: Console, response: RouteResponse) -> None:
    """Prints a whole decision, and what its caller should know."""
    show_decision(console, response.decision, response.request_id)
    _show_warnings(console, response.warnings)


def show_decision(console: Console, decision: RouteDecision, request_id: str) -> None:
    """Prints who was chosen for this request, and why."""
    _show_head(console, decision, request_id)
    _show_complexity(console, decision)
    _show_ranked(console, decision.ranked)
    if decision.excluded:
        _show_excluded(console, decision)


def _show_head(console: Console, decision: RouteDecision, request_id: str) -> None:
    chosen = decision.chosen
    head = as_shown(chosen.deployment)
    head.stylize("bold green")
    head.append(f"  {chosen.model}, {_tier(chosen.tier)} tier ({_provider(chosen.provider)})")
    about = "counted" if decision.exact else "estimated"
    console.print(Text("chosen      "), head, sep="")
    console.print(f"input       {decision.input_tokens:,} tokens, {about}")
    console.print(f"policy      {decision.policy_version}")
    console.print(f"dial        {decision.quality_bias:.2f} of 0 (cost) to 1 (quality)")
    if decision.template:
        console.print(f"template    {decision.template}")
    if decision.applied_rules:
        console.print(as_shown(f"rules       {', '.join(decision.applied_rules)}"))
    console.print(f"decided in  {seconds(_seconds(decision.decision_latency))}")
    console.print(f"decision    {decision.decision_id}")
    console.print(f"request     {request_id}")


def _show_complexity(console: Console, decision: RouteDecision) -> None:
    complexity = decision.complexity
    _heading(console, f"Complexity {complexity.score:.2f}: {_tier(complexity.tier)}")
    _show_judgement(console, complexity)
    largest = max((abs(factor.value) for factor in complexity.factors), default=0.0)
    if not largest:
        console.print("nothing in the request raises it")
        return
    table = make_table(("factor", "value", ""), right=_NUMBER_COLUMNS)
    cell = "#" if console.options.ascii_only else "█"
    for factor in complexity.factors:
        bar = cell * max(1, round(_BAR_CELLS * abs(factor.value) / largest))
        table.add_row(as_shown(factor.name), f"{factor.value:+.2f}", Text(bar, style="cyan"))
    console.print(table)


def _show_judgement(console: Console, complexity: Complexity) -> None:
    chances = ", ".join(f"{_tier(one.tier)} {one.probability:.0%}" for one in complexity.tier_probabilities)
    if chances:
        console.print(f"tier        {chances}")
    if complexity.task:
        console.print(f"task        {TaskType.Name(complexity.task).removeprefix('TASK_TYPE_').lower()}")
    if complexity.needs_fresh_facts:
        console.print("facts       wants the latest: deployments that can search come first")


def _show_ranked(console: Console, ranked: Sequence[RankedDeployment]) -> None:
    _heading(console, "Ranked, best first")
    headings = ("deployment", "tier", "score", "made of", "quality", "cost", "1st token")
    table = make_table(headings, right=_NUMBER_COLUMNS)
    for candidate in ranked:
        table.add_row(
            as_shown(candidate.deployment),
            _tier(candidate.tier),
            f"{candidate.score:.3f}",
            _parts(candidate.score_parts),
            f"{candidate.expected_quality:.2f}",
            usd(candidate.expected_cost_micro_usd),
            seconds(_seconds(candidate.expected_first_token)),
        )
    console.print(table)


def _show_excluded(console: Console, decision: RouteDecision) -> None:
    _heading(console, "Excluded")
    table = make_table(("deployment", "reason", "detail"))
    for excluded in decision.excluded:
        reason = ExclusionReason.Name(excluded.reason).removeprefix("EXCLUSION_REASON_")
        table.add_row(as_shown(excluded.deployment), reason, as_shown(excluded.detail))
    console.print(table)


def _show_warnings(console: Console, warnings: Iterable[Warning]) -> None:
    for warning in warnings:
        console.print(as_shown(f"warning: {warning.message} ({warning.code})"), style="yellow")


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold")


def _parts(factors: Iterable[Factor]) -> Text:
    return as_shown(" ".join(f"{factor.name}={factor.value:.3f}" for factor in factors))


def _provider(name: str) -> str:
    return "simulated: no language model answers" if name == _SIMULATED else name


def _tier(tier: Tier.ValueType) -> str:
    return Tier.Name(tier).removeprefix("TIER_").lower()


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
