"""Reads single values by the type that their key takes, from the text as it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import TypeVar

from pointsman_server.config.problems import looks_like_a_key, nearest, shown
from pointsman_server.config.section import Spot, UnacceptableError
from pointsman_server.config.yaml_tree import Items, Scalar, Table
from pointsman_server.domain.identifier import IDENTIFIER

T = TypeVar("T")

MICRO_USD_PER_USD = 1_000_000
_MAX_USD = 1_000_000

_NAME = re.compile(r"[!-~]{1,256}")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_AMBIGUOUS = re.compile(
    r"y|n|yes|no|on|off|true|false|null|~|=|<<|[-+]?\.?[0-9].*|[-+]?\.(inf|nan)", re.IGNORECASE | re.DOTALL
)


def identifier(spot: Spot) -> str:
    """The id of something."""
    text = spot.text()
    if not IDENTIFIER.fullmatch(text):
        raise UnacceptableError(_not_an_id(text), _ID_RULE)
    return text


def refuse_bad_id(spot: Spot, key: str) -> None:
    """Notes a key that cannot be the id of what it defines."""
    if not IDENTIFIER.fullmatch(key):
        spot.refuse(_not_an_id(key), _ID_RULE)


def _not_an_id(text: str) -> str:
    return f"is not an id: {shown(text)}"


_ID_RULE = "Use 1 to 64 lower-case letters, digits, '.', '_' or '-', a letter or digit first."


def name(spot: Spot) -> str:
    """A name that is passed on as written: visible ASCII, up to 256 characters."""
    text = spot.text()
    if not _NAME.fullmatch(text):
        raise UnacceptableError("is not a name", "Use up to 256 visible ASCII characters without blanks.")
    return text


def switch(spot: Spot) -> bool:
    """True or false, in these words only."""
    text = spot.text()
    if text not in ("true", "false"):
        raise UnacceptableError(f"is neither true nor false: {shown(text)}", "Write `true` or `false`.")
    return text == "true"


def whole_number(lowest: int, highest: int) -> Callable[[Spot], int]:
    """A reader of whole numbers in plain digits."""

    def read(spot: Spot) -> int:
        text = spot.text()
        if not _WHOLE.fullmatch(text):
            raise UnacceptableError(
                f"is not a whole number: {shown(text)}", "Write plain digits without leading zero, for example `4096`."
            )
        value = int(text)
        if not lowest <= value <= highest:
            raise UnacceptableError(f"is {value}", f"Write a number from {lowest} to {highest}.")
        return value

    return read


def decimal_number(lowest: Decimal, highest: Decimal) -> Callable[[Spot], Decimal]:
    """A reader of finite decimal numbers in plain digits."""

    def read(spot: Spot) -> Decimal:
        value = _plain_decimal(spot)
        if not lowest <= value <= highest:
            raise UnacceptableError(f"is {value}", f"Write a number from {lowest} to {highest}.")
        return value

    return read


def _plain_decimal(spot: Spot) -> Decimal:
    text = spot.text()
    if not _DECIMAL.fullmatch(text):
        raise UnacceptableError(
            f"is not a plain decimal number: {shown(text)}",
            "Write digits with at most one point, for example `0.75`; no exponent, no .nan, no .inf.",
        )
    return Decimal(text)


def seconds(lowest: Decimal = Decimal("0.001"), highest: Decimal = Decimal(3600)) -> Callable[[Spot], float]:
    """A reader of durations."""
    return lambda spot: float(decimal_number(lowest, highest)(spot))


def share(spot: Spot) -> float:
    """A number from 0 to 1."""
    return float(decimal_number(Decimal(0), Decimal(1))(spot))


def usd(spot: Spot) -> int:
    """An amount written in USD, as whole micro-USD; nothing is rounded."""
    value = _plain_decimal(spot)
    if not 0 <= value <= _MAX_USD:
        raise UnacceptableError(f"is {value}", f"Write an amount from 0 to {_MAX_USD} USD.")
    micro_usd = value * MICRO_USD_PER_USD
    if micro_usd != int(micro_usd):
        raise UnacceptableError("has more than six decimal places", "Round it to micro-USD (0.000001).")
    return int(micro_usd)


def calendar_date(spot: Spot) -> date:
    """A day as YYYY-MM-DD."""
    text = spot.text()
    try:
        if not _DATE.fullmatch(text):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise UnacceptableError(f"is not a date: {shown(text)}", "Write it as YYYY-MM-DD, `2026-01-31`.") from None


def one_of(choices: Mapping[str, T]) -> Callable[[Spot], T]:
    """A reader of one of the given words."""

    def read(spot: Spot) -> T:
        text = spot.text()
        if text not in choices:
            raise UnacceptableError(
                f"is not a known word: {shown(text)}", nearest(text, choices) or f"Write one of {', '.join(choices)}."
            )
        return choices[text]

    return read


def list_of(reader: Callable[[Spot], T]) -> Callable[[Spot], tuple[T, ...]]:
    """A reader of lists without repetition; unacceptable items are noted and left out."""

    def read(spot: Spot) -> tuple[T, ...]:
        values: dict[T, None] = {}
        for item in spot.items():
            value = item.read(reader, None)
            if value in values:
                item.refuse("is listed twice", "Remove one of the two.")
            elif value is not None:
                values[value] = None
        return tuple(values)

    return read


def some(reader: Callable[[Spot], T]) -> Callable[[Spot], T]:
    """A reader that refuses what is empty: it could be meant as everything or as nothing."""

    def read(spot: Spot) -> T:
        node = spot.node
        parts = node.nodes if isinstance(node, Items) else node.entries if isinstance(node, Table) else None
        if parts == ():
            raise UnacceptableError("is empty", "Name at least one, or remove the key.")
        return reader(spot)

    return read


def json_value(spot: Spot) -> object:
    """Any JSON value. A text that YAML could read as something else must be quoted."""
    if isinstance(spot.node, Table):
        return {key: value.read(json_value, None) for key, value in spot.entries()}
    if isinstance(spot.node, Items):
        return [item.read(json_value, None) for item in spot.items()]
    if isinstance(spot.node, Scalar):
        return _json_scalar(spot.node)
    return None


def _json_scalar(scalar: Scalar) -> object:
    if looks_like_a_key(scalar.text):
        raise UnacceptableError("looks like a key", "Secrets belong into a provider's `api_key`, as a reference.")
    if scalar.quoted:
        return scalar.text
    if scalar.text in ("true", "false", "null", ""):
        return {"true": True, "false": False}.get(scalar.text)
    if _WHOLE.fullmatch(scalar.text):
        return int(scalar.text)
    if _DECIMAL.fullmatch(scalar.text):
        return float(scalar.text)
    if _AMBIGUOUS.fullmatch(scalar.text):
        raise UnacceptableError(
            f"can be read in several ways: {shown(scalar.text)}",
            "Put a text in quotes; write numbers in plain digits and truth values as `true` or `false`.",
        )
    return scalar.text
