"""Reads YAML into a tree of texts with their lines; what a text means is decided by the schema, not by YAML.

So `no`, `012` or `12:30:45` stay what was written, and a file can neither run code (tags are refused), nor grow
when it is walked (anchors and aliases are refused), nor say the same thing twice (duplicate keys are refused).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import yaml

from pointsman_server.config.problems import Findings, path_part, shown

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 50

_NULL_WORDS = frozenset(["", "~", "null", "Null", "NULL"])
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile("^%", re.MULTILINE)
_TAB_INDENT = re.compile("[ ]*\t")
_QUOTATION = re.compile("'[^']{2,}")
_WRITE_OUT = "Write the value out; anchors, aliases and tags are not supported."


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written, without its quotes."""

    text: str
    line: int
    quoted: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing was written, or a word that YAML reads as nothing."""
        return not self.quoted and self.text in _NULL_WORDS


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    nodes: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a table with its value; the line is the key's."""

    key: str
    line: int
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping in written order, every key once."""

    entries: tuple[Entry, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A value that was already reported; nothing more need be said about it."""

    line: int


Node = Scalar | Items | Table | Refused


def read_tree(data: bytes, findings: Findings) -> Node:
    """The tree of a YAML file. Refused parts are noted in `findings`; raises `PolicyError` where reading must end."""
    text = _decoded(data, findings)
    return _Builder(text, findings).document()


def _decoded(data: bytes, findings: Findings) -> str:
    if len(data) > MAX_BYTES:
        findings.stop(0, "", f"is larger than {MAX_BYTES} bytes", "Is this the right file?")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        findings.stop(line, "", "is not UTF-8 text", "Save it as UTF-8.")
    if text.startswith("\ufeff"):
        findings.stop(1, "", "begins with a byte order mark", "Save it as UTF-8 without BOM.")
    if found := _NOT_YAML.search(text):
        findings.stop(_line_at(text, found), "", "contains a control character", "Remove it.")
    if found := _DIRECTIVE.search(text):
        findings.stop(_line_at(text, found), "", "contains a YAML directive", "Remove the line that begins with '%'.")
    return text


def _line_at(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1


class _Builder:
    """Builds the tree from parser events, one at a time, so that limits bite before the memory is spent."""

    def __init__(self, text: str, findings: Findings) -> None:
        self._text = text
        self._findings = findings
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._nodes = 0

    def document(self) -> Node:
        event = self._next()
        while not isinstance(event, (yaml.DocumentStartEvent, yaml.StreamEndEvent)):
            event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            self._stop_empty()
        root = self._node(self._next(), "", 1)
        if isinstance(root, Scalar) and root.is_null:
            self._stop_empty()
        while not isinstance(event, yaml.StreamEndEvent):
            event = self._next()
            if isinstance(event, yaml.DocumentStartEvent):
                self._findings.stop(_line(event), "", "holds several documents", "Remove everything after '---'.")
        return root

    def _stop_empty(self) -> NoReturn:
        self._findings.stop(0, "", "is empty", "Write a policy; docs/policy.md has an example.")

    def _next(self) -> yaml.Event:
        try:
            return next(self._events)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            self._stop_at(mark, getattr(error, "problem", None) or "")

    def _stop_at(self, mark: yaml.Mark | None, reason: str) -> NoReturn:
        lines = self._text.split("\n")
        line = min(mark.line + 1 if mark else len(lines), len(lines))
        if _TAB_INDENT.match(lines[line - 1]):
            self._findings.stop(line, "", "is indented with a tab", "Use spaces.")
        # The parser's words are kept only as far as they quote no more than a punctuation mark of the file.
        reason = _QUOTATION.split(reason)[0].strip(" ,")
        message = f"is not valid YAML here ({reason})" if reason else "is not valid YAML here"
        self._findings.stop(line, "", message, "Look at this line and the one before it; is the file complete?")

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        self._count(event, depth)
        means_itself = self._means_itself(event, path)
        node = self._content(event, path, depth)
        return node if means_itself else Refused(_line(event))

    def _content(self, event: yaml.Event, path: str, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(event.value, _line(event), quoted=bool(event.style))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(event, path, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._table(event, path, depth)
        return Refused(_line(event))

    def _count(self, event: yaml.Event, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._findings.stop(_line(event), "", f"has more than {MAX_NODES} values", "Make it smaller.")
        if depth > MAX_DEPTH:
            self._findings.stop(_line(event), "", f"is nested deeper than {MAX_DEPTH} levels", "Flatten it.")

    def _means_itself(self, event: yaml.Event, path: str) -> bool:
        """Whether the value is what is written there; aliases, anchors and tags are noted."""
        if isinstance(event, yaml.AliasEvent):
            self._findings.refuse(_line(event), path, "is an alias", _WRITE_OUT)
            return False
        if getattr(event, "anchor", None) is not None:
            self._findings.refuse(_line(event), path, "has an anchor", _WRITE_OUT)
        if getattr(event, "tag", None) is None:
            return True
        self._findings.refuse(_line(event), path, "has a tag", _WRITE_OUT)
        return False

    def _items(self, start: yaml.Event, path: str, depth: int) -> Items:
        nodes: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            nodes.append(self._node(event, f"{path}[{len(nodes)}]", depth + 1))
        return Items(tuple(nodes), _line(start))

    def _table(self, start: yaml.Event, path: str, depth: int) -> Table:
        entries: dict[str, Entry] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, path, depth)
            name = path_part(key.text) if key else "?"
            value_path = f"{path}.{name}" if path else name
            value = self._node(self._next(), value_path, depth + 1)
            if key is None:
                continue
            first = entries.setdefault(key.text, Entry(key.text, key.line, value))
            if first.value is not value:
                message = f"is given twice: {shown(key.text)} was already on line {first.line}"
                self._findings.refuse(key.line, value_path, message, "Remove one of the two.")
        return Table(tuple(entries.values()), _line(start))

    def _key(self, event: yaml.Event, path: str, depth: int) -> Scalar | None:
        key = self._node(event, path, depth + 1)
        if isinstance(key, Scalar):
            return key
        if not isinstance(key, Refused):
            self._findings.refuse(key.line, path, "has a key that is not a text", "Write a plain name as the key.")
        return None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
