"""Random messages of the contract: any field set or not, to values that are right, odd or absurd."""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from hypothesis import strategies as st

_TEXTS = st.sampled_from(("", "a", "A b", "image/png", "f", "#/$defs/a", "\u200b", "\x00", "é" * 40)) | st.text(
    max_size=8
)
_FLOATS = st.sampled_from((0.0, -0.0, 0.5, 1.0, -1.0, 1e308, float("nan"), float("inf"))) | st.floats()
_BYTES = st.binary(max_size=20) | st.just(b"\x89PNG\r\n\x1a\nIEND")
_ENUMS = st.integers(0, 9) | st.sampled_from((99, -1, 2**31 - 1))
_OF_TYPE: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _TEXTS,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: _FLOATS,
    FieldDescriptor.TYPE_ENUM: _ENUMS,
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 3),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 3),
}
_KEYWORDS = st.sampled_from(
    (
        "type",
        "$ref",
        "$schema",
        "$id",
        "$defs",
        "properties",
        "items",
        "anyOf",
        "enum",
        "const",
        "minimum",
        "pattern",
        "a",
    )
)
_SCHEMA_VALUES = st.recursive(
    st.none() | st.booleans() | _FLOATS | _TEXTS | st.sampled_from(("string", "object", "#", "http://127.0.0.1:9/x")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def structs(draw: st.DrawFn) -> Struct:
    """Something that may look like a JSON Schema."""
    struct = Struct()
    struct.update(draw(st.dictionaries(_KEYWORDS, _SCHEMA_VALUES, max_size=4)))
    return struct


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Any:
    """A message of this type."""
    if descriptor.full_name == "google.protobuf.Struct":
        return draw(structs())
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.booleans()):
            _fill(draw, message, field)
    return message


def _fill(draw: st.DrawFn, message: Any, field: FieldDescriptor) -> None:
    held = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        held.update(draw(st.dictionaries(_TEXTS, _TEXTS, max_size=2)))
    elif field.is_repeated:
        held.extend(draw(st.lists(_values(field), max_size=3)))
    elif field.message_type is not None:
        held.CopyFrom(draw(_values(field)))
        held.SetInParent()
    else:
        setattr(message, field.name, draw(_values(field)))


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    return messages(field.message_type) if field.message_type is not None else _OF_TYPE[field.type]
