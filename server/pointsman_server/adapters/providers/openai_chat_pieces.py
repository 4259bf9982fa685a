"""Puts together what a chat completion says in pieces: tool calls, and reasoning with its signatures.

A whole answer is read as one piece, so that both ways give the same parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.adapters.providers.json_reading import as_object, as_text
from pointsman_server.domain.reply import ToolCallDelta

_MERGED_TEXTS = ("text", "summary")

Json = Mapping[str, Any]


class _Call:
    """A tool call that has begun."""

    __slots__ = ("id", "key", "name")

    def __init__(self, key: str) -> None:
        self.key = key
        self.id = ""
        self.name = ""


class ToolCalls:
    """Knows which call a piece belongs to.

    Providers leave out the index, give every call the same one, repeat id and name, or send a call in one piece.
    """

    __slots__ = ("_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def read_piece(self, piece: Json) -> ToolCallDelta | None:
        """What a piece of a streamed call adds; None when that is nothing."""
        function = _function(piece)
        call_id, name = as_text(piece.get("id")), as_text(function.get("name"))
        arguments = _arguments(function)
        if not (call_id or name or arguments):
            return None
        return _add(self._find(piece.get("index"), call_id, name), call_id, name, arguments)

    def read_whole(self, piece: Json) -> ToolCallDelta | None:
        """The call that a whole answer holds; None when it says nothing."""
        function = _function(piece)
        call_id, name = as_text(piece.get("id")), as_text(function.get("name"))
        arguments = _arguments(function)
        if not (call_id or name or arguments):
            return None
        return _add(self._begin(), call_id, name, arguments)

    def _find(self, index: object, call_id: str, name: str) -> _Call:
        if isinstance(index, int):
            known = self._by_index.get(index)
            # Some servers give every call the index 0; a name under a new id begins another call.
            if known is None or (call_id and known.id and call_id != known.id and name):
                known = self._by_index[index] = self._begin()
            return known
        if call_id:
            return next((call for call in self._calls if call.id == call_id), None) or self._begin()
        last = self._calls[-1] if self._calls else None
        return self._begin() if last is None or (name and last.name) else last

    def _begin(self) -> _Call:
        call = _Call(f"call{len(self._calls)}")
        self._calls.append(call)
        return call


def _add(call: _Call, call_id: str, name: str, arguments: str) -> ToolCallDelta | None:
    new_id = "" if call.id else call_id
    new_name = "" if call.name else name
    call.id, call.name = call.id or call_id, call.name or name
    if not (new_id or new_name or arguments):
        return None
    return ToolCallDelta(call.key, new_id, new_name, arguments)


def _function(piece: Json) -> Json:
    return as_object(piece.get("function")) or as_object(piece.get("custom"))


def _arguments(function: Json) -> str:
    arguments = function.get("arguments")
    if arguments is None:
        return as_text(function.get("input"))
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


class ReasoningDetails:
    """OpenRouter's reasoning blocks, as they have to go back: texts joined, signatures in their place."""

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []

    def add(self, block: Json) -> None:
        """Takes a block or a piece of one in; encrypted ones never come in pieces."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or not _continues(last, block):
            self._blocks.append(dict(block))
            return
        for name, value in block.items():
            held = last.get(name)
            if name in _MERGED_TEXTS and isinstance(held, str) and isinstance(value, str):
                last[name] = held + value
            elif value is not None:
                last[name] = value

    def json(self) -> str:
        """All blocks as a JSON list, "" when there are none."""
        return orjson.dumps(self._blocks, option=orjson.OPT_SORT_KEYS).decode() if self._blocks else ""


def _continues(last: Json, block: Json) -> bool:
    # A signature ends its block.
    same = last.get("type") == block.get("type") and last.get("index") == block.get("index")
    has_text = any(name in last or name in block for name in _MERGED_TEXTS)
    return same and has_text and not last.get("signature") and "data" not in block


def details_text(blocks: list[Any]) -> str:
    """The readable text of reasoning blocks."""
    return "".join(as_text(block.get("text")) or as_text(block.get("summary")) for block in blocks)
