"""Streams that are cut in the middle, and what the caller chose for that case."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from wall.asks import Ask, Failover
from wall.log import Hit, Outcome, Status
from wall.plays import (
    DONE,
    UPSTREAM_WORDS,
    Ending,
    Piece,
    Play,
    chunk,
    closing,
    cut,
    event,
    opening,
    sound,
    stream_play,
)
from wall.scenario import FALLBACK, PRIMARY, Evidence, Finding, Lane, Scenario, Setting, Stage
from wall.scenarios.judging import (
    cut_is_told,
    ended_as,
    exactly,
    none_of,
    served_share,
)
from wall.scenarios.staging import NO_BREAKER, Answering, model, two_upstreams
from wall.targets.target import Ability
from wall.texts import seeded, told_so_far
from wall.upstream import Plan

MODES = frozenset({Ability.FAILOVER_MODES})
SEAMS = frozenset({Ability.SEAMS, Ability.FAILOVER_MODES})
_CALLERS = 10
IN_BAND = {"error": {"message": f"The server had an error {UPSTREAM_WORDS}", "type": "server_error"}}


def broken_off(play: Play, after_characters: int, way: str) -> Play:
    """The stream broken off in one of the ways of `WAYS`."""
    if way in ("close", "reset", "stall", "pings"):
        return cut(play, after_characters, Ending(way))
    kept = cut(play, after_characters, Ending.PROPER, f"cut: {way}")
    return replace(kept, pieces=(*kept.pieces, *_LAST_WORDS[way]))


_LAST_WORDS: Mapping[str, tuple[Piece, ...]] = {
    "end": (),
    "error": (Piece(event(IN_BAND)),),
    "error-then-done": (Piece(event(IN_BAND)), Piece(DONE)),
    "error-as-finish": (Piece(event({**chunk({}, "error"), **IN_BAND})), Piece(DONE)),
    "named-error": (Piece(b"event: error\n" + event({"type": "error", **IN_BAND})),),
    "bad-json": (Piece(b'data: {"choices":[{"delta":{"content":"x\n\n'), Piece(DONE)),
}
WAYS = ("close", "reset", *_LAST_WORDS)
"""Ways in which a stream ends before its time."""


def _random_cuts(setting: Setting, scenario: str) -> Answering:
    healthy = model(setting, scenario)

    def answer(hit: Hit) -> Play:
        chance = seeded("cut", setting.seed, scenario, hit.number)
        text = setting.text(scenario, hit.number)
        return broken_off(healthy(hit), chance.randint(0, len(text) - 1), chance.choice(WAYS))

    return answer


def _cuts(scenario: str, failover: Failover, lanes: Mapping[str, Lane]) -> Callable[[Setting], Stage]:
    def stage(setting: Setting) -> Stage:
        names = list(lanes)
        asks = [Ask(at, lane=names[at % len(names)], stream=True, failover=failover) for at in range(setting.many)]
        primary = _random_cuts(setting, scenario)
        return two_upstreams(setting, scenario, primary, asks, lanes=lanes, resilience=NO_BREAKER, callers=_CALLERS)

    return stage


def _begun(evidence: Evidence) -> list[Outcome]:
    """Calls whose first stream was cut after part of the text had been sent.

    A reset may overtake what was sent before it: then nobody has seen any text, and another answer is right.
    """
    sent = [one for one in evidence.outcomes() if _sent_by_primary(evidence, one) > 0]
    return [one for one in sent if not (one.served and not one.seams and _was_reset(evidence, one))]


def _was_reset(evidence: Evidence, outcome: Outcome) -> bool:
    return any(hit.play == "cut: reset" for hit in evidence.hits_of(outcome.ask))


def _sent_by_primary(evidence: Evidence, outcome: Outcome) -> int:
    chance = seeded("cut", evidence.setting.seed, _scenario_of(evidence), outcome.ask.number)
    return chance.randint(0, len(evidence.stage.answering(outcome.ask.number)) - 1)


def _scenario_of(evidence: Evidence) -> str:
    return evidence.hits()[0].scenario if evidence.hits() else ""


def _judge_terminate(evidence: Evidence) -> Iterator[Finding]:
    begun = _begun(evidence)
    yield from cut_is_told("streams cut after their first text", begun)
    odd = [
        one.ask.number
        for one in begun
        if not evidence.stage.answering(one.ask.number).startswith(one.text) or one.seams
    ]
    yield none_of("texts that are not the beginning of the answer", odd, MODES)
    fell_over = [one.ask.number for one in begun if len(evidence.hits_of(one.ask)) > 1]
    yield none_of("streams that were begun again although the caller had text", fell_over, MODES)
    unseen = [one for one in evidence.outcomes() if one not in begun]
    if unseen:
        yield served_share(evidence, 1.0, unseen)


def _judge_honest(evidence: Evidence) -> Iterator[Finding]:
    silent = [one.ask.number for one in evidence.outcomes() if one.served and not one.text]
    yield none_of("empty answers handed out as whole", silent)
    served_or_told = [one for one in evidence.outcomes() if one.status is not Status.LEFT]
    yield exactly("calls with an end", len(served_or_told), len(evidence.outcomes()))


def _judge_restart(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    begun = [one for one in _begun(evidence) if one.served]
    unannounced = [
        one.ask.number for one in begun if [(seam.mode, seam.kept_characters) for seam in one.seams] != [("restart", 0)]
    ]
    yield none_of("starts anew that were not announced", unannounced, SEAMS)


def _judge_continue(evidence: Evidence) -> Iterator[Finding]:
    yield served_share(evidence)
    begun = [one for one in _begun(evidence) if one.served]
    odd = [f"#{one.ask.number} {one.seams}" for one in begun if not _is_announced(one)]
    yield none_of("seams that are not announced where they are", odd, SEAMS)
    anew = [hit.number for hit in evidence.hits(FALLBACK) if hit.play == "sound" and _number_begun(begun, hit.number)]
    yield none_of("answers that were asked for from their beginning", anew)


def _number_begun(begun: list[Outcome], number: int) -> bool:
    return any(one.ask.number == number for one in begun)


def _is_announced(outcome: Outcome) -> bool:
    return [seam.mode for seam in outcome.seams] == ["continue"] and all(
        0 < seam.kept_characters <= seam.at_characters for seam in outcome.seams
    )


_REPEATED_LETTERS = 24


def _repeated_from(told: str) -> int:
    """Where the last words begin that together have enough letters for everybody to see a repetition."""
    at = len(told.rstrip())
    while at > 0 and sum(letter.isalnum() for letter in told[at:]) < _REPEATED_LETTERS:
        at = told.rfind(" ", 0, at)
    return max(0, at + 1)


def _repeating(setting: Setting) -> Stage:
    """The one who goes on says the last words again, as models do that were asked to go on from a text."""

    def fallback(hit: Hit) -> Play:
        text = setting.text("S23", hit.number)
        told = told_so_far(hit.body, text)
        rest = text[_repeated_from(text[:told]) :] if told else text
        return sound(rest, setting.pieces("S23", hit.number, rest), "repeats")

    def primary(hit: Hit) -> Play:
        return broken_off(model(setting, "S23")(hit), 120, "reset")

    asks = [Ask(at, stream=True, failover=Failover.CONTINUE) for at in range(max(5, setting.many // 10))]
    return replace(
        two_upstreams(setting, "S23", primary, asks, resilience=NO_BREAKER, callers=_CALLERS),
        plans={PRIMARY: Plan(primary), FALLBACK: Plan(fallback)},
    )


_ARGUMENTS = json.dumps({"city": "Haifa", "days": [1, 2, 3], "note": "tell me whether I need an umbrella"})


def _tool_chunk(arguments: str, *, first: bool) -> Piece:
    call: dict[str, object] = {"index": 0, "function": {"arguments": arguments}}
    if first:
        call = {**call, "id": "call-1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return Piece(event(chunk({"tool_calls": [call]})))


def _tool_call(*, whole: bool) -> Play:
    pieces = [_tool_chunk(_ARGUMENTS[at : at + 7], first=at == 0) for at in range(0, len(_ARGUMENTS), 7)]
    if whole:
        return stream_play("tool call", [opening(), *pieces, *closing("", "tool_calls")])
    return stream_play("cut in a tool call", [opening(), *pieces[: len(pieces) // 2]], Ending.RESET)


def _cut_tool_call(setting: Setting) -> Stage:
    asks = [
        Ask(at, lane=failover.value, stream=True, failover=failover, offers_tool=True)
        for at, failover in enumerate(Failover)
    ]
    stage = two_upstreams(
        setting, "S24", lambda hit: _tool_call(whole=False), asks, lanes={one.value: Lane() for one in Failover}
    )
    return replace(
        stage, plans={**stage.plans, FALLBACK: Plan(lambda hit: _tool_call(whole=True))}, answering=lambda number: ""
    )


def _judge_tool_call(evidence: Evidence) -> Iterator[Finding]:
    broken = [one.ask.number for one in evidence.served() if one.arguments != _ARGUMENTS]
    yield none_of("broken tool calls handed out as whole", broken)
    for lane in ("terminate", "continue"):
        outcomes = evidence.outcomes(lane)
        yield ended_as(f"{lane}: no tool call is gone on with", outcomes, Status.INTERRUPTED, "ABORTED", MODES)
        yield exactly(f"{lane}: requests at the fallback", len(evidence.hits(FALLBACK, lane)), 0, MODES)
    yield replace(served_share(evidence, 1.0, evidence.outcomes("restart")), needs=MODES)


_MAIN = {"main": Lane()}
_BOTH_MANNERS = {"instruct": Lane(), "prefill": Lane(prefill=True)}

SCENARIOS = (
    Scenario(
        "S20", "random cuts, and the caller wants an end", "R7: told honestly, no second start",
        _cuts("S20", Failover.TERMINATE, _MAIN), _judge_terminate,
    ),
    Scenario(
        "S21", "random cuts, and the caller wants a new start", "C9: RESTART, announced",
        _cuts("S21", Failover.RESTART, _MAIN), _judge_restart, MODES,
    ),
    Scenario(
        "S22", "random cuts, and the caller wants to go on", "C9: CONTINUE, no character lost or doubled",
        _cuts("S22", Failover.CONTINUE, _BOTH_MANNERS), _judge_continue, MODES,
    ),
    Scenario("S23", "who goes on repeats the last words", "C9: nothing doubled", _repeating, _judge_honest, MODES),
    Scenario("S24", "cut in a tool call", "C9: never gone on with", _cut_tool_call, _judge_tool_call),
)  # fmt: skip
