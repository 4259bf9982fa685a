"""Short ways to write the contract's messages.

Everything here returns the generated types of `pointsman.v1.completion_pb2`; build those directly for what is
not covered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.struct_pb2 import Struct

from pointsman.v1.completion_pb2 import (
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    TOOL_CHOICE_MODE_NAMED,
    Document,
    Image,
    Message,
    Part,
    Role,
    TemplateRef,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)


def system(*content: str | Part) -> Message:
    """Instructions of the calling service."""
    return _message(ROLE_SYSTEM, content)


def user(*content: str | Part) -> Message:
    """What the person or service asks: text and images."""
    return _message(ROLE_USER, content)


def assistant(*content: str | Part) -> Message:
    """What the model said. To go on with a conversation, send `answer.message` back instead: it carries more."""
    return _message(ROLE_ASSISTANT, content)


def tool_result(tool_call: ToolCall | str, text: str, *, is_error: bool = False) -> Message:
    """What a tool answered to `tool_call` (or to the call with this id); `is_error` tells the model that it failed."""
    call_id = tool_call if isinstance(tool_call, str) else tool_call.id
    result = ToolResult(tool_call_id=call_id, text=text, is_error=is_error)
    return Message(role=ROLE_TOOL, parts=[Part(tool_result=result)])


def tool_call(call_id: str, name: str, arguments: Mapping[str, Any]) -> Part:
    """A tool call for an assistant message."""
    return Part(tool_call=ToolCall(id=call_id, name=name, arguments_json=json.dumps(arguments)))


def image_from_bytes(data: bytes, media_type: str = "") -> Part:
    """An image for a user message; its media type is read from its first bytes unless given.

    Raises ValueError when it is none of PNG, JPEG, GIF and WebP.
    """
    return Part(image=Image(data=data, media_type=media_type or _media_type(data)))


def image_from_path(path: str | Path, media_type: str = "") -> Part:
    """The image in this file, for a user message; raises as `image_from_bytes` does, and OSError."""
    return image_from_bytes(Path(path).read_bytes(), media_type)


def function_tool(name: str, description: str, parameters: Mapping[str, Any] | None = None) -> Tool:
    """A function the model may call; `parameters` is the JSON Schema of its arguments, an object schema."""
    schema = struct(parameters) if parameters is not None else None
    return Tool(name=name, description=description, parameters=schema)


def call_tool(name: str) -> ToolChoice:
    """The choice that makes the model call this tool."""
    return ToolChoice(mode=TOOL_CHOICE_MODE_NAMED, name=name)


def document(
    document_id: str, text: str, *, relevance: float | None = None, metadata: Mapping[str, str] | None = None
) -> Document:
    """Material for the answer; `relevance` is 0 to 1, `document_id` names it in citations."""
    return Document(id=document_id, text=text, relevance=relevance, metadata=metadata)


def template(name: str, variables: Mapping[str, Any] | None = None, *, version: int = 0) -> TemplateRef:
    """A prompt template of the policy with its values; version 0 is the current one."""
    return TemplateRef(name=name, version=version, variables=struct(variables or {}))


def struct(value: Mapping[str, Any]) -> Struct:
    """The mapping as a Struct; raises TypeError unless it is a mapping of JSON values."""
    if not isinstance(value, Mapping):
        raise TypeError(f"a mapping of JSON values is needed, not {type(value).__name__}")
    result = Struct()
    try:
        result.update(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError("a mapping of JSON values is needed; one of its values is none") from error
    return result


def _message(role: Role.ValueType, content: tuple[str | Part, ...]) -> Message:
    return Message(role=role, parts=[Part(text=item) if isinstance(item, str) else item for item in content])


def _media_type(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("the bytes are no PNG, JPEG, GIF or WebP image; convert it first")
