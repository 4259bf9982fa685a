"""Made-up instances satisfy their schemas."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, Field

from pointsman_server.simulator.pattern_text import text_for_pattern
from pointsman_server.simulator.schema_instance import SchemaError, make_instance


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    kind: Literal["leaf"]
    weight: Annotated[float, Field(gt=0, lt=1)]


class Branch(BaseModel):
    kind: Literal["branch"]
    children: list[Branch | Leaf] = Field(min_length=1)


class Everything(BaseModel):
    colour: Colour
    when: date
    at: datetime
    id: UUID
    link: AnyUrl
    code: Annotated[str, Field(pattern=r"^[A-Z]{3}-\d{4,}$")]
    name: Annotated[str, Field(min_length=20, max_length=22)]
    initials: Annotated[str, Field(max_length=2)]
    even: Annotated[int, Field(multiple_of=2, ge=3)]
    below: Annotated[int, Field(lt=-10)]
    narrow: Annotated[float, Field(gt=1, lt=1.5)]
    flags: Annotated[set[str], Field(min_length=3)]
    pair: tuple[int, str]
    tree: Leaf | Branch
    mapping: Annotated[dict[str, int], Field(min_length=2)]
    maybe: int | None
    nothing: None
    sure: bool
    left_out: str = "default"


class Node(BaseModel):
    value: int
    following: Node | None


def test_everything_pydantic_can_ask() -> None:
    made = make_instance(Everything.model_json_schema())
    assert "left_out" not in made
    Everything.model_validate(made)


def test_recursion_ends() -> None:
    Node.model_validate(make_instance(Node.model_json_schema()))
    Branch.model_validate(make_instance(Branch.model_json_schema()))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": 7}, 7),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "null"}, None),
        ({"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "required": ["a"]}, {"a": "simulated"}),
        ({"properties": {"a": {}}, "required": ["a"]}, {"a": "simulated"}),
        ({"type": "object", "required": ["unlisted"]}, {"unlisted": "simulated"}),
        ({"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}}, {"property_1": 1}),
        ({"items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "array", "maxItems": 0}, []),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": False}, [1]),
        ({"type": "array", "contains": {"const": "x"}}, ["x"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 2, 3]),
        ({"minimum": 2.5}, 2.5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "minimum": 5, "maximum": 5}, 5),
        ({"type": "integer", "maximum": 11, "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "string", "maxLength": 3}, "sim"),
        ({"type": "string", "format": "ipv4"}, "192.0.2.1"),
        ({"type": "string", "format": "unheard-of"}, "simulated"),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"]}]}, {"a": 1}),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 2}}}, 2),
        ({"$ref": "#/nowhere"}, "simulated"),
        ({"oneOf": [{"type": "integer"}], "minimum": 3}, 3),
        ({}, "simulated"),
        ({"type": "str"}, "simulated"),
    ],
)
def test_keywords(schema: dict[str, Any], expected: Any) -> None:
    assert make_instance(schema) == expected


def test_endless_schemas_do_not_hang() -> None:
    endless = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    make_instance(endless)
    wide = {"$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}, "required": ["b"]}}, "$ref": "#/$defs/a"}
    assert isinstance(make_instance(wide), dict)


PATTERNS = [
    r"^[A-Z]{3}-\d+$",
    r"^(foo|bar)+$",
    r"^\+?[0-9]{1,3} \([0-9]{2}\)$",
    r"^[^a-z]{5}$",
    r"^\w+@\w+\.[a-z]{2,}$",
    r"^(?:a|b){2,}(?P<rest>c?)$",
    r"\d{4}-\d{2}-\d{2}",
    r"^.{3,7}?$",
    r"^[\]\-x]{2}$",
    r"^$",
    r"a|b",
    r"^\x2d?b",
]


@pytest.mark.parametrize("pattern", PATTERNS[:-1])
def test_patterns(pattern: str) -> None:
    assert re.search(pattern, text_for_pattern(pattern))


@pytest.mark.parametrize("pattern", [r"^(?=a)b", r"\x2d", r"(a)\1b\2", "[", "(", "a{2", "*", r"[一-二]{3}"])
def test_patterns_too_hard_give_plain_text(pattern: str) -> None:
    made = text_for_pattern(pattern, 4)
    assert len(made) >= 4


@given(st.text(alphabet=r"ab[]()^$.*+?{}|\d1,", max_size=12), st.integers(0, 10))
def test_any_pattern_gives_a_text(pattern: str, shortest: int) -> None:
    assert len(text_for_pattern(pattern, shortest)) >= shortest


def test_patterns_that_search_for_ever() -> None:
    assert text_for_pattern(r"^(a+)+$x", 40)
    assert text_for_pattern(r"^(a{1,30}){30}$x", 40)


def test_pattern_and_length_together() -> None:
    made = text_for_pattern(r"^[a-f]+$", 30)
    assert len(made) >= 30
    assert re.fullmatch("[a-f]+", made)


TEN_THOUSAND = {"type": "array", "minItems": 10_000}
HUGE = {**TEN_THOUSAND, "items": {**TEN_THOUSAND, "items": {"type": "string"}}}


def test_schemas_that_are_none() -> None:
    for schema in (
        {"minItems": "many", "items": {}},
        {"minLength": 10**9},
        {"properties": ["b"], "required": ["a"]},
        HUGE,
    ):
        with pytest.raises(SchemaError):
            make_instance(schema)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["", "string", "object", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "type", "$ref"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYWORDS = (
    "type properties required items prefixItems anyOf oneOf allOf enum const minItems maxItems uniqueItems minimum "
    "exclusiveMaximum multipleOf minLength maxLength pattern format additionalProperties minProperties contains $ref"
)


@given(st.dictionaries(st.sampled_from(KEYWORDS.split()), json_values, max_size=5))
def test_no_schema_breaks_the_maker(schema: dict[str, Any]) -> None:
    with contextlib.suppress(SchemaError):
        json.dumps(make_instance(schema))
