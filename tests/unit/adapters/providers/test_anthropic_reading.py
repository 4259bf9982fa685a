from __future__ import annotations

import json
import math
from typing import Any

import pytest

from pointsman_server.adapters.providers.anthropic_reading import MessageStreamReader, read_whole_answer
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import (
    Citation,
    Finished,
    FinishReason,
    OpaqueDelta,
    Reply,
    ReplyBuilder,
    ToolCallDelta,
    Usage,
    fold,
)

USAGE = {"input_tokens": 10, "output_tokens": 5}
Json = dict[str, Any]


def text(words: str, *citations: Json) -> Json:
    return (
        {"type": "text", "text": words, "citations": list(citations)} if citations else {"type": "text", "text": words}
    )


def whole(*content: Json, stop_reason: str | None = "end_turn", usage: Any = USAGE) -> Json:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5", "content": list(content),
        "stop_reason": stop_reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def read(*content: Json, **settings_: Any) -> Reply:
    return fold(read_whole_answer(whole(*content, **settings_)))


def feed(*events: Json) -> Reply:
    """What a stream of these events says, end included."""
    reader, builder = MessageStreamReader(), ReplyBuilder()
    for event in events:
        for said in reader.feed(SseEvent(str(event["type"]), json.dumps(event).encode())):
            builder.add(said)
    for said in reader.end():
        builder.add(said)
    return builder.build()


def start(usage: Any = USAGE) -> Json:
    return {"type": "message_start", "message": {**whole(stop_reason=None), "usage": usage}}


def begin(block: Json, index: int = 0) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(piece: Json, index: int = 0) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": piece}


def stop(index: int = 0) -> Json:
    return {"type": "content_block_stop", "index": index}


def finish(stop_reason: str | None = "end_turn", usage: Any = None) -> list[Json]:
    return [
        {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage or {}},
        {"type": "message_stop"},
    ]


def fault_of(*events: Json) -> ProviderFault:
    with pytest.raises(ProviderFault) as caught:
        feed(*events)
    return caught.value


class TestContent:
    def test_text(self) -> None:
        reply = read(text("Hello "), text("there"))
        assert reply.parts == (TextPart("Hello "), TextPart("there"))
        assert (reply.response_id, reply.model) == ("msg_1", "claude-sonnet-5-5")

    def test_empty_text_and_thinking_say_nothing(self) -> None:
        assert read(text(""), {"type": "thinking", "thinking": "", "signature": ""}).parts == ()

    def test_thinking(self) -> None:
        reply = read(
            {"type": "thinking", "thinking": "Hm.", "signature": "sig1"},
            {"type": "thinking", "thinking": "", "signature": "sig2"},
            {"type": "redacted_thinking", "data": "secret"},
        )
        assert reply.parts == (
            ReasoningPart("Hm.", "sig1"), ReasoningPart("", "sig2"), ReasoningPart("", "secret", redacted=True),
        )  # fmt: skip

    def test_tool_calls(self) -> None:
        reply = read(
            {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Zürich"}, "caller": {}},
            {"type": "tool_use", "id": "b", "name": "clock", "input": {}},
            {"type": "tool_use", "id": "c", "name": "odd", "input": '{"broken": '},
            {"type": "tool_use", "id": "d", "name": "none"},
            stop_reason="tool_use",
        )  # fmt: skip
        assert reply.parts == (
            ToolCallPart("a", "weather", '{"city":"Zürich"}'), ToolCallPart("b", "clock", "{}"),
            ToolCallPart("c", "odd", '{"broken": '), ToolCallPart("d", "none", "{}"),
        )  # fmt: skip

    def test_blocks_of_the_vendors_own_are_kept(self) -> None:
        block: Json = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
        novelty: Json = {"type": "something_new", "data": [1, 2.5, None]}
        reply = read(block, novelty)
        assert reply.parts == tuple(
            OpaquePart("anthropic_messages", one["type"], json.dumps(one, separators=(",", ":")))
            for one in (block, novelty)
        )

    def test_numbers_beyond_64_bits_are_kept(self) -> None:
        event = next(
            said
            for said in read_whole_answer(whole({"type": "something_new", "n": 2**70}))
            if isinstance(said, OpaqueDelta)
        )
        assert json.loads(event.json)["n"] == 2**70

    def test_citations_speak_for_their_block(self) -> None:
        web = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "quote"}
        paper = {"type": "char_location", "document_index": 2, "document_title": "Paper", "cited_text": "words",
                 "start_char_index": 5, "end_char_index": 9}  # fmt: skip
        page = {"type": "page_location", "file_id": "file_1", "document_index": 0, "document_title": None}
        result = {"type": "search_result_location", "source": "https://b.example", "search_result_index": 1}
        reply = read(text("See: "), text("größe😀", web, paper), text("."), text("end", page, result))
        assert reply.citations == (
            Citation("https://a.example", "A", "", "quote", 5, 11), Citation("", "Paper", "2", "words", 5, 11),
            Citation("", "", "file_1", "", 12, 15), Citation("https://b.example", "", "1", "", 12, 15),
        )  # fmt: skip
        assert reply.text[5:11] == "größe😀"

    @pytest.mark.parametrize("content", [None, "text", {}])
    def test_no_content_is_malformed(self, content: Any) -> None:
        with pytest.raises(ProviderFault) as caught:
            read_whole_answer({**whole(), "content": content})
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize("block", ["text", None, {}, {"type": 5}])
    def test_a_block_without_a_type_is_malformed(self, block: Any) -> None:
        with pytest.raises(ProviderFault) as caught:
            read(block)
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    def test_an_empty_answer_is_an_answer(self) -> None:
        assert read().parts == ()


class TestFinish:
    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            ("end_turn", FinishReason.STOP),
            ("stop_sequence", FinishReason.STOP),
            ("tool_use", FinishReason.TOOL_CALLS),
            ("max_tokens", FinishReason.LENGTH),
            ("model_context_window_exceeded", FinishReason.LENGTH),
            ("pause_turn", FinishReason.PAUSE),
            ("compaction", FinishReason.PAUSE),
            ("refusal", FinishReason.REFUSAL),
            ("something_new", FinishReason.UNKNOWN),
        ],
    )
    def test_reasons(self, said: str, meant: FinishReason) -> None:
        for reply in (read(text("x"), stop_reason=said), feed(start(), *finish(said))):
            assert (reply.finish_reason, reply.raw_finish_reason) == (meant, said)

    def test_no_reason(self) -> None:
        for reply in (read(text("x"), stop_reason=None), feed(start(), *finish(None))):
            assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.UNKNOWN, "")

    def test_tool_calls_outrank_a_plain_stop(self) -> None:
        call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        assert read(call, stop_reason="end_turn").finish_reason is FinishReason.TOOL_CALLS
        assert read(call, stop_reason="max_tokens").finish_reason is FinishReason.LENGTH
        server = {"type": "server_tool_use", "id": "a", "name": "web_search", "input": {}}
        assert read(server, stop_reason="end_turn").finish_reason is FinishReason.STOP


class TestUsage:
    def test_all_input_is_counted(self) -> None:
        usage = {
            "input_tokens": 10, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 3000,
            "output_tokens": 40, "output_tokens_details": {"thinking_tokens": 25}, "service_tier": "standard",
        }  # fmt: skip
        assert read(usage=usage).usage == Usage(3210, 200, 3000, 40, 25)

    @pytest.mark.parametrize("usage", [None, {}, [], "5"])
    def test_missing(self, usage: Any) -> None:
        assert read(usage=usage).usage == Usage()
        assert feed(start(usage), *finish(usage=usage)).usage == Usage()

    def test_null_counts_are_none_and_texts_are_numbers(self) -> None:
        usage = {"input_tokens": "12", "cache_read_input_tokens": None, "output_tokens": None}
        assert read(usage=usage).usage == Usage(12)

    @pytest.mark.parametrize("bad", [-1, 10**12, math.nan, math.inf, "many", [1]])
    def test_the_impossible_is_marked(self, bad: Any) -> None:
        assert read(usage={"input_tokens": bad, "output_tokens": 5}).usage == Usage(output_tokens=5, implausible=True)
        assert read(usage={"input_tokens": 5, "output_tokens": bad}).usage == Usage(5, implausible=True)
        partly = read(usage={"input_tokens": 5, "cache_read_input_tokens": bad, "output_tokens": 5}).usage
        assert partly == Usage(None, output_tokens=5, implausible=True)

    def test_the_last_value_of_a_stream_wins(self) -> None:
        first = {"input_tokens": 2_479, "cache_read_input_tokens": 100, "output_tokens": 1}
        assert feed(start(first), *finish(usage={"output_tokens": 70})).usage == Usage(2_579, 100, 0, 70)
        last = {"input_tokens": 404_500, "cache_read_input_tokens": None, "output_tokens": 70}
        assert feed(start(first), *finish(usage=last)).usage == Usage(404_600, 100, 0, 70)


class TestStream:
    def test_pieces(self) -> None:
        reply = feed(
            start(),
            {"type": "ping"},
            begin({"type": "thinking", "thinking": "", "signature": ""}),
            delta({"type": "thinking_delta", "thinking": "Let me"}),
            delta({"type": "thinking_delta", "thinking": " see."}),
            delta({"type": "signature_delta", "signature": "sig"}),
            stop(),
            begin({"type": "text", "text": ""}, 1),
            delta({"type": "text_delta", "text": "Hel"}, 1),
            {"type": "something_new", "index": 1},
            delta({"type": "something_new", "text": "?"}, 1),
            delta({"type": "text_delta", "text": "lo"}, 1),
            stop(1),
            begin({"type": "tool_use", "id": "a", "name": "f", "input": {}}, 2),
            delta({"type": "input_json_delta", "partial_json": ""}, 2),
            delta({"type": "input_json_delta", "partial_json": '{"x": '}, 2),
            delta({"type": "input_json_delta", "partial_json": "1"}, 2),
            stop(2),
            *finish("max_tokens"),
        )
        assert reply.parts == (
            ReasoningPart("Let me see.", "sig"), TextPart("Hello"), ToolCallPart("a", "f", '{"x": 1'),
        )  # fmt: skip

    def test_a_tool_call_without_arguments(self) -> None:
        block = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        silent = feed(start(), begin(block), delta({"type": "input_json_delta", "partial_json": ""}), stop(), *finish())
        at_once = feed(start(), begin({**block, "input": {"x": 1}}), stop(), *finish())
        assert silent.parts == (ToolCallPart("a", "f", "{}"),)
        assert at_once.parts == (ToolCallPart("a", "f", '{"x":1}'),)

    def test_opaque_blocks_are_put_together(self) -> None:
        reply = feed(
            start(),
            begin({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
            delta({"type": "input_json_delta", "partial_json": '{"query": '}),
            delta({"type": "input_json_delta", "partial_json": '"x"}'}),
            stop(),
            begin({"type": "compaction", "content": None}, 1),
            delta({"type": "compaction_delta", "content": "So "}, 1),
            delta({"type": "compaction_delta", "content": "far.", "encrypted_content": None}, 1),
            stop(1),
            *finish(),
        )
        assert [json.loads(part.json) for part in reply.parts if isinstance(part, OpaquePart)] == [
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
            {"type": "compaction", "content": "So far."},
        ]

    def test_blocks_left_open_are_closed_at_the_end(self) -> None:
        opaque = {"type": "something_new"}
        assert len(feed(start(), begin(opaque), begin(opaque, 1), *finish()).parts) == 2

    def test_an_index_used_twice_is_two_parts(self) -> None:
        call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        assert feed(start(), begin(text("x")), begin(call), *finish()).parts == (
            TextPart("x"), ToolCallPart("a", "f", "{}"),
        )  # fmt: skip

    def test_a_block_that_another_replaces_keeps_its_place(self) -> None:
        reply = feed(start(), begin({"type": "something_new"}), begin(text("x")), stop(), *finish())
        assert [type(part) for part in reply.parts] == [OpaquePart, TextPart]

    @pytest.mark.parametrize("index", [None, "0", 7])
    def test_a_piece_without_its_block_is_malformed(self, index: Any) -> None:
        piece = {**delta({"type": "text_delta", "text": "x"}), "index": index}
        assert fault_of(start(), begin(text("")), piece).kind is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize(
        "piece", [{"type": "text_delta", "text": "x"}, {"type": "signature_delta", "signature": "x"}, {}]
    )
    def test_pieces_of_another_kind_are_ignored(self, piece: Json) -> None:
        call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        assert feed(start(), begin(call), delta(piece), stop(), *finish()).parts == (ToolCallPart("a", "f", "{}"),)

    def test_nothing_counts_after_the_end(self) -> None:
        late = [begin(text("late")), {"type": "error", "error": {"type": "overloaded_error"}}]
        assert feed(start(), *finish(), *late).parts == ()

    @pytest.mark.parametrize("kept", range(6))
    def test_a_cut_stream_is_never_whole(self, kept: int) -> None:
        events = [start(), begin(text("")), delta({"type": "text_delta", "text": "Hi"}), stop(), *finish()]
        assert fault_of(*events[:kept]).kind is FaultKind.STREAM_CUT
        assert feed(*events).text == "Hi"

    @pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"<html>"])
    def test_unreadable_events_are_malformed(self, data: bytes) -> None:
        with pytest.raises(ProviderFault) as caught:
            MessageStreamReader().feed(SseEvent("content_block_delta", data))
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    def test_arguments_come_as_they_are_sent(self) -> None:
        reader = MessageStreamReader()
        opened = reader.feed(
            SseEvent("", json.dumps(begin({"type": "tool_use", "id": "a", "name": "f", "input": {}})).encode())
        )
        assert opened == [ToolCallDelta(0, "a", "f")]
        last = reader.feed(SseEvent("", b'{"type": "message_stop"}'))
        assert last == [ToolCallDelta(0, arguments_json="{}"), Finished(FinishReason.UNKNOWN, "")]


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "meant"),
        [
            ("overloaded_error", FaultKind.OVERLOADED),
            ("rate_limit_error", FaultKind.RATE_LIMITED),
            ("api_error", FaultKind.UNAVAILABLE),
            ("timeout_error", FaultKind.TIMEOUT),
            ("authentication_error", FaultKind.AUTH),
            ("permission_error", FaultKind.AUTH),
            ("billing_error", FaultKind.QUOTA),
            ("not_found_error", FaultKind.MODEL_MISSING),
            ("invalid_request_error", FaultKind.INVALID_REQUEST),
            ("something_new", FaultKind.UNAVAILABLE),
        ],
    )
    def test_inside_an_answer(self, kind: str, meant: FaultKind) -> None:
        error = {"type": "error", "error": {"type": kind, "message": "their words"}}
        fault = fault_of(start(), error)
        assert fault.kind is meant
        assert "their words" not in str(fault)
        with pytest.raises(ProviderFault) as caught:
            read_whole_answer(error)
        assert caught.value.kind is meant
