from __future__ import annotations

from typing import Any

import pytest

from kit.openai_calls import CLOSED_SCHEMA, OPEN_SCHEMA, WEATHER, call_of, deployment
from pointsman_server.adapters.providers.openai_request import (
    allows_strict,
    opaque_json,
    shape_effort,
    shape_schema,
    shape_tool_choice,
    steering_options,
    tool_result_text,
    with_options,
)
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart
from pointsman_server.domain.request import GenerationConfig, ReasoningEffort, ToolChoice, ToolChoiceMode

ASKED = {"effort": "as OpenAI has it"}


class TestOptions:
    def test_fields_are_added_and_replaced(self) -> None:
        body = with_options({"model": "m", "temperature": 0.9}, deployment(temperature=0.1, user="us"))
        assert body == {"model": "m", "temperature": 0.1, "user": "us"}

    def test_objects_are_merged(self) -> None:
        body = with_options({"reasoning": {"effort": "low"}}, deployment(reasoning={"summary": "auto"}))
        assert body == {"reasoning": {"effort": "low", "summary": "auto"}}

    def test_null_takes_a_field_out(self) -> None:
        assert with_options({"seed": 1, "model": "m"}, deployment(seed=None, top_k=None)) == {"model": "m"}

    def test_steering_options_are_not_sent(self) -> None:
        assert with_options({"model": "m"}, deployment(x_seed_field="random_seed")) == {"model": "m"}

    def test_the_body_itself_is_not_changed(self) -> None:
        body = {"reasoning": {"effort": "low"}}
        with_options(body, deployment(reasoning={"summary": "auto"}))
        assert body == {"reasoning": {"effort": "low"}}

    def test_steering_options_are_found(self) -> None:
        assert steering_options(deployment(x_a=1, b=2), ("x_a", "x_c")) == {"x_a": 1}

    def test_unknown_steering_option_is_a_fault_of_the_policy(self) -> None:
        with pytest.raises(ProviderFault) as caught:
            steering_options(deployment(x_max_token_field="m"), ("x_max_tokens_field",))
        assert caught.value.kind is FaultKind.UNSUPPORTED
        assert caught.value.rule.try_next
        assert "x_max_token_field" in caught.value.detail
        assert "known are x_max_tokens_field" in caught.value.detail


class TestEffort:
    def test_none_asked(self) -> None:
        assert shape_effort(call_of(), {}, ASKED) == {}

    @pytest.mark.parametrize("effort", [ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH])
    def test_as_openai_has_it(self, effort: ReasoningEffort) -> None:
        assert shape_effort(call_of(reasoning_effort=effort), {}, ASKED) == ASKED

    def test_turning_off_is_said_only_to_a_model_that_can_think(self) -> None:
        off = ReasoningEffort.NONE
        assert shape_effort(call_of(reasoning_effort=off, place=deployment(reasons=True)), {}, ASKED) == ASKED
        assert shape_effort(call_of(reasoning_effort=off), {}, ASKED) == {}

    def test_the_policys_own_fields(self) -> None:
        steering = {"x_reasoning_effort": {"none": {"thinking": {"type": "disabled"}}}}
        off = shape_effort(call_of(reasoning_effort=ReasoningEffort.NONE), steering, ASKED)
        assert off == {"thinking": {"type": "disabled"}}
        assert shape_effort(call_of(reasoning_effort=ReasoningEffort.LOW), steering, ASKED) == ASKED

    @pytest.mark.parametrize("value", ["low", {"low": "minimal"}, {"low": ["a"]}, 3])
    def test_fields_that_are_none(self, value: Any) -> None:
        with pytest.raises(ProviderFault, match="x_reasoning_effort") as caught:
            shape_effort(call_of(reasoning_effort=ReasoningEffort.LOW), {"x_reasoning_effort": value}, ASKED)
        assert caught.value.kind is FaultKind.UNSUPPORTED


NAMED = {"type": "function", "name": "weather"}


class TestToolChoice:
    @pytest.mark.parametrize(
        ("mode", "said"),
        [
            (ToolChoiceMode.AUTO, "auto"),
            (ToolChoiceMode.NONE, "none"),
            (ToolChoiceMode.REQUIRED, "required"),
            (ToolChoiceMode.NAMED, NAMED),
        ],
    )
    def test_modes(self, mode: ToolChoiceMode, said: Any) -> None:
        generation = GenerationConfig(tools=(WEATHER,), tool_choice=ToolChoice(mode, "weather"))
        assert shape_tool_choice(generation, NAMED) == {"tool_choice": said}

    @pytest.mark.parametrize("mode", [ToolChoiceMode.AUTO, ToolChoiceMode.NONE])
    def test_nothing_to_choose(self, mode: ToolChoiceMode) -> None:
        assert shape_tool_choice(GenerationConfig(tool_choice=ToolChoice(mode)), NAMED) == {}
        assert shape_tool_choice(GenerationConfig(tools=(WEATHER,)), NAMED) == {}

    @pytest.mark.parametrize("mode", [ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED])
    def test_no_tool_to_call(self, mode: ToolChoiceMode) -> None:
        with pytest.raises(ProviderFault, match=r"generation\.tool_choice") as caught:
            shape_tool_choice(GenerationConfig(tool_choice=ToolChoice(mode, "weather")), NAMED)
        assert caught.value.kind is FaultKind.INVALID_REQUEST


def nested(**node: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": node}, "required": ["a"], "additionalProperties": False}


class TestStrict:
    @pytest.mark.parametrize(
        "schema",
        [
            CLOSED_SCHEMA,
            {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
            {"type": "object", "additionalProperties": False},
            nested(type="array", items=CLOSED_SCHEMA, minItems=1),
            nested(anyOf=[{"type": "null"}, CLOSED_SCHEMA]),
            nested(type=["string", "null"], description="d", title="t", pattern="^a"),
            nested(type="string", format="date-time"),
            nested(enum=["a", "b"]),
            nested(const=1),
            {**nested(**{"$ref": "#/$defs/city"}), "$defs": {"city": CLOSED_SCHEMA}},
            nested(**{"$ref": "#"}),
        ],
    )
    def test_schemas_the_api_enforces(self, schema: dict[str, Any]) -> None:
        assert allows_strict(schema)

    @pytest.mark.parametrize(
        "schema",
        [
            {},
            {"type": "string"},
            {"anyOf": [CLOSED_SCHEMA]},
            {**CLOSED_SCHEMA, "anyOf": [CLOSED_SCHEMA]},
            OPEN_SCHEMA,
            {**CLOSED_SCHEMA, "required": []},
            {**CLOSED_SCHEMA, "additionalProperties": True},
            {**CLOSED_SCHEMA, "properties": [1]},
            {**CLOSED_SCHEMA, "required": "city"},
            {**CLOSED_SCHEMA, "properties": {"city": True}},
            nested(),
            nested(type="string", minLength=1),
            nested(type="string", default="x"),
            nested(type="string", format="uri"),
            nested(type="array", items=OPEN_SCHEMA),
            nested(type="array", items=True),
            nested(type="object"),
            nested(type=["object", "null"]),
            nested(properties={}),
            nested(anyOf=[OPEN_SCHEMA]),
            nested(anyOf={"type": "string"}, oneOf=[]),
            nested(**{"$ref": "#", "description": "d"}),
            {**CLOSED_SCHEMA, "$defs": {"city": OPEN_SCHEMA}},
            {**CLOSED_SCHEMA, "definitions": 1},
        ],
    )
    def test_schemas_it_would_refuse(self, schema: dict[str, Any]) -> None:
        assert not allows_strict(schema)

    def test_deep_schema_does_not_exhaust_the_stack(self) -> None:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(5_000):
            schema = nested(**schema)
        assert allows_strict(schema)

    def test_strict_is_said_only_where_it_holds(self) -> None:
        assert shape_schema(CLOSED_SCHEMA) == {"name": "response", "schema": CLOSED_SCHEMA, "strict": True}
        assert shape_schema(OPEN_SCHEMA) == {"name": "response", "schema": OPEN_SCHEMA}


def test_error_of_a_tool_is_said_in_words() -> None:
    assert tool_result_text("12 degrees", is_error=False) == "12 degrees"
    assert tool_result_text('no "such" city', is_error=True) == '{"error":"no \\"such\\" city"}'


def test_opaque_part_that_a_caller_broke() -> None:
    with pytest.raises(ProviderFault, match="opaque part") as caught:
        opaque_json(OpaquePart("openai_chat", "x", "{"))
    assert caught.value.kind is FaultKind.INVALID_REQUEST
