"""Every recorded chat completion of OpenAI and its imitators, against what the official SDK reads from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from kit.openai_sdk import extra, sdk_client, sdk_error
from kit.traffic import COVERAGE, Exchange, load_traffic, replay
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import ReasoningPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply

PROVIDERS = (
    "azure_openai", "cerebras", "crusoe", "deepseek", "gemini", "groq", "huggingface", "local_openai", "mistral",
    "ollama", "openai", "openrouter", "perplexity", "together", "zai",
)  # fmt: skip

PATH = "/chat/completions"

OUR_REASON = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "": FinishReason.UNKNOWN,
}

FAULT_BY_STATUS = {
    400: FaultKind.INVALID_REQUEST,
    401: FaultKind.AUTH,
    404: FaultKind.MODEL_MISSING,
    429: FaultKind.RATE_LIMITED,
}

SEEDS = (None, 2, 30, 400)


@dataclass
class Reading:
    """What the SDK makes of the first choice."""

    id: str = ""
    model: str = ""
    text: str = ""
    reasoning: str = ""
    tool_calls: list[list[str]] = field(default_factory=list)
    finish_reason: str = ""
    usage: Any = None
    citations: list[str] = field(default_factory=list)

    def add_names(self, envelope: Any) -> None:
        self.id = self.id or envelope.id or ""
        self.model = self.model or envelope.model or ""

    def add_content(self, said: Any) -> None:
        content = said.content or ""
        if isinstance(content, str):
            self.text += content
        else:
            self.text += "".join(block["text"] for block in content if block["type"] == "text")
            thoughts = (block["thinking"] for block in content if block["type"] == "thinking")
            self.reasoning += "".join(piece["text"] for thought in thoughts for piece in thought)
        self.text += said.refusal or ""
        self.reasoning += said_reasoning(said)
        for note in getattr(said, "annotations", None) or extra(said, "annotations") or ():
            self.citations.append(note["url_citation"]["url"] if isinstance(note, dict) else note.url_citation.url)

    def add_sources(self, envelope: Any) -> None:
        for url in extra(envelope, "citations") or ():
            if url not in self.citations:
                self.citations.append(url)


def said_reasoning(said: Any) -> str:
    plain = extra(said, "reasoning_content") or extra(said, "reasoning")
    if plain:
        return str(plain)
    details = extra(said, "reasoning_details") or ()
    return "".join(detail.get("text") or detail.get("summary") or "" for detail in details)


@cache
def read_by_sdk(provider: str, exchange_id: str) -> Reading:
    exchange = next(exchange for exchange in chats(provider) if exchange.id == exchange_id)
    client = sdk_client(exchange)
    if exchange.wire == "sse":
        return read_stream(client.chat.completions.create(model="m", messages=[], stream=True))
    return read_whole(client.chat.completions.create(model="m", messages=[]))


def read_whole(answer: Any) -> Reading:
    reading = Reading(usage=answer.usage)
    choice = answer.choices[0]
    reading.add_names(answer)
    reading.add_content(choice.message)
    reading.add_sources(answer)
    reading.tool_calls = [whole_call(call) for call in choice.message.tool_calls or ()]
    details = extra(choice, "finish_details") or {}
    reading.finish_reason = choice.finish_reason or details.get("type", "")
    return reading


def whole_call(call: Any) -> list[str]:
    if call.type == "custom":
        return [call.id, call.custom.name, call.custom.input]
    # One recorded call came without arguments; ours says that with an empty text.
    return [call.id, call.function.name, call.function.arguments or ""]


def read_stream(chunks: Iterable[Any]) -> Reading:
    reading = Reading()
    for chunk in chunks:
        reading.add_names(chunk)
        reading.usage = chunk.usage or (extra(chunk, "x_groq") or {}).get("usage") or reading.usage
        reading.citations = list(extra(chunk, "citations") or reading.citations)
        for choice in chunk.choices:
            if choice.index == 0:
                reading.finish_reason = choice.finish_reason or reading.finish_reason
                if choice.delta is not None:
                    reading.add_content(choice.delta)
                    add_calls(reading.tool_calls, choice.delta.tool_calls or ())
    return reading


def add_calls(calls: list[list[str]], pieces: Iterable[Any]) -> None:
    for piece in pieces:
        if piece.index == len(calls):
            calls.append([piece.id, piece.function.name, ""])
        calls[piece.index][2] += piece.function.arguments or ""


def count(usage: Any, *path: str) -> int:
    for name in path:
        usage = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None) or extra(usage, name)
        if usage is None:
            return 0
    return int(usage)


def assert_same(reply: Reply, expected: Reading) -> None:
    assert reply.response_id == expected.id
    assert reply.model == expected.model
    assert reply.text == expected.text
    assert "".join(part.text for part in reply.parts if isinstance(part, ReasoningPart)) == expected.reasoning
    calls = [[part.id, part.name, part.arguments_json] for part in reply.parts if isinstance(part, ToolCallPart)]
    assert calls == expected.tool_calls
    assert [citation.url for citation in reply.citations] == list(dict.fromkeys(expected.citations))
    assert reply.raw_finish_reason == expected.finish_reason
    reason = OUR_REASON[expected.finish_reason]
    forced = reason is FinishReason.STOP and bool(calls)
    assert reply.finish_reason is (FinishReason.TOOL_CALLS if forced else reason)
    assert_same_usage(reply, expected.usage)


def assert_same_usage(reply: Reply, expected: Any) -> None:
    usage = reply.usage
    if expected is None:
        assert usage.input_tokens is None
        assert usage.output_tokens is None
        return
    assert usage.input_tokens == count(expected, "prompt_tokens")
    assert usage.output_tokens == count(expected, "completion_tokens")
    assert usage.reasoning_tokens == count(expected, "completion_tokens_details", "reasoning_tokens")
    assert usage.cached_input_tokens == (
        count(expected, "prompt_tokens_details", "cached_tokens")
        or count(expected, "prompt_cache_hit_tokens")
        or count(expected, "num_cached_tokens")
        or count(expected, "cached_tokens")
    )
    assert usage.cache_write_input_tokens == count(expected, "prompt_tokens_details", "cache_write_tokens")
    assert not usage.implausible


def chats(provider: str) -> list[Exchange]:
    return [exchange for exchange in load_traffic(provider) if exchange.path.endswith(PATH)]


def holds_an_error(exchange: Exchange) -> bool:
    return exchange.status != 200 or b'data: {"error"' in exchange.body


def has_several_choices(exchange: Exchange) -> bool:
    return isinstance(exchange.request, dict) and (exchange.request.get("n") or 1) > 1


def piece_size(exchange: Exchange) -> int:
    return 7 if len(exchange.body) < 100_000 else 500


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: "whole" if seed is None else f"cut{seed}")
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_answers_equal_the_sdks_reading(provider: str, seed: int | None) -> None:
    dialect = OpenAiChat()
    answers = [exchange for exchange in chats(provider) if not holds_an_error(exchange)]
    assert answers
    for exchange in answers:
        reply = await replay(dialect, exchange, seed=seed, largest_piece=piece_size(exchange))
        assert_same(reply, read_by_sdk(provider, exchange.id))
        if seed is None and has_several_choices(exchange):
            COVERAGE.leave_out(provider, "of several choices only the first is read")
        elif seed is None:
            COVERAGE.cover(provider)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_errors_map_by_status(provider: str) -> None:
    for exchange in filter(holds_an_error, chats(provider)):
        with pytest.raises(ProviderFault) as caught:
            await replay(OpenAiChat(), exchange)
        assert caught.value.kind is expected_fault(exchange), exchange.id
        assert caught.value.status == exchange.status
        COVERAGE.cover(provider)


def expected_fault(exchange: Exchange) -> FaultKind:
    if exchange.status == 200:
        assert b'"status_code":400' in exchange.body
        return FaultKind.INVALID_REQUEST
    said = sdk_error(exchange)
    assert said.status_code == exchange.status
    too_long = said.type == "too_many_prompt_tokens" or "maximum context length" in said.message
    return FaultKind.CONTEXT_WINDOW if too_long else FAULT_BY_STATUS[exchange.status]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_no_word_of_an_error_is_passed_on(provider: str) -> None:
    for exchange in filter(holds_an_error, chats(provider)):
        with pytest.raises(ProviderFault) as caught:
            await replay(OpenAiChat(), exchange)
        words = {word for word in exchange.body.decode().split() if len(word) > 12}
        assert not words & set(str(caught.value).split())


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "gemini"])
def test_other_kinds_are_left_out(provider: str) -> None:
    for exchange in load_traffic(provider):
        if exchange.kind == "chat" and not exchange.path.endswith(PATH):
            COVERAGE.leave_out(provider, f"{exchange.path} is a native API, chat completions is spoken instead")
        elif exchange.kind not in ("chat", "responses"):
            COVERAGE.leave_out(provider, f"{exchange.kind} is not a chat")
    assert chats(provider)
