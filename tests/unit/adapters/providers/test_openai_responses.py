from __future__ import annotations

from typing import Any

import pytest

from kit.openai_calls import read_stream, sse, stream_events
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    Identified,
    Reply,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
    fold,
)

RESPONSES = OpenAiResponses()
USAGE = {
    "input_tokens": 70,
    "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 3},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 100,
}


def text_part(text: str, *annotations: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": list(annotations)}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": list(parts)}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "clock", "arguments": "{}"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
HELLO = message(text_part("Hello"))


def whole(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response = {"id": "r1", "object": "response", "model": "m1", "status": "completed", "error": None, "usage": USAGE}
    return {**response, "output": list(output), **fields}


def read(*output: dict[str, Any], **fields: Any) -> Reply:
    return fold(RESPONSES.read_whole(whole(*output, **fields)))


def kind_of_fault(body: Any) -> FaultKind:
    with pytest.raises(ProviderFault) as caught:
        RESPONSES.read_whole(body)
    return caught.value.kind


def kind_of_stream_fault(body: bytes) -> FaultKind:
    with pytest.raises(ProviderFault) as caught:
        read_stream(RESPONSES, body)
    return caught.value.kind


def event(kind: str, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": index, **fields}


def closing(*output: dict[str, Any], kind: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": whole(*output, status=kind, **fields)}


STREAM = (
    {"type": "response.created", "response": {"id": "r1", "model": "m1", "status": "in_progress", "output": []}},
    event("output_item.added", item_id="msg_1", item=message()),
    event("content_part.added", content_index=0, part=text_part("")),
    event("output_text.delta", content_index=0, delta="Hel"),
    event("output_text.delta", content_index=0, delta="lo"),
    event("output_text.done", content_index=0, text="Hello"),
    event("output_item.done", item=HELLO),
    closing(HELLO),
)


class TestWholeResponse:
    def test_text_usage_and_names(self) -> None:
        reply = read(HELLO)
        assert reply.parts == (TextPart("Hello"),)
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.STOP, "completed")
        assert reply.usage == Usage(
            input_tokens=70,
            cached_input_tokens=64,
            cache_write_input_tokens=3,
            output_tokens=30,
            reasoning_tokens=20,
        )
        assert (reply.response_id, reply.model) == ("r1", "m1")

    def test_items_keep_their_order(self) -> None:
        summary = [{"type": "summary_text", "text": "Hm."}, {"type": "summary_text", "text": "Well."}]
        reasoning = {"type": "reasoning", "summary": summary, "encrypted_content": "gAAA"}
        reply = read(reasoning, SEARCH, HELLO, CALL)
        assert reply.parts == (
            ReasoningPart("Hm.\n\nWell.", "gAAA"),
            OpaquePart(
                "openai_responses", "web_search_call", '{"type":"web_search_call","id":"ws_1","status":"completed"}'
            ),
            TextPart("Hello"),
            ToolCallPart("c1", "clock", "{}"),
        )
        assert reply.finish_reason is FinishReason.TOOL_CALLS

    @pytest.mark.parametrize(
        ("item", "parts"),
        [
            (
                {"summary": [], "encrypted_content": "gAAA"},
                (ReasoningPart("", "gAAA", redacted=True),),
            ),
            ({"summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}, (ReasoningPart("Hm."),)),
            ({"summary": [], "content": [], "encrypted_content": ""}, ()),
            ({"summary": None, "content": [7]}, ()),
        ],
    )
    def test_reasoning(self, item: dict[str, Any], parts: tuple[ReasoningPart, ...]) -> None:
        assert read({"type": "reasoning", "id": "rs_1", **item}).parts == parts

    def test_refusal(self) -> None:
        reply = read(message({"type": "refusal", "refusal": "I will not."}))
        assert (reply.text, reply.finish_reason) == ("I will not.", FinishReason.REFUSAL)

    @pytest.mark.parametrize("arguments", ['{"a": 1', "", '"x"'])
    def test_arguments_pass_on_as_received(self, arguments: str) -> None:
        assert read({**CALL, "arguments": arguments}).parts == (ToolCallPart("c1", "clock", arguments),)

    @pytest.mark.parametrize("output", [[], [{}], [None], [7], [{"type": "message", "content": None}], [message({})]])
    def test_response_without_content_has_no_parts(self, output: list[Any]) -> None:
        assert fold(RESPONSES.read_whole(whole(output=output))).parts == ()

    @pytest.mark.parametrize(
        ("fields", "reason", "raw"),
        [
            ({"status": "completed"}, FinishReason.STOP, "completed"),
            (
                {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
                FinishReason.LENGTH,
                "max_output_tokens",
            ),
            (
                {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
                FinishReason.CONTENT_FILTER,
                "content_filter",
            ),
            ({"status": "incomplete", "incomplete_details": {"reason": "bored"}}, FinishReason.UNKNOWN, "bored"),
            ({"status": "incomplete"}, FinishReason.UNKNOWN, "incomplete"),
            ({"status": "cancelled"}, FinishReason.ERROR, "cancelled"),
            ({"status": None}, FinishReason.UNKNOWN, ""),
        ],
    )
    def test_finish_reasons(self, fields: dict[str, Any], reason: FinishReason, raw: str) -> None:
        reply = read(HELLO, **fields)
        assert (reply.finish_reason, reply.raw_finish_reason) == (reason, raw)

    def test_limit_outdoes_tool_calls(self) -> None:
        details = {"reason": "max_output_tokens"}
        assert read(CALL, status="incomplete", incomplete_details=details).finish_reason is FinishReason.LENGTH

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({}, FaultKind.MALFORMED_REPLY),
            ({"status": "completed", "output": None}, FaultKind.MALFORMED_REPLY),
            (whole(status="queued"), FaultKind.MALFORMED_REPLY),
            (whole(HELLO, status="in_progress"), FaultKind.MALFORMED_REPLY),
            ({"error": {"code": 429, "message": "slow"}}, FaultKind.RATE_LIMITED),
            (whole(status="failed", error={"code": "server_error", "message": "x"}), FaultKind.UNAVAILABLE),
            (whole(status="failed", error={"code": "rate_limit_exceeded"}), FaultKind.RATE_LIMITED),
            (whole(status="failed", error={"code": "invalid_prompt"}), FaultKind.INVALID_REQUEST),
            (whole(status="failed"), FaultKind.UNAVAILABLE),
        ],
    )
    def test_what_is_no_answer(self, body: Any, kind: FaultKind) -> None:
        assert kind_of_fault(body) is kind

    @pytest.mark.parametrize("count", [-1, 10**12, float("nan"), "many", [1]])
    def test_impossible_counts(self, count: Any) -> None:
        usage = read(HELLO, usage={"input_tokens": count, "output_tokens": "2"}).usage
        assert usage == Usage(output_tokens=2, implausible=True)

    @pytest.mark.parametrize("usage", [None, [], 7])
    def test_missing_usage(self, usage: Any) -> None:
        assert read(HELLO, usage=usage).usage == Usage()

    def test_sources_count_from_the_beginning_of_the_whole_text(self) -> None:
        url = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 1, "end_index": 3}
        file = {"type": "file_citation", "file_id": "f1", "filename": "a.pdf", "index": 4}
        container = {
            "type": "container_file_citation",
            "file_id": "f2",
            "filename": "b",
            "start_index": 0,
            "end_index": 0,
        }
        first = message(text_part("世界!", url))
        reply = read(first, message(text_part("Hello", url, file, {"type": "other"}), text_part("?", container)))
        assert reply.citations == (
            Citation("https://a", "A", start_index=1, end_index=3),
            Citation("https://a", "A", start_index=4, end_index=6),
            Citation(document_id="f1", title="a.pdf"),
            Citation(document_id="f2", title="b"),
        )


class TestStream:
    def test_events(self) -> None:
        assert stream_events(RESPONSES, sse(*STREAM, done=False, named=True)) == [
            Identified("r1", "m1"),
            TextDelta("0.0", "Hel"),
            TextDelta("0.0", "lo"),
            UsageReport(read(HELLO).usage),
            Finished(FinishReason.STOP, "completed"),
        ]

    @pytest.mark.parametrize("at", range(len(STREAM)))
    @pytest.mark.parametrize("done", [True, False])
    def test_cut_at_every_event(self, at: int, done: bool) -> None:
        assert kind_of_stream_fault(sse(*STREAM[:at], done=done)) is FaultKind.STREAM_CUT

    def test_nothing_counts_after_the_end(self) -> None:
        late = event("output_text.delta", content_index=0, delta=" again")
        body = sse(*STREAM, late, {"type": "error", "code": "server_error"}) + b"data: {broken\n\n"
        assert read_stream(RESPONSES, body).text == "Hello"

    def test_calls(self) -> None:
        added = event("output_item.added", item={**CALL, "arguments": ""})
        deltas = [event("function_call_arguments.delta", delta=piece) for piece in ('{"a"', "", ": 1}")]
        done = {**CALL, "arguments": '{"a": 1}'}
        body = sse(added, *deltas, event("output_item.done", item=done), closing(done))
        assert stream_events(RESPONSES, body)[:3] == [
            ToolCallDelta("0", "c1", "clock"),
            ToolCallDelta("0", arguments_json='{"a"'),
            ToolCallDelta("0", arguments_json=": 1}"),
        ]
        reply = read_stream(RESPONSES, body)
        assert reply.parts == (ToolCallPart("c1", "clock", '{"a": 1}'),)
        assert reply.finish_reason is FinishReason.TOOL_CALLS

    @pytest.mark.parametrize("told", [(), ("added",), ("done",), ("added", "done")])
    def test_what_was_not_told_in_deltas_is_read_at_the_end(self, told: tuple[str, ...]) -> None:
        said = (CALL, SEARCH, HELLO)
        begun = ({**CALL, "arguments": ""}, {**SEARCH, "status": "in_progress"}, message())
        items = {"added": begun, "done": said}
        events = [
            event(f"output_item.{kind}", index, item=items[kind][index]) for index in range(len(said)) for kind in told
        ]
        assert read_stream(RESPONSES, sse(*events, closing(*said))).parts == read(*said).parts

    def test_sections_of_reasoning_and_the_signature_behind_them(self) -> None:
        sections = [{"type": "summary_text", "text": text} for text in ("Hm.", "", "Well.")]
        item = {"type": "reasoning", "id": "rs_1", "summary": sections, "encrypted_content": "gAAB"}
        body = sse(
            event("output_item.added", item={**item, "summary": [], "encrypted_content": "gAAA"}),
            event("reasoning_summary_text.delta", summary_index=0, delta="H"),
            event("reasoning_summary_text.delta", summary_index=0, delta="m."),
            event("reasoning_summary_text.delta", summary_index=1, delta=""),
            event("reasoning_summary_text.delta", summary_index=2, delta="Well."),
            event("output_item.done", item=item),
            event("output_text.delta", 1, content_index=0, delta="Hello"),
            event("output_item.done", 1, item=HELLO),
            closing(item, HELLO),
        )
        assert read_stream(RESPONSES, body) == read(item, HELLO)

    def test_reasoning_that_is_only_encrypted(self) -> None:
        item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAB"}
        events = [event("output_item.added", item=item), event("output_item.done", item=item)]
        assert read_stream(RESPONSES, sse(*events, closing(item))).parts == read(item).parts

    def test_refusal(self) -> None:
        said = message({"type": "refusal", "refusal": "I will not."})
        deltas = [event("refusal.delta", content_index=0, delta=piece) for piece in ("I will", " not.")]
        assert read_stream(RESPONSES, sse(*deltas, closing(said))) == read(said, status="completed")

    def test_sources_are_told_once(self) -> None:
        note = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 1, "end_index": 3}
        said = message(text_part("Hello", note))
        body = sse(
            *STREAM[:5],
            event("output_text.annotation.added", content_index=0, annotation=note),
            event("output_item.done", item=said),
            closing(said),
        )
        found = [one for one in stream_events(RESPONSES, body) if isinstance(one, CitationFound)]
        assert found == [CitationFound(Citation("https://a", "A", start_index=1, end_index=3))]

    def test_incomplete(self) -> None:
        end = closing(HELLO, kind="incomplete", incomplete_details={"reason": "max_output_tokens"})
        reply = read_stream(RESPONSES, sse(*STREAM[:-1], end))
        assert (reply.text, reply.finish_reason) == ("Hello", FinishReason.LENGTH)

    def test_end_without_a_response_in_it(self) -> None:
        reply = read_stream(RESPONSES, sse(*STREAM[:-1], {"type": "response.completed"}))
        assert (reply.text, reply.finish_reason, reply.usage) == ("Hello", FinishReason.STOP, Usage())

    @pytest.mark.parametrize(
        ("said", "kind"),
        [
            (closing(kind="failed", error={"code": "server_error"}), FaultKind.UNAVAILABLE),
            (closing(kind="failed"), FaultKind.UNAVAILABLE),
            ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, FaultKind.RATE_LIMITED),
            ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, FaultKind.INVALID_REQUEST),
            ({"error": {"message": "overloaded", "type": "overloaded_error"}}, FaultKind.OVERLOADED),
            ({"type": "response.completed"}, FaultKind.MALFORMED_REPLY),
        ],
    )
    def test_failure_in_the_stream(self, said: dict[str, Any], kind: FaultKind) -> None:
        assert kind_of_stream_fault(sse(STREAM[0], said)) is kind

    def test_error_by_the_events_name(self) -> None:
        with pytest.raises(ProviderFault) as caught:
            RESPONSES.open_stream().feed(SseEvent("error", b'{"message": "prompt is too long"}'))
        assert caught.value.kind is FaultKind.CONTEXT_WINDOW

    def test_unknown_events_and_blank_data_are_ignored(self) -> None:
        unknown = [event("web_search_call.searching"), {"type": "keepalive"}, {"type": 7}, {}]
        body = b"data:\n\n: ping\n\n" + sse(*unknown, *STREAM)
        assert read_stream(RESPONSES, body).text == "Hello"

    @pytest.mark.parametrize("data", ["{broken", "[]", "7", "null", "<html>"])
    def test_data_that_is_no_object(self, data: str) -> None:
        body = sse(*STREAM[:4], done=False) + f"data: {data}\n\n".encode() + sse(*STREAM[4:])
        assert kind_of_stream_fault(body) is FaultKind.MALFORMED_REPLY

    def test_odd_indices_and_deltas(self) -> None:
        odd = [event("output_text.delta", delta=None), {"type": "response.output_text.delta", "delta": "Hello"}]
        assert read_stream(RESPONSES, sse(*odd, closing(HELLO))).text == "Hello"
