from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor

from kit.rule_probes import Place, Probe, places, probes_of, rules_of, sound
from pointsman.v1 import (
    admin_service_pb2,
    completion_pb2,
    embedding_service_pb2,
    feedback_service_pb2,
    router_service_pb2,
    rules_pb2,
)
from pointsman_server.rpc.rules import MAX_PROBLEMS, check_message, is_blank

FILES = (router_service_pb2, embedding_service_pb2, feedback_service_pb2, admin_service_pb2)
ROOTS: list[Descriptor] = [
    method.input_type
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
PLACES = places(ROOTS)
PROBES = {
    f"{place.root.name}.{probe.path}-{probe.rule}-{number}": probe
    for place, descriptor in PLACES
    for number, probe in enumerate(probes_of(place, descriptor))
}


def problems(message: Any) -> list[tuple[str, str]]:
    return [(problem.field, problem.description) for problem in check_message(message)]


class TestContract:
    @pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
    def test_a_sound_request_has_no_problem(self, root: Descriptor) -> None:
        assert problems(sound(root)) == []

    @pytest.mark.parametrize("name", PROBES)
    def test_every_rule_of_every_field_is_enforced_at_its_edge(self, name: str) -> None:
        probe = PROBES[name]
        assert problems(probe.good()) == []
        ((path, description),) = problems(probe.bad())
        assert path == probe.path
        assert description

    def test_every_rule_of_every_field_has_a_probe(self) -> None:
        probed = {(probe.field, probe.rule) for probe in PROBES.values() if probe.rule != "oneof"}
        fields = [field for _, descriptor in PLACES for field in descriptor.fields]
        demanded = {(field.full_name, rule) for field in fields for rule in _rules_set(rules_of(field))}
        assert demanded == probed

    def test_there_is_something_to_probe(self) -> None:
        assert len(PROBES) > 100
        assert len(PLACES) > 20


def _rules_set(rules: rules_pb2.FieldRules, prefix: str = "") -> list[str]:
    names: list[str] = []
    for field, value in rules.ListFields():
        names += _rules_set(value, f"{field.name}.") if field.name in ("items", "keys") else [prefix + field.name]
    return names


def made_up() -> Descriptor:
    """A message with one field for each kind of rule, also for those that the contract does not use now."""
    file = descriptor_pb2.FileDescriptorProto(
        name="kit/probe.proto", package="pointsman.v1.probe", syntax="proto3", dependency=["pointsman/v1/rules.proto"]
    )
    file.enum_type.add(name="Colour").value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=name, number=number) for number, name in enumerate(("NONE", "RED"))
    )
    message = file.message_type.add(name="Probe")
    kinds = descriptor_pb2.FieldDescriptorProto

    def field(name: str, kind: Any, type_name: str = "", *, many: bool = False, **rules: Any) -> None:
        label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
        added = message.field.add(name=name, number=len(message.field) + 1, type=kind, label=label)
        if type_name:
            added.type_name = type_name
        added.options.Extensions[rules_pb2.rules].CopyFrom(rules_pb2.FieldRules(**rules))

    def entry(name: str) -> str:
        made = message.nested_type.add(name=f"{name}Entry")
        made.options.map_entry = True
        for number, part in enumerate(("key", "value"), start=1):
            made.field.add(name=part, number=number, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
        return f".pointsman.v1.probe.Probe.{name}Entry"

    inner = rules_pb2.FieldRules
    field("short", kinds.TYPE_STRING, max_length=3, min_length=2)
    field("told", kinds.TYPE_STRING, not_blank=True, required=True)
    field("matched", kinds.TYPE_STRING, pattern="[a-z]+")
    field("bytes", kinds.TYPE_BYTES, max_bytes=4)
    field("low", kinds.TYPE_DOUBLE, minimum=0.5, minimum_exclusive=True)
    field("high", kinds.TYPE_FLOAT, maximum=2.5)
    field("whole", kinds.TYPE_INT32, minimum=-7, maximum=7, required=True)
    field("colour", kinds.TYPE_ENUM, ".pointsman.v1.probe.Colour", defined_only=True, not_unspecified=True)
    field("few", kinds.TYPE_STRING, many=True, required=True, max_items=3, unique=True, items=inner(not_blank=True))
    field("numbers", kinds.TYPE_INT64, many=True, items=inner(minimum=1))
    field("colours", kinds.TYPE_ENUM, ".pointsman.v1.probe.Colour", many=True, items=inner(defined_only=True))
    field("map", kinds.TYPE_MESSAGE, entry("Map"), many=True, max_items=2, keys=inner(max_length=3))
    field("free", kinds.TYPE_STRING)
    field("free_list", kinds.TYPE_STRING, many=True)
    field("free_map", kinds.TYPE_MESSAGE, entry("FreeMap"), many=True)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool.FindMessageTypeByName("pointsman.v1.probe.Probe")


MADE_UP = made_up()
KINDS = list(probes_of(Place(MADE_UP), MADE_UP))


class TestKinds:
    @pytest.mark.parametrize("probe", KINDS, ids=[f"{probe.path}-{probe.rule}" for probe in KINDS])
    def test_each_kind_is_enforced_at_its_edge(self, probe: Probe) -> None:
        assert problems(probe.good()) == []
        ((path, _),) = problems(probe.bad())
        assert path == probe.path

    def test_the_probes_know_every_kind_of_rule(self) -> None:
        """Fails when the contract gets a kind of rule that the probes, and perhaps the check, do not know."""
        known = {part for probe in [*KINDS, *PROBES.values()] for part in probe.rule.split(".")}
        kinds = {field.name for field in rules_pb2.FieldRules.DESCRIPTOR.fields}
        assert kinds <= known

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"short": "abcd"}, "must have at most 3 characters"),
            ({"short": "a"}, "must have at least 2 characters"),
            ({"told": " "}, "must not be blank"),
            ({"told": ""}, "must be set"),
            ({"matched": "A"}, "must match [a-z]+"),
            ({"bytes": b"12345"}, "must have at most 4 bytes"),
            ({"low": 0.5}, "must be greater than 0.5"),
            ({"high": 3.0}, "must be at most 2.5"),
            ({"high": float("nan")}, "must be a finite number"),
            ({"whole": -8}, "must be at least -7"),
            ({"whole": 0}, "must be set"),
            ({"colour": 0}, "must be set"),
            ({"colour": 2}, "must be a value of the enum"),
            ({"few": []}, "must not be empty"),
            ({"few": list("abcd")}, "must have at most 3 items, has 4"),
            ({"few": ["a", "a"]}, "must not repeat an item"),
        ],
        ids=str,
    )
    def test_the_words_name_the_remedy(self, changes: dict[str, Any], said: str) -> None:
        message = sound(MADE_UP)
        for name, value in changes.items():
            message.ClearField(name)
            message.MergeFrom(message_factory.GetMessageClass(MADE_UP)(**{name: value}))
        assert [description for _, description in problems(message)] == [said]

    def test_a_field_without_rules_takes_anything(self) -> None:
        message = sound(MADE_UP)
        message.free = "\x00" * 10_000
        message.free_list.extend([""] * 1_000)
        message.free_map.update({"\x00": "\x00"})
        assert problems(message) == []

    def test_what_may_be_absent_is_not_judged_when_absent(self) -> None:
        message = sound(MADE_UP)
        assert (message.short, message.matched, message.low) == ("", "", 0.0)
        assert problems(message) == []


class TestPaths:
    def test_problems_are_told_from_the_request_down(self) -> None:
        part = completion_pb2.Part(tool_call=completion_pb2.ToolCall(id="i", name="no spaces"))
        message = completion_pb2.Message(
            role=completion_pb2.ROLE_ASSISTANT, parts=[completion_pb2.Part(text="x"), part]
        )
        request = router_service_pb2.CompleteRequest(completion=completion_pb2.CompletionSpec(messages=[message]))
        assert [path for path, _ in problems(request)] == ["completion.messages[0].parts[1].tool_call.name"]

    def test_all_problems_are_told_at_once_up_to_a_limit(self) -> None:
        messages = [completion_pb2.Message(role=completion_pb2.ROLE_USER) for _ in range(50)]
        request = router_service_pb2.RouteRequest(completion=completion_pb2.CompletionSpec(messages=messages))
        found = problems(request)
        assert len(found) == MAX_PROBLEMS
        assert found[1] == ("completion.messages[1].parts", "must not be empty")

    def test_large_bounds_are_written_out(self) -> None:
        spec = completion_pb2.CompletionSpec(generation=completion_pb2.GenerationConfig(seed=2**31))
        assert problems(router_service_pb2.RouteRequest(completion=spec)) == [
            ("completion.generation.seed", "must be at most 2147483647")
        ]

    def test_a_key_of_the_caller_is_not_told(self) -> None:
        spec = completion_pb2.CompletionSpec(labels={"A canary": "x"})
        ((path, description),) = problems(router_service_pb2.RouteRequest(completion=spec))
        assert path == "completion.labels[0].key"
        assert "canary" not in description


class TestBlank:
    @pytest.mark.parametrize(
        "text", ["", " ", "\n\t\r", "\u00a0\u2003", "\u200b\u200d\ufeff\u2060", "\x00\x07", " \u0301"]
    )
    def test_what_shows_nothing(self, text: str) -> None:
        assert is_blank(text)

    @pytest.mark.parametrize("text", ["a", " . ", "\u200ba", "日", "é", "👩‍🚀", "e\u0301"])
    def test_what_shows_something(self, text: str) -> None:
        assert not is_blank(text)
