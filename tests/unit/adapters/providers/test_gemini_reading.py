from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.adapters.providers.gemini_reading import read_usage
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import (
    Citation,
    Finished,
    FinishReason,
    Reply,
    ReplyBuilder,
    ReplyEvent,
    TextDelta,
    Usage,
    fold,
)

Json = dict[str, Any]
USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 22}
SPOKEN = Usage(input_tokens=10, output_tokens=12, reasoning_tokens=7)


def chunk(*parts: Any, reason: Any = None, usage: Any = None, **candidate: Any) -> Json:
    said: Json = {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **candidate}]}
    if reason is not None:
        said["candidates"][0]["finishReason"] = reason
    if usage is not None:
        said["usageMetadata"] = usage
    return {**said, "responseId": "r-1", "modelVersion": "gemini-3.8-flash"}


def read_all(*parts: Any, reason: Any = "STOP", usage: Any = USAGE, **candidate: Any) -> Reply:
    return fold(GeminiGenerate().read_whole(chunk(*parts, reason=reason, usage=usage, **candidate)))


def stream_events(*chunks: Any) -> list[ReplyEvent]:
    reader = GeminiGenerate().open_stream()
    events: list[ReplyEvent] = []
    for one in chunks:
        data = one if isinstance(one, bytes) else json.dumps(one).encode()
        events.extend(reader.feed(SseEvent("", data)))
    return [*events, *reader.end()]


def stream(*chunks: Any) -> Reply:
    return fold(stream_events(*chunks))


def fault_of(*chunks: Any) -> ProviderFault:
    with pytest.raises(ProviderFault) as caught:
        stream(*chunks)
    return caught.value


def text(words: str, **extra: Any) -> Json:
    return {"text": words, **extra}


def thought(words: str, **extra: Any) -> Json:
    return {"text": words, "thought": True, **extra}


def call(name: str, args: Any = None, **extra: Any) -> Json:
    said = {"name": name} if args is None else {"name": name, "args": args}
    return {"functionCall": {**said, **extra.pop("call", {})}, **extra}


class TestParts:
    def test_a_plain_answer(self) -> None:
        assert read_all(text("Hello")) == Reply(
            (TextPart("Hello"),), FinishReason.STOP, "STOP", SPOKEN, (), "r-1", "gemini-3.8-flash"
        )

    def test_neighbours_of_one_kind_are_one_part(self) -> None:
        reply = read_all(thought("a"), thought("b"), text("c"), text(""), text("d"), thought("e"), text("f"))
        assert reply.parts == (ReasoningPart("ab"), TextPart("cd"), ReasoningPart("e"), TextPart("f"))

    def test_a_signature_ends_its_part(self) -> None:
        reply = read_all(text("a"), text("b", thoughtSignature="s1"), text("", thoughtSignature="s2"), text("c"))
        assert reply.parts == (TextPart("ab", "s1"), TextPart("", "s2"), TextPart("c"))

    def test_signed_thoughts(self) -> None:
        assert read_all(thought("a"), thought("b", thoughtSignature="s"), thought("c")).parts == (
            ReasoningPart("ab", "s"),
            ReasoningPart("c"),
        )

    def test_a_signature_alone_is_an_empty_text(self) -> None:
        assert read_all({"thoughtSignature": "s"}).parts == (TextPart("", "s"),)

    @pytest.mark.parametrize("odd", [{}, {"thought": True}, {"text": ""}, None, "text", 7])
    def test_parts_that_say_nothing(self, odd: Any) -> None:
        assert read_all(odd).parts == ()
        assert read_all(text("a"), odd, text("b")).parts == (TextPart("ab"),)

    @pytest.mark.parametrize(
        "part",
        [
            {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
            {"thought": True, "inlineData": {"mimeType": "image/png", "data": "AA=="}},
            {"toolCall": {"id": "x"}, "thoughtSignature": "s"},
            {"soonToCome": [1]},
        ],
    )
    def test_other_parts_are_kept_whole(self, part: Json) -> None:
        kind = next(name for name in part if name not in ("thought", "thoughtSignature"))
        before, opaque, after = read_all(text("a"), part, text("b")).parts
        assert (before, after) == (TextPart("a"), TextPart("b"))
        assert isinstance(opaque, OpaquePart)
        assert (opaque.dialect, opaque.kind) == ("gemini_generate", kind)
        assert json.loads(opaque.json) == part

    def test_only_the_first_of_several_candidates(self) -> None:
        both = {
            "candidates": [
                {"index": 1, "content": {"parts": [text("no")]}},
                {"index": 0, "content": {"parts": [text("yes")]}, "finishReason": "STOP"},
            ]
        }
        assert fold(GeminiGenerate().read_whole(both)).text == "yes"
        other = {"candidates": [{"index": 1, "content": {"parts": [text("no")]}, "finishReason": "STOP"}]}
        assert stream(other, chunk(text("yes"), reason="STOP")).text == "yes"

    @pytest.mark.parametrize("content", [None, {}, {"parts": None}, {"role": "model"}, [], "x"])
    def test_content_may_be_missing(self, content: Any) -> None:
        reply = fold(GeminiGenerate().read_whole({"candidates": [{"content": content, "finishReason": "SAFETY"}]}))
        assert (reply.parts, reply.finish_reason) == ((), FinishReason.CONTENT_FILTER)


class TestToolCalls:
    def test_the_providers_id(self) -> None:
        reply = read_all(call("f", {"a": 1}, call={"id": "abc"}, thoughtSignature="s"))
        assert reply.parts == (ToolCallPart("abc", "f", '{"a":1}', "s"),)
        assert reply.finish_reason is FinishReason.TOOL_CALLS

    def test_ids_of_ours_are_the_same_streamed_and_unlike_in_other_answers(self) -> None:
        parts = [text("I look."), call("f", {}), call("f", {})]
        whole = read_all(*parts)
        ids = [part.id for part in whole.parts if isinstance(part, ToolCallPart)]
        assert ids == ["call_1_r-1", "call_2_r-1"]
        assert stream(*(chunk(part) for part in parts), chunk(reason="STOP", usage=USAGE)) == whole
        other = {**chunk(*parts, reason="STOP"), "responseId": "r-2"}
        assert not {part.id for part in fold(GeminiGenerate().read_whole(other)).parts[1:]} & set(ids)  # type: ignore[union-attr]

    @pytest.mark.parametrize("response_id", ["x" * 200, "ä/ö:ü", "", None])
    def test_ids_of_ours_suit_every_vendor(self, response_id: Any) -> None:
        said = {**chunk(call("my.tool:one", {}), reason="STOP"), "responseId": response_id}
        (made,) = fold(GeminiGenerate().read_whole(said)).parts
        assert isinstance(made, ToolCallPart)
        assert made.id.startswith("call_0_")
        assert len(made.id) <= 40
        assert made.id.isascii()
        assert made.id.replace("_", "").replace("-", "").isalnum()

    def test_no_arguments(self) -> None:
        assert [part.arguments_json for part in read_all(call("f")).parts] == ["{}"]  # type: ignore[union-attr]

    def test_arguments_are_unicode_json(self) -> None:
        (made,) = read_all(call("f", {"city": "Zürich", "x": [1.5, None, True]})).parts
        assert isinstance(made, ToolCallPart)
        assert json.loads(made.arguments_json) == {"city": "Zürich", "x": [1.5, None, True]}

    @pytest.mark.parametrize("piece", [{"partialArgs": [{"jsonPath": "$.a"}]}, {"willContinue": True}])
    def test_arguments_in_pieces_are_not_taken_for_whole_ones(self, piece: Json) -> None:
        fault = fault_of(chunk(call("f", call=piece), reason="STOP"))
        assert fault.kind is FaultKind.MALFORMED_REPLY
        assert "streamFunctionCallArguments" in fault.detail

    def test_arguments_nested_beyond_reason(self) -> None:
        deep: Any = 1
        for _ in range(500):
            deep = [deep]
        assert fault_of(chunk(call("f", {"a": deep}), reason="STOP")).kind is FaultKind.MALFORMED_REPLY


REASONS: dict[FinishReason, tuple[str | int, ...]] = {
    FinishReason.STOP: ("STOP", 1),
    FinishReason.LENGTH: ("MAX_TOKENS", "CONTINUATION", 2),
    FinishReason.CONTENT_FILTER: (
        "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION",
        "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", 3, 4, 6, 7, 8,
    ),
    FinishReason.ERROR: (
        "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE", "PUP_LIMITED_DISABLED", "NO_IMAGE",
    ),
    FinishReason.UNKNOWN: ("OTHER", "IMAGE_OTHER", "SOON_TO_COME", 5, 9, 99),
}  # fmt: skip


class TestFinishReasons:
    @pytest.mark.parametrize(("raw", "reason"), [(raw, reason) for reason, raws in REASONS.items() for raw in raws])
    def test_each(self, raw: Any, reason: FinishReason) -> None:
        for reply in (read_all(text("a"), reason=raw), stream(chunk(text("a")), chunk(reason=raw))):
            assert (reply.finish_reason, reply.raw_finish_reason) == (reason, str(raw))

    def test_the_table_covers_all_reasons_of_the_sdk(self) -> None:
        from google.genai.types import FinishReason as SdkReason

        vague = {"FINISH_REASON_UNSPECIFIED", "OTHER", "IMAGE_OTHER"}
        unknown = {
            one.value for one in SdkReason if read_all(reason=one.value).finish_reason is FinishReason.UNKNOWN
        }  # fmt: skip
        assert unknown == vague

    @pytest.mark.parametrize("raw", ["STOP", 1])
    def test_tool_calls_stop_for_their_results(self, raw: Any) -> None:
        assert read_all(call("f", {}), reason=raw).finish_reason is FinishReason.TOOL_CALLS
        assert stream(chunk(call("f", {})), chunk(reason=raw)).finish_reason is FinishReason.TOOL_CALLS

    def test_a_failed_call_is_no_call(self) -> None:
        assert read_all(call("f", {}), reason="UNEXPECTED_TOOL_CALL").finish_reason is FinishReason.ERROR

    @pytest.mark.parametrize("raw", [None, "", 0, "FINISH_REASON_UNSPECIFIED"])
    def test_none_given(self, raw: Any) -> None:
        assert read_all(text("a"), reason=raw).finish_reason is FinishReason.UNKNOWN
        assert fault_of(chunk(text("a")), chunk(reason=raw)).kind is FaultKind.STREAM_CUT

    def test_blocked_prompt(self) -> None:
        said = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "no"}, "responseId": "r"}
        for reply in (fold(GeminiGenerate().read_whole(said)), stream(said)):
            assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.CONTENT_FILTER, "PROHIBITED_CONTENT")
            assert reply.parts == ()

    def test_feedback_that_blocks_nothing(self) -> None:
        harmless: Json = {"promptFeedback": {"safetyRatings": []}}
        assert stream(harmless, chunk(text("a"), reason="STOP")).text == "a"


class TestMalformedAnswers:
    @pytest.mark.parametrize("body", [{}, {"candidates": []}, {"candidates": None}, {"candidates": [None]}])
    def test_no_candidates(self, body: Json) -> None:
        with pytest.raises(ProviderFault) as caught:
            GeminiGenerate().read_whole(body)
        assert caught.value.kind is FaultKind.MALFORMED_REPLY
        assert fault_of(body).kind is FaultKind.STREAM_CUT

    @pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"[DONE]", b"\xff"])
    def test_events_that_are_no_objects(self, data: bytes) -> None:
        assert fault_of(chunk(text("a")), data).kind is FaultKind.MALFORMED_REPLY

    def test_an_error_inside(self) -> None:
        error = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "secret words"}}
        for said in (fault_of(error), fault_of(chunk(text("a")), error)):
            assert said.kind is FaultKind.OVERLOADED
            assert "secret" not in str(said)
        with pytest.raises(ProviderFault):
            GeminiGenerate().read_whole(error)

    def test_no_error(self) -> None:
        assert stream({"error": None, **chunk(text("a"), reason="STOP")}).text == "a"


class TestUsage:
    def test_all_counts(self) -> None:
        said = {**USAGE, "cachedContentTokenCount": 4, "toolUsePromptTokenCount": 3}
        assert read_usage(said) == Usage(13, 4, output_tokens=12, reasoning_tokens=7)

    def test_counts_of_zero_are_left_out(self) -> None:
        assert read_usage({"promptTokenCount": 10, "totalTokenCount": 10}) == Usage(10, output_tokens=0)
        assert read_usage({"promptTokenCount": 10, "candidatesTokenCount": None}) == Usage(10, output_tokens=0)

    @pytest.mark.parametrize("said", [{}, {"trafficType": "ON_DEMAND"}, {"promptTokenCount": None}])
    def test_nothing_counted(self, said: Json) -> None:
        assert read_usage(said) is None

    @pytest.mark.parametrize("said", [None, [], "x", 7])
    def test_no_usage(self, said: Any) -> None:
        assert read_all(text("a"), usage=said).usage == Usage()

    def test_strings_are_parsed(self) -> None:
        assert read_usage({"promptTokenCount": "10", "candidatesTokenCount": "5"}) == Usage(10, output_tokens=5)

    @pytest.mark.parametrize("bad", [-1, 10**12, math.nan, math.inf, "many", "NaN", [3], {"a": 1}])
    def test_impossible_counts(self, bad: Any) -> None:
        assert read_usage({**USAGE, "promptTokenCount": bad}) == Usage(
            None, output_tokens=12, reasoning_tokens=7, implausible=True
        )
        assert read_usage({**USAGE, "candidatesTokenCount": bad}) == Usage(10, reasoning_tokens=7, implausible=True)
        assert read_usage({**USAGE, "thoughtsTokenCount": bad}) == Usage(10, implausible=True)
        assert read_usage({**USAGE, "cachedContentTokenCount": bad}) == Usage(
            10, output_tokens=12, reasoning_tokens=7, implausible=True
        )

    def test_nan_in_a_body(self) -> None:
        nan = json.dumps(chunk(text("a"), reason="STOP", usage={"promptTokenCount": math.nan})).encode()
        assert b"NaN" in nan
        assert stream(nan).usage == Usage(None, output_tokens=0, implausible=True)

    def test_the_last_one_counts(self) -> None:
        first, last = {"promptTokenCount": 10, "candidatesTokenCount": 1}, USAGE
        assert stream(chunk(text("a"), usage=first), chunk(text("b"), reason="STOP", usage=last)).usage == SPOKEN

    def test_a_last_chunk_without_counts_takes_none_back(self) -> None:
        last = chunk(reason="STOP", usage={"trafficType": "ON_DEMAND"})
        assert stream(chunk(text("a"), usage=USAGE), last).usage == SPOKEN

    def test_it_is_known_before_the_end(self) -> None:
        builder = ReplyBuilder()
        reader = GeminiGenerate().open_stream()
        for event in reader.feed(SseEvent("", json.dumps(chunk(text("a"), usage=USAGE)).encode())):
            builder.add(event)
        assert builder.usage == SPOKEN


class TestStreams:
    def test_each_piece_is_told_at_once(self) -> None:
        reader = GeminiGenerate().open_stream()
        first = reader.feed(SseEvent("", json.dumps(chunk(text("Hel"))).encode()))
        second = reader.feed(SseEvent("", json.dumps(chunk(text("lo"))).encode()))
        assert [event for event in first if isinstance(event, TextDelta)] == [TextDelta(0, "Hel")]
        assert second == [TextDelta(0, "lo")]

    def test_what_follows_the_end_is_ignored(self) -> None:
        events = stream_events(chunk(text("a"), reason="STOP"), chunk(text("b"), reason="MAX_TOKENS"), b"[DONE]")
        assert fold(events).text == "a"
        assert [event for event in events if isinstance(event, Finished)] == [Finished(FinishReason.STOP, "STOP")]

    def test_no_events_at_all(self) -> None:
        assert fault_of().kind is FaultKind.STREAM_CUT

    def test_a_prompt_blocked_later(self) -> None:
        reply = stream(chunk(text("a")), {"promptFeedback": {"blockReason": "SAFETY"}})
        assert (reply.text, reply.finish_reason) == ("a", FinishReason.CONTENT_FILTER)

    def test_sources_are_placed_in_the_whole_text(self) -> None:
        support = {"segment": {"startIndex": 4, "endIndex": 8, "text": "Bern"}, "groundingChunkIndices": [0]}
        said = {"groundingChunks": [{"web": {"uri": "https://a.example/"}}], "groundingSupports": [support]}
        reply = stream(
            chunk(text("In ")),
            chunk(text("über"), groundingMetadata={}),
            chunk(text(" Bern"), groundingMetadata=said),
            chunk(text("."), reason="STOP"),
        )
        assert reply.citations == (Citation("https://a.example/", start_index=8, end_index=12),)
        assert reply.text[8:12] == "Bern"


words = st.text(max_size=6)
marks = st.sampled_from([{}, {}, {}, {"thoughtSignature": "c2ln"}])
text_parts = st.builds(lambda said, mark, kind: {"text": said, **mark, **kind}, words, marks,
                       st.sampled_from([{}, {}, {"thought": True}]))  # fmt: skip
call_parts = st.builds(
    lambda name, args, mark, own: {"functionCall": {"name": name, "args": args, **own}, **mark},
    st.sampled_from(["f", "g"]),
    st.dictionaries(words, st.integers(-9, 9) | words, max_size=2),
    marks,
    st.sampled_from([{}, {"id": "own"}]),
)
other_parts = st.sampled_from([{"executableCode": {"code": "1"}}, {"soonToCome": {}, "thoughtSignature": "c2ln"}])
answers = st.lists(st.one_of(text_parts, text_parts, call_parts, other_parts), max_size=8)


@given(answers, st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY"]), st.data())
def test_a_streamed_answer_is_the_whole_one(parts: list[Json], reason: str, data: st.DataObject) -> None:
    pieces: list[Json] = []
    for part in parts:
        said = part.get("text", "")
        if len(said) > 1 and "thoughtSignature" not in part:
            at = data.draw(st.integers(0, len(said)))
            pieces += [{**part, "text": said[:at]}, {**part, "text": said[at:]}]
        else:
            pieces.append(part)
    chunks: list[Json] = []
    while pieces:
        count = data.draw(st.integers(1, len(pieces)))
        chunks.append(chunk(*pieces[:count], usage={"promptTokenCount": 1}))
        pieces = pieces[count:]
    whole = read_all(*parts, reason=reason)
    assert stream(*chunks, chunk(reason=reason, usage=USAGE)) == whole
    said_last = chunks[-1:] or [chunk()]
    said_last[0]["candidates"][0]["finishReason"] = reason
    assert stream(*chunks[:-1], {**said_last[0], "usageMetadata": USAGE}) == whole


@given(answers, st.integers(1, 5))
def test_a_cut_answer_never_passes_for_a_whole_one(parts: list[Json], size: int) -> None:
    chunks = [chunk(*parts[start : start + size]) for start in range(0, len(parts), size)]
    for count in range(len(chunks) + 1):
        assert fault_of(*chunks[:count]).kind is FaultKind.STREAM_CUT
