"""Questions that many scenarios put to the wall log, and those that all of them do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from wall.asks import Ask
from wall.log import Hit, Outcome, Status
from wall.plays import UPSTREAM_WORDS
from wall.scenario import Evidence, Finding
from wall.targets.target import Ability

MOST_ATTEMPTS_HERE, MOST_ATTEMPTS = 3, 6
CLOSED_WITHIN_SECONDS = 0.2

_TURNS = 3
"""At least so many times the loops of caller, gateway and upstream have to come round for one call."""

TYPED = frozenset({Ability.TYPED_ERRORS})
SET_UP = frozenset({Ability.SET_UP})
ALONE = frozenset({Ability.ALONE})
DEADLINES = frozenset({Ability.DEADLINES})


def always(evidence: Evidence) -> Iterator[Finding]:
    """What must hold whatever happens."""
    yield whole_answers_are_right(evidence)
    yield one_end_each(evidence)
    yield few_attempts(evidence)
    yield nothing_left_open(evidence)
    yield no_upstream_words(evidence)


def at_least(name: str, measured: float, limit: float, needs: frozenset[Ability] = frozenset()) -> Finding:
    """A figure that must not be lower."""
    return Finding(name, measured >= limit, f"{measured:g}", f"≥ {limit:g}", needs)


def at_most(name: str, measured: float, limit: float, needs: frozenset[Ability] = frozenset()) -> Finding:
    """A figure that must not be higher."""
    return Finding(name, measured <= limit, f"{round(measured, 4):g}", f"≤ {limit:g}", needs)


def soon_enough(
    evidence: Evidence, name: str, seconds: float, limit_seconds: float, needs: frozenset[Ability] = frozenset()
) -> Finding:
    """A duration of milliseconds, beside what the machine itself was late by while it was measured."""
    late = machine_seconds(evidence)
    expected = f"≤ {limit_seconds:g} + {late:.4f} for the machine"
    return Finding(name, seconds <= limit_seconds + late, f"{seconds:.4f}", expected, needs)


def machine_seconds(evidence: Evidence) -> float:
    """How late a busy machine makes a call of a few turns of the event loop."""
    return _TURNS * percentile(evidence.log.late_seconds, 0.95)


def exactly(name: str, measured: object, expected: object, needs: frozenset[Ability] = frozenset()) -> Finding:
    """Something that must be just so."""
    return Finding(name, measured == expected, str(measured), str(expected), needs)


def none_of(name: str, found: Iterable[object], needs: frozenset[Ability] = frozenset()) -> Finding:
    """Something that must not be there; the first few of what is are told."""
    items = list(found)
    shown = "; ".join(str(item) for item in items[:3])
    return Finding(name, not items, f"{len(items)}: {shown}" if items else "0", "0", needs)


def served_share(evidence: Evidence, share: float = 1.0, outcomes: Sequence[Outcome] | None = None) -> Finding:
    """How many of the calls got a whole answer."""
    asked = evidence.outcomes() if outcomes is None else outcomes
    served = sum(outcome.served for outcome in asked)
    unserved = Counter(_ending(outcome) for outcome in asked if not outcome.served)
    told = f"{served} of {len(asked)}" + (f" ({dict(unserved)})" if unserved else "")
    return Finding("served", bool(asked) and served >= share * len(asked), told, f"≥ {share:.1%}")


def ended_as(
    name: str,
    outcomes: Sequence[Outcome],
    status: Status,
    code: str,
    needs: frozenset[Ability] = frozenset(),
) -> Finding:
    """All of these calls ended in this way."""
    others = Counter(_ending(one) for one in outcomes if one.status is not status or code not in one.codes)
    measured = str(dict(others)) if others else f"all {len(outcomes)}" if outcomes else "there is none"
    return Finding(name, bool(outcomes) and not others, measured, f"{status.value} {code}", needs)


def cut_is_told(name: str, outcomes: Sequence[Outcome]) -> Iterator[Finding]:
    """A cut answer never looks whole; where the caller may choose, and chose an end, it ends as an error."""
    lost = [one.ask.number for one in outcomes if one.status not in (Status.INTERRUPTED, Status.SERVED)]
    yield none_of(f"{name}: neither told nor mended", lost)
    yield ended_as(name, outcomes, Status.INTERRUPTED, "ABORTED", frozenset({Ability.FAILOVER_MODES}))


def hits_at_most(evidence: Evidence, role: str, most: int, needs: frozenset[Ability] = frozenset()) -> Finding:
    """Requests that reached an upstream."""
    return at_most(f"requests at the {role}", len(evidence.hits(role)), most, needs)


def whole_answers_are_right(evidence: Evidence) -> Finding:
    """Nothing cut, lost or doubled is handed out as a whole answer."""
    wrong = [
        f"#{outcome.ask.number} {_difference(outcome, evidence)}"
        for outcome in evidence.served()
        if _difference(outcome, evidence)
    ]
    return none_of("wrong or cut answers handed out as whole", wrong)


def one_end_each(evidence: Evidence) -> Finding:
    """Every call has exactly one end, and nothing comes after it."""
    odd = [
        f"#{outcome.ask.number} {outcome.ask.lane}: {outcome.terminals} ends, {outcome.after_terminal} after them"
        for outcome in evidence.outcomes()
        if outcome.status is not Status.LEFT and (outcome.terminals != 1 or outcome.after_terminal)
    ]
    return none_of("calls without exactly one end", odd)


def few_attempts(evidence: Evidence) -> Finding:
    """At most three requests at one upstream and six in all for one call."""
    by_call = Counter((hit.lane, hit.number) for hit in evidence.hits())
    by_role = Counter((hit.upstream, hit.lane, hit.number) for hit in evidence.hits())
    worst = max(by_role.values(), default=0), max(by_call.values(), default=0)
    kept = worst[0] <= MOST_ATTEMPTS_HERE and worst[1] <= MOST_ATTEMPTS
    return Finding("requests for one call (at one upstream, in all)", kept, str(worst), "≤ (3, 6)")


def nothing_left_open(evidence: Evidence) -> Finding:
    """No upstream is still talking when nobody listens."""
    return none_of("answers still open at the end", (_name(hit) for hit in evidence.hits() if hit.is_open))


def no_upstream_words(evidence: Evidence) -> Finding:
    """What an upstream says about its failures stays inside."""
    leaks = [outcome.ask.number for outcome in evidence.outcomes() if UPSTREAM_WORDS in outcome.error_text]
    return none_of("errors that repeat an upstream's words", leaks, TYPED)


def released_in_time(evidence: Evidence, within_seconds: float = CLOSED_WITHIN_SECONDS) -> Finding:
    """Once the caller is gone, so are the requests made for it."""
    late = []
    slowest = 0.0
    for outcome in evidence.outcomes():
        for hit in evidence.hits_of(outcome.ask):
            closed_at = hit.closed_at if hit.closed_at is not None else float("inf")
            slowest = max(slowest, closed_at - outcome.ended_at)
            if closed_at > outcome.ended_at + within_seconds + machine_seconds(evidence):
                late.append(hit)
    measured = f"{len(late)} later; slowest {slowest * 1e3:.0f} ms"
    name = f"upstream released within {within_seconds * 1e3:.0f} ms of the caller's end"
    return Finding(name, not late, measured, "all")


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    ranked = sorted(values) or [0.0]
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


def first_gap(evidence: Evidence, ask: Ask, to_role: str) -> float | None:
    """Seconds from a call's first request to its first one at this upstream."""
    hits = evidence.hits_of(ask)
    there = [hit for hit in hits if hit.upstream == to_role]
    return there[0].arrived_at - hits[0].arrived_at if there else None


def numbered(outcomes: Iterable[Outcome], where: Callable[[Outcome], bool]) -> list[int]:
    """Numbers of the calls for which it holds."""
    return [outcome.ask.number for outcome in outcomes if where(outcome)]


def _ending(outcome: Outcome) -> str:
    codes = "/".join(sorted(outcome.codes))
    return f"{outcome.ask.lane}: {outcome.status.value} {codes} {outcome.reason}".strip()


def _name(hit: Hit) -> str:
    return f"{hit.upstream} #{hit.number} ({hit.play})"


def _difference(outcome: Outcome, evidence: Evidence) -> str:
    expected = evidence.stage.answering(outcome.ask.number)
    if outcome.whole_text is not None and outcome.whole_text != outcome.text:
        return "pieces and whole differ"
    if outcome.text == expected:
        return ""
    if expected.startswith(outcome.text):
        return f"cut at {len(outcome.text)} of {len(expected)}"
    same = next((at for at, (a, b) in enumerate(zip(outcome.text, expected, strict=False)) if a != b), len(expected))
    return f"differs from character {same} on ({len(outcome.text)} instead of {len(expected)})"
