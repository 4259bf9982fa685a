"""Rate limits, retries, deadlines and load: what a gateway must not make worse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from itertools import pairwise

from wall.asks import Ask
from wall.log import Hit, Outcome, Status
from wall.plays import Play, error_play, silence
from wall.scenario import FALLBACK, PRIMARY, Evidence, Finding, Lane, Scenario, Setting, Stage
from wall.scenarios.judging import (
    ALONE,
    CLOSED_WITHIN_SECONDS,
    DEADLINES,
    SET_UP,
    TYPED,
    at_least,
    at_most,
    ended_as,
    none_of,
    percentile,
    released_in_time,
    served_share,
    soon_enough,
)
from wall.scenarios.staging import NO_BREAKER, always_play, model, steady, two_upstreams
from wall.targets.target import Ability
from wall.texts import seeded
from wall.upstream import Plan

_SLACK_SECONDS = 0.4

_RETRY_AFTER: Mapping[str, tuple[Callable[[], Mapping[str, str]], float]] = {
    "seconds": (lambda: {"retry-after": "1"}, 1.0),
    "milliseconds": (lambda: {"retry-after": "9", "retry-after-ms": "600"}, 0.6),
    "date": (lambda: {"retry-after": formatdate(time.time() + 2, usegmt=True)}, 0.9),
    "day": (lambda: {"retry-after": "86400"}, 60.0),
    "past-date": (lambda: {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
    "negative": (lambda: {"retry-after": "-5"}, 0.0),
    "words": (lambda: {"retry-after": "soon"}, 0.0),
    "unsaid": (dict, 0.0),
}
"""What a 429 says, and for how long the upstream must then be left alone (0: it said nothing usable)."""


def _limited(headers: Mapping[str, str]) -> Play:
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    return error_play(429, "rate_limit_exceeded", "slow down", **named)


def _storm(setting: Setting) -> Stage:
    def answer(hit: Hit) -> Play:
        return _limited(_RETRY_AFTER[hit.lane][0]())

    asks = [
        Ask(place * 100 + at, at_seconds=at * 0.2, lane=lane, stream=at % 2 == 1)
        for place, lane in enumerate(_RETRY_AFTER)
        for at in range(8)
    ]
    return two_upstreams(setting, "S08", answer, asks, lanes={lane: Lane() for lane in _RETRY_AFTER})


def _judge_storm(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    yield at_most("95th percentile of seconds", percentile([one.seconds for one in evidence.outcomes()], 0.95), 1.0)
    for lane, (_, asked_seconds) in _RETRY_AFTER.items():
        hits = [hit.arrived_at for hit in evidence.hits(PRIMARY, lane)]
        gaps = [later - earlier for earlier, later in pairwise(hits)]
        if asked_seconds:
            name = f"shortest pause after 'retry-after: {lane}'"
            yield at_least(name, min(gaps, default=float("inf")), asked_seconds - 0.05)


_WAITS = {"waits": 0.3, "gives-up": 3_600.0, "too-late": 2.5}
_WAITS_DEADLINE_SECONDS = 2.0


def _limited_alone(setting: Setting) -> Stage:
    healthy = model(setting, "S09")
    seen: dict[str, int] = {}

    def answer(hit: Hit) -> Play:
        seen[hit.lane] = seen.get(hit.lane, 0) + 1
        if hit.lane == "waits" and seen[hit.lane] > 1:
            return healthy(hit)
        return _limited({"retry-after-ms": str(int(_WAITS[hit.lane] * 1_000))})

    asks = [Ask(at, lane=lane, alone=True, deadline_seconds=_WAITS_DEADLINE_SECONDS) for at, lane in enumerate(_WAITS)]
    return two_upstreams(setting, "S09", answer, asks, lanes={lane: Lane() for lane in _WAITS})


def _judge_limited_alone(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence, 1.0, evidence.outcomes("waits"))
    hits = evidence.hits(PRIMARY, "waits")
    gap = hits[1].arrived_at - hits[0].arrived_at if len(hits) > 1 else 0.0
    yield at_least("seconds waited before the second request", round(gap, 3), _WAITS["waits"] - 0.01)
    for lane in ("gives-up", "too-late"):
        outcomes = evidence.outcomes(lane)
        name = f"asked to wait longer than the deadline: {lane}"
        yield ended_as(name, outcomes, Status.FAILED, "RESOURCE_EXHAUSTED", DEADLINES)
        yield at_most(f"seconds until that was told: {lane}", outcomes[0].seconds, 0.5, DEADLINES)
        yield at_most(f"requests: {lane}", len(evidence.hits(PRIMARY, lane)), 1, DEADLINES)


_CAP_SECONDS = 0.8


def _no_deadline(setting: Setting) -> Stage:
    asks = [Ask(at, stream=bool(at), deadline_seconds=None, alone=True) for at in range(2)]
    variables = {
        "POINTSMAN_UNARY_TIMEOUT_SECONDS": str(_CAP_SECONDS),
        "POINTSMAN_STREAM_TIMEOUT_SECONDS": str(_CAP_SECONDS),
    }
    return two_upstreams(setting, "S14", always_play(silence()), asks, settings=variables)


def _judge_no_deadline(evidence: Evidence) -> Iterator[Finding]:
    yield ended_as("ends by itself", evidence.outcomes(), Status.FAILED, "DEADLINE_EXCEEDED")
    longest = max(one.seconds for one in evidence.outcomes())
    yield at_most("seconds of the longest call", longest, _CAP_SECONDS + 0.5)


def _amplification_calls(setting: Setting) -> int:
    return max(300, min(1_000, setting.many))


def _dead_and_alone(scenario: str, resilience: Mapping[str, Mapping[str, object]]) -> Callable[[Setting], Stage]:
    def stage(setting: Setting) -> Stage:
        count = _amplification_calls(setting)
        seconds = max(1.5, setting.seconds(60))
        asks = steady(count, count / seconds, stream_every=3, alone=True)
        return two_upstreams(setting, scenario, always_play(error_play(500)), asks, resilience=resilience)

    return stage


def _judge_amplification(evidence: Evidence) -> Iterator[Finding]:
    calls = len(evidence.outcomes())
    yield at_most("requests at the dead upstream", len(evidence.hits(PRIMARY)), calls * 1.1 + 3)
    yield ended_as("calls", evidence.outcomes(), Status.FAILED, "UNAVAILABLE")


_BASE_SECONDS = 0.2
_UNHINDERED = {**NO_BREAKER, "retries": {"base_seconds": _BASE_SECONDS, "cap_seconds": 5}}
"""The pauses are looked at, so they are not shortened with the other durations."""


def _judge_unhindered(evidence: Evidence) -> Iterator[Finding]:
    yield from _judge_amplification(evidence)
    yield at_least("requests, as no breaker may refuse", len(evidence.hits(PRIMARY)), len(evidence.outcomes()))
    pauses = _retry_pauses(evidence)
    yield at_least("retries seen", len(pauses), 20)
    yield at_most("longest pause before a first retry", percentile(pauses, 0.95), _BASE_SECONDS + 0.1)
    # Drawn evenly from nothing to the base: nobody comes back in step with the others.
    yield at_most("mean pause", sum(pauses) / max(1, len(pauses)), 0.8 * _BASE_SECONDS)
    spread = percentile(pauses, 0.9) - percentile(pauses, 0.1)
    yield at_least("spread of the pauses, as a share of the base", round(spread / _BASE_SECONDS, 2), 0.4)


def _retry_pauses(evidence: Evidence) -> list[float]:
    by_call: dict[int, list[Hit]] = {}
    for hit in evidence.hits(PRIMARY):
        by_call.setdefault(hit.number, []).append(hit)
    pairs = [hits[:2] for hits in by_call.values() if len(hits) > 1]
    return [second.arrived_at - (first.finished_at or first.arrived_at) for first, second in pairs]


_DEADLINES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_STORM_CALLS_PER_SECOND = 80.0


def _deadline_storm(setting: Setting) -> Stage:
    count = min(setting.many, 300)
    asks = []
    for at in range(count):
        chance = seeded("deadline", setting.seed, at)
        longest = 5.0 if setting.scale >= 1 and chance.random() < 0.1 else chance.choice(_DEADLINES)
        begins = at / _STORM_CALLS_PER_SECOND
        asks.append(Ask(at, at_seconds=begins, stream=at % 2 == 0, deadline_seconds=longest))
    slow = model(setting, "S35", spread_seconds=0.3)
    return two_upstreams(setting, "S35", slow, asks, resilience=NO_BREAKER)


def _judge_deadlines(evidence: Evidence) -> Iterator[Finding]:
    failed = [one for one in evidence.outcomes() if not one.served]
    wrong = [f"#{one.ask.number} {sorted(one.codes)}" for one in failed if "DEADLINE_EXCEEDED" not in one.codes]
    yield none_of("calls that failed otherwise", wrong)
    yield soon_enough(
        evidence, "seconds beyond the deadline (99th percentile)", percentile(_overdue(failed), 0.99), 0.1
    )
    yield released_in_time(evidence)
    late = [hit.number for one in failed for hit in evidence.hits_of(one.ask) if hit.arrived_at > one.ended_at + 0.05]
    yield none_of("requests begun after the deadline", late)
    short = [one.ask.number for one in failed if (one.ask.deadline_seconds or 0) <= 0.02 and evidence.hits_of(one.ask)]
    yield none_of("requests begun with less than 50 ms left", short, SET_UP)


def _overdue(failed: list[Outcome]) -> list[float]:
    return [one.seconds - (one.ask.deadline_seconds or 0.0) for one in failed]


_PLACES = 4
_ANSWER_SECONDS = 0.2
_CAPACITY = _PLACES / _ANSWER_SECONDS


def _overload_seconds(setting: Setting) -> float:
    return max(1.5, setting.seconds(20))


def _overload(setting: Setting) -> Stage:
    seconds = _overload_seconds(setting)
    slow = model(setting, "S19", spread_seconds=_ANSWER_SECONDS)
    fields = {"stream_every": 0, "deadline_seconds": 5.0}
    # As much as fits, then a pause, then twice as much: even calls, so that the first part just fits.
    first = steady(int(_CAPACITY * 0.8 * seconds), _CAPACITY * 0.8, **fields)  # type: ignore[arg-type]
    second = steady(
        int(_CAPACITY * 2 * seconds),
        _CAPACITY * 2,
        begins_at=seconds + 0.5,
        first=100_000,
        **fields,  # type: ignore[arg-type]
    )
    variables = {"POINTSMAN_MAX_CONCURRENT_CALLS": str(_PLACES)}
    return two_upstreams(setting, "S19", slow, [*first, *second], settings=variables)


def _judge_overload(evidence: Evidence) -> Iterator[Finding]:
    before = [one for one in evidence.outcomes() if one.ask.number < 100_000]
    over = [one for one in evidence.outcomes() if one.ask.number >= 100_000]
    shed = [one for one in over if not one.served]
    yield at_least("calls shed at twice the load", len(shed), 1)
    yield ended_as("shed calls", shed, Status.FAILED, "RESOURCE_EXHAUSTED")
    yield none_of("shed without a word when to come back", [o.ask.number for o in shed if not o.retry_after_seconds])
    name = "seconds until a call was shed (95th percentile)"
    yield soon_enough(evidence, name, percentile([one.seconds for one in shed], 0.95), 0.01)
    goodput = sum(one.served for one in over), sum(one.served for one in before)
    yield at_least("goodput against that of the load that fits", round(goodput[0] / max(1, goodput[1]), 2), 0.9)
    reached = {hit.number for hit in evidence.hits()}
    yield none_of("shed calls that reached an upstream", [o.ask.number for o in shed if o.ask.number in reached])


def _both_limited(setting: Setting) -> Stage:
    plan = Plan(always_play(_limited({"retry-after-ms": "1500"})))
    asks = [Ask(at, at_seconds=at * 0.1, deadline_seconds=1.0) for at in range(4)]
    return Stage(
        plans={PRIMARY: plan, FALLBACK: plan},
        asks=asks,
        answering=lambda number: setting.text("S36", number),
    )


def _judge_both_limited(evidence: Evidence) -> Iterator[Finding]:
    first, *later = evidence.outcomes()
    yield ended_as("the first call", [first], Status.FAILED, "RESOURCE_EXHAUSTED")
    refused = [one.ask.number for one in later if one.served]
    yield none_of("served by nobody", refused)
    untold = [one.ask.number for one in evidence.outcomes() if not one.retry_after_seconds]
    yield none_of("refused without a word when to come back", untold, TYPED)
    yield at_most("requests at both", len(evidence.hits()), 2)
    yield at_most("seconds of the longest call", max(one.seconds for one in evidence.outcomes()), _SLACK_SECONDS)
    told = max((one.retry_after_seconds or 0.0) for one in evidence.outcomes())
    yield at_most("seconds it says to come back in", told, 1.5 + CLOSED_WITHIN_SECONDS, TYPED)


_BOUNDED = frozenset({Ability.ALONE, Ability.SET_UP})

SCENARIOS = (
    Scenario("S08", "429 with every form of Retry-After", "R5, R11: left alone as asked", _storm, _judge_storm),
    Scenario("S09", "429 and nobody else", "R5: waits, or tells", _limited_alone, _judge_limited_alone, ALONE),
    Scenario("S14", "no deadline, and silence", "R1: server's cap", _no_deadline, _judge_no_deadline, _BOUNDED),
    Scenario(
        "S17", "1,000 calls to a lone dead upstream", "R4: ≤ 1,103 requests", _dead_and_alone("S17", {}),
        _judge_amplification, ALONE,
    ),
    Scenario(
        "S18", "the same without a breaker's help", "R4, R5: budget and jitter", _dead_and_alone("S18", _UNHINDERED),
        _judge_unhindered, _BOUNDED,
    ),
    Scenario("S19", "twice as many calls as there are places", "R19", _overload, _judge_overload, SET_UP),
    Scenario(
        "S35", "deadlines from 1 ms to 5 s", "R1, R2, C3: kept to 100 ms", _deadline_storm, _judge_deadlines,
        frozenset({Ability.DEADLINES, Ability.SET_UP}),
    ),
    Scenario("S36", "all are rate limited", "R5: told when to come back", _both_limited, _judge_both_limited, SET_UP),
)  # fmt: skip
