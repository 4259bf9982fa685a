"""The version of a policy: a hash of what it says, not of how it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum

from pointsman_server.domain.catalog import Provider, Snapshot
from pointsman_server.domain.governance import Webhook
from pointsman_server.domain.knowledge import Knowledge

_DIGITS = 12


def fingerprint(snapshot: Snapshot, key_references: Mapping[str, str]) -> str:
    """Twelve hex digits that change when the policy's meaning does.

    Comments, order of keys, the file's name, the values of keys and whether they are there do not count; where the
    keys are kept (`key_references` by provider id) does, and so do the prices in force and what is written in the files
    of a knowledge base.
    """
    content = {"snapshot": _plain(snapshot), "key_references": _plain(key_references)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


_LEFT_OUT: dict[type, frozenset[str]] = {
    Snapshot: frozenset(["version", "source"]),
    Provider: frozenset(["api_key", "unusable_because"]),
    Knowledge: frozenset(["passages", "synonyms", "files"]),
    Webhook: frozenset(["url", "secret", "unusable_because"]),
}


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        left_out = _LEFT_OUT.get(type(value), frozenset())
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.name not in left_out}
    if isinstance(value, Mapping):
        return {key.name if isinstance(key, Enum) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(json.dumps(_plain(item)) for item in value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value
