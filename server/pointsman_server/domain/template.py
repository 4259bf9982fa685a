"""Prompt templates of the policy: what a caller names and fills in, instead of sending the prompt itself.

A text with gaps is a tree of the few things a template can do: say a text, put in a value, choose, repeat. There is
nothing else that it could do, whatever a value says; values are never read as templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pointsman_server.domain.message import Role
from pointsman_server.domain.request import GenerationConfig

MOST_CHARACTERS = 1_000_000
"""Most characters of all messages of a filled template."""


class VariableType(Enum):
    """What a variable takes."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRINGS = "strings"
    ENUM = "enum"


Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A gap of a template. Without a `default` it must be filled, and not with nothing.

    `max_length` is in characters, for a list of strings those of each; `max_items` is for lists, `choices` for enums,
    `minimum` and `maximum` for numbers.
    """

    type: VariableType
    default: Value | None = None
    max_length: int = 10_000
    max_items: int = 100
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


class Filter(Enum):
    """What can be done to a value before it is put in."""

    UPPER = "upper"
    LOWER = "lower"
    TRIM = "trim"
    LENGTH = "length"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class Text:
    """A text that stays as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Insert:
    """A value, after these filters in order, each with its argument; only JOIN has one."""

    name: str
    filters: tuple[tuple[Filter, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """Whether a value is true, not empty and not 0."""

    name: str


@dataclass(frozen=True, slots=True)
class Same:
    """Whether a value is this one."""

    name: str
    value: str | int | float


@dataclass(frozen=True, slots=True)
class Opposite:
    """Whether the condition does not hold."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Both:
    """Whether both conditions hold."""

    first: Condition
    second: Condition


@dataclass(frozen=True, slots=True)
class Either:
    """Whether one of the conditions holds."""

    one: Condition
    other: Condition


Condition = Given | Same | Opposite | Both | Either


@dataclass(frozen=True, slots=True)
class Choose:
    """One of two bodies."""

    condition: Condition
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """The body for each text of the list `over`, which the body knows as `item`."""

    item: str
    over: str
    body: tuple[Node, ...]


Node = Text | Insert | Choose | Repeat


@dataclass(frozen=True, slots=True)
class TemplateMessage:
    """One turn with gaps."""

    role: Role
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One version of a template. `response_schema` and the rest of `generation` hold where the request sets none."""

    number: int
    messages: tuple[TemplateMessage, ...]
    variables: Mapping[str, Variable] = field(default_factory=dict)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    needs_documents: bool = False
    """Whether it is about documents, so that a request without any is a mistake."""

    @property
    def response_schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema of the answer, if the template has one."""
        return self.generation.response_schema


@dataclass(frozen=True, slots=True)
class Template:
    """A template with all its versions by number; `current` is the one that is used unless another is asked for."""

    name: str
    current: int
    versions: Mapping[int, TemplateVersion]
