"""Reads one mapping of the policy key by key: every key known, every required one there, every value of its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pointsman_server.config.problems import Findings, nearest, path_part, shown
from pointsman_server.config.yaml_tree import Items, Node, Refused, Scalar, Table

T = TypeVar("T")
S = TypeVar("S")


class UnacceptableError(Exception):
    """A value is not what its key takes. `message` continues a sentence that begins with the path."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}. {remedy}")
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Spot:
    """A value of the file and where it stands."""

    findings: Findings
    node: Node
    path: str
    line: int

    def refuse(self, message: str, remedy: str) -> None:
        """Notes a problem with this value."""
        self.findings.refuse(self.line, self.path, message, remedy)

    def warn(self, message: str, remedy: str) -> None:
        """Notes a probable mistake in this value."""
        self.findings.warn(self.line, self.path, message, remedy)

    def read(self, reader: Callable[[Spot], T], stand_in: S) -> T | S:
        """What the reader makes of this value; `stand_in` when it is unacceptable, which is then noted."""
        if isinstance(self.node, Refused):
            return stand_in
        try:
            return reader(self)
        except UnacceptableError as error:
            self.refuse(error.message, error.remedy)
            return stand_in

    def text(self) -> str:
        """The single value as written."""
        if isinstance(self.node, (Items, Table)):
            kind = "a list" if isinstance(self.node, Items) else "a mapping"
            raise UnacceptableError(f"is {kind}", "Write one value.")
        if not isinstance(self.node, Scalar) or self.node.is_null:
            raise UnacceptableError("has no value", "Write one, or remove the key.")
        return self.node.text

    def items(self) -> Iterator[Spot]:
        """The values of a list."""
        if not isinstance(self.node, Items):
            raise UnacceptableError("is not a list", "Write it as `[first, second]`.")
        for index, node in enumerate(self.node.nodes):
            yield Spot(self.findings, node, f"{self.path}[{index}]", node.line)

    def entries(self) -> Iterator[tuple[str, Spot]]:
        """The keys of a mapping with their values."""
        if not isinstance(self.node, Table):
            raise UnacceptableError("is not a mapping", "Write it as `key: value` lines, indented below this key.")
        for entry in self.node.entries:
            part = path_part(entry.key)
            path = f"{self.path}.{part}" if self.path else part
            yield entry.key, Spot(self.findings, entry.value, path, entry.line)


Keys = Mapping[str, str]
"""The keys that a section knows, each with an example that is shown when the key is missing."""


class Section:
    """A mapping with known keys. Unknown ones are noted at once, with the nearest known one."""

    def __init__(self, spot: Spot, keys: Keys) -> None:
        self.spot = spot
        self._keys = keys
        entries = spot.read(lambda table: dict(table.entries()), None)
        self._is_readable = entries is not None
        self._values = entries or {}
        for name, value in self._values.items():
            if name not in keys:
                value.refuse(f"is not a known key: {shown(name)}", nearest(name, keys) or "Remove it.")

    def at(self, key: str) -> Spot | None:
        """The value of this key, None when it is not given."""
        return self._values.get(key)

    def required(self, key: str, reader: Callable[[Spot], T], stand_in: S) -> T | S:
        """The value of a key that must be there; `stand_in`, and a note, when it is missing or unacceptable."""
        value = self.at(key)
        if value is not None:
            return value.read(reader, stand_in)
        if self._is_readable:
            path = f"{self.spot.path}.{key}" if self.spot.path else key
            self.spot.findings.refuse(self.spot.line, path, "is missing", f"Add for example `{self._keys[key]}`.")
        return stand_in

    def optional(self, key: str, reader: Callable[[Spot], T], default: S) -> T | S:
        """The value of a key that may be left out; the default, and a note, when it is unacceptable."""
        value = self.at(key)
        return default if value is None else value.read(reader, default)
