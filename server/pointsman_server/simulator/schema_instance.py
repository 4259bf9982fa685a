"""An instance of a JSON Schema: the smallest plain value that satisfies it.

Reads the keywords that tools and response formats use. Google's upper-case type names are understood. What cannot
be satisfied at all (a contradiction, an endless required recursion) still gives some value of the right type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pointsman_server.simulator.pattern_text import text_for_pattern

_MAX_DEPTH = 24
_SHALLOW_DEPTH = 4
_MAX_SIZE = 10_000
_MAX_VALUES = 20_000
_FORMATS = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "duration": "PT1S",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "/simulated",
    "uuid": "12345678-1234-4123-8123-123456789abc",
    "regex": "a",
    "json-pointer": "/a",
}
_Schema = Mapping[str, Any] | bool


class SchemaError(ValueError):
    """The schema is not one."""


def make_instance(schema: Mapping[str, Any]) -> Any:
    """A JSON value that satisfies the schema; always the same for equal schemas.

    Raises `SchemaError` where a keyword holds what it must not, or asks for more than this is made for.
    """
    try:
        return _Maker(schema).make(schema, 0)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError, ZeroDivisionError) as error:
        # The schema is the caller's; checking each keyword apart would say no more than this.
        raise SchemaError("a keyword has a value of the wrong kind") from error


def _size(schema: Mapping[str, Any], keyword: str, default: int) -> int:
    value = int(schema.get(keyword, default))
    if not 0 <= value <= _MAX_SIZE:
        raise ValueError(keyword)
    return value


class _Maker:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._made = 0

    def make(self, schema: _Schema, depth: int) -> Any:
        self._made += 1
        if self._made > _MAX_VALUES:
            raise ValueError("too many values")
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return None
        merged = self._merge(schema, depth)
        if "const" in merged:
            return merged["const"]
        if merged.get("enum"):
            return merged["enum"][0]
        for keyword in ("oneOf", "anyOf"):
            if merged.get(keyword):
                return self._make_branch(merged, keyword, depth)
        return self._make_typed(merged, depth)

    def _merge(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """The schema with `$ref` and `allOf` folded in."""
        merged = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        parts = list(schema.get("allOf", ()))
        if "$ref" in schema:
            parts.append(self._resolve(schema["$ref"]))
        for part in parts:
            if isinstance(part, Mapping) and depth <= _MAX_DEPTH:
                _fold(merged, self._merge(part, depth + 1))
        return merged

    def _resolve(self, reference: Any) -> Any:
        target: Any = self._root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        return target

    def _make_branch(self, merged: Mapping[str, Any], keyword: str, depth: int) -> Any:
        rest = {key: value for key, value in merged.items() if key != keyword}
        branches = [branch for branch in merged[keyword] if isinstance(branch, Mapping)]
        if depth > _SHALLOW_DEPTH:
            # A recursive type ends in the branch that does not lead back to itself.
            branches.sort(key=lambda branch: self._height(branch, frozenset(), 0))
        chosen = dict(self._merge(branches[0], depth)) if branches else {}
        _fold(chosen, rest)
        return self.make(chosen, depth + 1)

    def _height(self, schema: _Schema, seen: frozenset[str], depth: int) -> float:
        """How many levels an instance needs at least; infinite where a type cannot but contain itself."""
        if not isinstance(schema, Mapping) or depth > _SHALLOW_DEPTH:
            return depth
        reference = schema.get("$ref")
        if reference is not None:
            if reference in seen:
                return math.inf
            return self._height(self._resolve(reference), seen | {str(reference)}, depth)
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            return min(self._height(branch, seen, depth + 1) for branch in branches)
        properties = schema.get("properties", {})
        inner = [properties[name] for name in schema.get("required", ()) if name in properties]
        if schema.get("minItems"):
            inner.append(schema.get("items", {}))
        return max((self._height(part, seen, depth + 1) for part in inner), default=depth)

    def _make_typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        match _type_of(schema):
            case "object":
                return self._make_object(schema, depth)
            case "array":
                return self._make_array(schema, depth)
            case "integer":
                return _make_number(schema, whole=True)
            case "number":
                return _make_number(schema, whole=False)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _make_text(schema)

    def _make_object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        names = [name for name in schema.get("required", ()) if isinstance(name, str)]
        wanted = max(len(names), _size(schema, "minProperties", 0))
        names += [name for name in properties if name not in names][: wanted - len(names)]
        result = {name: self.make(properties.get(name, self._extra(schema)), depth + 1) for name in names}
        for number in range(wanted - len(result)):
            result[f"property_{number + 1}"] = self.make(self._extra(schema), depth + 1)
        return result

    @staticmethod
    def _extra(schema: Mapping[str, Any]) -> Mapping[str, Any]:
        extra = schema.get("additionalProperties")
        return extra if isinstance(extra, Mapping) else {"type": "string"}

    def _make_array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        fixed = schema.get("prefixItems") or []
        items = schema.get("items", {})
        # One item shows more than none; an inner list may stay empty so that recursion ends.
        wanted = _size(schema, "minItems", 1 if depth <= _SHALLOW_DEPTH else 0)
        wanted = min(wanted, _size(schema, "maxItems", wanted))
        if items is False:
            wanted = min(wanted, len(fixed))
        made = [self.make(fixed[i] if i < len(fixed) else items, depth + 1) for i in range(wanted)]
        if "contains" in schema and made:
            made[-1] = self.make(schema["contains"], depth + 1)
        return _make_distinct(made, items) if schema.get("uniqueItems") else made


def _fold(merged: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        present = merged.get(key)
        if key == "properties" and isinstance(present, Mapping):
            merged[key] = {**present, **value}
        elif key == "required" and isinstance(present, list):
            merged[key] = [*present, *(name for name in value if name not in present)]
        elif present is None:
            merged[key] = value


def _type_of(schema: Mapping[str, Any]) -> str:
    given = schema.get("type")
    if isinstance(given, list):
        given = next((name for name in given if str(name).lower() != "null"), "null")
    if isinstance(given, str):
        return given.lower()
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    numeric = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    return "number" if any(key in schema for key in numeric) else "string"


def _make_number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    step = schema.get("multipleOf") or (1 if whole else 0)
    low = schema.get("minimum", -math.inf)
    high = schema.get("maximum", math.inf)
    gap = step or 0.5
    if isinstance(schema.get("exclusiveMinimum"), (int, float)) and schema["exclusiveMinimum"] is not True:
        low = max(low, schema["exclusiveMinimum"] + (gap if whole or step else _margin(schema)))
    if isinstance(schema.get("exclusiveMaximum"), (int, float)) and schema["exclusiveMaximum"] is not True:
        high = min(high, schema["exclusiveMaximum"] - (gap if whole or step else _margin(schema)))
    value = min(max(1, low), high)
    if step:
        value = math.ceil(value / step) * step
        if value > high:
            value = math.floor(high / step) * step
    return int(value) if whole else value


def _margin(schema: Mapping[str, Any]) -> float:
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum", schema.get("maximum"))
    if low is None:
        low = schema.get("minimum")
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return float(high - low) / 4
    return 0.5


def _make_text(schema: Mapping[str, Any]) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    shortest = _size(schema, "minLength", 0)
    longest = min(_MAX_SIZE, int(schema.get("maxLength", _MAX_SIZE)))
    if isinstance(schema.get("pattern"), str):
        return text_for_pattern(schema["pattern"], shortest)
    return ("simulated" + "x" * max(0, shortest - 9))[:longest]


def _make_distinct(items: list[Any], schema: _Schema) -> list[Any]:
    """Equal items made different, within the enum if there is one."""
    choices = list(schema.get("enum", ())) if isinstance(schema, Mapping) else []
    result: list[Any] = []
    for number, item in enumerate(items):
        if item in result and number < len(choices):
            item = choices[number]
        elif item in result and isinstance(item, str):
            item = f"{item}{number}"
        elif item in result and isinstance(item, (int, float)):
            item = item + number
        result.append(item)
    return result
