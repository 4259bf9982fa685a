"""The contract's own rules, enforced: compiled once from the options of the message descriptors.

What a rule means is written in `protos/pointsman/v1/rules.proto`. A message that keeps all rules costs a walk over
its set fields and allocates nothing.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pointsman.v1 import rules_pb2
from pointsman_server.domain.errors import FieldProblem

MAX_PROBLEMS = 20
"""More problems than this are not worth a reader's time."""

_OWN_PACKAGE = "pointsman.v1."

Problems = list[FieldProblem]
ValueCheck = Callable[[Any], str | None]
"""Says what is wrong with a value, or nothing."""

MessageCheck = Callable[[Any], Problems]


def check_message(message: Message) -> Problems:
    """What breaks the contract's rules in this message, with field paths; empty when nothing does."""
    return _compile_message(message.DESCRIPTOR)(message)[:MAX_PROBLEMS]


@cache
def _compile_message(descriptor: Descriptor) -> MessageCheck:
    oneofs = [
        oneof.name for oneof in descriptor.oneofs if oneof.GetOptions().Extensions[rules_pb2.oneof_rules].required
    ]
    compiled = {field.name: (field, _compile_field(field)) for field in descriptor.fields}
    checks = {name: check for name, (_, check) in compiled.items() if check is not None}
    demanded = [checks.pop(name) for name, (field, _) in compiled.items() if _demands_presence(field)]

    def check(message: Any) -> Problems:
        problems: Problems = []
        for name in oneofs:
            if message.WhichOneof(name) is None:
                problems.append(FieldProblem(name, "must be set"))
        for field_check in demanded:
            problems.extend(field_check(message))
        # Most fields of most messages are not set, and have nothing to be checked then.
        for field, _ in message.ListFields():
            if field.name in checks:
                problems.extend(checks[field.name](message))
        return problems

    return check


def _demands_presence(field: FieldDescriptor) -> bool:
    rules = field.GetOptions().Extensions[rules_pb2.rules]
    return rules.required or rules.not_unspecified


def _compile_field(field: FieldDescriptor) -> MessageCheck | None:
    rules = field.GetOptions().Extensions[rules_pb2.rules]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _compile_map(field, rules)
    if field.is_repeated:
        return _compile_repeated(field, rules)
    return _compile_single(field, rules)


def _compile_single(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> MessageCheck | None:
    name = field.name
    value_check = _compile_value(field, rules)
    nested = _nested_check(field)
    if value_check is None and nested is None and not rules.required:
        return None

    def check(message: Any) -> Problems:
        value = getattr(message, name)
        is_set = message.HasField(name) if field.has_presence else bool(value) or rules.not_unspecified
        if not is_set:
            return [FieldProblem(name, "must be set")] if rules.required else []
        wrong = value_check(value) if value_check is not None else None
        if wrong is not None:
            return [FieldProblem(name, wrong)]
        return _prefixed(name, nested(value)) if nested is not None else []

    return check


def _compile_repeated(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> MessageCheck | None:
    name = field.name
    item_check = _compile_value(field, rules.items)
    nested = _nested_check(field)
    if not rules.ByteSize() and nested is None:
        return None

    def check(message: Any) -> Problems:
        values = getattr(message, name)
        wrong = _wrong_count(len(values), rules)
        if wrong is not None:
            return [FieldProblem(name, wrong)]
        problems: Problems = []
        for index, value in enumerate(values):
            said = item_check(value) if item_check is not None else None
            if said is not None:
                problems.append(FieldProblem(f"{name}[{index}]", said))
            elif nested is not None:
                problems.extend(_prefixed(f"{name}[{index}]", nested(value)))
            if len(problems) >= MAX_PROBLEMS:
                return problems
        if rules.unique and len(set(values)) != len(values):
            problems.append(FieldProblem(name, "must not repeat an item"))
        return problems

    return check


def _compile_map(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> MessageCheck | None:
    if not rules.ByteSize():
        return None
    assert field.message_type is not None  # noqa: S101 - a map field has an entry type
    name = field.name
    entry = field.message_type.fields_by_name
    key_check = _compile_value(entry["key"], rules.keys)
    value_check = _compile_value(entry["value"], rules.items)

    def check(message: Any) -> Problems:
        entries = getattr(message, name)
        wrong = _wrong_count(len(entries), rules)
        if wrong is not None:
            return [FieldProblem(name, wrong)]
        # The entry is named by its place: a key is the caller's text and must not come back in an error.
        for index, (key, value) in enumerate(sorted(entries.items())):
            for part, item_check, item in (("key", key_check, key), ("value", value_check, value)):
                said = item_check(item) if item_check is not None else None
                if said is not None:
                    return [FieldProblem(f"{name}[{index}].{part}", said)]
        return []

    return check


def _nested_check(field: FieldDescriptor) -> MessageCheck | None:
    nested = field.message_type
    if nested is None or not nested.full_name.startswith(_OWN_PACKAGE):
        return None
    return _compile_message(nested)


def _prefixed(prefix: str, problems: Iterable[FieldProblem]) -> Problems:
    return [FieldProblem(f"{prefix}.{problem.field}", problem.description) for problem in problems]


def _wrong_count(count: int, rules: rules_pb2.FieldRules) -> str | None:
    if rules.required and not count:
        return "must not be empty"
    if rules.HasField("max_items") and count > rules.max_items:
        return f"must have at most {rules.max_items} items, has {count}"
    return None


def _compile_value(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> ValueCheck | None:
    checks = [*_string_checks(rules), *_size_checks(field, rules), *_number_checks(rules), *_enum_checks(field, rules)]
    if not checks:
        return None

    def check(value: Any) -> str | None:
        for one in checks:
            wrong = one(value)
            if wrong is not None:
                return wrong
        return None

    return check


def _string_checks(rules: rules_pb2.FieldRules) -> list[ValueCheck]:
    checks: list[ValueCheck] = []
    if rules.HasField("min_length"):
        least = rules.min_length
        checks.append(lambda value: None if len(value) >= least else f"must have at least {least} characters")
    if rules.HasField("max_length"):
        most = rules.max_length
        checks.append(lambda value: None if len(value) <= most else f"must have at most {most} characters")
    if rules.pattern:
        pattern = re.compile(rules.pattern)
        wanted = f"must match {rules.pattern}"
        checks.append(lambda value: None if not value or pattern.fullmatch(value) else wanted)
    if rules.not_blank:
        checks.append(lambda value: "must not be blank" if is_blank(value) else None)
    return checks


def _size_checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[ValueCheck]:
    if not rules.HasField("max_bytes"):
        return []
    most = rules.max_bytes
    wrong = f"must have at most {most} bytes"
    if field.message_type is not None:
        return [lambda value: None if value.ByteSize() <= most else wrong]
    return [lambda value: None if len(value) <= most else wrong]


def _number_checks(rules: rules_pb2.FieldRules) -> list[ValueCheck]:
    checks: list[ValueCheck] = []
    if rules.HasField("minimum") or rules.HasField("maximum"):
        checks.append(lambda value: None if math.isfinite(value) else "must be a finite number")
    if rules.HasField("minimum"):
        least = rules.minimum
        if rules.minimum_exclusive:
            checks.append(lambda value: None if value > least else f"must be greater than {least:.15g}")
        else:
            checks.append(lambda value: None if value >= least else f"must be at least {least:.15g}")
    if rules.HasField("maximum"):
        most = rules.maximum
        checks.append(lambda value: None if value <= most else f"must be at most {most:.15g}")
    return checks


def _enum_checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> list[ValueCheck]:
    checks: list[ValueCheck] = []
    if rules.not_unspecified:
        checks.append(lambda value: None if value else "must be set")
    if rules.defined_only and field.enum_type is not None:
        defined = frozenset(field.enum_type.values_by_number)
        checks.append(lambda value: None if value in defined else "must be a value of the enum")
    return checks


def is_blank(text: str) -> bool:
    """Whether the text shows nothing: white space, controls and invisible format characters only."""
    return not text.strip() or all(
        character.isspace() or unicodedata.category(character) in ("Cf", "Cc", "Mn") for character in text
    )
