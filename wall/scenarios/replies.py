"""Every kind of reply in all its wordings, whole and streamed, alone and with a fallback behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from wall.asks import Ask
from wall.log import Hit, Status
from wall.plays import (
    Piece,
    Play,
    answer_body,
    chunk,
    closing,
    event,
    json_play,
    stream_play,
)
from wall.scenario import FALLBACK, PRIMARY, Evidence, Finding, Lane, Scenario, Setting, Stage
from wall.scenarios.judging import ALONE, SET_UP, at_most, ended_as, none_of, served_share
from wall.scenarios.kinds import KINDS, Due, Kind, choice
from wall.scenarios.staging import two_upstreams

_DEADLINE_SECONDS = 20.0
"""Time enough for gateways that pause for seconds between their attempts."""


def _lane(wording: str, stream: bool, alone: bool) -> str:
    return f"{wording}-{'stream' if stream else 'whole'}-{'alone' if alone else 'behind'}".replace("_", "-")


def _lanes(kind: Kind) -> dict[str, tuple[str, bool, bool]]:
    """Lane to wording, shape, and whether there is no fallback."""
    togethers = (False, True) if kind.code else (False,)
    return {
        _lane(wording, stream, alone): (wording, stream, alone)
        for wording in kind.wordings
        for stream in kind.shapes
        for alone in togethers
    }


def _stage(kind: Kind) -> Callable[[Setting], Stage]:
    lanes = _lanes(kind)

    def stage(setting: Setting) -> Stage:
        def answer(hit: Hit) -> Play:
            text = setting.text(kind.id, hit.number, 60)
            texts = setting.pieces(kind.id, hit.number, text) if hit.stream else None
            return kind.wordings[lanes[hit.lane][0]](Due(text, texts))

        asks = [
            Ask(number, lane=lane, stream=stream, alone=alone, deadline_seconds=_DEADLINE_SECONDS)
            for number, (lane, (_, stream, alone)) in enumerate(lanes.items())
        ]
        return two_upstreams(setting, kind.id, answer, asks, characters=60, lanes={lane: Lane() for lane in lanes})

    return stage


def _judge(kind: Kind) -> Callable[[Evidence], Iterator[Finding]]:
    def judge(evidence: Evidence) -> Iterator[Finding]:
        alone = [one for one in evidence.outcomes() if one.ask.alone]
        behind = [one for one in evidence.outcomes() if not one.ask.alone]
        yield none_of("requests somewhere else", evidence.log.strays)
        if not kind.code:
            yield served_share(evidence, 1.0)
            yield at_most("requests", len(evidence.hits()), len(evidence.outcomes()))
            return
        yield ended_as("nobody else", alone, Status.FAILED, kind.code, ALONE)
        if kind.helps:
            yield served_share(evidence, 1.0, behind)
        else:
            yield ended_as("with a fallback", behind, Status.FAILED, kind.code)
            yield at_most("requests at the fallback", len(evidence.hits(FALLBACK)), 0)
        most = max((len(evidence.hits(PRIMARY, lane)) for lane in evidence.stage.lanes), default=0)
        yield at_most("requests at the primary for one call", most, kind.most_requests, SET_UP)

    return judge


_BROKEN_ARGUMENTS = '{"city": "Hai'


def _odd_arguments(setting: Setting) -> Stage:
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": _BROKEN_ARGUMENTS}}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }

    def answer(hit: Hit) -> Play:
        if not hit.stream:
            return json_play("broken arguments", answer_body("", choices=[choice]))
        pieces = [
            event(chunk({"tool_calls": [{"index": 0, **call, "function": {"name": "weather", "arguments": ""}}]}))
        ]
        for at in range(0, len(_BROKEN_ARGUMENTS), 4):
            part = {"index": 0, "function": {"arguments": _BROKEN_ARGUMENTS[at : at + 4]}}
            pieces.append(event(chunk({"tool_calls": [part]})))
        return stream_play("broken arguments", [*map(Piece, pieces), *closing("", "tool_calls")])

    asks = [Ask(at, stream=bool(at), offers_tool=True) for at in range(2)]
    return replace(two_upstreams(setting, "S61", answer, asks), answering=lambda number: "")


def _judge_odd_arguments(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    changed = [one.ask.number for one in evidence.served() if one.arguments != _BROKEN_ARGUMENTS]
    yield at_most("arguments that were changed", len(changed), 0)


def _blocked(setting: Setting) -> Stage:
    play = choice("", "content_filter")(Due("", None))
    stage = two_upstreams(setting, "S63", lambda hit: play, [Ask(0)])
    return replace(stage, answering=lambda number: "")


def _judge_blocked(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    reasons = [one.finish for one in evidence.outcomes()]
    yield Finding("told why", reasons == ["content_filter"], str(reasons), "content_filter")


SCENARIOS = (
    *(
        Scenario(
            kind.id,
            kind.title,
            "an answer" if not kind.code else f"alone {kind.code}; {'taken over' if kind.helps else 'nobody else'}",
            _stage(kind),
            _judge(kind),
        )
        for kind in KINDS
    ),
    Scenario("S61", "a tool call that is no JSON", "row 66: passed on as it is", _odd_arguments, _judge_odd_arguments),
    Scenario(
        "S63", "the provider's filter withholds the answer", "row 65: an end with its reason", _blocked, _judge_blocked
    ),
)
