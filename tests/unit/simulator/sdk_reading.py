"""What a reader of an official SDK is asked, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

KEY = "a-key-of-the-tests"


@dataclass(frozen=True)
class Wanted:
    """A request free of any dialect. `demand`: None, "any" or the name of a tool."""

    text: str = "How many trains leave at noon?"
    model: str = "some-model"
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    demand: str | None = None
    schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    thinks: bool = False


@dataclass
class Read:
    """An answer as its SDK shows it. Ids of responses and items are left out: they differ from call to call."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    citations: list[tuple[str, str]] = field(default_factory=list)
    finish: str = ""
    input_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = -1
    reasoning_tokens: int = -1


class Reader(Protocol):
    def __init__(self, base_url: str) -> None: ...

    async def read(self, wanted: Wanted, *, stream: bool) -> Read: ...

    async def close(self) -> None: ...


def nested_tools(wanted: Wanted) -> list[dict[str, Any]]:
    functions = [{"name": name, "parameters": schema} for name, schema in wanted.tools.items()]
    return [{"type": "function", "function": function} for function in functions]
