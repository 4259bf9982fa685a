"""Schemas that can be applied without asking anybody, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman_server.execution.schema_rules import wrong_schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array"},
        {"properties": {"a": {"$ref": "#/allOf/0"}}, "allOf": [{"type": "object"}]},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_sound_ones(schema: dict[str, Any]) -> None:
    assert wrong_schema(schema) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"$schema": "https://example.com/schema"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#"},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"properties": {"a": {"$ref": "#/nowhere/0"}}, "allOf": [{}]},
        {"items": {"$ref": "#/allOf/7"}, "allOf": [{}]},
    ],
)
def test_unsound_ones(schema: dict[str, Any]) -> None:
    assert wrong_schema(schema)
