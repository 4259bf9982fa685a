"""What a call's metadata may hold, and what is read from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pointsman_server.domain.errors import FieldProblem, InvalidRequest
from pointsman_server.rpc.authentication import API_KEY, Entries
from pointsman_server.rpc.status import TooMuchMetadata

MAX_METADATA_ENTRIES = 64

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_STEERING = frozenset(
    f"{before}{word}{between}{last}"
    for before in ("", "x-", "x_")
    for word, last in (("base", "url"), ("api", "base"), ("api", "key"), ("custom", "host"), ("provider", "key"))
    for between in ("-", "_")
) - {API_KEY}
"""Metadata by which callers of other gateways choose the host or the key of a provider. Here only the policy does."""


def check_metadata(entries: Entries, metadata: Mapping[str, Any]) -> None:
    """Raises `TooMuchMetadata`, and `InvalidRequest` for entries by which a caller would steer what is called."""
    if len(entries) > MAX_METADATA_ENTRIES:
        raise TooMuchMetadata
    if _STEERING.isdisjoint(metadata):
        return
    # The names are known ones, so that they may be told.
    what = "is not taken from callers: only the policy says which host is called with which key; leave it out"
    steering = sorted(_STEERING.intersection(metadata))
    raise InvalidRequest(tuple(FieldProblem(f"metadata.{name}", what) for name in steering))


def traceparent_in(metadata: Mapping[str, Any]) -> str:
    """The trace context that the caller sent, "" when it sent none that is well formed."""
    given = metadata.get("traceparent", "")
    return given if given and isinstance(given, str) and _TRACEPARENT.fullmatch(given) else ""
