"""What providers do, by their mood: scripts drawn from a seeded random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from kit.scripted import END, PING, Hang, Step, Wait, says, used
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Role
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
)

Mood = Callable[[Random, ProviderCall], Sequence[Step]]

_PASSING = (FaultKind.UNAVAILABLE, FaultKind.OVERLOADED, FaultKind.CONNECTION, FaultKind.TIMEOUT)
_LASTING = (FaultKind.MODEL_MISSING, FaultKind.UNKNOWN, FaultKind.MALFORMED_REPLY)
_OF_THE_REQUEST = (
    FaultKind.CONTEXT_WINDOW,
    FaultKind.REQUEST_TOO_LARGE,
    FaultKind.UNSUPPORTED,
    FaultKind.INVALID_REQUEST,
)
_SIGNED: Sequence[Sequence[ReplyEvent]] = (
    (ReasoningDelta("r", "hm", signature="s"),),
    (OpaqueDelta("o", "d", "k", '{"a":1}'),),
)


def up(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Answers soon."""
    return [Wait(random.choice((0.0, 0.1, 0.25, 0.5))), *_answer(random, call)]


def slow(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Answers, after a silence that may be too long."""
    return [PING, Wait(random.choice((1.0, 2.0, 3.5, 4.5, 9.0))), *_answer(random, call)]


def down(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Fails at once or soon, and may say when to come back."""
    kind = random.choice(_PASSING)
    wish = random.choice((None, None, None, 0.5, 2.0, 20.0))
    return [Wait(random.choice((0.0, 0.0, 0.25, 1.0))), ProviderFault(kind, "down", retry_after_seconds=wish)]


def flapping(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Fails every other time."""
    return (up if random.random() < 0.5 else down)(random, call)


def limited(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Wants to be left alone for a while."""
    wish = random.choice((None, 0.0, 0.5, 1.5, 8.0, 40.0))
    return [ProviderFault(FaultKind.RATE_LIMITED, "limited", retry_after_seconds=wish)]


def locked(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Does not take the key, or the account is spent."""
    return [ProviderFault(random.choice((FaultKind.AUTH, FaultKind.QUOTA)), "locked")]


def lasting(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Fails in a way that does not pass, or gives nothing at all."""
    return random.choice(([END], [ProviderFault(random.choice(_LASTING), "broken")]))


def choosy(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Does not take this request; mostly it finds it too long."""
    return [ProviderFault(random.choice((FaultKind.CONTEXT_WINDOW, *_OF_THE_REQUEST)), "no")]


def black_hole(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Takes the request, and nothing ever comes."""
    return [*random.choice(((), (PING,), (PING, used(100, 1)))), Hang()]


def cutting(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Breaks off somewhere in its answer, in one of the ways in which connections break."""
    *pieces, _ = _answer(random, call)
    end: Sequence[Step] = random.choice(
        ([], [Hang()], [ProviderFault(random.choice(_PASSING), "cut")], [*limited(random, call)])
    )
    return [Wait(random.choice((0.0, 0.25))), *pieces[: random.randint(0, len(pieces))], *end]


def creeping(random: Random, call: ProviderCall) -> Sequence[Step]:
    """A few characters at a time, never long enough silent to be given up for that."""
    word = random.choice(("ab ", "abcd efgh "))
    return [step for n in range(40) for step in (Wait(1.5), says(f"{n}{word}"))] + [END]


def lingering(random: Random, call: ProviderCall) -> Sequence[Step]:
    """Answers, and then leaves the connection open."""
    return [*_answer(random, call), random.choice((Hang(), Wait(0.5), Wait(3.0))), *random.choice(([], [used(90, 9)]))]


MOODS: Mapping[str, Mood] = {
    "up": up,
    "slow": slow,
    "down": down,
    "flapping": flapping,
    "limited": limited,
    "locked": locked,
    "lasting": lasting,
    "choosy": choosy,
    "black hole": black_hole,
    "cutting": cutting,
    "creeping": creeping,
    "lingering": lingering,
}
"""By name."""


def _answer(random: Random, call: ProviderCall) -> list[Step]:
    """A whole answer; its last step is its end."""
    body = _prose(random, call) if call.generation.response_schema is None else _json(random)
    steps: list[Step] = []
    for piece in body:
        steps += [piece] if not steps or random.random() < 0.6 else [Wait(random.choice((0.05, 0.5, 1.0))), piece]
    if random.random() < 0.8:
        steps.insert(random.randint(0, len(steps)), used(random.choice((100, 120)), random.randint(1, 60)))
    return [*steps, _end(random)]


def _json(random: Random) -> list[Sequence[ReplyEvent]]:
    return random.choice(([says('{"n":'), says("1}")], [says('{"n": 2}')], [says('{"n": "two"}')], [says("no JSON")]))


def _prose(random: Random, call: ProviderCall) -> list[Sequence[ReplyEvent]]:
    pieces: list[Sequence[ReplyEvent]] = [says(word) for word in _words(random, call)]
    kind = random.random()
    if kind < 0.15:
        pieces.insert(0, (ReasoningDelta("r", "let me see"),))
    elif kind < 0.2:
        pieces.insert(random.randint(0, len(pieces)), random.choice(_SIGNED))
    elif kind < 0.3:
        tool = (ToolCallDelta("t", "id", "f", '{"a"'), ToolCallDelta("t", arguments_json=":1}"))
        pieces.append(tool)
    elif kind < 0.4:
        cited = CitationFound(Citation(url="https://a.test", start_index=0, end_index=2))
        pieces.append((cited, TextDelta("second", "p.s.")))
    return pieces


def _words(random: Random, call: ProviderCall) -> list[str]:
    """New words; where an answer is to be gone on with, sometimes the end of it once more before them."""
    words = [f"word{random.randint(0, 999)}{random.choice((' ', '', '. '))}" for _ in range(random.randint(1, 5))]
    so_far = next((one.text for one in reversed(call.messages) if one.role is Role.ASSISTANT), "")
    if so_far and call.messages[-1].role is Role.USER and random.random() < 0.5:
        words.insert(0, so_far[-random.choice((20, 60)) :])
        words = words[: random.choice((1, 9))]
    if so_far and random.random() < 0.3:
        words.insert(0, " ")
    return words


def _end(random: Random) -> Sequence[ReplyEvent]:
    return (Finished(FinishReason.LENGTH, "length"),) if random.random() < 0.1 else END
