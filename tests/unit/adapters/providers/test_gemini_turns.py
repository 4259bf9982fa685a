from __future__ import annotations

from typing import Any

import pytest

from pointsman_server.adapters.providers.gemini_turns import UNSIGNED_CALL, shape_contents, shape_system
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

HELLO = Message(Role.USER, (TextPart("Hello"),))


def model_parts(*parts: Part) -> Any:
    return shape_contents((HELLO, Message(Role.ASSISTANT, parts)))[1]["parts"]


def refusal(*messages: Message) -> str:
    with pytest.raises(ProviderFault) as caught:
        shape_contents(messages)
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    return caught.value.detail


class TestSystem:
    def test_none(self) -> None:
        assert shape_system((HELLO,)) is None

    def test_all_of_them_wherever_they_stand(self) -> None:
        first, last = Message(Role.SYSTEM, (TextPart("One."),)), Message(Role.SYSTEM, (TextPart("Two."),))
        assert shape_system((first, HELLO, last)) == {"role": "user", "parts": [{"text": "One."}, {"text": "Two."}]}
        assert shape_contents((first, HELLO, last)) == [{"role": "user", "parts": [{"text": "Hello"}]}]

    def test_only_text(self) -> None:
        with pytest.raises(ProviderFault, match="messages: Gemini takes nothing but text in a system message"):
            shape_system((Message(Role.SYSTEM, (ImagePart(b"x", "image/png"),)),))


class TestContents:
    def test_neighbours_of_one_speaker_are_one_content(self) -> None:
        answer = Message(Role.ASSISTANT, (TextPart("Hi"),))
        contents = shape_contents((HELLO, HELLO, answer, answer, HELLO))
        assert [(content["role"], len(content["parts"])) for content in contents] == [
            ("user", 2), ("model", 2), ("user", 1),
        ]  # fmt: skip

    def test_nothing_to_say_is_refused(self) -> None:
        assert refusal(Message(Role.SYSTEM, (TextPart("Be brief."),))).startswith("messages: ")
        assert refusal(Message(Role.USER, (TextPart(""),))).startswith("messages: ")

    def test_a_message_without_content_leaves_no_empty_turn(self) -> None:
        contents = shape_contents((HELLO, Message(Role.ASSISTANT, (ReasoningPart("hm"),)), HELLO))
        assert contents == [{"role": "user", "parts": [{"text": "Hello"}, {"text": "Hello"}]}]

    def test_images(self) -> None:
        contents = shape_contents((Message(Role.USER, (ImagePart(b"\xff\x00", "image/webp"),)),))
        assert contents[0]["parts"] == [{"inlineData": {"mimeType": "image/webp", "data": "/wA="}}]


class TestSignatures:
    def test_text_goes_back_as_it_came(self) -> None:
        assert model_parts(TextPart("Hi", "s1"), TextPart("", "s2"), TextPart("")) == [
            {"text": "Hi", "thoughtSignature": "s1"},
            {"text": "", "thoughtSignature": "s2"},
        ]

    def test_calls_go_back_as_they_came(self) -> None:
        calls = model_parts(ToolCallPart("a", "f", "{}", "s1"), ToolCallPart("b", "g", '{"x":[1]}'))
        assert calls == [
            {"functionCall": {"id": "a", "name": "f", "args": {}}, "thoughtSignature": "s1"},
            {"functionCall": {"id": "b", "name": "g", "args": {"x": [1]}}},
        ]

    def test_calls_of_another_model_say_so(self) -> None:
        calls = model_parts(TextPart("I look."), ToolCallPart("a", "f", "{}"), ToolCallPart("b", "f", "{}"))
        assert [call.get("thoughtSignature") for call in calls] == [None, UNSIGNED_CALL, None]

    def test_reasoning_is_left_out(self) -> None:
        parts = model_parts(ReasoningPart("hm", "sig"), ReasoningPart("", "x", redacted=True), TextPart("Hi"))
        assert parts == [{"text": "Hi"}]


class TestOpaqueParts:
    def test_ours_go_back_unchanged(self) -> None:
        shaped = model_parts(
            OpaquePart("gemini_generate", "toolCall", '{"toolCall":{"id":"x"},"thoughtSignature":"s"}')
        )
        assert shaped == [{"toolCall": {"id": "x"}, "thoughtSignature": "s"}]

    def test_foreign_ones_are_left_out(self) -> None:
        assert model_parts(TextPart("Hi"), OpaquePart("anthropic_messages", "x", "{}")) == [{"text": "Hi"}]

    @pytest.mark.parametrize("broken", ["", "[]", "{"])
    def test_broken_ones_are_refused(self, broken: str) -> None:
        assert "opaque" in refusal(Message(Role.ASSISTANT, (OpaquePart("gemini_generate", "x", broken),)))


class TestToolResults:
    def test_they_carry_the_functions_name_and_stand_together(self) -> None:
        contents = shape_contents(
            (
                HELLO,
                Message(Role.ASSISTANT, (ToolCallPart("a", "f", "{}"), ToolCallPart("b", "g", "{}"))),
                Message(Role.TOOL, (ToolResultPart("b", "two"),)),
                Message(Role.TOOL, (ToolResultPart("a", "no such city", is_error=True),)),
            )
        )
        assert contents[2] == {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "b", "name": "g", "response": {"output": "two"}}},
                {"functionResponse": {"id": "a", "name": "f", "response": {"error": "no such city"}}},
            ],
        }

    def test_an_id_that_was_used_again_means_the_last_call(self) -> None:
        contents = shape_contents(
            (
                Message(Role.ASSISTANT, (ToolCallPart("a", "f", "{}"),)),
                Message(Role.TOOL, (ToolResultPart("a", "1"),)),
                Message(Role.ASSISTANT, (ToolCallPart("a", "g", "{}"),)),
                Message(Role.TOOL, (ToolResultPart("a", "2"),)),
            )
        )
        names = [content["parts"][0]["functionResponse"]["name"] for content in contents[1::2]]
        assert names == ["f", "g"]

    def test_without_ids_name_and_order_decide(self) -> None:
        contents = shape_contents(
            (Message(Role.ASSISTANT, (ToolCallPart("", "f", "{}"),)), Message(Role.TOOL, (ToolResultPart("", "1"),)))
        )
        assert contents[0]["parts"][0]["functionCall"] == {"name": "f", "args": {}}
        assert contents[1]["parts"][0]["functionResponse"] == {"name": "f", "response": {"output": "1"}}

    def test_a_result_without_its_call_is_refused(self) -> None:
        assert "tool result" in refusal(HELLO, Message(Role.TOOL, (ToolResultPart("gone", "1"),)))

    def test_no_arguments_are_an_empty_object(self) -> None:
        assert model_parts(ToolCallPart("a", "f", ""))[0]["functionCall"]["args"] == {}

    @pytest.mark.parametrize("arguments", ["{", "[1]", "null", '"text"'])
    def test_arguments_that_are_no_object_are_refused(self, arguments: str) -> None:
        assert "arguments" in refusal(Message(Role.ASSISTANT, (ToolCallPart("a", "f", arguments),)))
