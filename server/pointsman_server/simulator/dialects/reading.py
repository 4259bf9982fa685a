"""Checks that the dialects' readers share. All raise `RejectedError` in the manner of the providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pointsman_server.simulator.ask import OfferedTool, RejectedError, Tally, ToolDemand

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


def need_text(value: Any, where: str) -> str:
    """A non-empty text."""
    if not isinstance(value, str) or not value:
        raise RejectedError(f"{where}: a non-empty string is required", param=where, code="missing_required_parameter")
    return value


def need_object(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise RejectedError(f"{where}: an object is required", param=where, code="invalid_type")
    return value


def need_list(value: Any, where: str) -> list[Any]:
    """A non-empty list."""
    if not isinstance(value, list) or not value:
        raise RejectedError(f"{where}: a non-empty array is required", param=where, code="empty_array")
    return value


def take_list(value: Any, where: str) -> list[Any]:
    """A list, empty where there is none."""
    if value is not None and not isinstance(value, list):
        raise RejectedError(f"{where}: an array is required", param=where, code="invalid_type")
    return value or []


def need_one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    """One of a few words."""
    if value not in allowed:
        raise RejectedError(f"{where}: must be one of {', '.join(allowed)}", param=where, code="invalid_value")
    return str(value)


def read_limit(body: Mapping[str, Any], where: str, *, smallest: int = 1) -> int | None:
    """A token limit, if there is one."""
    value = body.get(where)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
        raise RejectedError(
            f"{where}: must be an integer greater than or equal to {smallest}",
            param=where,
            code="integer_below_min_value",
        )
    return value


def check_range(body: Mapping[str, Any], where: str, high: float) -> None:
    """A number from 0 to `high`, if it is there."""
    value = body.get(where)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= high:
        raise RejectedError(f"{where}: range: 0..{high:g}", param=where, code="decimal_above_max_value")


def read_stops(value: Any, where: str, most: int) -> tuple[str, ...]:
    """Stop sequences: a list of at most `most` non-empty texts, or one text."""
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise RejectedError(f"{where}: non-empty strings are required", param=where, code="invalid_type")
    if len(stops) > most:
        raise RejectedError(f"{where}: array too long, at most {most}", param=where, code="array_above_max_length")
    return tuple(stops)


def read_stream(body: Mapping[str, Any]) -> bool:
    """Whether the body asks for a stream."""
    value = body.get("stream")
    if value not in (None, True, False):
        raise RejectedError("stream: must be a boolean", param="stream", code="invalid_type")
    return bool(value)


def offer_tool(definition: Mapping[str, Any], schema_key: str, where: str) -> OfferedTool:
    """A function definition: a name of letters, digits, dashes, underscores; a JSON Schema or nothing."""
    name = need_text(definition.get("name"), f"{where}.name")
    if not _TOOL_NAME.fullmatch(name):
        raise RejectedError(f"{where}.name: does not match '^[a-zA-Z0-9_.-]{{1,128}}$'", param=f"{where}.name")
    schema = definition.get(schema_key)
    return OfferedTool(name, {} if schema is None else need_object(schema, f"{where}.{schema_key}"))


def check_demand(demand: ToolDemand, name: str, tools: tuple[OfferedTool, ...], where: str) -> None:
    """A demanded tool must be on offer."""
    if demand is ToolDemand.AUTO or demand is ToolDemand.NONE:
        return
    if not tools or (name and name not in {tool.name for tool in tools}):
        raise RejectedError(f"{where}: the tool asked for is not among the tools", param=where, code="invalid_value")


def tally_text(tally: Tally, value: Any, where: str) -> None:
    """Counts a text."""
    if not isinstance(value, str):
        raise RejectedError(f"{where}: a string is required", param=where, code="invalid_type")
    tally.characters += len(value)


class OpenCalls:
    """Tool calls that wait for their results; providers insist that every call is answered by its id."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def open(self, call_id: str) -> None:
        """The assistant has called."""
        self._ids.add(call_id)

    def close(self, call_id: Any, where: str) -> None:
        """A tool has answered."""
        if not isinstance(call_id, str) or call_id not in self._ids:
            raise RejectedError(f"{where}: answers no preceding tool call", param=where)
        self._ids.discard(call_id)

    def check_none(self, where: str) -> None:
        """No call may be left without an answer where the conversation goes on."""
        if self._ids:
            raise RejectedError(f"{where}: preceding tool calls have no results", param=where)
