"""Callers who leave, stop reading, read slowly or lose their network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from wall.asks import Ask, Reader
from wall.log import Status
from wall.plays import closing, opening, stream_play, text_pieces
from wall.scenario import Evidence, Finding, Scenario, Setting, Stage
from wall.scenarios.judging import (
    at_most,
    ended_as,
    exactly,
    released_in_time,
    served_share,
)
from wall.scenarios.staging import NO_BREAKER, model, two_upstreams
from wall.targets.target import Ability
from wall.texts import seeded

_ANSWER_SECONDS = 0.3
_CALLERS = 20
_BLOCK = "0123456789abcdef" * 64
_LARGE_BLOCKS = 32_000
_KEPT_BYTES_LIMIT = 16_000_000


def _leaving(setting: Setting) -> Stage:
    asks = []
    for number in range(setting.many):
        chance = seeded("leave", setting.seed, number)
        leaves_after = chance.uniform(0.0, _ANSWER_SECONDS * 1.2)
        reader = Reader(leaves_after_seconds=leaves_after)
        if chance.random() < 0.3:
            reader = Reader(leaves_after_characters=chance.randint(1, 150))
        asks.append(Ask(number, stream=chance.random() < 0.7, reader=reader))
    slow = model(setting, "S31", spread_seconds=_ANSWER_SECONDS)
    return two_upstreams(setting, "S31", slow, asks, callers=_CALLERS, resilience=NO_BREAKER)


def _judge_leaving(evidence: Evidence) -> Iterator[Finding]:
    yield released_in_time(evidence)
    left = [one for one in evidence.outcomes() if one.status is Status.LEFT]
    other = [one for one in evidence.outcomes() if one.status is not Status.LEFT]
    yield Finding("callers who left", bool(left), str(len(left)), "≥ 1")
    yield served_share(evidence, 1.0, other or evidence.served())
    again = [hit.number for hit in evidence.hits() if hit.order and len(_same(evidence, hit.number)) > 1]
    yield exactly("requests made twice", len(again), 0)


def _same(evidence: Evidence, number: int) -> list[int]:
    return [hit.order for hit in evidence.hits() if hit.number == number]


def _slow_readers(setting: Setting) -> Stage:
    asks = [Ask(at, stream=True, deadline_seconds=30.0, reader=Reader(pause_seconds=0.02)) for at in range(20)]
    fast = [Ask(100 + at, at_seconds=0.1 + at * 0.02, deadline_seconds=10.0) for at in range(20)]
    return two_upstreams(setting, "S33", model(setting, "S33"), [*asks, *fast])


def _judge_slow_readers(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    fast = [one for one in evidence.outcomes() if one.ask.number >= 100]
    yield at_most("seconds of the slowest other call", max(one.seconds for one in fast), 1.0)


def _reader_idle_seconds(setting: Setting) -> float:
    return max(0.6, setting.seconds(15))


def _stopped_reader(setting: Setting) -> Stage:
    """An answer of 32 MB, and a reader who takes a little and then nothing."""
    text = _BLOCK * _LARGE_BLOCKS
    play = stream_play("32 MB", [opening(), *text_pieces([_BLOCK] * _LARGE_BLOCKS), *closing("")])
    idle = _reader_idle_seconds(setting)
    stays = idle + 3.5
    reader = Reader(stops_after_characters=5_000, stops_for_seconds=stays)
    asks = [Ask(0, stream=True, deadline_seconds=stays + 30.0, reader=reader)]
    variables = {"POINTSMAN_READER_IDLE_SECONDS": f"{idle:g}"}
    stage = two_upstreams(setting, "S34", lambda hit: play, asks, settings=variables)
    return replace(stage, answering=lambda number: text)


def _judge_stopped_reader(evidence: Evidence) -> Iterator[Finding]:
    hit, outcome = evidence.hits()[0], evidence.outcomes()[0]
    yield at_most("bytes taken from the upstream", hit.sent_bytes, _KEPT_BYTES_LIMIT)
    closed_at = hit.closed_at if hit.closed_at is not None else float("inf")
    limit = _reader_idle_seconds(evidence.setting) + 3.0
    yield at_most("seconds until the upstream was left", closed_at - hit.arrived_at, limit)
    yield ended_as("the reader is told", [outcome], Status.INTERRUPTED, _TOO_SLOW, frozenset({Ability.TYPED_ERRORS}))


_TOO_SLOW = "UNAVAILABLE"

_KEEPALIVE_SECONDS = 40.0


def _lost_network(setting: Setting) -> Stage:
    reader = Reader(stops_for_seconds=_KEEPALIVE_SECONDS + 2.0)
    asks = [Ask(0, stream=True, deadline_seconds=200.0, reader=reader, loses_network=True)]
    drip = model(setting, "S38", characters=600, spread_seconds=100.0)
    return two_upstreams(setting, "S38", drip, asks, characters=600, timeouts={"total_seconds": 300})


def _judge_lost_network(evidence: Evidence) -> Iterator[Finding]:
    yield released_in_time(evidence, _KEEPALIVE_SECONDS)


def _vanishing(setting: Setting) -> Stage:
    """Many at once, all gone in the middle: what they held must be free for the next."""
    crowd = [Ask(at, stream=True, reader=Reader(leaves_after_characters=40)) for at in range(60)]
    after = [Ask(1_000 + at, at_seconds=_ANSWER_SECONDS + 0.4 + at * 0.01) for at in range(20)]
    slow = model(setting, "S37", spread_seconds=_ANSWER_SECONDS)
    return two_upstreams(setting, "S37", slow, [*crowd, *after])


def _judge_vanishing(evidence: Evidence) -> Iterator[Finding]:
    yield released_in_time(evidence)
    yield served_share(evidence, 1.0, [one for one in evidence.outcomes() if one.ask.number >= 1_000])


SCENARIOS = (
    Scenario("S31", "callers leave at random", "R17: released within 200 ms", _leaving, _judge_leaving),
    Scenario("S33", "slow readers among others", "R20: nobody else waits", _slow_readers, _judge_slow_readers),
    Scenario(
        "S34", "a reader stops", "R20, row 41: bounded, then ended", _stopped_reader, _judge_stopped_reader,
        frozenset({Ability.SET_UP}),
    ),
    Scenario("S37", "a crowd vanishes in the middle", "R17: places are free again", _vanishing, _judge_vanishing),
    Scenario(
        "S38", "a caller's network goes silent", "row 42: noticed within 40 s", _lost_network, _judge_lost_network,
        frozenset({Ability.SET_UP}), slow=True,
    ),
)  # fmt: skip
