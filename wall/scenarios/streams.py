"""Streams that crawl, flood or fall silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from wall.asks import Ask, Failover
from wall.log import Hit
from wall.plays import (
    PING,
    Framing,
    Piece,
    Play,
    body_play,
    closing,
    event,
    json_play,
    opening,
    sound,
    stream_play,
    text_pieces,
)
from wall.scenario import FALLBACK, PRIMARY, Evidence, Finding, Lane, Scenario, Setting, Stage
from wall.scenarios.cuts import IN_BAND, MODES, broken_off
from wall.scenarios.judging import (
    at_least,
    at_most,
    cut_is_told,
    hits_at_most,
    none_of,
    served_share,
)
from wall.scenarios.staging import always_play, by_lane, model, two_upstreams
from wall.targets.target import Ability

_SILENT_WAYS = ("stall", "pings")


def _many_chunks(setting: Setting) -> int:
    return 100_000 if setting.scale >= 1 else 10_000


def _tiny_text(setting: Setting) -> str:
    return ("abcdefghij" * (_many_chunks(setting) // 10))[: _many_chunks(setting)]


def _tiny_chunks(setting: Setting) -> Stage:
    text = _tiny_text(setting)
    play = stream_play("tiny chunks", [opening(), *text_pieces(text), *closing(text)])
    asks = [Ask(0, stream=True, deadline_seconds=60.0)]
    return replace(two_upstreams(setting, "S25", lambda hit: play, asks), answering=lambda number: text)


def _judge_tiny(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    chunks = _many_chunks(evidence.setting)
    each = evidence.outcomes()[0].seconds / chunks
    yield at_most("microseconds for each chunk", round(each * 1e6, 1), 1_000)


_MEGABYTES = 10


def _endless_line(setting: Setting) -> Stage:
    block = b"x" * 65_536
    blocks = _MEGABYTES * 1_000_000 // len(block)
    pieces = [Piece(b"data: "), *(Piece(block) for _ in range(blocks)), Piece(b"\n\n")]
    after_text = [opening(), *text_pieces(["⟦Once"]), *pieces]
    plays = {
        "first": stream_play("10 MB line", pieces),
        "after-text": stream_play("10 MB line after text", after_text),
        "whole": body_play("10 MB body", b'{"choices": "' + block * blocks),
    }
    asks = [Ask(0, lane="first", stream=True), Ask(1, lane="after-text", stream=True), Ask(2, lane="whole")]
    behaviours = {lane: always_play(play) for lane, play in plays.items()}
    primary = by_lane(behaviours, model(setting, "S26"))
    return two_upstreams(setting, "S26", primary, asks, lanes={lane: Lane() for lane in plays})


def _judge_endless_line(evidence: Evidence) -> Iterator[Finding]:
    unbegun = [one for one in evidence.outcomes() if one.ask.lane != "after-text"]
    yield served_share(evidence, 1.0, unbegun)
    begun = evidence.outcomes("after-text")
    yield from cut_is_told("after text", begun)
    yield at_most("seconds of the longest call", max(one.seconds for one in evidence.outcomes()), 5.0)
    stuck = [hit for hit in evidence.hits(PRIMARY) if hit.sent_bytes > 8_000_000 and hit.stream]
    yield none_of("streams that were read to their end in the hope of a line", [hit.lane for hit in stuck])


def _slow_drip(setting: Setting) -> Stage:
    idle = max(0.6, setting.seconds(15))
    text = "⟦Slow but sure."
    pace = idle / 3

    def drip(hit: Hit) -> Play:
        return sound(text, list(text[at : at + 3] for at in range(0, len(text), 3)), "drip").paced(pace)

    asks = [Ask(0, stream=True, deadline_seconds=60.0 + 10 * idle)]
    stage = two_upstreams(setting, "S27", drip, asks, timeouts={"idle_seconds": idle, "first_token_seconds": idle})
    return replace(stage, answering=lambda number: text)


def _judge_slow_drip(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    yield hits_at_most(evidence, FALLBACK, 0)
    outcome = evidence.outcomes()[0]
    pace = max(0.6, evidence.setting.seconds(15)) / 3
    # Relayed as it came: nothing was kept back until the end.
    yield at_most("seconds until the first text", (outcome.first_text_at or 9e9) - outcome.started_at, pace + 0.5)


def _idle_seconds(setting: Setting) -> float:
    return max(0.4, setting.seconds(15))


_AWAITED = tuple(f"{way}-{place}" for way in _SILENT_WAYS for place in ("first", "midway"))


def _falls_silent(setting: Setting) -> Stage:
    healthy = model(setting, "S28")

    def answer(hit: Hit) -> Play:
        way, _, place = hit.lane.partition("-")
        return broken_off(healthy(hit), 0 if place.startswith("first") else 80, way)

    lanes = {lane: Lane() for lane in (*_AWAITED, *(f"{lane}-restart" for lane in _AWAITED if "midway" in lane))}
    idle = {"idle_seconds": _idle_seconds(setting), "first_token_seconds": _idle_seconds(setting)}
    asks = [
        Ask(at, lane=lane, stream=True, failover=Failover.RESTART if "restart" in lane else Failover.TERMINATE)
        for at, lane in enumerate(lanes)
    ]
    return two_upstreams(setting, "S28", answer, asks, lanes=lanes, timeouts=idle)


def _judge_falls_silent(evidence: Evidence) -> Iterator[Finding]:
    limit = _idle_seconds(evidence.setting) + 0.5
    for lane in _AWAITED:
        outcomes = evidence.outcomes(lane)
        if "midway" in lane:
            yield from cut_is_told(lane, outcomes)
        else:
            yield served_share(evidence, 1.0, outcomes)
        for hit in evidence.hits(PRIMARY, lane)[:1]:
            closed_at = hit.closed_at if hit.closed_at is not None else float("inf")
            yield at_most(f"seconds until the upstream was left: {lane}", closed_at - hit.arrived_at, limit)
    again = [one for one in evidence.outcomes() if one.ask.failover is Failover.RESTART]
    yield Finding("restart after silence", all(one.served for one in again), f"{len(again)} calls", "served", MODES)


_IN_BAND_LANES = ("first", "after-opening", "midway", "whole")


def _in_band(setting: Setting) -> Stage:
    healthy = model(setting, "S30")

    def answer(hit: Hit) -> Play:
        if hit.lane == "whole":
            return json_play("error in a 200", IN_BAND)
        if hit.lane == "first":
            return stream_play("error first", [Piece(PING), Piece(event(IN_BAND))])
        return broken_off(healthy(hit), 0 if hit.lane == "after-opening" else 60, "error")

    asks = [Ask(at, lane=lane, stream=lane != "whole") for at, lane in enumerate(_IN_BAND_LANES)]
    return two_upstreams(setting, "S30", answer, asks, lanes={lane: Lane() for lane in _IN_BAND_LANES})


def _judge_in_band(evidence: Evidence) -> Iterator[Finding]:
    before = [one for one in evidence.outcomes() if one.ask.lane != "midway"]
    yield served_share(evidence, 1.0, before)
    yield from cut_is_told("after text", evidence.outcomes("midway"))


def _crawling(setting: Setting) -> Stage:
    """Healthy by every idle timer, and useless: far fewer tokens a second than the policy allows."""

    def crawl(hit: Hit) -> Play:
        text = setting.text("S29", hit.number)
        return sound(text, list(text), "crawl").paced(0.25)

    asks = [Ask(0, stream=True, failover=Failover.RESTART, deadline_seconds=60.0)]
    return two_upstreams(setting, "S29", crawl, asks, timeouts={"least_tokens_per_second": 50})


def _judge_crawling(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    yield at_least("requests at the fallback", len(evidence.hits(FALLBACK)), 1)


def _unframed(setting: Setting) -> Stage:
    """Bodies without a length: their end is the connection's end, so a cut looks like an end."""
    healthy = model(setting, "S32")

    def answer(hit: Hit) -> Play:
        play = healthy(hit)
        shown = broken_off(play, 90, "end") if hit.lane == "cut" and hit.stream else play
        return replace(shown, framing=Framing.UNTIL_CLOSE)

    asks = [Ask(at, lane=lane, stream=True) for at, lane in enumerate(("whole", "cut"))]
    return two_upstreams(setting, "S32", answer, asks, lanes={lane: Lane() for lane in ("whole", "cut")})


def _judge_unframed(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence, 1.0, evidence.outcomes("whole"))
    yield from cut_is_told("cut", evidence.outcomes("cut"))


SCENARIOS = (
    Scenario("S25", "100,000 tiny chunks", "row 73: all arrive, at a fair cost", _tiny_chunks, _judge_tiny),
    Scenario("S26", "a line of 10 MB", "row 73: given up early", _endless_line, _judge_endless_line),
    Scenario("S27", "slow, but alive", "R9: not killed", _slow_drip, _judge_slow_drip),
    Scenario("S28", "silence or pings, first and midway", "R8, R9: pings are no progress",
             _falls_silent, _judge_falls_silent),
    Scenario("S29", "a stream that crawls", "left for a faster one", _crawling, _judge_crawling,
             MODES | {Ability.SET_UP}, slow=True),
    Scenario("S30", "an error inside a 200", "R8: a failure like any other", _in_band, _judge_in_band),
    Scenario("S32", "a body without a length", "R7: a cut is no end", _unframed, _judge_unframed),
)  # fmt: skip
