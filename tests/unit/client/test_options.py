"""From typed keyword arguments to the contract's request."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from google.protobuf.json_format import MessageToDict

from pointsman.v1.answer_pb2 import STREAM_FAILOVER_CONTINUE, STREAM_FAILOVER_UNSPECIFIED
from pointsman.v1.completion_pb2 import (
    CACHE_MODE_READ_ONLY,
    CAPABILITY_VISION,
    CAPABILITY_WEB_SEARCH,
    DATA_CLASS_CONFIDENTIAL,
    REASONING_EFFORT_HIGH,
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_USER,
    TIER_ADVANCED,
    TOOL_CHOICE_MODE_REQUIRED,
    CacheControl,
    CompletionSpec,
    GenerationConfig,
    Message,
    RoutingConstraints,
)
from pointsman_client import assistant, call_tool, document, function_tool, system, template, user
from pointsman_client._options import (
    _FIELDS,
    CallOptions,
    CompletionOptions,
    Prompt,
    RouteOptions,
    StreamOptions,
    completion_from,
    decision_id_from,
    failover_from,
    feedback_from,
    metadata_from,
    refuse_unknown,
)

EVERYTHING: CompletionOptions = {
    "system": "Be brief.",
    "tier": "advanced",
    "deployment": "haiku",
    "quality_bias": 0.0,
    "max_output_tokens": 100,
    "temperature": 0,
    "top_p": 0.5,
    "seed": 7,
    "stop_sequences": ["END"],
    "response_schema": {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
    "tools": [function_tool("weather", "Tells the weather", {"type": "object"})],
    "tool_choice": "required",
    "reasoning_effort": "high",
    "required_capabilities": ["vision", CAPABILITY_WEB_SEARCH],
    "min_context_tokens": 1000,
    "max_cost_micro_usd": 0,
    "max_first_token_latency_seconds": 1.25,
    "allowed_deployments": ["a"],
    "denied_deployments": ["b"],
    "data_class": "confidential",
    "regions": ["eu"],
    "template": template("greet", {"name": "Ada"}),
    "documents": [document("d1", "text", relevance=0.5)],
    "cache": "read_only",
    "labels": {"agent": "support"},
    "end_user": "u1",
    "session_id": "s1",
    "request_id": "r1",
    "decision_id": "dec_1",
}


def test_every_option_lands_in_its_field() -> None:
    spec = completion_from("Hi", EVERYTHING)
    assert [(message.role, message.parts[0].text) for message in spec.messages] == [
        (ROLE_SYSTEM, "Be brief."),
        (ROLE_USER, "Hi"),
    ]
    assert (spec.tier, spec.deployment, spec.end_user, spec.session_id, spec.request_id) == (
        TIER_ADVANCED, "haiku", "u1", "s1", "r1",
    )  # fmt: skip
    assert spec.HasField("quality_bias")
    generation = spec.generation
    assert (generation.max_output_tokens, generation.top_p, generation.seed) == (100, 0.5, 7)
    assert generation.HasField("temperature")
    assert list(generation.stop_sequences) == ["END"]
    assert MessageToDict(generation.response_schema) == EVERYTHING["response_schema"]
    assert generation.tools[0].parameters["type"] == "object"
    assert generation.tool_choice.mode == TOOL_CHOICE_MODE_REQUIRED
    assert generation.reasoning_effort == REASONING_EFFORT_HIGH
    constraints = spec.constraints
    assert list(constraints.required_capabilities) == [CAPABILITY_VISION, CAPABILITY_WEB_SEARCH]
    assert constraints.min_context_tokens == 1000
    assert constraints.HasField("max_cost_micro_usd")
    assert constraints.max_first_token_latency.ToMilliseconds() == 1250
    assert (list(constraints.allowed_deployments), list(constraints.denied_deployments)) == (["a"], ["b"])
    assert (constraints.data_class, list(constraints.regions)) == (DATA_CLASS_CONFIDENTIAL, ["eu"])
    assert spec.template.variables["name"] == "Ada"
    assert spec.documents[0].relevance == 0.5
    assert spec.cache.mode == CACHE_MODE_READ_ONLY
    assert dict(spec.labels) == {"agent": "support"}


def test_the_example_above_names_every_option() -> None:
    assert set(EVERYTHING) == set(CompletionOptions.__annotations__) - set(CallOptions.__annotations__)
    assert set(CompletionOptions.__annotations__) - set(RouteOptions.__annotations__) == {"decision_id"}


def test_the_options_reach_every_field_of_the_contract() -> None:
    reached = {(field.group, field.field) for field in _FIELDS.values()}
    fields = {("", field.name) for field in CompletionSpec.DESCRIPTOR.fields} - {
        ("", "messages"), ("", "generation"), ("", "constraints"),
    }  # fmt: skip
    fields |= {("generation", field.name) for field in GenerationConfig.DESCRIPTOR.fields}
    fields |= {("constraints", field.name) for field in RoutingConstraints.DESCRIPTOR.fields}
    assert reached == fields


def test_the_options_can_be_inspected() -> None:
    assert set(get_type_hints(StreamOptions)) == set(StreamOptions.__annotations__)


@pytest.mark.parametrize(
    ("prompt", "roles"),
    [
        ("Hi", [ROLE_USER]),
        (user("Hi"), [ROLE_USER]),
        ([system("Be brief."), user("Hi"), assistant("Hello"), user("Bye")],
         [ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_USER]),
        ((user("Hi"),), [ROLE_USER]),
        ([], []),
    ],
)  # fmt: skip
def test_prompts_come_in_many_forms(prompt: Prompt, roles: list[int]) -> None:
    assert [message.role for message in completion_from(prompt, {}).messages] == roles


def test_a_whole_request_is_taken_as_it_is_and_left_alone() -> None:
    whole = CompletionSpec(messages=[user("Hi")], deployment="haiku", request_id="mine")
    spec = completion_from(whole, {"tier": "advanced", "system": "Be brief."})
    assert (spec.deployment, spec.tier, spec.request_id, len(spec.messages)) == ("haiku", TIER_ADVANCED, "mine", 2)
    assert whole == CompletionSpec(messages=[user("Hi")], deployment="haiku", request_id="mine")


def test_contract_values_are_taken_too() -> None:
    options: CompletionOptions = {
        "tier": TIER_ADVANCED,
        "tool_choice": call_tool("weather"),
        "cache": CacheControl(min_similarity=0.9),
    }
    spec = completion_from("Hi", options)
    assert (spec.tier, spec.generation.tool_choice.name, spec.cache.min_similarity) == (TIER_ADVANCED, "weather", 0.9)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"temperature": "hot"}, TypeError, "option 'temperature' cannot be this str"),
        ({"temperature": None}, TypeError, "option 'temperature' cannot be None: leave it out"),
        ({"max_output_tokens": 2**40}, ValueError, "option 'max_output_tokens'"),
        ({"tier": "huge"}, ValueError, "option 'tier': 'huge' is none of light, standard, advanced"),
        ({"tool_choice": "weather"}, ValueError, "option 'tool_choice': 'weather' is none of auto, none"),
        ({"cache": "on"}, ValueError, "option 'cache': 'on' is none of off"),
        ({"required_capabilities": ["flying"]}, ValueError, "option 'required_capabilities': 'flying' is none of"),
        ({"required_capabilities": "vision"}, TypeError, "a list of strings is needed"),
        ({"stop_sequences": "END"}, TypeError, "option 'stop_sequences' .* a list of strings is needed"),
        ({"response_schema": "{}"}, TypeError, "a mapping of JSON values is needed, not str"),
        ({"response_schema": {"a": object()}}, TypeError, "one of its values is none"),
        ({"max_first_token_latency_seconds": -1}, ValueError, "0 or more"),
        ({"tools": ["weather"]}, TypeError, "option 'tools'"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy(options: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        completion_from("Hi", options)


@pytest.mark.parametrize(
    ("options", "known", "said"),
    [
        ({"temprature": 1}, CompletionOptions, r"no option 'temprature'; did you mean 'temperature'\?$"),
        ({"zzz": 1}, CompletionOptions, "there is no option 'zzz'$"),
        ({"failover": "restart"}, CompletionOptions, "there is no option 'failover'"),
        ({"decision_id": "d"}, RouteOptions, "there is no option 'decision_id'"),
    ],
)
def test_an_unknown_option_is_named(options: Any, known: type, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        refuse_unknown(options, known)


def test_a_wrong_message_is_named_without_its_text() -> None:
    prompt: Any = [user("Hi"), "a secret"]
    with pytest.raises(TypeError, match=r"messages\[1\] must be a Message, not str") as raised:
        completion_from(prompt, {})
    assert "secret" not in str(raised.value)


def test_failover_by_name_by_value_and_unset() -> None:
    assert failover_from({"failover": "continue"}) == STREAM_FAILOVER_CONTINUE
    assert failover_from({"failover": STREAM_FAILOVER_CONTINUE}) == STREAM_FAILOVER_CONTINUE
    assert failover_from({}) == STREAM_FAILOVER_UNSPECIFIED
    with pytest.raises(ValueError, match="none of terminate, continue, restart"):
        failover_from({"failover": "never"})  # type: ignore[typeddict-item]


def test_a_decision_is_named_by_its_id() -> None:
    assert (decision_id_from({"decision_id": "dec_1"}), decision_id_from({})) == ("dec_1", "")
    for wrong in (None, 7, b"dec_1"):
        options: Any = {"decision_id": wrong}
        with pytest.raises(TypeError, match="option 'decision_id' cannot be this"):
            decision_id_from(options)


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 .* and 1"):
        feedback_from("r1", score, "")


def test_metadata_and_trace_context_go_together() -> None:
    assert metadata_from({"metadata": [("a", "1")], "traceparent": "00-x"}) == (("a", "1"), ("traceparent", "00-x"))


def test_a_prompt_of_no_known_form_is_refused() -> None:
    prompt: Any = None
    with pytest.raises(TypeError, match=r"the prompt must be a str, a Message, .* not NoneType"):
        completion_from(prompt, {})


def test_messages_are_copied() -> None:
    message = Message(role=ROLE_USER)
    spec = completion_from([message], {})
    message.role = ROLE_ASSISTANT
    assert spec.messages[0].role == ROLE_USER
