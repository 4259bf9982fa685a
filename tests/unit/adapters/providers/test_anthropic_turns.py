from __future__ import annotations

from typing import Any

import pytest

from pointsman_server.adapters.providers.anthropic_turns import (
    INVALID_JSON_KEY,
    read_arguments,
    shape_system,
    shape_turns,
)
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


def turns(*messages: Message) -> list[Any]:
    return list(shape_turns(messages))


def assistant_blocks(*parts: Part) -> Any:
    return turns(HELLO, Message(Role.ASSISTANT, parts))[1]["content"]


def refusal(*messages: Message) -> str:
    with pytest.raises(ProviderFault) as caught:
        shape_turns(messages)
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    return caught.value.detail


class TestSystem:
    def test_none(self) -> None:
        assert shape_system((HELLO,)) == ""

    def test_one_is_a_string(self) -> None:
        assert shape_system((Message(Role.SYSTEM, (TextPart("Be brief."),)), HELLO)) == "Be brief."

    def test_several_keep_their_order_wherever_they_stand(self) -> None:
        system = shape_system(
            (Message(Role.SYSTEM, (TextPart("One."), TextPart(""))), HELLO, Message(Role.SYSTEM, (TextPart("Two."),)))
        )
        assert system == [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]

    def test_only_text(self) -> None:
        with pytest.raises(ProviderFault, match=r"messages\[1\]\.parts: a system message"):
            shape_system((HELLO, Message(Role.SYSTEM, (ImagePart(b"x", "image/png"),))))


class TestTurns:
    def test_system_messages_are_no_turns(self) -> None:
        shaped = turns(Message(Role.SYSTEM, (TextPart("Be brief."),)), HELLO)
        assert shaped == [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]

    def test_neighbours_of_one_speaker_are_one_turn(self) -> None:
        shaped = turns(HELLO, Message(Role.USER, (TextPart("there"),)), Message(Role.ASSISTANT, (TextPart("Hi"),)))
        assert [turn["role"] for turn in shaped] == ["user", "assistant"]
        assert [block["text"] for block in shaped[0]["content"]] == ["Hello", "there"]

    def test_tool_results_are_the_users_and_come_first(self) -> None:
        shaped = turns(
            HELLO,
            Message(Role.ASSISTANT, (ToolCallPart("a", "f", "{}"), ToolCallPart("b", "g", '{"x": 1}'))),
            Message(Role.USER, (TextPart("And then?"),)),
            Message(Role.TOOL, (ToolResultPart("a", "sunny"),)),
            Message(Role.TOOL, (ToolResultPart("b", "", is_error=True),)),
        )
        assert shaped[1]["content"] == [
            {"type": "tool_use", "id": "a", "name": "f", "input": {}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {"x": 1}},
        ]
        assert shaped[2]["role"] == "user"
        assert shaped[2]["content"] == [
            {"type": "tool_result", "tool_use_id": "a", "content": "sunny"},
            {"type": "tool_result", "tool_use_id": "b", "is_error": True},
            {"type": "text", "text": "And then?"},
        ]

    def test_empty_messages_leave_no_turn(self) -> None:
        assert len(turns(HELLO, Message(Role.ASSISTANT, (TextPart(""),)))) == 1

    def test_nothing_at_all_is_refused(self) -> None:
        assert refusal(Message(Role.USER, (TextPart(""),))).startswith("messages: ")
        assert refusal(Message(Role.SYSTEM, (TextPart("Be brief."),))).startswith("messages: ")


class TestParts:
    def test_image_goes_inline(self) -> None:
        image = ImagePart(b"\x89PNG", "image/png")
        assert turns(Message(Role.USER, (image,)))[0]["content"] == [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}}
        ]

    def test_unknown_image_type_is_refused(self) -> None:
        detail = refusal(HELLO, Message(Role.USER, (TextPart("see"), ImagePart(b"x", "image/tiff"))))
        assert detail.startswith("messages[1].parts[1].media_type: ")

    @pytest.mark.parametrize("part", [ImagePart(b"x", "image/png"), ToolResultPart("a", "x")])
    def test_parts_of_the_user_only(self, part: Part) -> None:
        assert refusal(HELLO, Message(Role.ASSISTANT, (part,))).startswith("messages[1].parts[0]: ")

    @pytest.mark.parametrize("part", [ToolCallPart("a", "f", "{}"), ReasoningPart("hm", "sig")])
    def test_parts_of_the_assistant_only(self, part: Part) -> None:
        assert refusal(Message(Role.USER, (part,))).startswith("messages[0].parts[0]: ")

    def test_reasoning_goes_back_unchanged(self) -> None:
        assert assistant_blocks(
            ReasoningPart("Let me see.", "sig1"),
            ReasoningPart("", "sig2"),
            ReasoningPart("", "secret", redacted=True),
        ) == [
            {"type": "thinking", "thinking": "Let me see.", "signature": "sig1"},
            {"type": "thinking", "thinking": "", "signature": "sig2"},
            {"type": "redacted_thinking", "data": "secret"},
        ]

    def test_reasoning_of_other_vendors_stays_out(self) -> None:
        assert assistant_blocks(ReasoningPart("Let me see."), TextPart("Hi", signature="theirs")) == [
            {"type": "text", "text": "Hi"}
        ]

    def test_opaque_blocks_go_back_to_their_own_dialect_only(self) -> None:
        block = '{"type":"web_search_tool_result","tool_use_id":"s1","content":[]}'
        assert assistant_blocks(
            OpaquePart("anthropic_messages", "web_search_tool_result", block),
            OpaquePart("openai_responses", "web_search_call", '{"type":"web_search_call"}'),
        ) == [{"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}]

    @pytest.mark.parametrize("arguments", ['{"city": "Par', "[1]", '"text"', "NaN"])
    def test_arguments_that_are_no_object_are_kept_as_text(self, arguments: str) -> None:
        assert read_arguments(arguments) == {INVALID_JSON_KEY: arguments}

    @pytest.mark.parametrize("arguments", ["", "  ", "{}"])
    def test_no_arguments(self, arguments: str) -> None:
        assert read_arguments(arguments) == {}

    def test_foreign_call_ids_are_made_fit_on_both_sides(self) -> None:
        shaped = turns(
            HELLO,
            Message(Role.ASSISTANT, (ToolCallPart("f.x:0", "f", ""), ToolCallPart("f_x_0", "f", ""))),
            Message(Role.TOOL, (ToolResultPart("f.x:0", "1"), ToolResultPart("f_x_0", "2"))),
        )
        calls = [block["id"] for block in shaped[1]["content"]]
        assert calls == [block["tool_use_id"] for block in shaped[2]["content"]]
        assert calls[1] == "f_x_0"
        assert calls[0] != calls[1]
        assert calls[0].replace("_", "").isalnum()
