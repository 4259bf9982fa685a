"""Every recorded Cohere v2 chat exchange, against what the official SDK reads from the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from kit.traffic import COVERAGE, Exchange, load_traffic, replay
from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import ReasoningPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply

cohere = pytest.importorskip("cohere", reason="the official cohere SDK is not installed")
httpx = pytest.importorskip("httpx", reason="httpx, which the cohere SDK speaks through, is not installed")

OUR_REASON = {
    "COMPLETE": FinishReason.STOP,
    "STOP_SEQUENCE": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
    "ERROR": FinishReason.ERROR,
    "TIMEOUT": FinishReason.ERROR,
}

FAULT_BY_STATUS = {
    400: FaultKind.INVALID_REQUEST,
    401: FaultKind.AUTH,
    404: FaultKind.MODEL_MISSING,
    422: FaultKind.INVALID_REQUEST,
    429: FaultKind.RATE_LIMITED,
}

SEEDS = (None, 1, 20, 300)


@dataclass
class Reading:
    """What the SDK makes of an exchange."""

    id: str = ""
    text: str = ""
    reasoning: str = ""
    tool_calls: list[tuple[str, str, str]] = field(default_factory=list)
    citations: set[tuple[str, int, int, str]] = field(default_factory=set)
    finish_reason: str = ""
    usage: Any = None


def chats() -> Iterator[Exchange]:
    yield from (
        exchange for exchange in load_traffic("cohere") if exchange.kind == "chat" and exchange.path == "/v2/chat"
    )


def large_piece(exchange: Exchange) -> int:
    return 7 if len(exchange.body) < 30_000 else 400


@cache
def read_by_sdk(exchange_id: str) -> Reading:
    exchange = next(exchange for exchange in chats() if exchange.id == exchange_id)
    headers = {"content-type": "text/event-stream" if exchange.stream else "application/json"}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, headers=headers, content=exchange.body))
    with httpx.Client(transport=transport) as http:
        client = cohere.ClientV2("key", base_url="http://cohere.invalid", httpx_client=http, max_retries=0)
        request = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        if exchange.stream:
            return read_stream(client.chat_stream(**request))
        return read_whole(client.chat(**request))


def read_whole(answer: Any) -> Reading:
    message = answer.message
    content = message.content or []
    return Reading(
        id=answer.id,
        text="".join(item.text for item in content if item.type == "text"),
        reasoning=(message.tool_plan or "") + "".join(item.thinking for item in content if item.type == "thinking"),
        tool_calls=[(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []],
        citations={row for citation in message.citations or [] for row in citation_rows(citation)},
        finish_reason=answer.finish_reason,
        usage=answer.usage,
    )


def read_stream(events: Any) -> Reading:
    reading = Reading()
    calls: list[list[str]] = []
    readers: dict[str, Callable[[Any], None]] = {
        "message-start": lambda event: setattr(reading, "id", event.id),
        "tool-plan-delta": lambda event: add(reading, "reasoning", event.delta.message.tool_plan),
        "content-start": lambda event: add_content(reading, event.delta.message.content),
        "content-delta": lambda event: add_content(reading, event.delta.message.content),
        "tool-call-start": lambda event: calls.append(list(call_fields(event))),
        "tool-call-delta": lambda event: grow_call(calls, event),
        "citation-start": lambda event: reading.citations.update(citation_rows(event.delta.message.citations)),
        "message-end": lambda event: close(reading, event.delta),
    }
    for event in events:
        readers.get(event.type, lambda event: None)(event)
    # A call without arguments has no delta for them; a whole answer says {}.
    reading.tool_calls = [(call[0], call[1], call[2] or "{}") for call in calls]
    return reading


def add(reading: Reading, name: str, piece: str | None) -> None:
    setattr(reading, name, getattr(reading, name) + (piece or ""))


def add_content(reading: Reading, content: Any) -> None:
    add(reading, "text", content.text)
    add(reading, "reasoning", content.thinking)


def call_fields(event: Any) -> tuple[str, str, str]:
    call = event.delta.message.tool_calls
    return call.id, call.function.name, call.function.arguments


def grow_call(calls: list[list[str]], event: Any) -> None:
    calls[event.index][2] += event.delta.message.tool_calls.function.arguments


def close(reading: Reading, delta: Any) -> None:
    reading.finish_reason, reading.usage = delta.finish_reason, delta.usage


def citation_rows(citation: Any) -> Iterator[tuple[str, int, int, str]]:
    for source in citation.sources:
        yield source.id, citation.start, citation.end, citation.text


def assert_same(reply: Reply, expected: Reading) -> None:
    assert reply.response_id == expected.id
    assert reply.text == expected.text
    assert "".join(part.text for part in reply.parts if isinstance(part, ReasoningPart)) == expected.reasoning
    calls = [(part.id, part.name, part.arguments_json) for part in reply.parts if isinstance(part, ToolCallPart)]
    assert calls == expected.tool_calls
    found = {(c.document_id, c.start_index, c.end_index, c.quoted_text) for c in reply.citations}
    assert found == expected.citations
    assert reply.raw_finish_reason == expected.finish_reason
    assert reply.finish_reason is OUR_REASON[expected.finish_reason]
    assert_same_usage(reply, expected.usage)


def assert_same_usage(reply: Reply, expected: Any) -> None:
    usage = reply.usage
    assert usage.input_tokens == expected.tokens.input_tokens
    assert usage.output_tokens == expected.tokens.output_tokens
    assert usage.reasoning_tokens == (getattr(expected.tokens, "reasoning_tokens", None) or 0)
    assert usage.cached_input_tokens == (expected.cached_tokens or 0)
    assert usage.billed_input_tokens == expected.billed_units.input_tokens
    assert usage.billed_output_tokens == expected.billed_units.output_tokens
    assert not usage.implausible


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: "whole" if seed is None else f"cut{seed}")
async def test_answers_equal_the_sdks_reading(seed: int | None) -> None:
    dialect = CohereChat()
    answers = [exchange for exchange in chats() if exchange.status == 200]
    assert answers
    for exchange in answers:
        reply = await replay(dialect, exchange, seed=seed, largest_piece=large_piece(exchange))
        assert_same(reply, read_by_sdk(exchange.id))
        if seed is None:
            COVERAGE.cover("cohere")


async def test_citations_point_at_the_words_they_quote() -> None:
    seen = 0
    for exchange in chats():
        if exchange.status == 200:
            reply = await replay(CohereChat(), exchange)
            for citation in reply.citations:
                assert reply.text[citation.start_index : citation.end_index] == citation.quoted_text
                seen += 1
    assert seen


async def test_errors_map_by_status() -> None:
    errors = [exchange for exchange in chats() if exchange.status != 200]
    assert errors
    for exchange in errors:
        with pytest.raises(ProviderFault) as caught:
            await replay(CohereChat(), exchange)
        context = "too many tokens" in exchange.body.decode().lower() or "TOO_MANY_TOKENS" in exchange.body.decode()
        expected = FaultKind.CONTEXT_WINDOW if context else FAULT_BY_STATUS[exchange.status]
        assert caught.value.kind is expected, exchange.id
        assert caught.value.status == exchange.status
        assert json.loads(exchange.body)["message"] not in str(caught.value)
        COVERAGE.cover("cohere")


def test_other_kinds_are_left_out() -> None:
    covered = 0
    for exchange in load_traffic("cohere"):
        if exchange.kind != "chat":
            COVERAGE.leave_out("cohere", f"{exchange.kind} is not a chat")
        elif exchange.path != "/v2/chat":
            COVERAGE.leave_out("cohere", "v1 chat and its NDJSON streams are the API before v2")
        else:
            covered += 1
    assert covered
