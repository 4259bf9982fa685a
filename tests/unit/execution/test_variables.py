"""Values for variables: right ones are taken, wrong ones told by their path, without a word of what they say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.template import Variable, VariableType
from pointsman_server.execution.variables import PATH, UnfitValueError, fitting, read_values

STRING = Variable(VariableType.STRING, max_length=5)
STRINGS = Variable(VariableType.STRINGS, max_length=5, max_items=2)
INTEGER = Variable(VariableType.INTEGER, minimum=1, maximum=9)
NUMBER = Variable(VariableType.NUMBER, minimum=-0.5, maximum=0.5)
BOOLEAN = Variable(VariableType.BOOLEAN)
ENUM = Variable(VariableType.ENUM, choices=("short", "long"))


@pytest.mark.parametrize(
    ("variable", "value", "taken"),
    [
        (STRING, "12345", "12345"),
        (STRING, "{{7*7}}"[:5], "{{7*7"),
        (STRINGS, ["a", ""], ("a", "")),
        (STRINGS, (), ()),
        (INTEGER, 1, 1),
        (INTEGER, 9, 9),
        (NUMBER, 0, 0),
        (NUMBER, -0.5, -0.5),
        (BOOLEAN, False, False),
        (ENUM, "long", "long"),
    ],
)
def test_what_is_taken(variable: Variable, value: object, taken: object) -> None:
    assert fitting(variable, value) == taken
    assert type(fitting(variable, value)) is type(taken)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        (STRING, "123456", "has 6 characters; at most 5 are taken"),
        (STRING, 5, "must be a string"),
        (STRING, None, "must be a string"),
        (STRING, ["a"], "must be a string"),
        (STRINGS, "ab", "must be a list of strings"),
        (STRINGS, ["a", 1], "must be a list of strings"),
        (STRINGS, ["a", "b", "c"], "has 3 items; at most 2 are taken"),
        (STRINGS, ["123456"], "has an item that is too long; at most 5 characters are taken"),
        (INTEGER, 0, "must be at least 1"),
        (INTEGER, 10, "must be at most 9"),
        (INTEGER, 1.5, "must be a whole number"),
        (INTEGER, True, "must be a whole number"),
        (INTEGER, "1", "must be a whole number"),
        (NUMBER, 0.6, "must be at most 0.5"),
        (NUMBER, -0.6, "must be at least -0.5"),
        (NUMBER, math.nan, "must be a finite number"),
        (NUMBER, math.inf, "must be a finite number"),
        (NUMBER, False, "must be a finite number"),
        (BOOLEAN, 1, "must be true or false"),
        (BOOLEAN, "true", "must be true or false"),
        (ENUM, "loud", "must be one of short, long"),
        (ENUM, 1, "must be one of short, long"),
    ],
)
def test_what_is_not_taken(variable: Variable, value: object, told: str) -> None:
    with pytest.raises(UnfitValueError) as caught:
        fitting(variable, value)
    assert str(caught.value) == told


def read(variables: dict[str, Variable], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    values, problems = read_values(variables, given)
    return dict(values), {problem.field: problem.description for problem in problems}


def test_defaults_fill_what_is_not_given() -> None:
    variables = {"a": STRING, "b": Variable(VariableType.BOOLEAN, default=False)}
    assert read(variables, {"a": "x"}) == ({"a": "x", "b": False}, {})
    assert read(variables, {"a": "x", "b": True}) == ({"a": "x", "b": True}, {})


def test_every_problem_is_told_by_its_path() -> None:
    _, problems = read({"a": STRING, "b": INTEGER, "c": BOOLEAN}, {"b": 0, "c": True, "d": 1})
    assert problems == {
        f"{PATH}.d": "is no variable of the template; it has a, b, c",
        f"{PATH}.a": "is missing; the template has no default for it",
        f"{PATH}.b": "must be at least 1",
    }


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_what_must_be_given_must_not_be_empty(nothing: str) -> None:
    told = "must not be empty; the template has no default for it"
    assert read({"a": STRING}, {"a": nothing})[1] == {f"{PATH}.a": told}
    assert read({"a": STRINGS}, {"a": []})[1] == {f"{PATH}.a": told}
    assert read({"a": Variable(VariableType.STRING, default="x")}, {"a": nothing}) == ({"a": nothing}, {})


def test_a_name_that_is_none_stays_unsaid() -> None:
    _, problems = read({}, {"My card is 4111 1111 1111 1111": "x"})
    assert problems == {PATH: "is no variable of the template; it has 0 variables"}


@given(given=st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.text(), st.lists, max_leaves=3)))
def test_no_value_is_ever_repeated(given: dict[str, Any]) -> None:
    marked = {name: "CANARY" if isinstance(value, str) else value for name, value in given.items()}
    values, problems = read_values({"a": INTEGER, "b": ENUM, "c": STRINGS}, {**marked, "a": "CANARY", "c": "CANARY"})
    assert "CANARY" not in str(problems)
    assert {f"{PATH}.a", f"{PATH}.b", f"{PATH}.c"} <= {problem.field for problem in problems}
    assert values == {}
