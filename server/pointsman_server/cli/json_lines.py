"""The contract's messages as JSON, with the field names of the `.proto` files."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message


def whole_json(message: Message) -> str:
    """The message over several lines; fields at their defaults are there too, so that scripts find them."""
    return MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, ensure_ascii=False
    )


def json_line(message: Message) -> str:
    """The message in one line, with only what is set."""
    return MessageToJson(message, preserving_proto_field_name=True, indent=None, ensure_ascii=False)
