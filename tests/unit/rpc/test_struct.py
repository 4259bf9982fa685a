from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.rpc.struct import struct_to_dict

LARGEST_EXACT = 2**53


def struct(content: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(content)
    return made


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (5.0, int),
        (-0.0, int),
        (0.5, float),
        (float(LARGEST_EXACT), int),
        (-float(LARGEST_EXACT), int),
        (float(LARGEST_EXACT) * 2, float),
        (1e30, float),
        (math.inf, float),
    ],
)
def test_whole_numbers_are_int_as_long_as_they_are_exact(number: float, kind: type) -> None:
    found = struct_to_dict(struct({"n": number}))["n"]
    assert type(found) is kind
    assert found == number


def test_every_kind_of_value() -> None:
    content = {"text": "a", "yes": True, "none": None, "list": [1, "b", [False]], "nested": {"x": {"y": 2.5}}}
    assert struct_to_dict(struct(content)) == content


def test_a_value_that_is_not_set_is_nothing() -> None:
    made = Struct()
    made.fields["unset"].CopyFrom(Value())
    assert struct_to_dict(made) == {"unset": None}


json = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@examples(150)
@given(st.dictionaries(st.text(max_size=5), json, max_size=4))
def test_nothing_is_lost_and_everything_can_be_written_as_json(content: dict[str, Any]) -> None:
    found = struct_to_dict(struct(content))
    assert found == content
    orjson.dumps(found)
