"""The short ways to write messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pointsman.v1.completion_pb2 import (
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    TOOL_CHOICE_MODE_NAMED,
    ToolCall,
)
from pointsman_client import (
    assistant,
    call_tool,
    document,
    function_tool,
    image_from_bytes,
    image_from_path,
    system,
    template,
    tool_call,
    tool_result,
    user,
)

PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.mark.parametrize(("make", "role"), [(system, ROLE_SYSTEM), (user, ROLE_USER), (assistant, ROLE_ASSISTANT)])
def test_roles(make: Any, role: int) -> None:
    message = make("one", "two")
    assert message.role == role
    assert [part.text for part in message.parts] == ["one", "two"]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0 jpeg", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"GIF87a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
    ],
)
def test_an_image_is_known_by_its_first_bytes(data: bytes, media_type: str) -> None:
    part = user("What is this?", image_from_bytes(data)).parts[1]
    assert (part.image.data, part.image.media_type) == (data, media_type)


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"RIFF\x00\x00\x00\x00WAVE"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no PNG, JPEG, GIF or WebP"):
        image_from_bytes(data)


def test_a_given_media_type_is_believed() -> None:
    assert image_from_bytes(b"?", "image/png").image.media_type == "image/png"


def test_an_image_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    assert image_from_path(path) == image_from_path(str(path)) == image_from_bytes(PNG)


def test_a_tool_and_its_use() -> None:
    tool = function_tool("weather", "Tells the weather", {"type": "object", "properties": {}})
    assert (tool.name, tool.parameters["type"]) == ("weather", "object")
    assert not function_tool("now", "Tells the time").HasField("parameters")
    assert (call_tool("weather").mode, call_tool("weather").name) == (TOOL_CHOICE_MODE_NAMED, "weather")
    call = tool_call("c1", "weather", {"city": "Köln"}).tool_call
    assert json.loads(call.arguments_json) == {"city": "Köln"}


def test_a_tools_result_names_its_call() -> None:
    by_call = tool_result(ToolCall(id="c1", name="weather"), "sunny")
    assert by_call == tool_result("c1", "sunny")
    assert by_call.role == ROLE_TOOL
    assert tool_result("c1", "boom", is_error=True).parts[0].tool_result.is_error


def test_documents_and_templates() -> None:
    made = document("d1", "text", relevance=0.0, metadata={"source": "wiki"})
    assert made.HasField("relevance")
    assert dict(made.metadata) == {"source": "wiki"}
    assert not document("d1", "text").HasField("relevance")
    assert (template("greet", {"name": "Ada"}, version=3).version, template("greet").version) == (3, 0)
