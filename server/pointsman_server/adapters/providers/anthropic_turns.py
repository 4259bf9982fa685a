"""Shapes a conversation into the turns of Anthropic's Messages API; the SDK's types prove the blocks."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast
from zlib import crc32

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

if TYPE_CHECKING:
    from anthropic.types import (
        ContentBlockParam,
        ImageBlockParam,
        MessageParam,
        RedactedThinkingBlockParam,
        TextBlockParam,
        ThinkingBlockParam,
        ToolResultBlockParam,
        ToolUseBlockParam,
    )

    Speaker = Literal["user", "assistant"]
    MediaType = Literal["image/jpeg", "image/png", "image/gif", "image/webp"]

DIALECT_NAME = Dialect.ANTHROPIC_MESSAGES.value

INVALID_JSON_KEY = "INVALID_JSON"
"""The vendor wants tool input as an object; text that is none goes back under the key its documentation suggests."""

_MEDIA_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_UNFIT_FOR_ID = re.compile(r"[^a-zA-Z0-9_-]")


def refused(detail: str) -> ProviderFault:
    """A fault that says what cannot be said in this dialect; `detail` starts with the request's field."""
    return ProviderFault(FaultKind.INVALID_REQUEST, detail)


def shape_system(messages: Sequence[Message]) -> str | list[TextBlockParam]:
    """All system messages, in order; "" when there are none."""
    texts: list[str] = []
    for number, message in enumerate(messages):
        if message.role is not Role.SYSTEM:
            continue
        for part in message.parts:
            if not isinstance(part, TextPart):
                raise refused(f"messages[{number}].parts: a system message can only carry text for Anthropic")
            if part.text:
                texts.append(part.text)
    if len(texts) > 1:
        return [{"type": "text", "text": text} for text in texts]
    return texts[0] if texts else ""


def shape_turns(messages: Sequence[Message]) -> list[MessageParam]:
    """All other messages as alternating turns of user and assistant.

    Tool results belong to the user's turn and come first in it, as the vendor demands.
    """
    turns: list[tuple[Speaker, list[ContentBlockParam]]] = []
    for number, message in enumerate(messages):
        if message.role is Role.SYSTEM:
            continue
        speaker: Speaker = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = _shape_parts(message.parts, speaker, f"messages[{number}].parts")
        if turns and turns[-1][0] == speaker:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((speaker, blocks))
    if not turns:
        raise refused("messages: Anthropic needs at least one message of the user that is not empty")
    return [_turn(speaker, blocks) for speaker, blocks in turns]


def _turn(speaker: Speaker, blocks: list[ContentBlockParam]) -> MessageParam:
    if speaker == "assistant":
        return {"role": "assistant", "content": blocks}
    results_first: list[ContentBlockParam] = sorted(blocks, key=lambda block: block["type"] != "tool_result")
    return {"role": "user", "content": results_first}


def _shape_parts(parts: Sequence[Part], speaker: Speaker, field: str) -> list[ContentBlockParam]:
    blocks: list[ContentBlockParam] = []
    for number, part in enumerate(parts):
        block = _shape_part(part, speaker, f"{field}[{number}]")
        if block is not None:
            blocks.append(block)
    return blocks


def _shape_part(part: Part, speaker: Speaker, field: str) -> ContentBlockParam | None:
    if isinstance(part, TextPart):
        # The vendor refuses empty text blocks; leaving one out loses nothing.
        return _text_block(part) if part.text else None
    if isinstance(part, OpaquePart):
        return _opaque_block(part)
    if isinstance(part, (ToolCallPart, ReasoningPart)):
        if speaker != "assistant":
            raise refused(f"{field}: only an assistant message can carry a tool call or reasoning")
        return _tool_use_block(part) if isinstance(part, ToolCallPart) else _thinking_block(part)
    if speaker != "user":
        raise refused(f"{field}: Anthropic takes images and tool results from a user or tool message only")
    return _image_block(part, field) if isinstance(part, ImagePart) else _tool_result_block(part)


def _text_block(part: TextPart) -> TextBlockParam:
    return {"type": "text", "text": part.text}


def _image_block(part: ImagePart, field: str) -> ImageBlockParam:
    if part.media_type not in _MEDIA_TYPES:
        raise refused(f"{field}.media_type: Anthropic takes PNG, JPEG, GIF and WebP images")
    media_type = cast("MediaType", part.media_type)
    data = b64encode(part.data).decode("ascii")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _tool_use_block(part: ToolCallPart) -> ToolUseBlockParam:
    arguments = read_arguments(part.arguments_json)
    return {"type": "tool_use", "id": _tool_id(part.id), "name": part.name, "input": arguments}


def _tool_result_block(part: ToolResultPart) -> ToolResultBlockParam:
    block: ToolResultBlockParam = {"type": "tool_result", "tool_use_id": _tool_id(part.tool_call_id)}
    if part.text:
        block["content"] = part.text
    if part.is_error:
        block["is_error"] = True
    return block


def _thinking_block(part: ReasoningPart) -> ThinkingBlockParam | RedactedThinkingBlockParam | None:
    # Reasoning without a signature is another vendor's, and would be refused.
    if not part.signature:
        return None
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.signature}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _opaque_block(part: OpaquePart) -> ContentBlockParam | None:
    if part.dialect != DIALECT_NAME:
        return None
    return cast("ContentBlockParam", orjson.loads(part.json))


def read_arguments(arguments_json: str) -> dict[str, object]:
    """Tool arguments as an object; nothing is {}, and what is no object is kept under `INVALID_JSON_KEY`."""
    if not arguments_json.strip():
        return {}
    try:
        arguments = orjson.loads(arguments_json)
    except orjson.JSONDecodeError:
        return {INVALID_JSON_KEY: arguments_json}
    return arguments if isinstance(arguments, dict) else {INVALID_JSON_KEY: arguments_json}


def _tool_id(call_id: str) -> str:
    # Other vendors' ids may hold characters that this one refuses; call and result must still name the same.
    clean = _UNFIT_FOR_ID.sub("_", call_id)
    return call_id if clean == call_id and clean else f"{clean}_{crc32(call_id.encode()):08x}"
