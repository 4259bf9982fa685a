"""Upstreams that are down, silent or unsteady, under load."""

from __future__ import annotations

from collections.abc import Iterator

from wall.asks import Ask
from wall.log import Hit, Status
from wall.plays import Play, hang_up, reset, silence
from wall.scenario import FALLBACK, PRIMARY, Evidence, Finding, Lane, Scenario, Setting, Stage
from wall.scenarios.judging import (
    SET_UP,
    TYPED,
    at_most,
    ended_as,
    exactly,
    first_gap,
    hits_at_most,
    none_of,
    percentile,
    served_share,
    soon_enough,
)
from wall.scenarios.staging import always_play, between, by_lane, failing, model, steady, two_upstreams
from wall.targets.target import Ability
from wall.upstream import Plan

_FOREVER = 1e9
_LOAD_PER_SECOND = 50.0
_SLACK_SECONDS = 0.4
"""What a busy machine may add to a duration."""


def _healthy(setting: Setting) -> Stage:
    return two_upstreams(setting, "S01", model(setting, "S01"), steady(min(setting.many, 200), _LOAD_PER_SECOND))


def _judge_healthy(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    yield exactly("requests at the primary", len(evidence.hits(PRIMARY)), len(evidence.outcomes()))
    yield hits_at_most(evidence, FALLBACK, 0)


def _refusing(setting: Setting) -> Stage:
    closed = Plan(model(setting, "S02"), refusing=((0.0, _FOREVER),))
    return two_upstreams(setting, "S02", closed, steady(setting.many, _LOAD_PER_SECOND))


def _failing(setting: Setting) -> Stage:
    return two_upstreams(setting, "S03", failing(500), steady(setting.many, _LOAD_PER_SECOND))


def _judge_one_dead(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence, 0.999)
    late = evidence.outcomes()[len(evidence.outcomes()) // 2 :]
    yield at_most("95th percentile of the later calls' seconds", percentile([one.seconds for one in late], 0.95), 0.5)


def _first_token_seconds(setting: Setting) -> float:
    return max(0.25, setting.seconds(5))


def _silent(setting: Setting) -> Stage:
    patience = {"first_token_seconds": _first_token_seconds(setting)}
    asks = steady(min(setting.many, 200), 20.0, deadline_seconds=max(4.0, setting.seconds(20)))
    return two_upstreams(setting, "S04", always_play(silence()), asks, timeouts=patience)


def _judge_silent(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence, 0.999)
    gaps = [first_gap(evidence, one.ask, FALLBACK) for one in evidence.served() if one.ask.stream]
    longest = max((gap for gap in gaps if gap is not None), default=0.0)
    yield at_most("seconds until a stream left the silent primary", longest, _left_within(evidence.setting), SET_UP)
    patience = evidence.setting.patience_seconds("first token") + _SLACK_SECONDS
    yield at_most("the same, by the patience that all are told to have", longest, patience)


def _left_within(setting: Setting) -> float:
    return _first_token_seconds(setting) + _SLACK_SECONDS


def _flapping(setting: Setting) -> Stage:
    half = setting.seconds(10)
    sound_primary, broken = model(setting, "S05"), failing(503)

    def answer(hit: Hit) -> Play:
        return (broken if int(hit.arrived_at / half) % 2 else sound_primary)(hit)

    count = max(40, int(setting.seconds(60) * 20))
    return two_upstreams(setting, "S05", answer, steady(count, count / setting.seconds(60)))


def _judge_flapping(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    yield at_most("requests for each call", len(evidence.hits()) / max(1, len(evidence.outcomes())), 1.5)


def _all_down(setting: Setting) -> Stage:
    outage, pause = setting.seconds(30), setting.seconds(1)
    down = ((0.0, outage),)
    asks = steady(90, 1 / pause, stream_every=0, deadline_seconds=5.0)
    return Stage(
        plans={role: Plan(model(setting, "S06"), refusing=down) for role in (PRIMARY, FALLBACK)},
        asks=asks,
        answering=lambda number: setting.text("S06", number),
    )


def _judge_all_down(evidence: Evidence) -> Iterator[Finding]:
    setting = evidence.setting
    outage = setting.seconds(30)
    during = [one for one in evidence.outcomes() if one.ended_at < outage]
    after = [one for one in evidence.outcomes() if one.started_at > outage + setting.seconds(30) + _SLACK_SECONDS]
    yield ended_as("calls while all are down", during, Status.FAILED, "UNAVAILABLE")
    yield at_most("seconds until they were told (95th percentile)", percentile([o.seconds for o in during], 0.95), 1.0)
    untold = [one.ask.number for one in during if not one.retry_after_seconds]
    yield none_of("refused without a word when to come back", untold, TYPED)
    reached = {hit.number for hit in evidence.hits()}
    at_once = [one.seconds for one in during[len(during) // 2 :] if one.ask.number not in reached]
    name = "seconds of a refusal with all breakers open (median)"
    yield soon_enough(evidence, name, percentile(at_once, 0.5), 0.01, SET_UP)
    yield served_share(evidence, 1.0, after)


def _both_unsteady(setting: Setting) -> Stage:
    def every_second() -> Plan:
        seen = {"hits": 0}
        sound_model, broken = model(setting, "S07"), failing(503)

        def answer(hit: Hit) -> Play:
            seen["hits"] += 1
            return (broken if seen["hits"] % 2 else sound_model)(hit)

        return Plan(answer)

    return Stage(
        plans={role: every_second() for role in (PRIMARY, FALLBACK)},
        asks=steady(min(setting.many, 300) * 2, _LOAD_PER_SECOND * 2, stream_every=0),
        answering=lambda number: setting.text("S07", number),
    )


def _judge_both_unsteady(evidence: Evidence) -> Iterator[Finding]:
    reached = {hit.number for hit in evidence.hits()}
    untried = [one.ask.number for one in evidence.outcomes() if one.ask.number not in reached]
    yield none_of("calls refused without asking anybody", untried)
    yield served_share(evidence, 0.4)


_SILENCES = ("alone", "behind")


def _black_hole_deadline(setting: Setting) -> float:
    return max(2.0, setting.seconds(20))


def _black_hole(setting: Setting) -> Stage:
    deadline = _black_hole_deadline(setting)
    asks = [
        Ask(at * 2 + stream, lane=lane, stream=bool(stream), deadline_seconds=deadline, alone=lane == "alone")
        for at, lane in enumerate(_SILENCES)
        for stream in (0, 1)
    ]
    lanes = {lane: Lane(timeouts={"first_token_seconds": _first_token_seconds(setting)}) for lane in _SILENCES}
    return two_upstreams(setting, "S10", always_play(silence()), asks, lanes=lanes)


def _judge_black_hole(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence, 1.0, evidence.outcomes("behind"))
    alone = frozenset({Ability.ALONE})
    yield ended_as("nobody else", evidence.outcomes("alone"), Status.FAILED, "DEADLINE_EXCEEDED", alone)
    longest = max((one.seconds for one in evidence.outcomes()), default=0.0)
    yield at_most("seconds of the longest call", longest, _black_hole_deadline(evidence.setting) + _SLACK_SECONDS)


def _refused_or_reset(setting: Setting) -> Stage:
    lanes = ("reset", "closed")
    asks = [
        Ask(number, lane=lane, stream=stream, alone=alone)
        for number, (lane, stream, alone) in enumerate(
            (lane, stream, alone) for lane in lanes for stream in (False, True) for alone in (False, True)
        )
    ]
    plays = {"reset": always_play(reset()), "closed": always_play(hang_up())}
    primary = by_lane(plays, model(setting, "S11"))
    return two_upstreams(setting, "S11", primary, asks, lanes={lane: Lane() for lane in lanes})


def _refused_alone(setting: Setting) -> Stage:
    closed = Plan(model(setting, "S12"), refusing=((0.0, _FOREVER),))
    asks = [Ask(at, stream=bool(at % 2), alone=at < 2) for at in range(4)]
    return two_upstreams(setting, "S12", closed, asks)


def _judge_lost_connections(evidence: Evidence) -> Iterator[Finding]:
    behind = [one for one in evidence.outcomes() if not one.ask.alone]
    yield served_share(evidence, 1.0, behind)
    alone = [one for one in evidence.outcomes() if one.ask.alone]
    yield ended_as("nobody else", alone, Status.FAILED, "UNAVAILABLE", frozenset({Ability.ALONE}))


_STALE = ("stale-reset", "stale-closed", "stale-silent")


def _stale_connections(setting: Setting) -> Stage:
    plays = {"stale-reset": reset(), "stale-closed": hang_up(), "stale-silent": silence()}
    healthy = model(setting, "S13")

    def answer(hit: Hit) -> Play:
        return plays[hit.lane] if hit.reused else healthy(hit)

    asks = [
        Ask(place * 10 + at, at_seconds=at * 0.15, lane=lane, deadline_seconds=max(4.0, setting.seconds(30)))
        for place, lane in enumerate(_STALE)
        for at in range(4)
    ]
    lanes = {lane: Lane(timeouts={"first_token_seconds": _first_token_seconds(setting)}) for lane in _STALE}
    return two_upstreams(setting, "S13", answer, asks, lanes=lanes)


def _judge_stale(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)


def _outage_end(setting: Setting) -> float:
    return setting.seconds(60)


def _long_outage(setting: Setting) -> Stage:
    lead, pause = setting.seconds(4), setting.seconds(4)
    during = [Ask(at, at_seconds=lead + at * pause, deadline_seconds=10.0) for at in range(1, 16)]
    after_count = 12
    after_pause = setting.seconds(30) / after_count
    ends_at = lead + _outage_end(setting) + pause / 2
    after = [
        Ask(100 + at, at_seconds=ends_at + at * after_pause, deadline_seconds=10.0) for at in range(after_count + 4)
    ]
    primary = between(lead + pause / 2, ends_at, failing(500), model(setting, "S15"))
    return two_upstreams(setting, "S15", primary, [Ask(0, deadline_seconds=10.0), *during, *after])


def _judge_long_outage(evidence: Evidence) -> Iterator[Finding]:
    setting = evidence.setting
    begins_at = setting.seconds(6)
    ends_at = setting.seconds(4) + _outage_end(setting) + setting.seconds(2)
    during = [one for one in evidence.outcomes() if 1 <= one.ask.number <= 15]
    yield served_share(evidence, 1.0, during)
    attempts = [hit for hit in evidence.hits(PRIMARY) if begins_at <= hit.arrived_at < ends_at]
    yield at_most("requests at the primary while it was down", len(attempts), 6)
    back = [hit.arrived_at - ends_at for hit in evidence.hits(PRIMARY) if hit.arrived_at >= ends_at]
    limit = setting.seconds(30) + _SLACK_SECONDS
    yield at_most("seconds until the primary was asked again", min(back, default=float("inf")), limit)
    last = evidence.outcomes()[-1]
    served_by = [hit.upstream for hit in evidence.hits_of(last.ask)]
    yield exactly("the last call went to", served_by, [PRIMARY])


_CALLERS = 100
_PROBE_SECONDS = 1.5


def _half_open(setting: Setting) -> Stage:
    opened = setting.seconds(30)
    recovers_at = opened * 0.5
    slow = model(setting, "S16", spread_seconds=_PROBE_SECONDS)
    primary = between(0.0, recovers_at, failing(500), slow)
    first = steady(10, 100.0, stream_every=0, alone=False)
    storm_at = 0.1 + opened * 1.15 + 0.2
    storm = [Ask(1_000 + at, at_seconds=storm_at, stream=at % 2 == 0) for at in range(_CALLERS)]
    return two_upstreams(setting, "S16", primary, [*first, *storm])


def _judge_half_open(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    storm = [hit for hit in evidence.hits(PRIMARY) if hit.number >= 1_000]
    told_at = min((hit.closed_at or float("inf") for hit in storm), default=0.0)
    probes = [hit for hit in storm if hit.arrived_at < told_at]
    yield exactly("requests at the primary before it has answered one of 100 callers", len(probes), 1)


SCENARIOS = (
    Scenario("S01", "everybody is well", "nothing is asked twice", _healthy, _judge_healthy),
    Scenario("S02", "one of two refuses connections, under load", "C6: ≥ 99.9 % served", _refusing, _judge_one_dead),
    Scenario("S03", "one of two answers 500, under load", "C6: ≥ 99.9 % served", _failing, _judge_one_dead),
    Scenario("S04", "one of two is silent, under load", "C6: left within 5 s", _silent, _judge_silent),
    Scenario("S05", "the primary flaps", "all served, few attempts", _flapping, _judge_flapping),
    Scenario("S06", "all are down, then up", "told at once; back within 30 s", _all_down, _judge_all_down),
    Scenario("S07", "both fail every second time", "R12: never all open by rate", _both_unsteady, _judge_both_unsteady),
    Scenario("S10", "accepted, then silence", "R1, R8: every call ends", _black_hole, _judge_black_hole),
    Scenario("S11", "reset or closed without a word", "R8", _refused_or_reset, _judge_lost_connections),
    Scenario("S12", "connection refused", "R8", _refused_alone, _judge_lost_connections),
    Scenario("S13", "kept connections have gone stale", "R8", _stale_connections, _judge_stale),
    Scenario("S15", "the primary is out for 60 s", "R13: 15 of 15, ≤ 6 attempts", _long_outage, _judge_long_outage),
    Scenario("S16", "100 callers as a breaker half-opens", "R10: 1 probe", _half_open, _judge_half_open, SET_UP),
)
