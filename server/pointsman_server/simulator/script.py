"""Scripts: which calls get which behaviour, in code or from a YAML or JSON file.

A file is a mapping with `rules` and, if wanted, `seed`::

    seed: 7
    rules:
      - model: "claude-*"
        dialect: anthropic_messages
        calls: "1-2"              # the first two such calls; "3-" from the third on; 4 only the fourth
        behaviour: {fault: "529"}
      - model: "*"
        behaviour:
          latency_seconds: 0.2
          tokens_per_second: 50
          output_tokens: 120
          usage: {cached_input_tokens: 64}

The first rule that fits decides; the fields are those of `Rule` and `Behaviour`. A call that fits no rule is decided
by its model name (see `magic`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pointsman_server.simulator.behaviour import (
    Behaviour,
    Dialect,
    Fault,
    Finish,
    Rule,
    Script,
    ScriptedCitation,
    ScriptedToolCall,
    UsageOverride,
)

__all__ = [
    "Behaviour",
    "Dialect",
    "Fault",
    "Finish",
    "Rule",
    "Script",
    "ScriptError",
    "ScriptedCitation",
    "ScriptedToolCall",
    "UsageOverride",
    "load_script",
]

MAX_SCRIPT_BYTES = 1_000_000
_MAX_DEPTH = 50

_E = TypeVar("_E", bound=Enum)
_Reader = Callable[["_File", str, Any], Any]


class ScriptError(ValueError):
    """A script cannot be used. The message holds one line for each problem: where it is and what to do."""


class _Unusable(Exception):
    """A value cannot be read; the message says what is expected."""


def load_script(path: str | Path) -> Script:
    """The script in this YAML or JSON file.

    Unknown and duplicate fields, wrong types and contradictions are errors. Raises `ScriptError` with all of them.
    """
    source = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ScriptError(f"{source}: cannot be read ({error.strerror}); give the path of a script file") from error
    if len(data) > MAX_SCRIPT_BYTES:
        raise ScriptError(f"{source}: is larger than {MAX_SCRIPT_BYTES} bytes")
    file = _File(source)
    try:
        content = file.parse(data)
    except (yaml.YAMLError, ValueError) as error:
        raise ScriptError(f"{source}: is not valid YAML or JSON: {_first_line(error)}") from error
    script = _read_script(file, content)
    if file.problems:
        raise ScriptError("\n".join(file.problems))
    return script


def _first_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1})"
    return str(error).splitlines()[0]


def _check_events(text: str) -> None:
    """Refuses what can make a small file huge or slow to read, before any of it is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError("it is nested too deeply")


class _File:
    """A file being read: its problems, and the line on which each field stands."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: dict[str, int] = {}
        self._problems: list[tuple[int, str]] = []

    def parse(self, data: bytes) -> Any:
        text = data.decode("utf-8-sig")
        _check_events(text)
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            return None if root is None else self._plain(loader, root, "")
        finally:
            loader.dispose()

    def add(self, where: str, problem: str) -> None:
        line = self._lines.get(where) or self._lines.get("", 1)
        self._problems.append((line, f"{self._source}:{line}: {where + ': ' if where else ''}{problem}"))

    @property
    def problems(self) -> list[str]:
        return [problem for _, problem in sorted(self._problems, key=lambda noted: noted[0])]

    def _plain(self, loader: yaml.SafeLoader, node: yaml.Node, where: str) -> Any:
        self._lines[where] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(loader, item, f"{where}[{index}]") for index, item in enumerate(node.value)]
        return loader.construct_object(node)

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, where: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            # The text of the key, not what YAML makes of it: `on` and `1` are names here.
            key = str(key_node.value)
            inner = f"{where}.{key}" if where else key
            value = self._plain(loader, value_node, inner)
            if key in result:
                self.add(inner, "is given twice; keep one")
            result[key] = value
        return result

    def fields(self, where: str, value: Any, readers: Mapping[str, _Reader]) -> dict[str, Any]:
        """The fields of a mapping, read by their readers; what cannot be read is noted and left out."""
        if not isinstance(value, dict):
            self.add(where, f"must be a mapping with the fields {', '.join(readers)}")
            return {}
        result = {}
        for key, item in value.items():
            inner = f"{where}.{key}" if where else key
            if key not in readers:
                self.add(inner, f"is not a known field; known are {', '.join(readers)}")
                continue
            try:
                result[key] = readers[key](self, inner, item)
            except _Unusable as error:
                self.add(inner, str(error))
        return result

    def build(self, where: str, make: Callable[..., Any], arguments: Mapping[str, Any], fallback: Any) -> Any:
        """What `make` makes of the arguments; a contradiction among them is noted."""
        try:
            return make(**arguments)
        except (ValueError, TypeError) as error:
            self.add(where, str(error))
            return fallback


def _text(_file: _File, _where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _Unusable(f"must be text, not {value!r:.40}; put it in quotes")
    return value


def _whole_number(_file: _File, _where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Unusable(f"must be a whole number, not {value!r:.40}")
    return value


def _number(_file: _File, _where: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _Unusable(f"must be a number, not {value!r:.40}")
    return float(value)


def _truth(_file: _File, _where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Unusable(f"must be true or false, not {value!r:.40}")
    return value


def _count(_file: _File, _where: str, value: Any) -> int | float | str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _Unusable(f"must be a number or text, not {value!r:.40}")
    return value


def _member(kind: type[_E]) -> _Reader:
    def read(_file: _File, _where: str, value: Any) -> _E:
        try:
            # Faults are named after statuses, and `fault: 500` is a number to YAML.
            return kind(str(value))
        except ValueError:
            known = ", ".join(str(item.value) for item in kind)
            raise _Unusable(f"{value!r:.40} is not known; known are {known}") from None

    return read


def _sequence(read_item: _Reader) -> _Reader:
    def read(file: _File, where: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Unusable("must be a list")
        return tuple(read_item(file, f"{where}[{index}]", item) for index, item in enumerate(value))

    return read


def _record(make: Callable[..., Any], readers: Mapping[str, _Reader]) -> _Reader:
    def read(file: _File, where: str, value: Any) -> Any:
        return file.build(where, make, file.fields(where, value, readers), make())

    return read


def _headers(file: _File, where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _Unusable("must be a mapping of header names to texts")
    for name, content in value.items():
        if not isinstance(content, str) or not re.fullmatch(r"[\x20-\x7e]*", content):
            file.add(f"{where}.{name}", "must be one line of plain text; put numbers in quotes")
        elif not re.fullmatch(r"[A-Za-z0-9-]+", name):
            file.add(f"{where}.{name}", "is not a header name")
    return value


def _arguments(_file: _File, _where: str, value: Any) -> dict[str, Any] | str:
    if not isinstance(value, (dict, str)):
        raise _Unusable("must be a mapping, or text that is sent as it is")
    return value


_USAGE: dict[str, _Reader] = {
    "input_tokens": _count,
    "cached_input_tokens": _count,
    "cache_write_input_tokens": _count,
    "output_tokens": _count,
    "reasoning_tokens": _count,
    "missing": _truth,
}
_TOOL_CALL: dict[str, _Reader] = {"name": _text, "arguments": _arguments}
_CITATION: dict[str, _Reader] = {
    "url": _text,
    "title": _text,
    "document_id": _text,
    "quoted_text": _text,
    "start_index": _whole_number,
    "end_index": _whole_number,
}
_BEHAVIOUR: dict[str, _Reader] = {
    "latency_seconds": _number,
    "first_token_seconds": _number,
    "tokens_per_second": _number,
    "reply_text": _text,
    "output_tokens": _whole_number,
    "usage": _record(UsageOverride, _USAGE),
    "finish_reason": _text,
    "tool_calls": _sequence(_record(ScriptedToolCall, _TOOL_CALL)),
    "reasoning_text": _text,
    "citations": _sequence(_record(ScriptedCitation, _CITATION)),
    "fault": _member(Fault),
    "reported_model": _text,
    "headers": _headers,
    "ping_interval_seconds": _number,
}


def _calls(_file: _File, _where: str, value: Any) -> tuple[int, int | None]:
    found = None if isinstance(value, bool) else re.fullmatch(r"([0-9]{1,9})(-([0-9]{1,9})?)?", str(value))
    if found is None:
        raise _Unusable(f'must be a number or a range like "2-5" or "3-", not {value!r:.40}')
    first, dash, last = found.groups()
    if dash is None:
        return int(first), int(first)
    return int(first), None if last is None else int(last)


_RULE: dict[str, _Reader] = {
    "model": _text,
    "dialect": _member(Dialect),
    "calls": _calls,
    "behaviour": _record(Behaviour, _BEHAVIOUR),
}


def _rule(file: _File, where: str, value: Any) -> Rule:
    given = file.fields(where, value, _RULE)
    if isinstance(value, dict) and "behaviour" not in value:
        file.add(where, "has no behaviour; add one, {} for a sound answer")
    first_call, last_call = given.pop("calls", (1, None))
    arguments = {"behaviour": Behaviour(), **given, "first_call": first_call, "last_call": last_call}
    rule: Rule = file.build(where, Rule, arguments, Rule(Behaviour()))
    return rule


def _read_script(file: _File, content: Any) -> Script:
    given = file.fields("", content, {"rules": _sequence(_rule), "seed": _whole_number})
    if not file.problems and "rules" not in given:
        file.add("", "has no rules; add a list `rules`, [] for none")
    return Script(**given)
