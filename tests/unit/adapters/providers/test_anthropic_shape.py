from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from anthropic.resources.messages import AsyncMessages
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter, ValidationError

from pointsman_server.adapters.providers.anthropic_messages import AnthropicMessages
from pointsman_server.adapters.providers.anthropic_shape import close_objects
from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import ImagePart, Message, Role, TextPart, ToolCallPart, ToolResultPart
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import (
    GenerationConfig,
    ReasoningEffort,
    Tier,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

WEATHER = Tool("weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
CLOCK = Tool("clock", "", {})
HELLO = Message(Role.USER, (TextPart("Hello"),))
PROVIDER = Provider("anthropic", Dialect.ANTHROPIC_MESSAGES, "http://127.0.0.1:1", simulated=True)
MODEL = Model("claude", Tier.STANDARD, 200_000, 64_000, frozenset(), 0.8, Price("test", None, ()))
OLD, MIDDLE, NEW = "claude-haiku-4-5", "claude-sonnet-4-6", "claude-sonnet-5-5"


def shape(
    *messages: Message, model: str = NEW, limit: int = 32_000, stream: bool = False,
    place: dict[str, Any] | None = None, **generation: Any,
) -> Outgoing:  # fmt: skip
    deployment = replace(Deployment("d", PROVIDER, MODEL, model), **(place or {}))
    call = ProviderCall(deployment, messages or (HELLO,), GenerationConfig(**generation), limit, stream, 5.0)
    return AnthropicMessages().shape(call)


def body(*messages: Message, **settings: Any) -> dict[str, Any]:
    return dict(shape(*messages, **settings).body)


def refusal(**settings: Any) -> str:
    with pytest.raises(ProviderFault) as caught:
        shape(**settings)
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    return caught.value.detail


class TestPlainCalls:
    def test_the_least(self) -> None:
        assert shape() == Outgoing(
            "/v1/messages",
            {
                "model": NEW,
                "max_tokens": 32_000,
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            },
            {},
        )

    def test_stream(self) -> None:
        assert body(stream=True)["stream"] is True

    def test_system_and_stop_sequences(self) -> None:
        shaped = body(Message(Role.SYSTEM, (TextPart("Be brief."),)), HELLO, stop_sequences=("END", "\n\n"))
        assert shaped["system"] == "Be brief."
        assert shaped["stop_sequences"] == ["END", "\n\n"]

    def test_seed_is_refused(self) -> None:
        assert refusal(seed=7).startswith("generation.seed: ")


class TestTools:
    def test_tools(self) -> None:
        shaped = body(tools=(WEATHER, CLOCK))
        assert shaped["tools"] == [
            {"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER.parameters},
            {"name": "clock", "input_schema": {"type": "object"}},
        ]
        assert "tool_choice" not in shaped

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            (ToolChoice(ToolChoiceMode.AUTO), {"type": "auto"}),
            (ToolChoice(ToolChoiceMode.NONE), {"type": "none"}),
            (ToolChoice(ToolChoiceMode.REQUIRED), {"type": "any"}),
            (
                ToolChoice(ToolChoiceMode.NAMED, "clock"),
                {"type": "tool", "name": "clock", "disable_parallel_tool_use": True},
            ),
        ],
    )
    def test_choice(self, choice: ToolChoice, expected: dict[str, Any]) -> None:
        assert body(tools=(WEATHER, CLOCK), tool_choice=choice, model=OLD)["tool_choice"] == expected

    @pytest.mark.parametrize("mode", [ToolChoiceMode.AUTO, ToolChoiceMode.NONE])
    def test_a_free_choice_without_tools_is_not_said(self, mode: ToolChoiceMode) -> None:
        assert "tool_choice" not in body(tool_choice=ToolChoice(mode))

    @pytest.mark.parametrize("choice", [ToolChoice(ToolChoiceMode.REQUIRED), ToolChoice(ToolChoiceMode.NAMED, "clock")])
    def test_a_forced_choice_is_refused_where_it_cannot_be(self, choice: ToolChoice) -> None:
        assert "there are no tools" in refusal(tool_choice=choice, model=OLD)
        assert refusal(tools=(CLOCK,), tool_choice=choice, model=NEW).startswith("generation.tool_choice: this model")
        reasoning = refusal(tools=(CLOCK,), tool_choice=choice, model=OLD, reasoning_effort=ReasoningEffort.LOW)
        assert "while it reasons" in reasoning


class TestResponseSchema:
    def test_json_schema(self) -> None:
        schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
        assert body(response_schema=schema)["output_config"] == {"format": {"type": "json_schema", "schema": schema}}

    def test_joins_the_effort(self) -> None:
        config = body(response_schema={"type": "string"}, reasoning_effort=ReasoningEffort.HIGH)["output_config"]
        assert config == {"format": {"type": "json_schema", "schema": {"type": "string"}}, "effort": "high"}

    def test_open_objects_are_closed_everywhere(self) -> None:
        closed = close_objects(
            {
                "type": "object",
                "properties": {
                    "properties": {"type": "array", "items": {"type": "object", "properties": {}}},
                    "choice": {"anyOf": [{"type": "object"}, {"type": "null"}]},
                    "map": {"type": "object", "additionalProperties": {"type": "object"}},
                    "enum": {"enum": [{"type": "object"}], "default": {"type": "object"}},
                },
                "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}},
            }
        )
        no = {"additionalProperties": False}
        assert closed == {
            "type": "object",
            "properties": {
                "properties": {"type": "array", "items": {"type": "object", "properties": {}, **no}},
                "choice": {"anyOf": [{"type": "object", **no}, {"type": "null"}]},
                "map": {"type": "object", "additionalProperties": {"type": "object", **no}},
                "enum": {"enum": [{"type": "object"}], "default": {"type": "object"}},
            },
            "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}, **no}},
            **no,
        }


class TestThinking:
    def test_not_asked_for(self) -> None:
        assert not {"thinking", "output_config"} & set(body())

    @pytest.mark.parametrize("effort", [ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH])
    def test_adaptive_on_newer_models(self, effort: ReasoningEffort) -> None:
        for model in (MIDDLE, NEW):
            shaped = body(model=model, reasoning_effort=effort)
            assert shaped["thinking"] == {"type": "adaptive", "display": "summarized"}
            assert shaped["output_config"] == {"effort": effort.value}

    @pytest.mark.parametrize(
        ("effort", "limit", "budget"),
        [
            (ReasoningEffort.LOW, 32_000, 1024),
            (ReasoningEffort.MEDIUM, 32_000, 4096),
            (ReasoningEffort.HIGH, 64_000, 16_384),
            (ReasoningEffort.HIGH, 8_000, 4_000),
            (ReasoningEffort.LOW, 1_025, 1_024),
        ],
    )
    def test_a_budget_on_older_models(self, effort: ReasoningEffort, limit: int, budget: int) -> None:
        shaped = body(model=OLD, limit=limit, reasoning_effort=effort)
        assert shaped["thinking"] == {"type": "enabled", "budget_tokens": budget}
        assert "output_config" not in shaped

    def test_the_policys_budget_comes_first(self) -> None:
        place = {"reasoning_token_budgets": {"medium": 9_000}}
        for model in (OLD, MIDDLE):
            shaped = body(model=model, place=place, reasoning_effort=ReasoningEffort.MEDIUM)
            assert shaped["thinking"] == {"type": "enabled", "budget_tokens": 9_000}
        assert body(model=MIDDLE, place=place, reasoning_effort=ReasoningEffort.LOW)["thinking"]["type"] == "adaptive"
        assert body(model=NEW, place=place, reasoning_effort=ReasoningEffort.MEDIUM)["thinking"]["type"] == "adaptive"

    def test_no_room_for_a_budget(self) -> None:
        detail = refusal(model=OLD, limit=1_024, reasoning_effort=ReasoningEffort.LOW)
        assert detail.startswith("generation.max_output_tokens: ")

    @pytest.mark.parametrize(
        ("model", "expected"),
        [
            (OLD, None),
            ("claude-opus-4-8", None),
            ("claude-haiku-5-5", {"type": "disabled"}),
            ("claude-sonnet-5-5", {"type": "between_tools"}),
        ],
    )
    def test_turned_off(self, model: str, expected: dict[str, str] | None) -> None:
        assert body(model=model, reasoning_effort=ReasoningEffort.NONE).get("thinking") == expected

    def test_cannot_be_turned_off(self) -> None:
        detail = refusal(model="claude-opus-5-5", reasoning_effort=ReasoningEffort.NONE)
        assert detail.startswith("generation.reasoning_effort: ")


class TestSampling:
    def test_only_the_old_version_of_the_api_knows_it(self) -> None:
        outgoing = shape(model=OLD, temperature=0.0)
        assert outgoing.body["temperature"] == 0.0
        assert outgoing.headers == {"anthropic-version": "2023-06-01"}
        assert shape(model=MIDDLE, top_p=0.5).body["top_p"] == 0.5

    def test_the_policys_own_sampling_needs_it_too(self) -> None:
        outgoing = shape(model=OLD, place={"options": {"top_k": 5}})
        assert outgoing.headers == {"anthropic-version": "2023-06-01"}

    @pytest.mark.parametrize(
        ("settings", "field"),
        [
            ({"model": NEW, "temperature": 1.0}, "temperature"),
            ({"model": NEW, "top_p": 0.9}, "top_p"),
            ({"model": OLD, "temperature": 1.5}, "temperature"),
            ({"model": OLD, "temperature": 0.5, "top_p": 0.9}, "top_p"),
            ({"model": OLD, "temperature": 0.5, "reasoning_effort": ReasoningEffort.LOW}, "temperature"),
            ({"model": OLD, "top_p": 0.5, "reasoning_effort": ReasoningEffort.LOW}, "top_p"),
        ],
    )
    def test_what_cannot_be_said_is_refused(self, settings: dict[str, Any], field: str) -> None:
        assert refusal(**settings).startswith(f"generation.{field}: ")

    def test_what_can_be_said(self) -> None:
        assert body(model="claude-3-5-haiku-latest", temperature=0.5, top_p=0.9)["top_p"] == 0.9
        assert body(model=OLD, temperature=1.0, reasoning_effort=ReasoningEffort.LOW)["temperature"] == 1.0
        assert body(model=OLD, top_p=0.95, reasoning_effort=ReasoningEffort.LOW)["top_p"] == 0.95
        assert body(model=OLD, top_p=0.5, reasoning_effort=ReasoningEffort.NONE)["top_p"] == 0.5


class TestOptions:
    def test_the_policy_has_the_last_word(self) -> None:
        options = {"service_tier": "standard_only", "max_tokens": 5, "cache_control": {"type": "ephemeral"}}
        shaped = body(place={"options": options})
        assert {name: shaped[name] for name in options} == options

    def test_nothing_is_cached_unless_the_policy_says_so(self) -> None:
        assert "cache_control" not in str(body(Message(Role.SYSTEM, (TextPart("Be brief."),)), HELLO, tools=(WEATHER,)))

    def test_server_tools_join_the_callers(self) -> None:
        search = {"type": "web_search_20260209", "name": "web_search"}
        shaped = body(tools=(CLOCK,), place={"options": {"tools": [search]}})
        assert [tool["name"] for tool in shaped["tools"]] == ["clock", "web_search"]
        assert body(place={"options": {"tools": [search]}})["tools"] == [search]

    def test_an_effort_of_the_policy_leaves_the_schema_alone(self) -> None:
        shaped = body(response_schema={"type": "string"}, place={"options": {"output_config": {"effort": "max"}}})
        assert set(shaped["output_config"]) == {"format", "effort"}


def test_every_field_is_one_of_the_sdks_and_of_its_type() -> None:
    conversation = (
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png"))),
        Message(Role.ASSISTANT, (TextPart("Let me look."), ToolCallPart("a", "weather", '{"city": "Rome"}'))),
        Message(Role.TOOL, (ToolResultPart("a", "sunny", is_error=True),)),
    )
    accepted = set(inspect.signature(AsyncMessages.create).parameters)
    for model in (OLD, MIDDLE, NEW):
        shaped = body(
            *conversation, model=model, tools=(WEATHER, CLOCK), tool_choice=ToolChoice(ToolChoiceMode.AUTO),
            stop_sequences=("END",), response_schema={"type": "object"}, reasoning_effort=ReasoningEffort.MEDIUM,
        )  # fmt: skip
        assert set(shaped) <= accepted
        check(shaped)


def test_the_proof_reaches_the_blocks() -> None:
    shaped = body()
    shaped["messages"][0]["content"][0] = {"type": "text", "text": 5}
    with pytest.raises(ValidationError):
        check(shaped)


def check(shaped: dict[str, Any]) -> None:
    """Raises `ValidationError` for a body that is not of the SDK's type."""
    adapter = TypeAdapter(MessageCreateParamsNonStreaming)
    read_all(adapter.validate_python(shaped))


def read_all(value: Any) -> None:
    """Walks to the leaves: pydantic checks an Iterable only while it is read."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        for item in value:
            read_all(item)
