"""Every recorded request that a provider took is taken by the simulator, and answered."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from kit.traffic import Exchange, load_traffic
from pointsman_server.simulator.answer import make_answer
from pointsman_server.simulator.ask import RejectedError
from pointsman_server.simulator.behaviour import Behaviour, Dialect
from pointsman_server.simulator.dialects.anthropic import AnthropicMessages
from pointsman_server.simulator.dialects.cohere import Cohere
from pointsman_server.simulator.dialects.dialect import Envelope, WireDialect
from pointsman_server.simulator.dialects.gemini import Gemini
from pointsman_server.simulator.dialects.openai_chat import OpenAIChat
from pointsman_server.simulator.dialects.openai_responses import OpenAIResponses

CASES: dict[Dialect, tuple[WireDialect, str, str]] = {
    Dialect.ANTHROPIC: (AnthropicMessages(), "anthropic", "/v1/messages"),
    Dialect.GEMINI: (Gemini(), "gemini", "enerateContent"),
    Dialect.OPENAI_CHAT: (OpenAIChat(), "openai", "/v1/chat/completions"),
    Dialect.OPENAI_RESPONSES: (OpenAIResponses(), "openai", "/v1/responses"),
    Dialect.COHERE: (Cohere(), "cohere", "/v2/chat"),
}
NOT_SPOKEN = {
    "844e16e51d2a9cc4": "the form of images of the first vision model",
    "b80633542dce81f8": "a prompt kept by the provider, which brings model and input",
}


SPOILERS: tuple[Any, ...] = (None, True, -1, 1.5, 10**12, "", "x", [], {}, [None], ["x"], {"a": 1}, {"type": ["x"]})


def taken_by_the_provider(provider: str, path: str) -> list[Exchange]:
    return [
        exchange
        for exchange in load_traffic(provider)
        if exchange.method == "POST"
        and exchange.path.endswith(path)
        and exchange.status == 200
        and not exchange.request_elided
        and exchange.id not in NOT_SPOKEN
    ]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_taken(dialect: Dialect) -> None:
    wire, provider, path = CASES[dialect]
    exchanges = taken_by_the_provider(provider, path)
    assert len(exchanges) > 50
    refused: dict[str, str] = {}
    for exchange in exchanges:
        try:
            ask = wire.read(exchange.request, "a-model", exchange.path.endswith("streamGenerateContent"))
        except RejectedError as error:
            refused[exchange.id] = error.message
            continue
        answer = make_answer(ask, Behaviour())
        assert isinstance(json.loads(wire.whole(answer, Envelope("0" * 32, 0))), dict)
        assert len(wire.stream(answer, Envelope("0" * 32, 0))) >= 1
    assert refused == {}


def test_what_is_not_spoken_is_refused() -> None:
    found = [exchange for exchange in load_traffic("openai") if exchange.id in NOT_SPOKEN]
    assert len(found) == len(NOT_SPOKEN)
    for exchange in found:
        wire = CASES[Dialect.OPENAI_CHAT if "chat" in exchange.path else Dialect.OPENAI_RESPONSES][0]
        with pytest.raises(RejectedError):
            wire.read(exchange.request, "", None)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from paths(inner, (*path, key))


@pytest.mark.parametrize("dialect", list(Dialect))
def test_spoilt_requests_are_refused_or_answered(dialect: Dialect) -> None:
    """One value of a real request is replaced by nonsense: no error but a refusal may come of it."""
    wire, provider, path = CASES[dialect]
    choice = random.Random(dialect.value)
    small = [
        exchange for exchange in taken_by_the_provider(provider, path) if len(json.dumps(exchange.request)) < 4_000
    ]
    refused = 0
    for _ in range(400):
        body = copy.deepcopy(choice.choice(small).request)
        *where, last = choice.choice(list(paths(body)))
        target = body
        for key in where:
            target = target[key]
        target[last] = choice.choice(SPOILERS)
        try:
            answer = make_answer(wire.read(body, "a-model", False), Behaviour())
        except RejectedError:
            refused += 1
            continue
        wire.whole(answer, Envelope("0" * 32, 0))
        wire.stream(answer, Envelope("0" * 32, 0))
    assert 0 < refused < 400
