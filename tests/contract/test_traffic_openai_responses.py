"""Every recorded exchange of the Responses API, against what the official SDK reads from the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest

from kit.openai_sdk import sdk_client, sdk_error
from kit.traffic import COVERAGE, Exchange, load_traffic, replay
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, ReasoningPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply, fold

PROVIDERS = ("azure_openai", "deepseek", "openai", "openrouter", "xai")

OUR_REASON = {
    "completed": FinishReason.STOP,
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}

FAULT_BY_STATUS = {
    400: FaultKind.INVALID_REQUEST,
    401: FaultKind.AUTH,
    404: FaultKind.MODEL_MISSING,
    429: FaultKind.RATE_LIMITED,
}
FAULT_BY_CODE = {
    "model_not_found": FaultKind.MODEL_MISSING,
    "context_length_exceeded": FaultKind.CONTEXT_WINDOW,
    "insufficient_quota": FaultKind.QUOTA,
}

SEEDS = (None, 3, 40, 500)


@dataclass
class Reading:
    """What the SDK makes of a response. `kinds` are the items that only the provider understands."""

    id: str = ""
    model: str = ""
    text: str = ""
    reasoning: list[str] = field(default_factory=list)
    encrypted: list[str] = field(default_factory=list)
    tool_calls: list[list[str]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    reason: str = ""
    usage: Any = None
    sources: list[tuple[str, str]] = field(default_factory=list)


@cache
def read_by_sdk(provider: str, exchange_id: str) -> Reading:
    exchange = next(exchange for exchange in answers(provider) if exchange.id == exchange_id)
    client = sdk_client(exchange)
    if exchange.wire == "sse":
        return read_stream(client.responses.create(model="m", input="", stream=True))
    return read_whole(client.responses.create(model="m", input=""))


def read_whole(response: Any) -> Reading:
    reading = Reading(id=response.id, model=response.model, text=response.output_text, usage=response.usage)
    reading.reason = response.incomplete_details.reason if response.incomplete_details else response.status
    for item in response.output:
        if item.type == "message":
            notes = (note for part in item.content for note in part.annotations or ())
            reading.sources += [source_of(note) for note in notes]
        elif item.type == "reasoning":
            sections = [*item.summary, *(item.content or ())]
            reading.reasoning += [section.text for section in sections]
            reading.encrypted += [item.encrypted_content] if item.encrypted_content else []
        elif item.type == "function_call":
            reading.tool_calls.append([item.call_id, item.name, item.arguments])
        else:
            reading.kinds.append(item.type)
    return reading


def read_stream(events: Iterable[Any]) -> Reading:
    """The deltas and what an item held at its end; the rest from the response that the last event repeats.

    The encrypted reasoning in there is another encryption of the same.
    """
    text = ""
    encrypted: list[str] = []
    arguments: dict[int, str] = {}
    for event in events:
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.function_call_arguments.delta":
            arguments[event.output_index] = arguments.get(event.output_index, "") + event.delta
        elif event.type == "response.output_item.done" and event.item.type == "reasoning":
            encrypted += [event.item.encrypted_content] if event.item.encrypted_content else []
        elif event.type in ("response.completed", "response.incomplete"):
            reading = read_whole(event.response)
    assert reading.text == text
    assert len(encrypted) == len(reading.encrypted)
    reading.encrypted = encrypted
    assert [call[2] for call in reading.tool_calls] == [arguments[index] for index in sorted(arguments)]
    return reading


def source_of(note: Any) -> tuple[str, str]:
    return (note.url, note.title) if note.type == "url_citation" else (note.file_id, note.filename)


def assert_same(reply: Reply, expected: Reading) -> None:
    assert reply.response_id == expected.id
    assert reply.model == expected.model
    assert reply.text == expected.text
    reasoning = [part for part in reply.parts if isinstance(part, ReasoningPart)]
    assert "\n\n".join(part.text for part in reasoning if part.text) == "\n\n".join(expected.reasoning)
    signatures = [part.signature for part in reasoning if part.signature]
    assert signatures == expected.encrypted
    calls = [[part.id, part.name, part.arguments_json] for part in reply.parts if isinstance(part, ToolCallPart)]
    assert calls == expected.tool_calls
    assert [part.kind for part in reply.parts if isinstance(part, OpaquePart)] == expected.kinds
    sources = {(citation.url or citation.document_id, citation.title) for citation in reply.citations}
    assert sources == set(expected.sources)
    reason = OUR_REASON[expected.reason]
    assert reply.finish_reason is (FinishReason.TOOL_CALLS if calls and reason is FinishReason.STOP else reason)
    assert_same_usage(reply, expected.usage)


def assert_same_usage(reply: Reply, expected: Any) -> None:
    usage = reply.usage
    assert usage.input_tokens == expected.input_tokens
    assert usage.output_tokens == expected.output_tokens
    assert usage.cached_input_tokens == expected.input_tokens_details.cached_tokens
    written = getattr(expected.input_tokens_details, "cache_write_tokens", None)
    assert usage.cache_write_input_tokens == (written or 0)
    assert usage.reasoning_tokens == expected.output_tokens_details.reasoning_tokens
    assert not usage.implausible


def exchanges(provider: str) -> Iterator[Exchange]:
    yield from (exchange for exchange in load_traffic(provider) if exchange.kind == "responses")


def why_left_out(exchange: Exchange) -> str:
    if exchange.path.endswith("/compact"):
        return "compaction answers with items of a shortened conversation, not with an answer"
    if exchange.wire == "json" and json.loads(exchange.body).get("status") in ("queued", "in_progress"):
        return "a background response that has no answer yet"
    return ""


def answers(provider: str) -> list[Exchange]:
    return [one for one in exchanges(provider) if one.status == 200 and not why_left_out(one)]


def piece_size(exchange: Exchange) -> int:
    return 7 if len(exchange.body) < 100_000 else 500


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: "whole" if seed is None else f"cut{seed}")
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_answers_equal_the_sdks_reading(provider: str, seed: int | None) -> None:
    dialect = OpenAiResponses()
    assert answers(provider)
    for exchange in answers(provider):
        reply = await replay(dialect, exchange, seed=seed, largest_piece=piece_size(exchange))
        assert_same(reply, read_by_sdk(provider, exchange.id))
        if seed is None:
            COVERAGE.cover(provider)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_stream_and_the_whole_response_at_its_end_are_the_same_answer(provider: str) -> None:
    dialect = OpenAiResponses()
    streams = [exchange for exchange in answers(provider) if exchange.wire == "sse"]
    assert streams
    for exchange in streams:
        streamed = await replay(dialect, exchange)
        assert without_encryption(streamed) == without_encryption(fold(dialect.read_whole(last_response(exchange))))


def last_response(exchange: Exchange) -> dict[str, Any]:
    payloads = [line[5:] for line in exchange.body.decode().splitlines() if line.startswith("data:")]
    return dict(next(json.loads(data)["response"] for data in reversed(payloads) if data.strip() != "[DONE]"))


def without_encryption(reply: Reply) -> Reply:
    # Encrypted reasoning is encrypted anew each time it is told.
    parts = [replace(part, signature="") if isinstance(part, ReasoningPart) else part for part in reply.parts]
    return replace(reply, parts=tuple(parts))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_sources_of_the_web_point_into_the_text(provider: str) -> None:
    for exchange in answers(provider):
        reply = await replay(OpenAiResponses(), exchange)
        for citation in reply.citations:
            assert citation.end_index <= len(reply.text)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_errors_map_by_status(provider: str) -> None:
    for exchange in exchanges(provider):
        if exchange.status != 200:
            with pytest.raises(ProviderFault) as caught:
                await replay(OpenAiResponses(), exchange)
            said = sdk_error(exchange)
            assert said.status_code == exchange.status == caught.value.status
            assert caught.value.kind is FAULT_BY_CODE.get(said.code, FAULT_BY_STATUS[exchange.status]), exchange.id
            COVERAGE.cover(provider)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_not_an_answer_is_left_out_and_never_passes_for_one(provider: str) -> None:
    for exchange in exchanges(provider):
        why = why_left_out(exchange)
        if why:
            COVERAGE.leave_out(provider, why)
        if "background" in why:
            with pytest.raises(ProviderFault, match="not complete"):
                await replay(OpenAiResponses(), exchange)
