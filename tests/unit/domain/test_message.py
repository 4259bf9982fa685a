from __future__ import annotations

from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)


def test_the_text_is_that_of_text_parts_alone() -> None:
    parts = (
        TextPart("a"),
        ReasoningPart("b"),
        ToolCallPart("i", "c", "{}"),
        ToolResultPart("i", "d"),
        ImagePart(b"e", "image/png"),
        OpaquePart("f", "g", "h"),
        TextPart("i"),
    )
    assert Message(Role.USER, parts).text == "ai"
    assert Message(Role.USER, ()).text == ""
