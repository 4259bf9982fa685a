"""The conversation in Gemini's words: contents with the roles user and model, and the system instruction."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import orjson

from pointsman_server.domain.catalog import Dialect
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

DIALECT = Dialect.GEMINI_GENERATE.value

UNSIGNED_CALL = b64encode(b"skip_thought_signature_validator").decode("ascii")
"""What the vendor documents as the signature of a call that another model made; newer models refuse one without."""


def refused(detail: str) -> ProviderFault:
    """The fault for what this dialect cannot say; `detail` names the field."""
    return ProviderFault(FaultKind.INVALID_REQUEST, detail)


def shape_system(messages: Sequence[Message]) -> dict[str, Any] | None:
    """All system messages as one system instruction; None when there is none."""
    parts: list[dict[str, Any]] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            parts.extend(_system_part(part) for part in message.parts)
    return {"role": "user", "parts": parts} if parts else None


def _system_part(part: Part) -> dict[str, Any]:
    if not isinstance(part, TextPart):
        raise refused("messages: Gemini takes nothing but text in a system message")
    return {"text": part.text}


def shape_contents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """All other messages. Neighbours of the same role become one content.

    The vendor wants the results of parallel calls together, in the content right after the calls.
    """
    contents: list[dict[str, Any]] = []
    shaper = _PartShaper()
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        role = "model" if message.role is Role.ASSISTANT else "user"
        parts = [shaped for part in message.parts if (shaped := shaper.shape(part)) is not None]
        if parts and contents and contents[-1]["role"] == role:
            contents[-1]["parts"].extend(parts)
        elif parts:
            contents.append({"role": role, "parts": parts})
    if not contents:
        raise refused("messages: Gemini needs a message with content besides the system messages; add one")
    for content in contents:
        _sign_first_call(content["parts"])
    return contents


class _PartShaper:
    """Shapes parts in the order of the conversation; remembers which function each call id named."""

    def __init__(self) -> None:
        self._name_by_call_id: dict[str, str] = {}

    def shape(self, part: Part) -> dict[str, Any] | None:
        match part:
            case TextPart():
                return _signed({"text": part.text}, part.signature) if part.text or part.signature else None
            case ImagePart():
                data = b64encode(part.data).decode("ascii")
                return {"inlineData": {"mimeType": part.media_type, "data": data}}
            case ToolCallPart():
                return self._shape_call(part)
            case ToolResultPart():
                return self._shape_result(part)
            case OpaquePart():
                return _own_part(part)
            case ReasoningPart():
                # What the vendor wants back are its signatures, and those stand on text and calls. A signature on
                # reasoning is another vendor's, and refused.
                return None

    def _shape_call(self, part: ToolCallPart) -> dict[str, Any]:
        self._name_by_call_id[part.id] = part.name
        call = {"name": part.name, "args": _read_arguments(part)}
        return _signed({"functionCall": _identified(call, part.id)}, part.signature)

    def _shape_result(self, part: ToolResultPart) -> dict[str, Any]:
        name = self._name_by_call_id.get(part.tool_call_id)
        if name is None:
            raise refused("messages: a tool result answers no earlier tool call; Gemini needs the call before it")
        result = {"name": name, "response": {"error" if part.is_error else "output": part.text}}
        return {"functionResponse": _identified(result, part.tool_call_id)}


def _identified(said: dict[str, Any], call_id: str) -> dict[str, Any]:
    # The vendor matches any id, its own, ours or another vendor's, as long as call and result carry the same.
    return {"id": call_id, **said} if call_id else said


def _signed(part: dict[str, Any], signature: str) -> dict[str, Any]:
    return {**part, "thoughtSignature": signature} if signature else part


def _read_arguments(part: ToolCallPart) -> dict[str, Any]:
    try:
        arguments = orjson.loads(part.arguments_json or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise refused("messages: the arguments of a tool call are no JSON object, which Gemini needs")
    return arguments


def _own_part(part: OpaquePart) -> dict[str, Any] | None:
    if part.dialect != DIALECT:
        return None
    try:
        shaped = orjson.loads(part.json)
    except orjson.JSONDecodeError:
        shaped = None
    if not isinstance(shaped, dict):
        raise refused("messages: an opaque part is no JSON object")
    return shaped


def _sign_first_call(parts: list[dict[str, Any]]) -> None:
    calls = [part for part in parts if "functionCall" in part]
    if calls and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = UNSIGNED_CALL
