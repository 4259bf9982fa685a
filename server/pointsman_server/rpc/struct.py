"""google.protobuf.Struct to plain Python, with whole numbers as int: JSON Schema means 5, not 5.0."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

_MOST_EXACT = 2**53
"""Above this a double holds no longer every whole number, and soon no 64-bit integer can hold it."""


def struct_to_dict(struct: Struct) -> dict[str, Any]:
    """The same as a dict."""
    return {name: _to_python(value) for name, value in struct.fields.items()}


def _to_python(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _MOST_EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct_to_dict(value.struct_value)
        case "list_value":
            return [_to_python(item) for item in value.list_value.values]
        case _:
            return None
