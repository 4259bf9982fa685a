"""Checks answers against the JSON Schema that the request demands.

Everything is bounded, since callers choose the schemas and models the answers: nothing is fetched, patterns run in
linear time where they can, and what would take too much work is not begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import jsonschema_rs
import orjson

from pointsman_server.domain.checked import Checked

MOST_VIOLATIONS = 10
MOST_VIOLATION_CHARACTERS = 300

COMPILED_SCHEMAS = 64
"""Schemas that are kept compiled; each may take a few hundred kilobytes."""

MOST_WORK = 20_000_000
"""Most applications of a subschema to a value in one check, about a tenth of a second of them."""

MOST_WORK_LISTING = 50_000
"""Most applications of which the failures are listed, since telling of one takes hundreds of times as long."""

_BACKTRACK_LIMIT = 10_000
"""Steps of a pattern that cannot run in linear time (one that looks around or back) on one string."""

_FENCE = "```"
_BYTE_ORDER_MARK = "\ufeff"
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"})
"""Keywords that apply several schemas to the same value, and so multiply the work on all that is in it."""

_CHOICES = ("/anyOf/", "/oneOf/")


class SchemaAnswerChecker:
    """Implements `AnswerChecker`. One for the process; compiled schemas are shared."""

    def check(self, schema: Mapping[str, object], text: str) -> Checked:
        """What of this answer does not fit; the violations quote it, so they are for the caller only.

        JSON's own white space around it stays as it is. A code fence around the whole answer, a byte order mark and
        other blanks are left out in `normalised_text`; prose beside the JSON is a violation. At most `MOST_VIOLATIONS`
        are given, each of at most `MOST_VIOLATION_CHARACTERS`.
        """
        json, instance, problem = _read(text)
        if problem:
            return Checked((problem,), text)
        compiled = _compile(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))
        work = _most_values(json) * compiled.applied_at_once
        if compiled.validator is None or work > MOST_WORK:
            return Checked((), json, schema_checked=False)
        try:
            fits = compiled.validator.is_valid(instance)
        except ValueError:  # nested deeper than the library can compare
            return Checked((), json, schema_checked=False)
        return Checked(() if fits else _violations(compiled.validator, instance, work), json)


class _Compiled(NamedTuple):
    """A validator, None if the schema cannot be compiled, and the most subschemas that one value can meet."""

    validator: jsonschema_rs.Validator | None
    applied_at_once: int


def _read(text: str) -> tuple[str, object, str]:
    """The JSON in an answer as text and as a value, or why there is none."""
    if not text.strip():
        return text, None, "(root): the answer is empty, not JSON"
    bare = text.strip().removeprefix(_BYTE_ORDER_MARK).strip()
    problem = ""
    for candidate in dict.fromkeys((text, bare, _inside_fence(bare))):
        try:
            return candidate, orjson.loads(candidate), ""
        except orjson.JSONDecodeError as error:
            problem = f"(root): the answer is not JSON alone: {error}"
    return text, None, problem


def _inside_fence(text: str) -> str:
    """What is inside of the code fence around the whole text; the text itself without one."""
    if not text.startswith(_FENCE) or not text.endswith(_FENCE):
        return text
    opening, line_break, rest = text.partition("\n")
    ticks = len(opening) - len(opening.lstrip("`"))
    language = opening[ticks:].strip()
    body = rest.rstrip("`")
    if not line_break or len(rest) - len(body) != ticks or (language and not language.isalnum()):
        return text
    return body.strip()


def _most_values(json: str) -> int:
    """At least as many as there are: each is the first, or follows one of these, which strings may hold as well."""
    return 1 + json.count(",") + json.count("[") + json.count("{")


@lru_cache(maxsize=COMPILED_SCHEMAS)
def _compile(serialised: bytes) -> _Compiled:
    schema = orjson.loads(serialised)
    try:
        applied_at_once = _SchemaSize(schema).applied_at_once()
    except RecursionError:
        return _Compiled(None, 0)
    for options in (jsonschema_rs.RegexOptions(), jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT)):
        try:
            validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=options)
        except ValueError:
            continue
        return _Compiled(validator, applied_at_once)
    return _Compiled(None, 0)


class _SchemaSize:
    """Counts what a schema comes to when its references are followed, which can be far more than it says.

    Each subschema is counted once and remembered, so this takes time linear in the schema. References that cannot be
    followed count nothing; one that leads back to itself raises `RecursionError`.
    """

    def __init__(self, schema: object) -> None:
        self._root = schema
        self._sizes: dict[int, int] = {}
        self._applied: dict[int, int] = {}

    def applied_at_once(self) -> int:
        """The most subschemas that can meet in one value."""
        return self._applied_by(self._root)

    def _applied_by(self, node: object) -> int:
        known = self._applied.get(id(node))
        if known is None:
            if isinstance(node, dict) and not _IN_PLACE.isdisjoint(node):
                known = self._size(node)
            else:
                known = max((self._applied_by(child) for child in self._children(node)), default=1)
            self._applied[id(node)] = known
        return known

    def _size(self, node: object) -> int:
        known = self._sizes.get(id(node))
        if known is None:
            known = isinstance(node, dict) + sum(map(self._size, self._children(node)))
            self._sizes[id(node)] = known
        return known

    def _children(self, node: object) -> Iterator[object]:
        if isinstance(node, list):
            yield from node
        elif isinstance(node, dict):
            yield from (child for keyword, child in node.items() if keyword not in ("$defs", "definitions"))
            if isinstance(node.get("$ref"), str):
                yield self._target(node["$ref"])

    def _target(self, reference: str) -> object:
        node = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and name.isdecimal() and int(name[:6]) < len(node):
                node = node[int(name[:6])]
            else:
                node = node.get(name) if isinstance(node, dict) else None
        return node


def _violations(validator: jsonschema_rs.Validator, instance: object, work: int) -> tuple[str, ...]:
    unplaced = ("(root): the answer does not fit the schema",)
    if work > MOST_WORK_LISTING:
        return unplaced
    try:
        failures = validator.evaluate(instance).errors()
    except ValueError:  # nested deeper than the library can tell about
        return unplaced
    return tuple(dict.fromkeys(map(_violation, failures[:MOST_VIOLATIONS]))) or unplaced


def _violation(failure: jsonschema_rs.EvaluationErrorEntry) -> str:
    place = failure["instanceLocation"] or "(root)"
    choice = " (in one of the allowed forms)" if any(one in failure["schemaLocation"] for one in _CHOICES) else ""
    return _shortened(f"{place}: {failure['error']}{choice}")


def _shortened(text: str) -> str:
    """A long value is left out of the middle: the place stands before it, what is wrong with it behind."""
    half = MOST_VIOLATION_CHARACTERS // 2
    return text if len(text) <= MOST_VIOLATION_CHARACTERS else f"{text[:half]}…{text[1 - half :]}"
