"""The conversation as pointsman sees it: roles, parts and messages, free of any provider's dialect."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Plain text. `signature` is opaque provider state that must travel back unchanged."""

    text: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image carried inline; `media_type` is one of image/png, image/jpeg, image/gif, image/webp."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A call the model asks for. `arguments_json` is passed on as received, even when it is not valid JSON."""

    id: str
    name: str
    arguments_json: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered to the call `tool_call_id`."""

    tool_call_id: str
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """The model's visible reasoning. A redacted one has no text: all of it is in `signature`."""

    text: str
    signature: str = ""
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """A block only its provider understands (a server-side tool's result, say), kept as JSON text.

    `kind` is the provider's own type name. It goes back unchanged to the same dialect and to no other.
    """

    dialect: str
    kind: str
    json: str


Part = TextPart | ImagePart | ToolCallPart | ToolResultPart | ReasoningPart | OpaquePart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All text parts joined, without reasoning or tool traffic."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))
