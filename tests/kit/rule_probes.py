"""Probes made from the contract's own rules: for every rule of every field a message that just keeps it and one that
just breaks it. A rule that is added to the contract gets its probes by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct

from pointsman.v1 import rules_pb2

Rules = rules_pb2.FieldRules

_Change = Callable[[Any], None]
"""Changes the message that a probe is about."""

_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
_LETTERS = ("a", "image/png", "A", "1", "é")
_FOREIGN = ("\n", "é", " ", "/../", "\x00")


@dataclass(frozen=True)
class Probe:
    """`good` keeps the rule at its edge; `bad` breaks it and nothing else, which is to be told of `path`.

    `field` is the full name of the field or oneof; `rule` is the rule's name, of an item's rule "items." before it.
    """

    field: str
    rule: str
    path: str
    good: Callable[[], Any]
    bad: Callable[[], Any]


@dataclass(frozen=True)
class Place:
    """Where a message stands in a request: the request's type, and the fields that lead to it."""

    root: Descriptor
    steps: tuple[FieldDescriptor, ...] = ()

    @property
    def message(self) -> Descriptor:
        """The type of the message."""
        if not self.steps:
            return self.root
        assert self.steps[-1].message_type is not None
        return self.steps[-1].message_type

    @property
    def prefix(self) -> str:
        """The path to its fields."""
        return "".join(f"{step.name}[0]." if step.is_repeated else f"{step.name}." for step in self.steps)

    def build(self) -> tuple[Any, Any]:
        """A sound request, and the message at this place in it."""
        root = sound(self.root)
        here = root
        for step in self.steps:
            held = getattr(here, step.name)
            if step.is_repeated:
                here = held[0] if len(held) else held.add()
            else:
                here = held
                here.SetInParent()
            assert step.message_type is not None
            here.CopyFrom(sound(step.message_type))
        return root, here


def places(roots: list[Descriptor]) -> list[tuple[Place, Descriptor]]:
    """Every message type of the contract that these requests can hold, each at the first place found."""
    found: dict[str, tuple[Place, Descriptor]] = {}
    waiting = [(Place(root), root) for root in roots]
    while waiting:
        place, descriptor = waiting.pop(0)
        if descriptor.full_name in found or not descriptor.full_name.startswith("pointsman.v1."):
            continue
        found[descriptor.full_name] = (place, descriptor)
        for field in descriptor.fields:
            nested = field.message_type
            if nested is not None and not nested.GetOptions().map_entry:
                waiting.append((Place(place.root, (*place.steps, field)), nested))
    return list(found.values())


def rules_of(field: FieldDescriptor) -> Rules:
    """What the contract demands of a field."""
    return field.GetOptions().Extensions[rules_pb2.rules]


def sound(descriptor: Descriptor) -> Any:
    """The smallest message of this type that keeps all rules."""
    message = message_factory.GetMessageClass(descriptor)()
    for oneof in descriptor.oneofs:
        if oneof.GetOptions().Extensions[rules_pb2.oneof_rules].required:
            _put(message, oneof.fields[0], _sound_value(oneof.fields[0], rules_of(oneof.fields[0])))
    for field in descriptor.fields:
        rules = rules_of(field)
        if (rules.required or rules.not_unspecified) and field.containing_oneof is None:
            _put_sound(message, field, rules)
    return message


def probes_of(place: Place, descriptor: Descriptor) -> Iterator[Probe]:
    """The probes of all rules of the message at this place."""
    for oneof in descriptor.oneofs:
        if oneof.GetOptions().Extensions[rules_pb2.oneof_rules].required:
            yield _probe(place, "oneof", oneof.name, lambda one: None, _clearing(oneof.name))
    for field in descriptor.fields:
        rules = rules_of(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from _map_probes(place, field, rules)
        elif field.is_repeated:
            yield from _repeated_probes(place, field, rules)
        else:
            yield from _single_probes(place, field, rules)


def _single_probes(place: Place, field: FieldDescriptor, rules: Rules) -> Iterator[Probe]:
    name = field.name
    if rules.required:
        yield _probe(
            place, "required", name, lambda one: _put_sound(one, field, rules), lambda one: one.ClearField(name)
        )
    for rule, good, bad in _edges(field, rules):
        yield _probe(place, rule, name, _putting(field, good), _putting(field, bad))


def _repeated_probes(place: Place, field: FieldDescriptor, rules: Rules) -> Iterator[Probe]:
    name = field.name

    def fill(count: int) -> _Change:
        return lambda one: _fill(one, field, rules, count)

    if rules.required:
        yield _probe(place, "required", name, fill(1), lambda one: one.ClearField(name))
    if rules.HasField("max_items"):
        yield _probe(place, "max_items", name, fill(rules.max_items), fill(rules.max_items + 1))
    if rules.unique:
        twice = _sound_value(field, rules.items, 0)
        yield _probe(place, "unique", name, fill(2), _putting(field, [twice, twice]))
    first, path = _sound_value(field, rules.items, 1), f"{name}[1]"
    for rule, good, bad in _edges(field, rules.items):
        yield _probe(place, f"items.{rule}", path, _putting(field, [first, good]), _putting(field, [first, bad]))


def _map_probes(place: Place, field: FieldDescriptor, rules: Rules) -> Iterator[Probe]:
    assert field.message_type is not None
    name, entry = field.name, field.message_type.fields_by_name
    key, value = _sound_value(entry["key"], rules.keys), _sound_value(entry["value"], rules.items)

    def fill(count: int) -> _Change:
        return _putting(field, {_sound_value(entry["key"], rules.keys, place): value for place in range(count)})

    if rules.HasField("max_items"):
        yield _probe(place, "max_items", name, fill(rules.max_items), fill(rules.max_items + 1))
    for rule, good, bad in _edges(entry["key"], rules.keys):
        path = f"{name}[0].key"
        yield _probe(place, f"keys.{rule}", path, _putting(field, {good: value}), _putting(field, {bad: value}))
    for rule, good, bad in _edges(entry["value"], rules.items):
        path = f"{name}[0].value"
        yield _probe(place, f"items.{rule}", path, _putting(field, {key: good}), _putting(field, {key: bad}))


def _edges(field: FieldDescriptor, rules: Rules) -> Iterator[tuple[str, Any, Any]]:
    """For each rule of a value: its name, the last value that keeps it, the first that breaks it."""
    yield from _string_edges(rules)
    if rules.HasField("max_bytes"):
        make = _struct_of if field.message_type is not None else lambda size: b"x" * size
        yield "max_bytes", make(rules.max_bytes), make(rules.max_bytes + 1)
    yield from _number_edges(field, rules)
    if rules.defined_only:
        assert field.enum_type is not None
        yield "defined_only", max(field.enum_type.values_by_number), 99
    if rules.not_unspecified:
        yield "not_unspecified", 1, 0


def _string_edges(rules: Rules) -> Iterator[tuple[str, Any, Any]]:
    letter = _letter(rules)
    if rules.HasField("min_length"):
        yield "min_length", letter * rules.min_length, letter * (rules.min_length - 1)
    if rules.HasField("max_length"):
        yield "max_length", letter * rules.max_length, letter * (rules.max_length + 1)
    if rules.pattern:
        wrong = next(text for text in _FOREIGN if not re.fullmatch(rules.pattern, letter + text))
        yield "pattern", letter, letter + wrong
        yield "pattern", letter, wrong
    if rules.not_blank:
        yield "not_blank", " a\u200b", " \n\u200b"


def _number_edges(field: FieldDescriptor, rules: Rules) -> Iterator[tuple[str, Any, Any]]:
    is_float = field.type in _FLOATS
    step: Any = 0.125 if is_float else 1
    as_number: Any = float if is_float else int
    inside = as_number(rules.minimum if rules.HasField("minimum") else rules.maximum)
    if rules.HasField("minimum"):
        lowest = as_number(rules.minimum)
        if rules.minimum_exclusive:
            inside = math.nextafter(lowest, math.inf) if is_float else lowest + 1
            yield "minimum", inside, lowest
            yield "minimum_exclusive", inside, lowest
        else:
            yield "minimum", lowest, lowest - step
    if rules.HasField("maximum"):
        yield "maximum", as_number(rules.maximum), as_number(rules.maximum) + step
    if is_float and (rules.HasField("minimum") or rules.HasField("maximum")):
        for odd in (math.nan, math.inf, -math.inf):
            yield "minimum" if rules.HasField("minimum") else "maximum", inside, odd


def _probe(place: Place, rule: str, name: str, keep: _Change, breaks: _Change) -> Probe:
    def changed(change: _Change) -> Callable[[], Any]:
        def build() -> Any:
            root, here = place.build()
            change(here)
            return root

        return build

    field = f"{place.message.full_name}.{name.split('[')[0]}"
    return Probe(field, rule, place.prefix + name, changed(keep), changed(breaks))


def _clearing(oneof: str) -> _Change:
    return lambda message: message.ClearField(message.WhichOneof(oneof))


def _put_sound(message: Any, field: FieldDescriptor, rules: Rules) -> None:
    if field.is_repeated:
        _fill(message, field, rules, 1)
    else:
        _put(message, field, _sound_value(field, rules))


def _fill(message: Any, field: FieldDescriptor, rules: Rules, count: int) -> None:
    _put(message, field, [_sound_value(field, rules.items, place) for place in range(count)])


def _putting(field: FieldDescriptor, value: Any) -> _Change:
    return lambda message: _put(message, field, value)


def _put(message: Any, field: FieldDescriptor, value: Any) -> None:
    message.ClearField(field.name)
    held = getattr(message, field.name)
    if isinstance(value, dict):
        held.update(value)
    elif isinstance(value, list):
        held.extend(value)
    elif field.message_type is not None:
        held.CopyFrom(value)
        held.SetInParent()
    else:
        setattr(message, field.name, value)


def _sound_value(field: FieldDescriptor, rules: Rules, place: int = 0) -> Any:
    """A value that keeps the rules; another one for each place, where they are texts."""
    if field.message_type is not None:
        return sound(field.message_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        letter = _letter(rules)
        return letter if place == 0 else _numbered(letter, place)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"x"
    edges = [good for _, good, _ in _edges(field, rules)]
    return edges[0] if edges else 1


def _numbered(letter: str, place: int) -> str:
    return letter + "".join("abcdefghij"[int(digit)] for digit in str(place))


def _letter(rules: Rules) -> str:
    return next(letter for letter in _LETTERS if not rules.pattern or re.fullmatch(rules.pattern, letter))


def _struct_of(size: int) -> Struct:
    """A Struct that takes so many bytes."""
    struct, text = Struct(), "x" * (size - 16)
    struct.update({"a": text})
    while struct.ByteSize() < size:
        text += "x" * (size - struct.ByteSize())
        struct.update({"a": text})
    assert struct.ByteSize() == size
    return struct
