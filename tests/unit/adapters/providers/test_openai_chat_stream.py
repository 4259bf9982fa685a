from __future__ import annotations

from typing import Any

import pytest

from kit.openai_calls import CHAT_USAGE, chunk, pieces, read_stream, sse, stream_events, usage_chunk
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import ToolCallPart
from pointsman_server.domain.reply import Finished, FinishReason, Identified, TextDelta, Usage, UsageReport, fold

CHAT = OpenAiChat()
HELLO = (chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo"), chunk("stop"))


def kind_of_stream_fault(body: bytes) -> FaultKind:
    with pytest.raises(ProviderFault) as caught:
        read_stream(CHAT, body)
    return caught.value.kind


class TestStream:
    def test_events(self) -> None:
        assert stream_events(CHAT, sse(*HELLO, usage_chunk())) == [
            Identified("a1", "m1"),
            TextDelta("text", "Hel"),
            TextDelta("text", "lo"),
            UsageReport(Usage(input_tokens=7, output_tokens=2)),
            Finished(FinishReason.STOP, "stop"),
        ]

    @pytest.mark.parametrize("at", range(len(HELLO)))
    def test_cut_before_the_finish_reason(self, at: int) -> None:
        assert kind_of_stream_fault(sse(*HELLO[:at], done=False)) is FaultKind.STREAM_CUT

    def test_finish_reason_and_the_end_of_the_body_make_a_whole_answer(self) -> None:
        reply = read_stream(CHAT, sse(*HELLO, done=False))
        assert (reply.text, reply.finish_reason) == ("Hello", FinishReason.STOP)

    def test_cut_inside_an_event(self) -> None:
        body = sse(*HELLO[:3], done=False)
        assert kind_of_stream_fault(body[:-20]) is FaultKind.MALFORMED_REPLY

    def test_end_marker_without_a_finish_reason(self) -> None:
        reply = read_stream(CHAT, sse(*HELLO[:3]))
        assert (reply.text, reply.finish_reason, reply.raw_finish_reason) == ("Hello", FinishReason.UNKNOWN, "")

    def test_nothing_counts_after_the_end_marker(self) -> None:
        late = sse(chunk(content=" again"), {"error": {"message": "late"}}, chunk("length"))
        events = stream_events(CHAT, sse(*HELLO) + late + b"data: {broken\n\n")
        assert fold(events).text == "Hello"
        assert sum(isinstance(event, Finished) for event in events) == 1

    def test_blank_data_and_spaces_are_skipped(self) -> None:
        body = b"data:\n\ndata:  \n\n" + sse(*HELLO).replace(b"[DONE]", b" [DONE] ")
        assert read_stream(CHAT, body).text == "Hello"

    def test_comments_and_pings(self) -> None:
        body = b": OPENROUTER PROCESSING\n\n" * 500 + sse(*HELLO) + b": ping\n\n"
        assert read_stream(CHAT, body).text == "Hello"

    def test_azures_first_chunk_has_no_names_and_later_ones_no_delta(self) -> None:
        first = {"id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
        filters = {"id": "a1", "model": "m1", "choices": [{"index": 0, "content_filter_offsets": {}}]}
        reply = read_stream(CHAT, sse(first, *HELLO, filters))
        assert (reply.response_id, reply.model, reply.text) == ("a1", "m1", "Hello")

    def test_names_are_told_once(self) -> None:
        other = {**chunk("stop"), "id": "a2"}
        events = stream_events(CHAT, sse({**chunk(content="Hi"), "model": ""}, chunk(content="!"), other))
        assert [event for event in events if isinstance(event, Identified)] == [Identified("a1"), Identified("", "m1")]

    def test_perplexitys_last_chunk_ends_the_stream(self) -> None:
        message = {"role": "assistant", "content": "Hello"}
        body = [
            chunk(content="Hel"),
            chunk(content="lo"),
            {**chunk("stop", content=""), "object": "chat.completion.done"},
        ]
        for one in body:
            one["choices"][0]["message"] = message
        events = stream_events(CHAT, sse(*body, chunk(content="late"), done=False))
        assert fold(events).text == "Hello"
        assert isinstance(events[-1], Finished)

    def test_repeated_finish_reason(self) -> None:
        again = {**chunk("stop", content=""), "usage": CHAT_USAGE}
        events = stream_events(CHAT, sse(*HELLO, again))
        assert sum(isinstance(event, Finished) for event in events) == 1
        assert fold(events).usage.output_tokens == 2

    def test_other_choices_are_not_ours(self) -> None:
        body = sse(chunk(content="Hel"), chunk(index=1, content="Other"), chunk("length", index=1), *HELLO[2:])
        reply = read_stream(CHAT, body)
        assert (reply.text, reply.finish_reason) == ("Hello", FinishReason.STOP)

    def test_legacy_function_call(self) -> None:
        said = [{"name": "clock", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"}]
        reply = read_stream(CHAT, sse(*(chunk(function_call=one) for one in said), chunk("function_call")))
        assert reply.parts == (ToolCallPart("", "clock", '{"a": 1}'),)
        assert reply.finish_reason is FinishReason.TOOL_CALLS

    def test_refusal(self) -> None:
        reply = read_stream(CHAT, sse(chunk(refusal="I will"), chunk(refusal=" not."), chunk("stop")))
        assert (reply.text, reply.finish_reason) == ("I will not.", FinishReason.REFUSAL)

    @pytest.mark.parametrize("at", range(len(HELLO) + 1))
    def test_error_in_the_stream(self, at: int) -> None:
        error = {"error": {"message": "tool_use_failed", "type": "invalid_request_error", "status_code": 400}}
        assert kind_of_stream_fault(sse(*HELLO[:at], error)) is FaultKind.INVALID_REQUEST

    def test_error_beside_a_finish_reason(self) -> None:
        failed = {**chunk("error", content=""), "error": {"code": 502, "message": "Provider disconnected"}}
        assert kind_of_stream_fault(sse(*HELLO[:3], failed)) is FaultKind.UNAVAILABLE

    def test_error_by_the_events_name(self) -> None:
        with pytest.raises(ProviderFault) as caught:
            CHAT.open_stream().feed(SseEvent("error", b'{"code": 429, "message": "slow"}'))
        assert caught.value.kind is FaultKind.RATE_LIMITED

    @pytest.mark.parametrize("data", ["{broken", "[]", "7", "null", '"x"', "<html>"])
    def test_data_that_is_no_object(self, data: str) -> None:
        body = sse(*HELLO[:2], done=False) + f"data: {data}\n\n".encode() + sse(*HELLO[2:])
        assert kind_of_stream_fault(body) is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize("choices", [[], None, [None], "x", [{"index": 0, "delta": None}], {"a": 1}])
    def test_odd_choices_are_skipped(self, choices: Any) -> None:
        odd = {"id": "a1", "choices": choices}
        assert read_stream(CHAT, sse(odd, *HELLO)).text == "Hello"

    @pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
    def test_line_ends(self, line_end: bytes) -> None:
        assert read_stream(CHAT, sse(*HELLO).replace(b"\n", line_end)).text == "Hello"

    def test_text_is_the_same_however_it_is_cut(self) -> None:
        text = "Grüße, 世界 👩‍👩‍👧!"
        for size in (1, 2, 5):
            body = sse(*(chunk(content=piece) for piece in pieces(text, size)), chunk("stop"))
            assert read_stream(CHAT, body).text == text
