from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.struct_pb2 import Struct
from hypothesis import given

from kit.catalog import deployment, judged, snapshot
from kit.properties import examples
from kit.random_messages import messages, structs
from kit.rule_probes import sound
from pointsman.v1 import completion_pb2 as pb
from pointsman.v1.answer_pb2 import STREAM_FAILOVER_RESTART
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.decision.engine import decide
from pointsman_server.decision.facts import facts_of
from pointsman_server.decision.tokens import estimate_tokens
from pointsman_server.domain.errors import InvalidRequest, RouterError
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.request import (
    CacheControl,
    CacheMode,
    Capability,
    CompletionRequest,
    DataClass,
    Document,
    GenerationConfig,
    ReasoningEffort,
    RoutingConstraints,
    TemplateRef,
    Tier,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from pointsman_server.rpc.request import read_request
from pointsman_server.rpc.rules import MAX_PROBLEMS

PNG = b"\x89PNG\r\n\x1a\nIEND"


def says(role: pb.Role.ValueType, *parts: pb.Part) -> pb.Message:
    return pb.Message(role=role, parts=parts)


def asks(**fields: Any) -> pb.CompletionSpec:
    return pb.CompletionSpec(**{"messages": [says(pb.ROLE_USER, pb.Part(text="hello"))], **fields})


def read(spec: pb.CompletionSpec) -> CompletionRequest:
    return read_request(CompleteRequest(completion=spec))


def struct(content: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(content)
    return made


def test_a_bare_request() -> None:
    assert read(asks()) == CompletionRequest(messages=(Message(Role.USER, (TextPart("hello"),)),))


def test_everything_lands_where_it_belongs() -> None:
    generation = pb.GenerationConfig(
        max_output_tokens=9,
        temperature=0.0,
        seed=0,
        stop_sequences=["a", "b"],
        response_schema=struct({"minLength": 5}),
        tools=[pb.Tool(name="f", description="d", parameters=struct({"type": "object"})), pb.Tool(name="g")],
        tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NAMED, name="f"),
        reasoning_effort=pb.REASONING_EFFORT_HIGH,
    )
    constraints = pb.RoutingConstraints(
        required_capabilities=[pb.CAPABILITY_VISION, pb.CAPABILITY_SEED, pb.CAPABILITY_SEED],
        min_context_tokens=1_000,
        max_cost_micro_usd=0,
        max_first_token_latency=Duration(seconds=1, nanos=500_000_000),
        allowed_deployments=["a", "b"],
        denied_deployments=["c"],
        data_class=pb.DATA_CLASS_RESTRICTED,
        regions=["eu"],
    )
    spec = asks(
        tier=pb.TIER_ADVANCED,
        deployment="a",
        generation=generation,
        constraints=constraints,
        quality_bias=0.0,
        labels={"team": "x"},
        end_user="u",
        session_id="s",
        request_id="r",
    )
    assert read(spec) == CompletionRequest(
        messages=(Message(Role.USER, (TextPart("hello"),)),),
        tier=Tier.ADVANCED,
        deployment="a",
        generation=GenerationConfig(
            max_output_tokens=9,
            temperature=0.0,
            top_p=None,
            seed=0,
            stop_sequences=("a", "b"),
            response_schema={"minLength": 5},
            tools=(Tool("f", "d", {"type": "object"}), Tool("g", "", {})),
            tool_choice=ToolChoice(ToolChoiceMode.NAMED, "f"),
            reasoning_effort=ReasoningEffort.HIGH,
        ),
        constraints=RoutingConstraints(
            required_capabilities=frozenset({Capability.VISION, Capability.SEED}),
            min_context_tokens=1_000,
            max_cost_micro_usd=0,
            max_first_token_seconds=1.5,
            allowed_deployments=frozenset({"a", "b"}),
            denied_deployments=frozenset({"c"}),
            data_class=DataClass.RESTRICTED,
            regions=frozenset({"eu"}),
        ),
        quality_bias=0.0,
        labels={"team": "x"},
        end_user="u",
        session_id="s",
    )


PARTS: dict[str, tuple[pb.Role.ValueType, pb.Part, Part]] = {
    "text": (pb.ROLE_SYSTEM, pb.Part(text="t", signature="s"), TextPart("t", "s")),
    "image": (pb.ROLE_USER, pb.Part(image=pb.Image(data=PNG, media_type="image/png")), ImagePart(PNG, "image/png")),
    "tool_call": (
        pb.ROLE_ASSISTANT,
        pb.Part(tool_call=pb.ToolCall(id="i", name="f", arguments_json='{"a": '), signature="s"),
        ToolCallPart("i", "f", '{"a": ', "s"),
    ),
    "tool_result": (
        pb.ROLE_TOOL,
        pb.Part(tool_result=pb.ToolResult(tool_call_id="asked", text="t", is_error=True)),
        ToolResultPart("asked", "t", is_error=True),
    ),
    "reasoning": (
        pb.ROLE_ASSISTANT,
        pb.Part(reasoning=pb.Reasoning(text="t", redacted=True), signature="s"),
        ReasoningPart("t", "s", redacted=True),
    ),
    "opaque": (
        pb.ROLE_ASSISTANT,
        pb.Part(opaque=pb.Opaque(dialect="d", kind="k", json="{}")),
        OpaquePart("d", "k", "{}"),
    ),
}
CALLS = says(pb.ROLE_ASSISTANT, pb.Part(tool_call=pb.ToolCall(id="asked", name="f")))


class TestParts:
    def test_the_table_has_every_kind_of_the_contract(self) -> None:
        assert {field.name for field in pb.Part.DESCRIPTOR.oneofs_by_name["content"].fields} == set(PARTS)

    @pytest.mark.parametrize("kind", PARTS)
    def test_each_kind(self, kind: str) -> None:
        role, part, expected = PARTS[kind]
        first = says(pb.ROLE_USER, pb.Part(text="hello"))
        message = read(pb.CompletionSpec(messages=[first, CALLS, says(role, part)])).messages[2]
        assert message.role.name == pb.Role.Name(role).removeprefix("ROLE_")
        assert message.parts == (expected,)


class TestEnums:
    """Every value of the contract has its counterpart of the same name."""

    @pytest.mark.parametrize(
        ("prefix", "names", "counterpart"),
        [
            ("ROLE_", pb.Role.keys(), Role),
            ("TIER_", pb.Tier.keys(), Tier),
            ("DATA_CLASS_", pb.DataClass.keys(), DataClass),
            ("CAPABILITY_", pb.Capability.keys(), Capability),
            ("REASONING_EFFORT_", pb.ReasoningEffort.keys(), ReasoningEffort),
            ("TOOL_CHOICE_MODE_", pb.ToolChoiceMode.keys(), ToolChoiceMode),
        ],
    )
    def test_the_names_are_the_same(self, prefix: str, names: list[str], counterpart: Any) -> None:
        assert {name.removeprefix(prefix) for name in names} - {"UNSPECIFIED"} == {one.name for one in counterpart}

    @pytest.mark.parametrize("tier", Tier)
    def test_tiers(self, tier: Tier) -> None:
        assert read(asks(tier=pb.Tier.Value(f"TIER_{tier.name}"))).tier is tier

    @pytest.mark.parametrize("data_class", DataClass)
    def test_data_classes(self, data_class: DataClass) -> None:
        value = pb.DataClass.Value(f"DATA_CLASS_{data_class.name}")
        found = read(asks(constraints=pb.RoutingConstraints(data_class=value)))
        assert found.constraints.data_class is data_class

    @pytest.mark.parametrize("capability", Capability)
    def test_capabilities(self, capability: Capability) -> None:
        value = pb.Capability.Value(f"CAPABILITY_{capability.name}")
        found = read(asks(constraints=pb.RoutingConstraints(required_capabilities=[value])))
        assert found.constraints.required_capabilities == {capability}

    @pytest.mark.parametrize("effort", ReasoningEffort)
    def test_efforts(self, effort: ReasoningEffort) -> None:
        value = pb.ReasoningEffort.Value(f"REASONING_EFFORT_{effort.name}")
        assert read(asks(generation=pb.GenerationConfig(reasoning_effort=value))).generation.reasoning_effort is effort

    @pytest.mark.parametrize("mode", ToolChoiceMode)
    def test_tool_choices(self, mode: ToolChoiceMode) -> None:
        choice = pb.ToolChoice(mode=pb.ToolChoiceMode.Value(f"TOOL_CHOICE_MODE_{mode.name}"))
        if mode is ToolChoiceMode.NAMED:
            choice.name = "f"
        config = pb.GenerationConfig(tools=[pb.Tool(name="f")], tool_choice=choice)
        assert read(asks(generation=config)).generation.tool_choice == ToolChoice(mode, choice.name)

    def test_unset_ones_decide_nothing(self) -> None:
        found = read(asks(generation=pb.GenerationConfig(), constraints=pb.RoutingConstraints()))
        assert (found.tier, found.generation, found.constraints) == (None, GenerationConfig(), RoutingConstraints())


OTHERS: dict[str, Callable[[], Any]] = {
    "messages": lambda: [says(pb.ROLE_USER, pb.Part(text="something else"))],
    "response_schema": lambda: struct({"type": "string"}),
    "parameters": lambda: struct({"type": "object"}),
    "max_first_token_latency": lambda: Duration(seconds=2),
    "tools": lambda: [pb.Tool(name="t")],
    "tool_choice": lambda: pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE),
    "generation": lambda: pb.GenerationConfig(seed=1),
    "constraints": lambda: pb.RoutingConstraints(regions=["eu"]),
    "labels": lambda: {"a": "b"},
    "is_error": lambda: True,
    "redacted": lambda: True,
}
ELSEWHERE = {
    "pointsman.v1.CompletionSpec.template": "refused as not offered",
    "pointsman.v1.CompletionSpec.documents": "refused as not offered",
    "pointsman.v1.CompletionSpec.cache": "there is no cache to control",
    "pointsman.v1.CompletionSpec.request_id": "read at the border",
}
"""Fields of a request that do not become part of the domain's request, and why."""


def _fields(descriptor: Descriptor) -> list[str]:
    return [field.full_name for field in descriptor.fields if field.full_name not in ELSEWHERE]


def _changed(message: ProtoMessage, name: str) -> None:
    """Gives the field another value than it has."""
    field = message.DESCRIPTOR.fields_by_name[name]
    value = OTHERS[name]() if name in OTHERS else _another(field)
    message.ClearField(name)
    message.MergeFrom(type(message)(**{name: value}))


def _another(field: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return ["other"] if field.is_repeated else "other"
    value = 0.5 if field.type == field.TYPE_DOUBLE else 3 if field.enum_type is None else 2
    return [value] if field.is_repeated else value


class TestNothingIsForgotten:
    """A field that is added to the contract must be read, or be named above with the reason why not."""

    @pytest.mark.parametrize("field", _fields(pb.CompletionSpec.DESCRIPTOR))
    def test_of_a_request(self, field: str) -> None:
        spec = asks()
        _changed(spec, field.rsplit(".", 1)[-1])
        assert read(spec) != read(asks())

    @pytest.mark.parametrize("field", _fields(pb.GenerationConfig.DESCRIPTOR))
    def test_of_the_generation(self, field: str) -> None:
        config = pb.GenerationConfig()
        _changed(config, field.rsplit(".", 1)[-1])
        assert read(asks(generation=config)) != read(asks(generation=pb.GenerationConfig()))

    @pytest.mark.parametrize("field", _fields(pb.RoutingConstraints.DESCRIPTOR))
    def test_of_the_constraints(self, field: str) -> None:
        constraints = pb.RoutingConstraints()
        _changed(constraints, field.rsplit(".", 1)[-1])
        assert read(asks(constraints=constraints)) != read(asks())

    @pytest.mark.parametrize("field", _fields(pb.Tool.DESCRIPTOR))
    def test_of_a_tool(self, field: str) -> None:
        tool = sound(pb.Tool.DESCRIPTOR)
        before = read(asks(generation=pb.GenerationConfig(tools=[tool])))
        _changed(tool, field.rsplit(".", 1)[-1])
        assert read(asks(generation=pb.GenerationConfig(tools=[tool]))) != before


class TestRefusals:
    def test_rules_of_the_contract_go_first_and_all_at_once(self) -> None:
        spec = pb.CompletionSpec(
            messages=[says(pb.ROLE_USER)], deployment="UPPER", template=pb.TemplateRef(name="t"), quality_bias=2.0
        )
        with pytest.raises(InvalidRequest) as caught:
            read(spec)
        assert {problem.field for problem in caught.value.problems} == {
            "completion.messages[0].parts",
            "completion.deployment",
            "completion.quality_bias",
        }
        assert type(caught.value) is InvalidRequest
        assert not caught.value.conflicting

    def test_a_template_stands_for_messages(self) -> None:
        assert read(pb.CompletionSpec(template=pb.TemplateRef(name="t"))).messages == ()

    def test_material_and_cache(self) -> None:
        asked = read(
            asks(
                documents=[
                    pb.Document(id="d", text="x", relevance=0.0, metadata={"k": "v"}),
                    pb.Document(id="e", text="y"),
                ],
                template=pb.TemplateRef(name="t", version=2, variables=struct({"n": 1})),
                cache=pb.CacheControl(mode=pb.CACHE_MODE_REFRESH, ttl=Duration(seconds=90), min_similarity=0.0),
            )
        )
        assert asked.documents == (Document("d", "x", 0.0, {"k": "v"}), Document("e", "y"))
        assert asked.template == TemplateRef("t", 2, {"n": 1})
        assert asked.cache == CacheControl(CacheMode.REFRESH, 90.0, 0.0)
        assert read(asks(cache=pb.CacheControl())).cache == read(asks()).cache == CacheControl()

    def test_documents_have_ids_of_their_own(self) -> None:
        twice = [pb.Document(id="d", text="x"), pb.Document(id="d", text="y")]
        with pytest.raises(InvalidRequest) as caught:
            read(asks(documents=twice))
        assert [problem.field for problem in caught.value.problems] == ["completion.documents[1].id"]

    def test_then_what_does_not_fit_together(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            read(pb.CompletionSpec(generation=pb.GenerationConfig(temperature=1.0, top_p=1.0)))
        assert [problem.field for problem in caught.value.problems] == ["completion.messages"]
        assert not caught.value.conflicting

    def test_then_contradictions(self) -> None:
        with pytest.raises(InvalidRequest) as caught:
            read(asks(generation=pb.GenerationConfig(temperature=1.0, top_p=1.0)))
        assert caught.value.conflicting

    def test_never_more_problems_than_a_reader_can_use(self) -> None:
        parts = [pb.Part(image=pb.Image(data=b"x", media_type="image/png")) for _ in range(100)]
        with pytest.raises(InvalidRequest) as caught:
            read(pb.CompletionSpec(messages=[says(pb.ROLE_USER, *parts)]))
        assert len(caught.value.problems) == MAX_PROBLEMS

    def test_a_missing_request(self) -> None:
        for request in (RouteRequest(), CompleteRequest(), StreamCompleteRequest()):
            with pytest.raises(InvalidRequest) as caught:
                read_request(request)
            assert [problem.field for problem in caught.value.problems] == ["completion"]

    def test_all_three_requests_are_read_alike(self) -> None:
        spec = asks(tier=pb.TIER_LIGHT)
        found = [
            read_request(RouteRequest(completion=spec)),
            read_request(CompleteRequest(completion=spec)),
            read_request(StreamCompleteRequest(completion=spec, failover=STREAM_FAILOVER_RESTART)),
        ]
        assert found[0] == found[1] == found[2]


def refused(spec: pb.CompletionSpec) -> list[str]:
    """The fields for which this request is refused."""
    try:
        read(spec)
    except InvalidRequest as error:
        return [problem.field for problem in error.problems] or ["nothing"]
    return []


class TestAnything:
    """Whatever a caller sends is a request or one of the contract's errors, never an accident."""

    @examples(300)
    @given(messages(pb.CompletionSpec.DESCRIPTOR))
    def test_is_read_or_refused_with_fields(self, spec: pb.CompletionSpec) -> None:
        assert all(field.startswith("completion") for field in refused(spec))

    @examples(150)
    @given(messages(pb.GenerationConfig.DESCRIPTOR), messages(pb.RoutingConstraints.DESCRIPTOR))
    def test_that_is_read_can_be_decided(self, config: pb.GenerationConfig, limits: pb.RoutingConstraints) -> None:
        try:
            request = read(asks(generation=config, constraints=limits))
        except InvalidRequest:
            return
        policy = snapshot(deployment("a"), deployment("b", of={"tier": Tier.LIGHT}))
        with suppress(RouterError):
            decide(Circumstances(facts_of(request, judged()), estimate_tokens(request)), policy)

    @examples(150)
    @given(structs())
    def test_that_claims_to_be_a_schema_is_judged(self, schema: Struct) -> None:
        with suppress(InvalidRequest):
            read(asks(generation=pb.GenerationConfig(response_schema=schema)))
