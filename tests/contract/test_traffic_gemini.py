"""Every recorded Gemini and Vertex AI chat, read by us and by the official SDK from the same bytes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import httpx2
import pytest
from google.genai import Client
from google.genai.errors import APIError
from google.genai.types import (
    Candidate,
    GenerateContentResponse,
    HttpOptions,
    HttpRetryOptions,
    Part,
)

from kit.traffic import COVERAGE, Exchange, load_traffic, replay
from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply

PROVIDERS = ("gemini", "vertex")
SEEDS = (1, 2)

REASONS = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "UNEXPECTED_TOOL_CALL": FinishReason.ERROR,
}
FAULTS = {400: FaultKind.INVALID_REQUEST, 404: FaultKind.MODEL_MISSING, 429: FaultKind.RATE_LIMITED}

ENUM_NUMBERS = {"finishReason": {1: "STOP"}, "modality": {1: "TEXT"}, "trafficType": {1: "ON_DEMAND"}}
"""The SDK reads no enums sent as numbers; for it they are spelled out."""

SERVER_PARTS = ("executable_code", "code_execution_result", "tool_call", "tool_response", "inline_data")


def why_left_out(exchange: Exchange) -> str:
    """Why this exchange is of no class that is supported; "" when it is."""
    if exchange.kind != "chat":
        return f"{exchange.kind}: not a chat"
    if "enerateContent" not in exchange.path:
        return "another API (interactions, OpenAI-compatible)"
    if exchange.wire == "json-array":
        return "stream as one JSON array, which is never asked for (checked as SSE instead)"
    return ""


@cache
def chats(provider: str) -> list[Exchange]:
    """The recorded exchanges of generateContent and streamGenerateContent in the framing that we ask for."""
    return [exchange for exchange in load_traffic(provider) if not why_left_out(exchange)]


class SdkReader:
    """The official client, fed with recorded bytes in place of a network."""

    def __init__(self) -> None:
        self._answer = httpx2.Response(200)
        options = HttpOptions(
            retry_options=HttpRetryOptions(attempts=1),
            client_args={"transport": httpx2.MockTransport(lambda request: self._answer)},
        )
        self._client = Client(enterprise=False, api_key="unused", http_options=options)

    def read(self, exchange: Exchange, body: bytes) -> list[GenerateContentResponse]:
        content_type = exchange.headers.get("content-type", "application/json")
        self._answer = httpx2.Response(exchange.status, content=body, headers={"content-type": content_type})
        call: dict[str, Any] = {"model": "any", "contents": "any"}
        call["config"] = {"automatic_function_calling": {"disable": True}, "automatic_continuation": False}
        if "streamGenerateContent" in exchange.path:
            return list(self._client.models.generate_content_stream(**call))
        return [self._client.models.generate_content(**call)]


@pytest.fixture(scope="module")
def sdk() -> SdkReader:
    return SdkReader()


def spelled_out(body: bytes) -> bytes:
    def name(match: re.Match[str]) -> str:
        return f'"{match[1]}": "{ENUM_NUMBERS[match[1]][int(match[2])]}"'

    return re.sub(r'"(finishReason|modality|trafficType)": (\d+)', name, body.decode()).encode()


def candidates(responses: Sequence[GenerateContentResponse]) -> Iterator[Candidate]:
    for response in responses:
        yield from (response.candidates or [])[:1]


def sdk_parts(responses: Sequence[GenerateContentResponse]) -> list[Part]:
    return [
        part
        for candidate in candidates(responses)
        if candidate.content is not None
        for part in candidate.content.parts or []
    ]


def sdk_kind(part: Part) -> str:
    if part.function_call is not None:
        return "call"
    server = next((name for name in SERVER_PARTS if getattr(part, name) is not None), "")
    if server:
        return server
    return "reasoning" if part.thought else "text"


def our_kind(part: object) -> str:
    match part:
        case ToolCallPart():
            return "call"
        case ReasoningPart():
            return "reasoning"
        case OpaquePart(kind=kind):
            return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), kind)
        case _:
            return "text"


def without_repeats(kinds: Sequence[str]) -> list[str]:
    return [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]


def our_signature(part: object) -> str:
    if isinstance(part, OpaquePart):
        return str(json.loads(part.json).get("thoughtSignature", ""))
    return part.signature if isinstance(part, (TextPart, ReasoningPart, ToolCallPart)) else ""


def decode(signature: str) -> bytes:
    return base64.b64decode(signature.translate(str.maketrans("-_", "+/")) + "==")


def assert_same_content(reply: Reply, parts: Sequence[Part]) -> None:
    spoken = [part for part in parts if part.text is not None]
    assert reply.text == "".join(part.text or "" for part in spoken if not part.thought)
    reasoning = "".join(part.text for part in reply.parts if isinstance(part, ReasoningPart))
    assert reasoning == "".join(part.text or "" for part in spoken if part.thought)
    said = [part for part in parts if part.text != "" or part.thought_signature]
    assert without_repeats([our_kind(part) for part in reply.parts]) == without_repeats(
        [sdk_kind(part) for part in said]
    )
    signatures = [decode(signature) for part in reply.parts if (signature := our_signature(part))]
    assert signatures == [part.thought_signature for part in parts if part.thought_signature]


def assert_same_calls(reply: Reply, parts: Sequence[Part]) -> None:
    ours = [part for part in reply.parts if isinstance(part, ToolCallPart)]
    theirs = [part.function_call for part in parts if part.function_call is not None]
    assert [(call.name, json.loads(call.arguments_json)) for call in ours] == [
        (call.name, call.args or {}) for call in theirs
    ]
    for our, their in zip(ours, theirs, strict=True):
        assert our.id == their.id or (their.id is None and our.id.startswith("call_"))
    assert len({call.id for call in ours}) == len(ours)


def assert_same_end(reply: Reply, responses: Sequence[GenerateContentResponse]) -> None:
    reasons = [candidate.finish_reason for candidate in candidates(responses) if candidate.finish_reason]
    if not reasons:
        feedback = responses[-1].prompt_feedback
        assert feedback is not None
        assert feedback.block_reason is not None
        assert (reply.finish_reason, reply.raw_finish_reason) == (
            FinishReason.CONTENT_FILTER,
            feedback.block_reason.value,
        )
        return
    expected = REASONS[reasons[-1].value]
    if expected is FinishReason.STOP and any(part.function_call for part in sdk_parts(responses)):
        expected = FinishReason.TOOL_CALLS
    assert reply.finish_reason is expected
    assert reply.raw_finish_reason in (reasons[-1].value, "1")


def assert_same_usage(reply: Reply, responses: Sequence[GenerateContentResponse]) -> None:
    said = [response.usage_metadata for response in responses if response.usage_metadata]
    if not said or said[-1].prompt_token_count is None:
        assert reply.usage.input_tokens is None
        return
    last = said[-1]
    thoughts = last.thoughts_token_count or 0
    assert last.prompt_token_count is not None
    assert reply.usage.input_tokens == last.prompt_token_count + (last.tool_use_prompt_token_count or 0)
    assert reply.usage.output_tokens == (last.candidates_token_count or 0) + thoughts
    assert reply.usage.input_tokens + reply.usage.output_tokens == last.total_token_count
    assert reply.usage.reasoning_tokens == thoughts
    assert reply.usage.cached_input_tokens == (last.cached_content_token_count or 0)
    assert not reply.usage.implausible


def assert_same_sources(reply: Reply, responses: Sequence[GenerateContentResponse]) -> None:
    expected: list[tuple[str, str, str]] = []
    for candidate in candidates(responses):
        grounding = candidate.grounding_metadata
        sources = [chunk.web or chunk.retrieved_context for chunk in (grounding and grounding.grounding_chunks) or []]
        for support in (grounding and grounding.grounding_supports) or []:
            for index in support.grounding_chunk_indices or []:
                source = sources[index]
                assert source is not None
                assert support.segment is not None
                expected.append((source.uri or "", source.title or "", support.segment.text or ""))
    found = [(one.url, one.title, reply.text[one.start_index : one.end_index]) for one in reply.citations]
    assert [one for one in found if one[2]] == expected


def assert_same(reply: Reply, responses: list[GenerateContentResponse]) -> None:
    parts = sdk_parts(responses)
    assert_same_content(reply, parts)
    assert_same_calls(reply, parts)
    assert_same_end(reply, responses)
    assert_same_usage(reply, responses)
    assert_same_sources(reply, responses)
    assert reply.response_id == (responses[0].response_id or "")
    assert reply.model == (responses[0].model_version or "")


async def assert_cut_anywhere(exchange: Exchange, reply: Reply) -> None:
    for seed in SEEDS:
        largest_piece = max(7, len(exchange.body) // 1000)
        assert await replay(GeminiGenerate(), exchange, seed=seed, largest_piece=largest_piece) == reply


@pytest.mark.parametrize("provider", PROVIDERS)
def test_most_recordings_are_of_a_supported_class(provider: str) -> None:
    reasons = [reason for exchange in load_traffic(provider) if (reason := why_left_out(exchange))]
    for reason in reasons:
        COVERAGE.leave_out(provider, reason)
    assert len(reasons) < len(load_traffic(provider)) / 4


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_answers_are_read_as_the_sdk_reads_them(provider: str, sdk: SdkReader) -> None:
    answers = [exchange for exchange in chats(provider) if exchange.status == 200]
    assert answers
    for exchange in answers:
        reply = await replay(GeminiGenerate(), exchange)
        assert_same(reply, sdk.read(exchange, spelled_out(exchange.body)))
        await assert_cut_anywhere(exchange, reply)
        COVERAGE.cover(provider)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_errors_mean_what_their_status_says(provider: str, sdk: SdkReader) -> None:
    failures = [exchange for exchange in load_traffic(provider) if exchange.kind == "chat" and exchange.status != 200]
    assert failures
    for exchange in failures:
        with pytest.raises(APIError) as theirs:
            sdk.read(exchange, exchange.body)
        with pytest.raises(ProviderFault) as ours:
            await replay(GeminiGenerate(), exchange)
        assert ours.value.status == theirs.value.code
        assert ours.value.kind is FAULTS[exchange.status]
        assert (theirs.value.message or "?") not in str(ours.value)
        COVERAGE.cover(provider)


async def test_the_recorded_rate_limit_says_how_long_to_wait() -> None:
    limited = next(exchange for exchange in load_traffic("gemini") if exchange.status == 429)
    with pytest.raises(ProviderFault) as caught:
        await replay(GeminiGenerate(), limited)
    assert caught.value.retry_after_seconds == 48


async def test_recorded_json_arrays_are_read_once_framed_as_sse(sdk: SdkReader) -> None:
    arrays = [exchange for exchange in load_traffic("gemini") if exchange.wire == "json-array"]
    assert arrays
    for exchange in arrays:
        framed = b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in json.loads(exchange.body))
        as_sse = replace(exchange, body=framed, headers={"content-type": "text/event-stream"})
        reply = await replay(GeminiGenerate(), as_sse)
        assert_same(reply, sdk.read(as_sse, framed))
        await assert_cut_anywhere(as_sse, reply)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_recorded_streams_cut_between_events_never_pass_for_whole(provider: str) -> None:
    streams = [exchange for exchange in chats(provider) if exchange.wire == "sse"]
    assert streams
    for exchange in streams:
        events = exchange.body.split(b"\r\n\r\n")
        for count in range(1, len(events) - 1):
            cut = replace(exchange, body=b"\r\n\r\n".join(events[:count]) + b"\r\n\r\n")
            with pytest.raises(ProviderFault) as caught:
                await replay(GeminiGenerate(), cut)
            assert caught.value.kind is FaultKind.STREAM_CUT
