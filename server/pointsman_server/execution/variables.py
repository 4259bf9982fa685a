"""The values that a caller gives for a template's variables: of the right type and size, or a problem for each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pointsman_server.domain.errors import FieldProblem
from pointsman_server.domain.template import Value, Variable, VariableType

PATH = "completion.template.variables"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_NAMED = 12


class UnfitValueError(Exception):
    """A value is not what its variable takes; the message says what it must be, and nothing of the value."""


def read_values(
    variables: Mapping[str, Variable], given: Mapping[str, Any]
) -> tuple[dict[str, Value], list[FieldProblem]]:
    """The value of every variable, given or its default, and a problem for each that is wrong, missing or unknown."""
    values: dict[str, Value] = {}
    problems = _unknown(variables, given)
    for name, variable in variables.items():
        try:
            values[name] = _value_of(name, variable, given)
        except UnfitValueError as error:
            problems.append(FieldProblem(f"{PATH}.{name}", str(error)))
    return values, problems


def fitting(variable: Variable, value: object) -> Value:
    """The value as its variable takes it; raises `UnfitValueError`."""
    return _READERS[variable.type](variable, value)


def _unknown(variables: Mapping[str, Variable], given: Mapping[str, Any]) -> list[FieldProblem]:
    names = list(variables)
    known = f"it has {', '.join(names)}" if 0 < len(names) <= _MOST_NAMED else f"it has {len(names)} variables"
    # Whatever is no plain name was not meant as one and stays unsaid.
    return [
        FieldProblem(f"{PATH}.{name}" if _NAME.fullmatch(name) else PATH, f"is no variable of the template; {known}")
        for name in given
        if name not in variables
    ]


def _value_of(name: str, variable: Variable, given: Mapping[str, Any]) -> Value:
    if name not in given:
        if variable.default is None:
            raise UnfitValueError("is missing; the template has no default for it")
        return variable.default
    value = fitting(variable, given[name])
    if variable.default is None and _is_nothing(value):
        raise UnfitValueError("must not be empty; the template has no default for it")
    return value


def _is_nothing(value: Value) -> bool:
    return (isinstance(value, str) and not value.strip()) or value == ()


def _string(variable: Variable, value: object) -> str:
    if not isinstance(value, str):
        raise UnfitValueError("must be a string")
    if len(value) > variable.max_length:
        raise UnfitValueError(f"has {len(value)} characters; at most {variable.max_length} are taken")
    return value


def _strings(variable: Variable, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise UnfitValueError("must be a list of strings")
    if len(value) > variable.max_items:
        raise UnfitValueError(f"has {len(value)} items; at most {variable.max_items} are taken")
    if any(len(item) > variable.max_length for item in value):
        raise UnfitValueError(f"has an item that is too long; at most {variable.max_length} characters are taken")
    return tuple(value)


def _integer(variable: Variable, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnfitValueError("must be a whole number")
    _require_within(variable, value)
    return value


def _number(variable: Variable, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UnfitValueError("must be a finite number")
    _require_within(variable, value)
    return value


def _require_within(variable: Variable, value: int | float) -> None:
    if variable.minimum is not None and value < variable.minimum:
        raise UnfitValueError(f"must be at least {variable.minimum:g}")
    if variable.maximum is not None and value > variable.maximum:
        raise UnfitValueError(f"must be at most {variable.maximum:g}")


def _boolean(variable: Variable, value: object) -> bool:
    if not isinstance(value, bool):
        raise UnfitValueError("must be true or false")
    return value


def _enum(variable: Variable, value: object) -> str:
    if not isinstance(value, str) or value not in variable.choices:
        raise UnfitValueError(f"must be one of {', '.join(variable.choices)}")
    return value


_READERS: Mapping[VariableType, Callable[[Variable, object], Value]] = {
    VariableType.STRING: _string,
    VariableType.STRINGS: _strings,
    VariableType.INTEGER: _integer,
    VariableType.NUMBER: _number,
    VariableType.BOOLEAN: _boolean,
    VariableType.ENUM: _enum,
}
