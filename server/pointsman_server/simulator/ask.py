"""What a request asks for, free of its dialect: what the content of the answer depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from pointsman_server.simulator.behaviour import Dialect

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_IMAGE = 85


def count_tokens(characters: int) -> int:
    """Tokens of a text of this many characters, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


class RejectedError(Exception):
    """The request breaks the dialect's rules; the provider would answer 400 with these words."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class ToolDemand(Enum):
    """Whether a tool must be called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A function the model may call; `schema` is the JSON Schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(slots=True)
class Tally:
    """What was found while walking through a conversation."""

    messages: int = 0
    characters: int = 0
    images: int = 0
    tool_results: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that was read.

    `turns` is the conversation as it came, only to be hashed. `thinks`: reasoning is wanted; `shows_thinking`: also
    its text. `body` is the whole request for dialects that repeat parts of it in the answer.
    """

    dialect: Dialect
    model: str
    stream: bool
    turns: Any
    tally: Tally
    tools: tuple[OfferedTool, ...] = ()
    tool_demand: ToolDemand = ToolDemand.AUTO
    tool_name: str = ""
    max_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    response_schema: Mapping[str, Any] | None = None
    wants_json: bool = False
    thinks: bool = False
    shows_thinking: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def input_tokens(self) -> int:
        """Tokens of the whole input, at least 1."""
        return max(1, count_tokens(self.tally.characters) + TOKENS_PER_IMAGE * self.tally.images)

    def digest(self, purpose: str) -> bytes:
        """64 bytes that depend on the conversation and the purpose alone: equal asks, streamed or not, agree."""
        material = orjson.dumps((purpose, self.model, self.turns))
        return hashlib.blake2b(material).digest()
