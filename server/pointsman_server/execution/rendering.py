"""Fills the gaps of a template's texts. Values are put in as they are: whatever they say, it stays text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pointsman_server.domain.template import (
    MOST_CHARACTERS,
    Both,
    Choose,
    Condition,
    Either,
    Filter,
    Given,
    Insert,
    Node,
    Opposite,
    Repeat,
    Same,
    Text,
    Value,
)


class TooLongError(Exception):
    """The filled texts are longer than a template may become."""


class Filler:
    """Fills texts with the same values; all of them together may have so many characters."""

    def __init__(self, values: Mapping[str, Value], most_characters: int = MOST_CHARACTERS) -> None:
        self._values = values
        self._left = most_characters

    def fill(self, nodes: Sequence[Node]) -> str:
        """The text without gaps. Raises `TooLongError` as soon as it is certain."""
        written: list[str] = []
        self._write(nodes, self._values, written)
        return "".join(written)

    def _write(self, nodes: Sequence[Node], values: Mapping[str, Value], written: list[str]) -> None:
        for node in nodes:
            match node:
                case Text(text=text):
                    self._say(text, written)
                case Insert():
                    self._say(_inserted(node, values), written)
                case Choose(condition=condition, then=then, otherwise=otherwise):
                    self._write(then if _holds(condition, values) else otherwise, values, written)
                case Repeat(item=item, over=over, body=body):
                    for value in _list(values[over]):
                        self._write(body, {**values, item: value}, written)

    def _say(self, text: str, written: list[str]) -> None:
        self._left -= len(text)
        if self._left < 0:
            raise TooLongError
        written.append(text)


def _holds(condition: Condition, values: Mapping[str, Value]) -> bool:
    match condition:
        case Given(name=name):
            return bool(values[name])
        case Same(name=name, value=value):
            return values[name] == value
        case Opposite(condition=inner):
            return not _holds(inner, values)
        case Both(first=first, second=second):
            return _holds(first, values) and _holds(second, values)
        case Either(one=one, other=other):
            return _holds(one, values) or _holds(other, values)


def _inserted(insert: Insert, values: Mapping[str, Value]) -> str:
    value = values[insert.name]
    for filter_, argument in insert.filters:
        value = _filtered(filter_, argument, value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _filtered(filter_: Filter, argument: str, value: Value) -> Value:
    match filter_:
        case Filter.UPPER:
            return str(value).upper()
        case Filter.LOWER:
            return str(value).lower()
        case Filter.TRIM:
            return str(value).strip()
        case Filter.LENGTH:
            return len(value if isinstance(value, (str, tuple)) else str(value))
        case Filter.JOIN:
            return argument.join(_list(value))


def _list(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)
