"""Cohere's whole answers as ours: content, citations, ends, usage and errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.cohere_calls import (
    CITED,
    HELLO,
    REASONS,
    message_end,
    read,
    read_stream,
    sse,
    stream_of,
    whole,
)
from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import (
    OpaquePart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
)
from pointsman_server.domain.reply import Citation, FinishReason, Usage


class TestWholeAnswer:
    def test_text_usage_and_id(self) -> None:
        reply = read(whole())
        assert reply.parts == (TextPart("Hello"),)
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.STOP, "COMPLETE")
        assert reply.usage == Usage(input_tokens=70, output_tokens=3, billed_input_tokens=5, billed_output_tokens=2)
        assert (reply.response_id, reply.model) == ("a1", "")

    def test_plan_thinking_text_and_calls_in_this_order(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
        message = {
            "tool_calls": [call],
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Wait."}],
            "tool_plan": "I will look.",
        }
        assert read(whole(message=message, finish_reason="TOOL_CALL")).parts == (
            ReasoningPart("I will look."),
            ReasoningPart("Hm."),
            TextPart("Wait."),
            ToolCallPart("c1", "clock", "{}"),
        )

    @pytest.mark.parametrize(
        ("arguments", "passed_on"),
        [('{"a": 1', '{"a": 1'), ("", "{}"), (None, "{}"), ({"a": 1}, '{"a":1}'), ([], "[]")],
    )
    def test_arguments_pass_on_as_received(self, arguments: Any, passed_on: str) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": arguments}}
        assert read(whole(message={"tool_calls": [call]})).parts == (ToolCallPart("c1", "clock", passed_on),)

    def test_unknown_block_is_kept(self) -> None:
        reply = read(whole(message={"content": [{"type": "chart", "points": [1]}]}))
        assert reply.parts == (OpaquePart("cohere_chat", "chart", '{"type":"chart","points":[1]}'),)

    @pytest.mark.parametrize(
        "message",
        [
            {},
            {"content": None},
            {"content": []},
            {"content": [{"type": "text", "text": ""}], "tool_plan": ""},
            {"content": [7]},
            {"content": [{}]},
            {"content": [{"type": None}]},
        ],
    )
    def test_answer_without_content_has_no_parts(self, message: dict[str, Any]) -> None:
        assert read(whole(message=message)).parts == ()

    @pytest.mark.parametrize(
        "body", [{}, {"message": None}, {"message": []}, {"id": "a1", "finish_reason": "COMPLETE"}]
    )
    def test_answer_without_a_message_is_malformed(self, body: dict[str, Any]) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().read_whole(body)
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({"id": "e1", "message": "too many tokens: at most 4081"}, FaultKind.CONTEXT_WINDOW),
            ({"message": "internal"}, FaultKind.UNAVAILABLE),
            ({"error": {"type": "rate_limit_error", "message": "slow down"}}, FaultKind.RATE_LIMITED),
            ({"error": "broken"}, FaultKind.UNAVAILABLE),
            ({"message": {"content": []}, "error": "broken"}, FaultKind.UNAVAILABLE),
        ],
    )
    def test_error_inside_a_200(self, body: dict[str, Any], kind: FaultKind) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().read_whole(body)
        assert (caught.value.kind, caught.value.status) == (kind, 200)


class TestCitations:
    def test_one_for_each_source(self) -> None:
        message = {"content": [{"type": "text", "text": "x" * 40}], "citations": [CITED]}
        tool = Citation(document_id="clock:0", quoted_text="4:20 PM", start_index=29, end_index=36)
        page = replace(tool, document_id="d1", url="https://example.org", title="Time")
        assert read(whole(message=message)).citations == (tool, page)

    def test_without_source(self) -> None:
        citations = [{"start": 0, "end": 1, "text": "x"}, {"text": "y", "sources": None}]
        assert read(whole(message={"citations": citations})).citations == (
            Citation(quoted_text="x", start_index=0, end_index=1),
            Citation(quoted_text="y"),
        )

    @pytest.mark.parametrize("kind", ["PLAN", "THINKING_CONTENT"])
    def test_place_outside_the_text_is_no_place_in_it(self, kind: str) -> None:
        found = read(whole(message={"citations": [{**CITED, "type": kind}]})).citations
        assert {(c.start_index, c.end_index, c.quoted_text) for c in found} == {(-1, -1, "4:20 PM")}

    def test_place_in_a_later_block_counts_from_the_start_of_the_text(self) -> None:
        blocks = [
            {"type": "text", "text": "Zürich: "},
            {"type": "thinking", "thinking": "a very long thought"},
            {"type": "text", "text": "12 degrees"},
        ]
        cited = {"start": 0, "end": 2, "text": "12", "content_index": 2, "sources": []}
        answer = whole(message={"content": blocks, "citations": [cited]})
        for reply in (read(answer), read_stream(stream_of(answer))):
            (citation,) = reply.citations
            assert reply.text[citation.start_index : citation.end_index] == "12"


@pytest.mark.parametrize(("said", "reason"), REASONS)
def test_finish_reason(said: str | None, reason: FinishReason) -> None:
    for reply in (read(whole(finish_reason=said)), read_stream(sse(*HELLO[:-1], message_end(finish_reason=said)))):
        assert (reply.finish_reason, reply.raw_finish_reason) == (reason, said or "")


def test_plain_stop_after_tool_calls_means_tool_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    answer = whole(message={"tool_calls": [call]})
    assert read(answer).finish_reason is FinishReason.TOOL_CALLS
    assert read_stream(stream_of(answer)).finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        ({}, Usage()),
        ("many", Usage()),
        ({"tokens": None, "billed_units": []}, Usage()),
        ({"tokens": {"input_tokens": "12", "output_tokens": 3.0}}, Usage(input_tokens=12, output_tokens=3)),
        ({"tokens": {"input_tokens": -1, "output_tokens": 3}}, Usage(output_tokens=3, implausible=True)),
        ({"tokens": {"input_tokens": 10**12}}, Usage(implausible=True)),
        ({"tokens": {"input_tokens": float("nan")}}, Usage(implausible=True)),
        ({"tokens": {"input_tokens": "a lot"}}, Usage(implausible=True)),
        ({"billed_units": {"input_tokens": -3}}, Usage(implausible=True)),
        (
            {"tokens": {"input_tokens": 9, "output_tokens": 8, "reasoning_tokens": 7}, "cached_tokens": 6},
            Usage(input_tokens=9, cached_input_tokens=6, output_tokens=8, reasoning_tokens=7),
        ),
    ],
)
def test_usage(usage: Any, expected: Usage) -> None:
    assert read(whole(usage=usage)).usage == expected
    assert read_stream(sse(*HELLO[:-1], message_end(usage=usage))).usage == expected


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"id":"e1","message":"invalid request: message must not be empty"}', FaultKind.INVALID_REQUEST),
        (400, b'{"id":"e1","message":"too many tokens: total number of tokens ..."}', FaultKind.CONTEXT_WINDOW),
        (400, b'{"id":"e1","message":"longer","error_type":"TOO_MANY_TOKENS"}', FaultKind.CONTEXT_WINDOW),
        (400, b"too many tokens: 9 over the limit", FaultKind.CONTEXT_WINDOW),
        (400, b"", FaultKind.INVALID_REQUEST),
        (400, b"[]", FaultKind.INVALID_REQUEST),
        (401, b'{"message":"invalid api token"}', FaultKind.AUTH),
        (402, b'{"message":"please add a payment method"}', FaultKind.QUOTA),
        (404, b'{"message":"model not known"}', FaultKind.MODEL_MISSING),
        (413, b"<html>", FaultKind.REQUEST_TOO_LARGE),
        (422, b'{"message":"invalid type"}', FaultKind.INVALID_REQUEST),
        (429, b'{"message":"limited to 40 API calls / minute"}', FaultKind.RATE_LIMITED),
        (429, b'{"message":"Trial key, which is limited to 1000 API calls / month"}', FaultKind.QUOTA),
        (498, b'{"message":"invalid token"}', FaultKind.AUTH),
        (499, b'{"message":"request cancelled"}', FaultKind.UNAVAILABLE),
        (500, b'{"message":"internal server error"}', FaultKind.UNAVAILABLE),
        (502, b"<html>\xff</html>", FaultKind.UNAVAILABLE),
        (503, b'{"message":"over capacity"}', FaultKind.OVERLOADED),
        (504, b"", FaultKind.UNAVAILABLE),
    ],
)
def test_error_body(status: int, body: bytes, kind: FaultKind) -> None:
    fault = CohereChat().read_error(status, {"retry-after": "3"}, body)
    assert (fault.kind, fault.status) == (kind, status)
    assert fault.retry_after_seconds == (3.0 if status in (429, 503) else None)
    assert "tokens:" not in str(fault)
