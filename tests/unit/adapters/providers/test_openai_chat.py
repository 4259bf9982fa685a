from __future__ import annotations

from typing import Any

import pytest

from kit.openai_calls import CHAT_USAGE, chunk, read_stream, sse, stream_events, usage_chunk
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import (
    Citation,
    FinishReason,
    Reply,
    Usage,
    fold,
)

CHAT = OpenAiChat()
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}


def whole(message: Any = None, finish_reason: Any = "stop", **fields: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "Hello"} if message is None else message
    choice = {"index": 0, "message": said, "finish_reason": finish_reason}
    return {"id": "a1", "object": "chat.completion", "model": "m1", "choices": [choice], "usage": CHAT_USAGE, **fields}


def read(message: Any = None, finish_reason: Any = "stop", **fields: Any) -> Reply:
    return fold(CHAT.read_whole(whole(message, finish_reason, **fields)))


def kind_of_fault(body: Any) -> FaultKind:
    with pytest.raises(ProviderFault) as caught:
        CHAT.read_whole(body)
    return caught.value.kind


class TestWholeAnswer:
    def test_text_usage_and_names(self) -> None:
        reply = read()
        assert reply.parts == (TextPart("Hello"),)
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.STOP, "stop")
        assert reply.usage == Usage(input_tokens=7, output_tokens=2)
        assert (reply.response_id, reply.model) == ("a1", "m1")

    def test_reasoning_text_and_calls_in_this_order(self) -> None:
        message = {"tool_calls": [CALL], "content": "Wait.", "reasoning_content": "Hm."}
        reply = read(message, "tool_calls")
        assert reply.parts == (ReasoningPart("Hm."), TextPart("Wait."), ToolCallPart("c1", "clock", "{}"))

    @pytest.mark.parametrize(
        "said",
        [
            {"reasoning_content": "Hm."},
            {"reasoning": "Hm.", "reasoning_content": None},
            {"reasoning_content": "Hm.", "reasoning": "Hm."},
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "closed": True}]},
            {"content": [{"type": "thinking", "thinking": "Hm."}]},
        ],
    )
    def test_places_of_reasoning(self, said: dict[str, Any]) -> None:
        assert read(said).parts == (ReasoningPart("Hm."),)

    def test_reasoning_details_are_read_once_and_kept_for_the_way_back(self) -> None:
        details = [{"type": "reasoning.text", "text": "Hm.", "signature": "s", "index": 0}]
        kept = OpaquePart(
            "openai_chat",
            "reasoning_details",
            '[{"index":0,"signature":"s","text":"Hm.","type":"reasoning.text"}]',
        )
        both = (ReasoningPart("Hm."), TextPart("Yes."), kept)
        assert read({"content": "Yes.", "reasoning": "Hm.", "reasoning_details": details}).parts == both
        assert read({"content": "Yes.", "reasoning": None, "reasoning_details": details}).parts == both

    def test_encrypted_reasoning_has_no_text(self) -> None:
        details = [{"type": "reasoning.encrypted", "data": "gAAA", "index": 0}]
        reply = read({"content": "Yes.", "reasoning_details": details})
        assert [type(part) for part in reply.parts] == [TextPart, OpaquePart]

    def test_content_in_blocks(self) -> None:
        blocks = [{"type": "text", "text": "Hel"}, {"type": "reference", "ids": [1]}, {"type": "text", "text": "lo"}]
        assert read({"content": [*blocks, {"type": "text", "text": ""}, 7, {}]}).parts == (
            TextPart("Hello"),
            OpaquePart("openai_chat", "reference", '{"ids":[1],"type":"reference"}'),
        )

    def test_refusal(self) -> None:
        reply = read({"content": None, "refusal": "I will not."})
        assert reply.text == "I will not."
        assert reply.finish_reason is FinishReason.REFUSAL

    def test_legacy_function_call(self) -> None:
        reply = read({"content": None, "function_call": {"name": "clock", "arguments": "{}"}}, "function_call")
        assert reply.parts == (ToolCallPart("", "clock", "{}"),)
        assert reply.finish_reason is FinishReason.TOOL_CALLS

    @pytest.mark.parametrize(
        "message",
        [
            {},
            {"content": None},
            {"content": ""},
            {"content": []},
            {"content": 7, "tool_calls": {"a": 1}, "annotations": 3, "reasoning_details": "x", "reasoning": {"a": 1}},
            {"content": [7], "tool_calls": [7, None, {}], "function_call": 3, "refusal": 4},
        ],
    )
    def test_answer_without_content_has_no_parts(self, message: dict[str, Any]) -> None:
        assert read(message).parts == ()

    def test_only_the_first_choice_is_read(self) -> None:
        other = {"index": 1, "message": {"content": "Other"}, "finish_reason": "length"}
        body = whole()
        body["choices"] = [other, *body["choices"]]
        assert fold(CHAT.read_whole(body)).text == "Hello"

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"choices": None}, {"choices": []}, {"choices": [{}]}, {"choices": [None]}, {"choices": "x"},
            {"choices": [{"index": 0, "message": None}]}, {"choices": [{"index": 0, "message": "Hello"}]},
        ],
    )  # fmt: skip
    def test_body_without_an_answer(self, body: Any) -> None:
        assert kind_of_fault(body) is FaultKind.MALFORMED_REPLY

    def test_errors_that_come_as_an_answer(self) -> None:
        assert kind_of_fault({"error": {"code": 429, "message": "slow"}}) is FaultKind.RATE_LIMITED
        assert kind_of_fault(whole(error={"code": 502})) is FaultKind.UNAVAILABLE
        assert kind_of_fault({"object": "error", "code": 400, "message": "no"}) is FaultKind.INVALID_REQUEST
        assert kind_of_fault({"detail": "no"}) is FaultKind.UNAVAILABLE
        choice = {"index": 0, "message": {"content": ""}, "finish_reason": "error", "error": {"code": 429}}
        assert kind_of_fault({"choices": [choice]}) is FaultKind.RATE_LIMITED

    def test_absent_error_is_none(self) -> None:
        assert read(error=None, detail="x").text == "Hello"


class TestFinishReasons:
    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("stop", FinishReason.STOP),
            ("eos", FinishReason.STOP),
            ("end_turn", FinishReason.STOP),
            ("stop_sequence", FinishReason.STOP),
            ("STOP", FinishReason.STOP),
            ("length", FinishReason.LENGTH),
            ("max_tokens", FinishReason.LENGTH),
            ("model_length", FinishReason.LENGTH),
            ("MAX_TOKENS", FinishReason.LENGTH),
            ("tool_calls", FinishReason.TOOL_CALLS),
            ("tool_use", FinishReason.TOOL_CALLS),
            ("function_call", FinishReason.TOOL_CALLS),
            ("content_filter", FinishReason.CONTENT_FILTER),
            ("sensitive", FinishReason.CONTENT_FILTER),
            ("refusal", FinishReason.REFUSAL),
            ("pause_turn", FinishReason.PAUSE),
            ("error", FinishReason.ERROR),
            ("insufficient_system_resource", FinishReason.ERROR),
            ("bored", FinishReason.UNKNOWN),
        ],
    )
    def test_table(self, raw: str, reason: FinishReason) -> None:
        for reply in (read(None, raw), read_stream(CHAT, sse(chunk(content="Hello"), chunk(raw)))):
            assert (reply.finish_reason, reply.raw_finish_reason) == (reason, raw)

    def test_none_given(self) -> None:
        reply = read(None, None)
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.UNKNOWN, "")

    def test_finish_details_of_old_answers(self) -> None:
        body = whole()
        del body["choices"][0]["finish_reason"]
        body["choices"][0]["finish_details"] = {"type": "max_tokens"}
        reply = fold(CHAT.read_whole(body))
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.LENGTH, "max_tokens")

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [("stop", FinishReason.TOOL_CALLS), ("length", FinishReason.LENGTH), (7, FinishReason.UNKNOWN)],
    )
    def test_with_tool_calls(self, raw: Any, reason: FinishReason) -> None:
        assert read({"tool_calls": [CALL]}, raw).finish_reason is reason

    def test_filter_outdoes_refusal(self) -> None:
        assert read({"refusal": "No."}, "content_filter").finish_reason is FinishReason.CONTENT_FILTER


def usage_of(**usage: Any) -> Usage:
    reply = read(usage=usage)
    assert read_stream(CHAT, sse(chunk(content="Hello"), chunk("stop"), usage_chunk(**usage))).usage == reply.usage
    return reply.usage


class TestUsage:
    def test_details(self) -> None:
        inputs = {"cached_tokens": 60, "cache_write_tokens": 5, "audio_tokens": 0}
        usage = usage_of(
            prompt_tokens=100,
            completion_tokens=40,
            total_tokens=140,
            prompt_tokens_details=inputs,
            completion_tokens_details={"reasoning_tokens": 30},
        )
        assert usage == Usage(
            input_tokens=100,
            cached_input_tokens=60,
            cache_write_input_tokens=5,
            output_tokens=40,
            reasoning_tokens=30,
        )

    @pytest.mark.parametrize(
        "cached",
        [
            {"prompt_cache_hit_tokens": 6},
            {"num_cached_tokens": 6},
            {"cached_tokens": 6, "prompt_tokens_details": None},
            {"prompt_tokens_details": {"cached_tokens": 6}, "cached_tokens": 0},
        ],
    )
    def test_places_of_the_cached_count(self, cached: dict[str, Any]) -> None:
        assert usage_of(prompt_tokens=7, completion_tokens=2, **cached).cached_input_tokens == 6

    def test_reasoning_that_is_counted_beside_the_completion(self) -> None:
        details = {"reasoning_tokens": 30}
        usage = usage_of(prompt_tokens=7, completion_tokens=2, total_tokens=39, completion_tokens_details=details)
        assert (usage.output_tokens, usage.reasoning_tokens) == (32, 30)

    def test_groqs_own_place(self) -> None:
        last = {**chunk("stop"), "x_groq": {"usage": CHAT_USAGE}}
        assert read_stream(CHAT, sse(chunk(content="Hello"), last)).usage == Usage(input_tokens=7, output_tokens=2)

    def test_last_one_counts(self) -> None:
        early = {**chunk(content="Hello"), "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
        assert read_stream(CHAT, sse(early, chunk("stop"), usage_chunk())).usage.output_tokens == 2

    @pytest.mark.parametrize("usage", [None, {}, [], 7, "x"])
    def test_missing(self, usage: Any) -> None:
        assert read(usage=usage).usage == Usage()

    @pytest.mark.parametrize("count", [-1, 10**12, float("nan"), float("inf"), "many", [1], {}])
    def test_impossible_counts(self, count: Any) -> None:
        usage = read(usage={"prompt_tokens": count, "completion_tokens": 2}).usage
        assert usage == Usage(output_tokens=2, implausible=True)

    def test_numbers_in_strings_and_bare_nan_on_the_wire(self) -> None:
        assert read(usage={"prompt_tokens": "7", "completion_tokens": 2.0}).usage == Usage(
            input_tokens=7, output_tokens=2
        )
        body = sse(chunk(content="Hello"), chunk("stop"), usage_chunk(prompt_tokens=float("nan"), completion_tokens=2))
        assert read_stream(CHAT, body).usage == Usage(output_tokens=2, implausible=True)


class TestCitations:
    def test_perplexitys_urls_with_the_titles_of_the_results(self) -> None:
        results = [{"url": "https://b", "title": "B"}, {"url": "https://c", "title": "C", "date": None}]
        expected = (
            Citation(url="https://a"),
            Citation(url="https://b", title="B"),
            Citation(url="https://c", title="C"),
        )
        sources = {"citations": ["https://a", "https://b", "https://a", 7], "search_results": results}
        assert read(**sources).citations == expected
        stream = sse({**chunk(content="Hi"), "citations": ["https://old"]}, {**chunk("stop"), **sources})
        assert read_stream(CHAT, stream).citations == expected

    def test_url_annotations(self) -> None:
        place = {"url": "https://a", "title": "A", "start_index": 1, "end_index": 4, "content": "long"}
        nowhere = {"url": "https://b", "start_index": 0, "end_index": 0}
        notes = [
            {"type": "url_citation", "url_citation": place},
            {"type": "url_citation", "url_citation": place},
            {"type": "url_citation", **nowhere},
            {"type": "other"},
            7,
        ]
        expected = (Citation("https://a", "A", start_index=1, end_index=4), Citation("https://b"))
        assert read({"content": "Hello", "annotations": notes}).citations == expected
        body = sse(chunk(content="Hello"), chunk(annotations=notes[:1]), chunk(annotations=notes[1:]), chunk("stop"))
        assert read_stream(CHAT, body).citations == expected
        assert len([one for one in stream_events(CHAT, body) if type(one).__name__ == "CitationFound"]) == 2
