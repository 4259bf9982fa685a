"""Which JSON Schemas are taken, from requests and policies: valid ones that can be applied without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import orjson

MOST_BYTES = 65_536
"""Most bytes of a schema as JSON."""

_MAX_REFERENCE_CHAIN = 32

_DRAFTS = frozenset(
    {
        "http://json-schema.org/draft-04/schema",
        "http://json-schema.org/draft-06/schema",
        "http://json-schema.org/draft-07/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    }
)


def wrong_schema(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a schema, as the end of a sentence that begins with its name; None if nothing is."""
    named_draft = schema.get("$schema")
    if isinstance(named_draft, str) and named_draft.removesuffix("#") not in _DRAFTS:
        # Before anything else reads the schema: the validator would fetch an address that it does not know.
        return "must name a published draft of JSON Schema in $schema, or none"
    if _has_recursive_reference(schema):
        return "must not hold a $ref that leads outside of itself or back to itself"
    try:
        jsonschema_rs.meta.validate(dict(schema))
    except ValueError:
        return "is not a valid JSON Schema"
    return None


def _has_recursive_reference(schema: Mapping[str, Any]) -> bool:
    """Whether a reference leads back to itself, out of the schema, or through too long a chain."""
    sound: set[str] = set()

    def is_unsound(node: object, chain: tuple[str, ...]) -> bool:
        if isinstance(node, list):
            return any(is_unsound(item, chain) for item in node)
        if not isinstance(node, dict):
            return False
        reference = node.get("$ref")
        if isinstance(reference, str) and reference not in sound:
            target = _resolve(schema, reference)
            if reference in chain or len(chain) >= _MAX_REFERENCE_CHAIN or target is None:
                return True
            if is_unsound(target, (*chain, reference)):
                return True
            sound.add(reference)
        return any(is_unsound(value, chain) for key, value in node.items() if key not in ("$defs", "definitions"))

    return b'"$ref"' in orjson.dumps(schema) and is_unsound(schema, ())


def _resolve(schema: Mapping[str, Any], reference: str) -> object | None:
    if not reference.startswith("#/"):
        return None
    node: object = schema
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdecimal() and int(name[:6]) < len(node):
            node = node[int(name[:6])]
        else:
            return None
    return node
