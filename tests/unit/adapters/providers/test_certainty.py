from __future__ import annotations

import json
import math
from typing import Any

import pytest

from kit.openai_calls import sse, stream_events
from pointsman_server.adapters.providers.certainty import TokenCertainty, certainty_of_mean
from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.reply import Certainty, Finished, ReplyEvent

NONSENSE: list[Any] = [None, "-0.5", True, math.nan, 0.5, math.inf, [], {}, 7]
HALF = math.log(0.5)


def tokens(*log_probabilities: Any) -> list[dict[str, Any]]:
    return [{"token": "x", "logprob": one, "bytes": None, "top_logprobs": []} for one in log_probabilities]


def certainties(events: Any) -> list[float]:
    return [event.value for event in events if isinstance(event, Certainty)]


class TestTokens:
    def test_it_is_the_geometric_mean(self) -> None:
        told = TokenCertainty()
        told.read(tokens(math.log(0.9), math.log(0.4)))
        assert certainties(told.events()) == [pytest.approx(math.sqrt(0.36))]

    @pytest.mark.parametrize("nonsense", NONSENSE)
    def test_what_cannot_be_one_is_passed_over(self, nonsense: Any) -> None:
        told = TokenCertainty()
        told.read(tokens(nonsense, HALF, nonsense))
        assert certainties(told.events()) == [pytest.approx(0.5)]
        assert certainty_of_mean(nonsense) == []

    @pytest.mark.parametrize("nonsense", ["text", 5, {"logprob": -1}, [None, "x", 3, []], None])
    def test_lists_that_are_none(self, nonsense: Any) -> None:
        told = TokenCertainty()
        told.read(nonsense)
        assert told.events() == []

    @pytest.mark.parametrize("least", [-9999.0, -math.inf, -9999])
    def test_one_unlikely_token_does_not_outweigh_all_others(self, least: float) -> None:
        told = TokenCertainty()
        told.read(tokens(*[0.0] * 99, least))
        assert certainties(told.events()) == [pytest.approx(math.exp(-0.2))]

    def test_certain(self) -> None:
        assert certainties(certainty_of_mean(0)) == [1.0]
        assert certainties(certainty_of_mean(-0.0)) == [1.0]


def chat(log_probabilities: Any, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "logprobs": log_probabilities, **fields}
    return {"id": "a1", "model": "m1", "choices": [choice]}


class TestOpenAiChat:
    def test_whole(self) -> None:
        said = {"message": {"role": "assistant", "content": "Hello"}}
        events = OpenAiChat().read_whole(chat({"content": tokens(HALF, HALF), "refusal": None}, **said))
        assert certainties(events) == [pytest.approx(0.5)]
        assert isinstance(events[-1], Finished)

    def test_streamed_it_comes_once_at_the_end(self) -> None:
        pieces = [
            chat({"content": tokens(math.log(0.9))}, delta={"content": "Hel"}, finish_reason=None),
            chat({"content": tokens(math.log(0.4))}, delta={"content": "lo"}, finish_reason=None),
            chat(None, delta={}),
        ]
        events = stream_events(OpenAiChat(), sse(*pieces))
        assert certainties(events) == [pytest.approx(0.6)]
        assert isinstance(events[-2], Certainty)

    @pytest.mark.parametrize(
        "told", [None, "x", 3, [], {"content": None}, {"content": "x"}, {"content": tokens("x", 1)}]
    )
    def test_nonsense_says_nothing_and_breaks_nothing(self, told: Any) -> None:
        said = {"message": {"role": "assistant", "content": "Hello"}}
        assert certainties(OpenAiChat().read_whole(chat(told, **said))) == []


def response(log_probabilities: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": log_probabilities}
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "id": "m", "content": [part, "odd"]}]
    return {"id": "r1", "model": "m1", "status": "completed", "output": output}


class TestOpenAiResponses:
    def test_whole(self) -> None:
        assert certainties(OpenAiResponses().read_whole(response(tokens(HALF)))) == [pytest.approx(0.5)]

    def test_streamed(self) -> None:
        delta = {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hello"}
        piece = {**delta, "logprobs": tokens(HALF)}
        closing = {"type": "response.completed", "response": response(tokens(HALF))}
        assert certainties(stream_events(OpenAiResponses(), sse(piece, closing))) == [pytest.approx(0.5)]

    @pytest.mark.parametrize("told", [None, "x", [3], tokens("x")])
    def test_nonsense(self, told: Any) -> None:
        assert certainties(OpenAiResponses().read_whole(response(told))) == []


def gemini(text: str, **candidate: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}]}, **candidate}], "responseId": "r"}


class TestGemini:
    def test_whole(self) -> None:
        events = GeminiGenerate().read_whole(gemini("Hello", finishReason="STOP", avgLogprobs=HALF))
        assert certainties(events) == [pytest.approx(0.5)]
        assert isinstance(events[-1], Finished)

    def test_streamed_the_last_one_counts(self) -> None:
        reader = GeminiGenerate().open_stream()
        chunks = (gemini("Hel", avgLogprobs=-3.0), gemini("lo", finishReason="STOP", avgLogprobs=HALF))
        events: list[ReplyEvent] = []
        for chunk in chunks:
            events += reader.feed(SseEvent("", json.dumps(chunk).encode()))
        assert certainties([*events, *reader.end()]) == [pytest.approx(0.5)]

    @pytest.mark.parametrize("told", NONSENSE)
    def test_nonsense(self, told: Any) -> None:
        assert certainties(GeminiGenerate().read_whole(gemini("Hello", finishReason="STOP", avgLogprobs=told))) == []

    def test_bare_nan(self) -> None:
        reader = GeminiGenerate().open_stream()
        chunk = json.dumps(gemini("Hello", finishReason="STOP", avgLogprobs=math.nan)).encode()
        assert b"NaN" in chunk
        assert certainties(reader.feed(SseEvent("", chunk))) == []
