"""Every recorded Anthropic Messages exchange, against what the official SDK reads from the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import anthropic
import httpx2
import pytest

from kit.traffic import COVERAGE, Exchange, load_traffic, replay
from pointsman_server.adapters.providers.anthropic_messages import AnthropicMessages
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, ReasoningPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply, Usage

OUR_REASON = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "pause_turn": FinishReason.PAUSE,
    "refusal": FinishReason.REFUSAL,
}

OUR_FAULT: dict[type[Exception], FaultKind] = {
    anthropic.BadRequestError: FaultKind.INVALID_REQUEST,
    anthropic.AuthenticationError: FaultKind.AUTH,
    anthropic.PermissionDeniedError: FaultKind.AUTH,
    anthropic.NotFoundError: FaultKind.MODEL_MISSING,
    anthropic.RateLimitError: FaultKind.RATE_LIMITED,
}

OWN_KINDS = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})
CALL: Any = {"model": "claude-sonnet-5", "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]}


def exchanges() -> list[Exchange]:
    """All chat exchanges; the other kinds are counted as left out."""
    return [exchange for exchange in load_traffic("anthropic") if exchange.kind == "chat"]


def answers() -> list[Exchange]:
    return [exchange for exchange in exchanges() if exchange.status == 200]


def failures() -> list[Exchange]:
    return [exchange for exchange in exchanges() if exchange.status != 200]


@cache
def read_with_sdk(exchange_id: str) -> Any:
    """The message that the SDK makes of a recorded body, streamed or not."""
    exchange = next(exchange for exchange in exchanges() if exchange.id == exchange_id)
    content_type = exchange.headers.get("content-type", "application/json")

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(exchange.status, headers={"content-type": content_type}, content=exchange.body)

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http_client:
        client = anthropic.Anthropic(
            api_key="unused", base_url="http://recorded.invalid", max_retries=0, http_client=http_client
        )
        messages: Any = client.beta.messages if "beta=true" in exchange.query else client.messages
        if exchange.wire != "sse":
            return messages.create(**CALL)
        with messages.stream(**CALL) as stream:
            return stream.get_final_message()


def sdk_blocks(message: Any, kind: str) -> list[Any]:
    return [block for block in message.content if block.type == kind]


def expected_usage(usage: Any) -> Usage:
    """Our usage from the SDK's: all input counted, whether it came from a cache or not."""
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    details = getattr(usage, "output_tokens_details", None)
    return Usage(
        input_tokens=usage.input_tokens + cached + written,
        cached_input_tokens=cached,
        cache_write_input_tokens=written,
        output_tokens=usage.output_tokens,
        reasoning_tokens=details.thinking_tokens if details is not None else 0,
    )


def assert_same(reply: Reply, message: Any) -> None:
    assert reply.text == "".join(block.text for block in sdk_blocks(message, "text"))
    assert reply.finish_reason is OUR_REASON[message.stop_reason]
    assert reply.raw_finish_reason == message.stop_reason
    assert reply.usage == expected_usage(message.usage)
    assert (reply.response_id, reply.model) == (message.id, message.model)
    assert_same_tool_calls(reply, message)
    assert_same_reasoning(reply, message)
    assert_same_citations(reply, message)
    assert_same_opaque_blocks(reply, message)


def assert_same_tool_calls(reply: Reply, message: Any) -> None:
    ours = [part for part in reply.parts if isinstance(part, ToolCallPart)]
    assert [(call.id, call.name, json.loads(call.arguments_json)) for call in ours] == [
        (block.id, block.name, block.input) for block in sdk_blocks(message, "tool_use")
    ]


def assert_same_reasoning(reply: Reply, message: Any) -> None:
    ours = [part for part in reply.parts if isinstance(part, ReasoningPart)]
    visible = [(part.text, part.signature) for part in ours if not part.redacted]
    assert visible == [(block.thinking, block.signature) for block in sdk_blocks(message, "thinking")]
    redacted = [part.signature for part in ours if part.redacted]
    assert redacted == [block.data for block in sdk_blocks(message, "redacted_thinking")]


def assert_same_citations(reply: Reply, message: Any) -> None:
    cited: set[tuple[str, str, str, int, int]] = set()
    position = 0
    for block in sdk_blocks(message, "text"):
        end = position + len(block.text)
        for citation in block.citations or []:
            url = getattr(citation, "url", None) or getattr(citation, "source", None) or ""
            title = getattr(citation, "title", None) or getattr(citation, "document_title", None) or ""
            cited.add((url, title, citation.cited_text, position, end))
        position = end
    assert {
        (citation.url, citation.title, citation.quoted_text, citation.start_index, citation.end_index)
        for citation in reply.citations
    } == cited


def assert_same_opaque_blocks(reply: Reply, message: Any) -> None:
    ours = [part for part in reply.parts if isinstance(part, OpaquePart)]
    theirs = [block for block in message.content if block.type not in OWN_KINDS]
    assert [part.kind for part in ours] == [block.type for block in theirs]
    for part, block in zip(ours, theirs, strict=True):
        said = block.to_dict(mode="json")
        kept = json.loads(part.json)
        assert {name: kept.get(name) for name in said} == said


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
async def test_every_answer_reads_as_the_sdk_reads_it(seed: int | None) -> None:
    recorded = answers()
    assert recorded
    for exchange in recorded:
        reply = await replay(AnthropicMessages(), exchange, seed=seed)
        try:
            assert_same(reply, read_with_sdk(exchange.id))
        except AssertionError as error:
            raise AssertionError(f"exchange {exchange.id}: {error}") from error
        if seed is None:
            COVERAGE.cover("anthropic")


async def test_every_failure_means_what_the_sdk_raises() -> None:
    recorded = failures()
    assert recorded
    for exchange in recorded:
        with pytest.raises(anthropic.APIStatusError) as theirs:
            read_with_sdk(exchange.id)
        with pytest.raises(ProviderFault) as ours:
            await replay(AnthropicMessages(), exchange)
        assert ours.value.kind is OUR_FAULT[type(theirs.value)], exchange.id
        assert ours.value.status == exchange.status
        assert str(json.loads(exchange.body)["error"]["message"]) not in str(ours.value)
        COVERAGE.cover("anthropic")


def test_other_kinds_are_left_out() -> None:
    others = [exchange for exchange in load_traffic("anthropic") if exchange.kind != "chat"]
    for exchange in others:
        COVERAGE.leave_out("anthropic", f"{exchange.kind}: no part of the service")
    assert len(others) + len(exchanges()) == len(load_traffic("anthropic"))


async def test_recorded_streams_cut_anywhere_never_pass_as_whole() -> None:
    streams = [exchange for exchange in answers() if exchange.wire == "sse"]
    assert streams
    for exchange in streams:
        events = exchange.body.split(b"\n\n")
        last_needed = max(number for number, event in enumerate(events) if b"event: message_stop" in event)
        for kept in {1, 2, 3, last_needed // 2, last_needed - 1, last_needed}:
            cut = replace(exchange, body=b"\n\n".join(events[:kept]) + b"\n\n")
            with pytest.raises(ProviderFault) as fault:
                await replay(AnthropicMessages(), cut)
            assert fault.value.kind is FaultKind.STREAM_CUT
