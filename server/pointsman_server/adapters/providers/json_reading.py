"""Lenient reading of foreign JSON: unknown keys, missing details and odd numbers never break an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.domain.faults import FaultKind, ProviderFault

MAX_PLAUSIBLE_TOKENS = 100_000_000
"""No model counts this many tokens in one call; a larger count is an error of the provider."""


def read_object(body: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `body`; anything else is a MALFORMED_REPLY that names `what` was being read."""
    value = _read_json(body, what)
    if not isinstance(value, dict):
        raise ProviderFault(FaultKind.MALFORMED_REPLY, f"{what} is not a JSON object")
    return value


def _read_json(body: bytes, what: str) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            return _read_json_with_nan(body, what)
        raise ProviderFault(FaultKind.MALFORMED_REPLY, f"{what} is not valid JSON") from error


def _read_json_with_nan(body: bytes, what: str) -> object:
    # Python servers write bare NaN; orjson refuses it, the standard library reads it.
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProviderFault(FaultKind.MALFORMED_REPLY, f"{what} is not valid JSON") from error


def as_object(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value if it is a string, else ""."""
    return value if isinstance(value, str) else ""


class CountReader:
    """Reads token counts; remembers in `implausible` whether any of them could not be true."""

    __slots__ = ("implausible",)

    def __init__(self) -> None:
        self.implausible = False

    def read(self, value: object) -> int | None:
        """The count; numbers in strings are parsed. None when absent or impossible (negative, absurd, not a number)."""
        if value is None or isinstance(value, bool):
            return None
        try:
            number = float(value)  # type: ignore[arg-type]  # whatever JSON held; the except clause is the check
        except (TypeError, ValueError, OverflowError):
            self.implausible = True
            return None
        if not 0 <= number <= MAX_PLAUSIBLE_TOKENS:
            self.implausible = True
            return None
        return int(number)

    def read_or_zero(self, value: object) -> int:
        """As `read`, with 0 for None."""
        return self.read(value) or 0
