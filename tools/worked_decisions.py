"""Writes docs/decisions.md: requests, what the router decides about them under the demonstration policy, and why.

Everything is real but the surroundings: the policy, the judge, the counting, the decision and its view on the
command line. Time stands still and nothing is called, so that the same code gives the same page.

Run as `make decisions`, or as `python tools/worked_decisions.py OUT`.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from pointsman.v1.completion_pb2 import CompletionSpec, Tier
from pointsman.v1.decision_pb2 import ExclusionReason, RankedDeployment, RouteDecision, TaskType
from pointsman.v1.router_service_pb2 import RouteRequest, RouteResponse
from pointsman_server.adapters.stores.decision_file import StateFolder
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.adapters.telemetry.setup import observe
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.bootstrap.pipeline import build_memory, build_pipeline, ungoverned
from pointsman_server.cli.console import open_console
from pointsman_server.cli.decision_view import show_route
from pointsman_server.config.policy_file import compile_policy
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.errors import NobodyHealthy, NoEligibleDeployment, RouterError
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.execution.health import Admission
from pointsman_server.rpc.answer import decision_to_proto
from pointsman_server.rpc.request import read_request

ROOT = Path(__file__).resolve().parent.parent
POLICY = "deploy/policies/demo.yaml"
WORKED = "tests/fixtures/worked_decisions.json"
PRICED_ON = date(2025, 1, 1)

TENANT = "demo"

_VARYING = re.compile(r"^(decided in|decision|request) +.*\n", re.MULTILINE)
"""Lines of the view that are different every time."""

_WORDS_OF_PARTS = {
    "quality": "a better answer is expected of it",
    "cost": "it costs less",
    "first_token": "it answers sooner",
    "errors": "it failed less often lately",
    "affinity": "it gave the conversation's last answer",
    "tier_below": "the other is of a lower tier than needed",
    "chain_position": "the tier's chain names it first",
    "fresh_facts": "it can search the web",
    "rule_preference": "a rule prefers it",
}
_WORDS_OF_FACTORS = {
    "unsure": ", without being sure",
    "follow_up": ", as the question before it",
    "reasoning_effort": ", raised for the reasoning asked for",
}
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Worked:
    """One request with its decision or, where nobody may answer, the error."""

    title: str
    given: dict[str, Any]
    happened: tuple[str, ...]
    decision: RouteDecision | None
    error: RouterError | None

    @property
    def chosen(self) -> str:
        """The id of the pick, "" for a refusal."""
        return self.decision.chosen.deployment if self.decision else ""

    @property
    def excluded(self) -> dict[str, str]:
        """The reason for each deployment that may not answer, as the policy's documentation calls it."""
        if self.decision is not None:
            return {one.deployment: _reason(one.reason) for one in self.decision.excluded}
        if isinstance(self.error, (NoEligibleDeployment, NobodyHealthy)):
            return {one.deployment_id: one.reason.value for one in self.error.rejections}
        return {}


class _StillClock:
    def monotonic(self) -> float:
        return 1_000.0

    def now(self) -> float:
        return 1_735_689_600.0


class _PlainIds:
    def new(self, prefix: str) -> str:
        return prefix


class Worker:
    """Decides one request in a process of its own, as it were: nothing was remembered before."""

    def __init__(self, snapshot: Snapshot, counter: TiktokenCounter) -> None:
        self._snapshot = snapshot
        clock = _StillClock()
        telemetry = observe(lambda: snapshot, clock, "", {}).telemetry
        memory = build_memory(clock, StateFolder(None), telemetry)
        self._health, self._sessions, self._feedback = memory.health, memory.sessions, memory.feedback
        governing = ungoverned(clock)
        self._pipeline = build_pipeline(memory, {}, telemetry, governing, MemoryLedger(), counter, clock, _PlainIds())

    def decide(self, case: dict[str, Any]) -> Worked:
        """What comes of this request after what happened before it."""
        request = read_request(RouteRequest(completion=_spec(case)))
        happened = tuple(self._let_happen(kind, event, request) for kind, event in case.get("before", {}).items())
        call = Call(request, "req", self._snapshot, deadline=float("inf"), tenant=TENANT)
        try:
            decision = decision_to_proto(asyncio.run(self._pipeline.route(call)))
        except RouterError as error:
            return Worked(case["title"], _shown(case), happened, None, error)
        return Worked(case["title"], _shown(case), happened, decision, None)

    def _let_happen(self, kind: str, event: dict[str, Any], request: CompletionRequest) -> str:
        times = event.get("times", 1)
        match kind:
            case "failed":
                fault = FaultKind(event["fault"])
                wait = event.get("retry_after_seconds")
                for admission in self._admissions(event["deployment"], times):
                    admission.failed(ProviderFault(fault, "", retry_after_seconds=wait))
                asked = f", asking for {wait} s of rest" if wait else ""
                return f"`{event['deployment']}` failed {_times(times)} in a row ({fault.value}{asked})."
            case "answered":
                for admission in self._admissions(event["deployment"], times):
                    admission.succeeded(event["first_token_seconds"])
                waited = event["first_token_seconds"]
                return f"`{event['deployment']}` answered {_times(times)}, each time first after {waited} s."
            case "last_turn":
                self._sessions.answered(request.session_id, event["deployment"])
                return f"`{event['deployment']}` answered the conversation's last turn."
            case _:
                return self._judge(event, times, request)

    def _admissions(self, deployment_id: str, times: int) -> Iterator[Admission]:
        deployment = self._snapshot.deployments[deployment_id]
        for _ in range(times):
            admission = self._health.admit(deployment, self._snapshot)
            if not isinstance(admission, Admission):
                raise ValueError(f"{deployment_id} cannot be called so often: {admission.detail}")
            yield admission

    def _judge(self, event: dict[str, Any], times: int, request: CompletionRequest) -> str:
        complexity = judge_complexity(request)
        lesson = Lesson(event["model"], complexity.task, complexity.tier)
        for number in range(times):
            self._feedback.answered(str(number), TENANT, lesson)
            self._feedback.judge(str(number), TENANT, event["score"], "")
        return f"Callers judged {times} answers of `{event['model']}` to such requests with {event['score']}."


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times} times"


def _spec(case: dict[str, Any]) -> CompletionSpec:
    spec = ParseDict(case["completion"], CompletionSpec())
    if "pasted" in case:
        text = spec.messages[-1].parts[0].text
        spec.messages[-1].parts[0].text = case["pasted"]["text"] * case["pasted"]["times"] + "\n\n" + text
    return spec


def _shown(case: dict[str, Any]) -> dict[str, Any]:
    """The request as the page shows it: short where it is long."""
    shown: dict[str, Any] = json.loads(json.dumps(case["completion"]))
    for message in shown["messages"]:
        for part in message["parts"]:
            if "image" in part:
                part["image"]["data"] = "…"
    if "pasted" in case:
        part = shown["messages"][-1]["parts"][0]
        part["text"] = f"({case['pasted']['about']})\n\n{part['text']}"
    return shown


def work_out() -> list[Worked]:
    """All requests of the file, each decided for itself."""
    policy = compile_policy((ROOT / POLICY).read_bytes(), POLICY, {}, PRICED_ON)
    counter = TiktokenCounter()
    counter.warm_up()
    cases = json.loads((ROOT / WORKED).read_text(encoding="utf-8"))
    return [Worker(policy.snapshot, counter).decide(case) for case in cases]


def why(worked: Worked) -> str:
    """One or two sentences, made of nothing but the decision."""
    decision = worked.decision
    if decision is None:
        return f"Refused: {worked.error}."
    return f"{_judged(decision)}; {_picked(decision.ranked)}.{_left_out(worked)}"


def _judged(decision: RouteDecision) -> str:
    complexity = decision.complexity
    probable = {one.tier: one.probability for one in complexity.tier_probabilities}
    task = TaskType.Name(complexity.task).removeprefix("TASK_TYPE_").lower()
    said = f"Judged {_tier(complexity.tier)} ({probable[complexity.tier]:.0%}), {task}"
    said += "".join(
        words for name, words in _WORDS_OF_FACTORS.items() if name in {one.name for one in complexity.factors}
    )
    if complexity.needs_fresh_facts:
        said += ", in need of the latest facts"
    rules = "".join(f", rule `{name}`" for name in decision.applied_rules)
    return f"{said}, dial at {decision.quality_bias:g}{rules}"


def _picked(ranked: Sequence[RankedDeployment]) -> str:
    first = ranked[0]
    if len(ranked) == 1:
        return f"only `{first.deployment}` is left"
    second = ranked[1]
    ours, theirs = ({part.name: part.value for part in one.score_parts} for one in (first, second))
    gains = {name: ours.get(name, 0.0) - theirs.get(name, 0.0) for name in ours | theirs}
    name = max(gains, key=gains.__getitem__)
    reason = _WORDS_OF_PARTS.get(name, name) if gains[name] > 1e-9 else "of equals the first by name"
    return f"`{first.deployment}` comes before `{second.deployment}` by {first.score - second.score:.3f}: {reason}"


def _left_out(worked: Worked) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in worked.excluded.items():
        by_reason.setdefault(reason, []).append(f"`{name}`")
    if not by_reason:
        return ""
    said = (
        f"{reason}: {', '.join(names) if len(names) <= _MOST_NAMED else f'{len(names)} deployments'}"
        for reason, names in by_reason.items()
    )
    return f" Excluded for {'; '.join(said)}."


def _tier(tier: Tier.ValueType) -> str:
    return Tier.Name(tier).removeprefix("TIER_").lower()


def _reason(reason: ExclusionReason.ValueType) -> str:
    return ExclusionReason.Name(reason).removeprefix("EXCLUSION_REASON_").lower()


def page(all_worked: Sequence[Worked]) -> str:
    """The whole page."""
    numbered = list(enumerate(all_worked, start=1))
    rows = "".join(f"| {_link(number, one)} | {_pick(one)} | {why(one)} |\n" for number, one in numbered)
    head = _HEAD.format(count=len(all_worked), policy=POLICY, worked=WORKED)
    return f"{head}\n| request | answers | why |\n|---|---|---|\n{rows}" + "".join(_section(*one) for one in numbered)


_HEAD = """# Worked decisions

What the router decides about {count} requests under [{policy}](../{policy}), and why.
`make decisions` writes this page from [{worked}](../{worked}),
with the judge, the policy and the view of `pointsman route` as they are; a test fails when it is out of date.

Models and prices are made up, and so is what happened before a request. What the figures
mean: [routing.md](routing.md). Ids and durations are left out.
"""


def _link(number: int, worked: Worked) -> str:
    slug = re.sub(r"[^\w -]", "", f"{number} {worked.title}".lower()).replace(" ", "-")
    return f"[{number}](#{slug}) {worked.title}"


def _pick(worked: Worked) -> str:
    return f"`{worked.chosen}`" if worked.chosen else "nobody"


def _section(number: int, worked: Worked) -> str:
    given = ",\n".join(f' "{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in worked.given.items())
    before = "".join(f"\nBefore it: {sentence}\n" for sentence in worked.happened)
    return (
        f"\n## {number}. {worked.title}\n\n```json\n{{\n{given}\n}}\n```\n{before}\n"
        f"```text\n{_view(worked)}```\n\n{why(worked)}\n"
    )


def _view(worked: Worked) -> str:
    if worked.decision is None:
        lines = [type(worked.error).__name__, *(f"  {name}: {reason}" for name, reason in worked.excluded.items())]
        return "\n".join(lines) + "\n"
    with redirect_stdout(io.StringIO()) as printed:
        show_route(open_console(), RouteResponse(decision=worked.decision))
    return "\n".join(line.rstrip() for line in _VARYING.sub("", printed.getvalue()).splitlines()) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Writes the page."""
    if len(arguments) != 1:
        print("usage: python tools/worked_decisions.py OUT", file=sys.stderr)
        return 2
    Path(arguments[0]).write_text(page(work_out()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
