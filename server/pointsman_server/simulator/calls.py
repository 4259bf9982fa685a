"""The log of what the simulator was asked, for tests to look into."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import orjson

from pointsman_server.simulator.behaviour import Dialect

MAX_CALLS = 2_000
MAX_BYTES = 64_000_000
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """One request. `headers` have lower-case names and no key; `key_sha256` is "" without one.

    `model` is "" where the request names none, and `body` None where it is not JSON.
    """

    dialect: Dialect
    path: str
    model: str
    headers: Mapping[str, str]
    key_sha256: str
    raw_body: bytes

    @property
    def has_key(self) -> bool:
        """Whether the request carried a key."""
        return bool(self.key_sha256)

    @property
    def body(self) -> Any:
        """The body as JSON value."""
        try:
            return orjson.loads(self.raw_body)
        except orjson.JSONDecodeError:
            return None


class CallLog(Sequence[ReceivedCall]):
    """The last calls, oldest first; bounded by number and by the size of their bodies."""

    def __init__(self) -> None:
        self._calls: deque[ReceivedCall] = deque()
        self._bytes = 0
        self.total = 0
        """How many calls were received, forgotten ones included."""

    def add(self, call: ReceivedCall) -> None:
        """Takes a call in and forgets the oldest where that is needed."""
        self.total += 1
        self._calls.append(call)
        self._bytes += len(call.raw_body)
        while len(self._calls) > MAX_CALLS or (self._bytes > MAX_BYTES and len(self._calls) > 1):
            self._bytes -= len(self._calls.popleft().raw_body)

    def clear(self) -> None:
        """Forgets all calls and starts to count anew."""
        self._calls.clear()
        self._bytes = 0
        self.total = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[ReceivedCall]:
        return iter(tuple(self._calls))

    @overload
    def __getitem__(self, index: int) -> ReceivedCall: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReceivedCall]: ...
    def __getitem__(self, index: int | slice) -> ReceivedCall | Sequence[ReceivedCall]:
        return self._calls[index] if isinstance(index, int) else tuple(self._calls)[index]


def split_headers(headers: Mapping[str, str], key_in_query: str) -> tuple[dict[str, str], str]:
    """The headers without keys, and the SHA-256 of the key ("" without one)."""
    kept: dict[str, str] = {}
    key = key_in_query
    for name, value in headers.items():
        lower = name.lower()
        if lower in _KEY_HEADERS:
            key = value[len(_BEARER) :] if value.lower().startswith(_BEARER) else value
        else:
            kept[lower] = value
    return kept, hashlib.sha256(key.encode()).hexdigest() if key else ""
