"""None"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.cohere_calls import call_of, deployment
from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
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
    Capability,
    ReasoningEffort,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

WEATHER = Tool("weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
CLOCK = Tool("clock", "", {"type": "object", "properties": {}})


def thinking_deployment(**changes: Any) -> Deployment:
    plain = deployment()
    return replace(plain, model=replace(plain.model, capabilities=frozenset({Capability.REASONING})), **changes)


def shaped(*messages: Message, **settings_: Any) -> dict[str, Any]:
    return dict(CohereChat().shape(call_of(*messages, **settings_)).body)


def shaped_message(role: Role, *parts: Part) -> Any:
    messages = shaped(Message(Role.USER, (TextPart("Hello"),)), Message(role, parts))["messages"]
    return messages[-1]


def refusal(*messages: Message, **settings_: Any) -> str:
    with pytest.raises(ProviderFault) as caught:
        CohereChat().shape(call_of(*messages, **settings_))
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    return caught.value.detail


class TestShape:
    def test_plain_call(self) -> None:
        outgoing = CohereChat().shape(call_of())
        assert outgoing.path == "/v2/chat"
        assert outgoing.headers == {}
        assert outgoing.body == {
            "model": "command-a-03-2025",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": False,
            "max_tokens": 500,
        }

    def test_stream(self) -> None:
        assert shaped(stream=True)["stream"] is True

    def test_sampling(self) -> None:
        body = shaped(temperature=0.0, top_p=0.5, seed=0, stop_sequences=("END", "\n"), max_output_tokens=9_999)
        assert (body["temperature"], body["p"], body["seed"]) == (0.0, 0.5, 0)
        assert body["stop_sequences"] == ["END", "\n"]
        assert body["max_tokens"] == 500

    @pytest.mark.parametrize(("asked", "sent"), [(1.0, 0.99), (0.0, 0.01), (0.99, 0.99), (0.3, 0.3)])
    def test_top_p_stays_within_the_documented_bounds(self, asked: float, sent: float) -> None:
        assert shaped(top_p=asked)["p"] == sent

    def test_response_schema(self) -> None:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        assert shaped(response_schema=schema)["response_format"] == {"type": "json_object", "json_schema": schema}

    def test_tools(self) -> None:
        body = shaped(tools=(WEATHER, CLOCK))
        assert body["tools"] == [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tells the weather.",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                },
            },
            {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
        ]
        assert "tool_choice" not in body

    @pytest.mark.parametrize(
        ("mode", "sent"),
        [(ToolChoiceMode.AUTO, None), (ToolChoiceMode.NONE, "NONE"), (ToolChoiceMode.REQUIRED, "REQUIRED")],
    )
    def test_tool_choice(self, mode: ToolChoiceMode, sent: str | None) -> None:
        body = shaped(tools=(WEATHER, CLOCK), tool_choice=ToolChoice(mode))
        assert body.get("tool_choice") == sent
        assert len(body["tools"]) == 2

    def test_named_tool_is_the_only_one_offered(self) -> None:
        body = shaped(tools=(WEATHER, CLOCK), tool_choice=ToolChoice(ToolChoiceMode.NAMED, "clock"))
        assert body["tool_choice"] == "REQUIRED"
        assert [tool["function"]["name"] for tool in body["tools"]] == ["clock"]

    @pytest.mark.parametrize(
        "choice", [ToolChoice(ToolChoiceMode.REQUIRED), ToolChoice(ToolChoiceMode.NAMED, "weather")]
    )
    def test_required_call_of_no_tool_is_refused(self, choice: ToolChoice) -> None:
        assert "tool_choice" in refusal(tool_choice=choice)

    def test_no_tools_and_none_to_be_called(self) -> None:
        assert "tool_choice" not in shaped(tool_choice=ToolChoice(ToolChoiceMode.NONE))

    @pytest.mark.parametrize(
        ("effort", "limit", "sent"),
        [
            (ReasoningEffort.LOW, 4_000, {"type": "enabled", "token_budget": 1_024}),
            (ReasoningEffort.MEDIUM, 100_000, {"type": "enabled", "token_budget": 4_096}),
            (ReasoningEffort.HIGH, 100_000, {"type": "enabled", "token_budget": 16_384}),
            (ReasoningEffort.HIGH, 500, {"type": "enabled", "token_budget": 250}),
            (ReasoningEffort.LOW, 1, {"type": "enabled", "token_budget": 1}),
            (ReasoningEffort.NONE, 500, {"type": "disabled"}),
        ],
    )
    def test_thinking(self, effort: ReasoningEffort, limit: int, sent: dict[str, Any]) -> None:
        assert shaped(place=thinking_deployment(), limit=limit, reasoning_effort=effort)["thinking"] == sent

    def test_thinking_budget_of_the_policy(self) -> None:
        place = thinking_deployment(reasoning_token_budgets={"low": 77})
        assert shaped(place=place, reasoning_effort=ReasoningEffort.LOW)["thinking"]["token_budget"] == 77

    def test_nothing_to_turn_off_where_the_model_cannot_think(self) -> None:
        assert "thinking" not in shaped(reasoning_effort=ReasoningEffort.NONE)

    def test_policy_options_have_the_last_word(self) -> None:
        body = shaped(place=deployment(options={"safety_mode": "STRICT", "temperature": 0.1}), temperature=0.9)
        assert (body["safety_mode"], body["temperature"]) == ("STRICT", 0.1)

    def test_system_messages_become_one_in_front(self) -> None:
        messages = shaped(
            Message(Role.SYSTEM, (TextPart("Be brief."),)),
            Message(Role.USER, (TextPart("Hello"),)),
            Message(Role.SYSTEM, (TextPart("Be kind."),)),
        )["messages"]
        assert messages == [
            {
                "role": "system",
                "content": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
            },
            {"role": "user", "content": "Hello"},
        ]

    def test_single_system_message_is_plain_text(self) -> None:
        messages = shaped(Message(Role.SYSTEM, (TextPart("Be brief."),)), Message(Role.USER, (TextPart("Hi"),)))[
            "messages"
        ]
        assert messages[0] == {"role": "system", "content": "Be brief."}

    def test_image(self) -> None:
        assert shaped_message(Role.USER, TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png")) == {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
            ],
        }

    def test_assistant_turn_with_tool_calls_takes_its_reasoning_back_as_the_plan(self) -> None:
        assert shaped_message(
            Role.ASSISTANT,
            ReasoningPart("I will look."),
            ToolCallPart("c1", "weather", '{"city": "Oslo"}'),
            ToolCallPart("c2", "clock", ""),
        ) == {
            "role": "assistant",
            "tool_plan": "I will look.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
                {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ],
        }

    def test_text_beside_tool_calls_is_kept(self) -> None:
        message = shaped_message(Role.ASSISTANT, TextPart("Let me see."), ToolCallPart("c1", "clock", "{}"))
        assert message["content"] == "Let me see."
        assert len(message["tool_calls"]) == 1

    def test_reasoning_of_a_finished_turn_stays_out(self) -> None:
        assert shaped_message(Role.ASSISTANT, ReasoningPart("Hm."), TextPart("Yes.")) == {
            "role": "assistant",
            "content": "Yes.",
        }

    @pytest.mark.parametrize(
        "foreign", [ReasoningPart("Hm.", signature="c2ln"), ReasoningPart("", signature="c2ln", redacted=True)]
    )
    def test_another_vendors_reasoning_stays_out(self, foreign: ReasoningPart) -> None:
        assert "tool_plan" not in shaped_message(Role.ASSISTANT, foreign, ToolCallPart("c1", "clock", "{}"))

    def test_turn_of_nothing_but_foreign_parts_is_left_out(self) -> None:
        messages = shaped(
            Message(Role.USER, (TextPart("Hello"),)),
            Message(Role.ASSISTANT, (ReasoningPart("", "c2ln", redacted=True), OpaquePart("other", "x", "{}"))),
        )["messages"]
        assert messages == [{"role": "user", "content": "Hello"}]

    def test_own_opaque_block_goes_back_unchanged(self) -> None:
        block = OpaquePart("cohere_chat", "chart", '{"type": "chart", "points": [1, 2]}')
        message = shaped_message(Role.ASSISTANT, TextPart("See:"), block)
        assert message["content"] == [{"type": "text", "text": "See:"}, {"type": "chart", "points": [1, 2]}]

    def test_opaque_block_that_is_not_json_is_refused(self) -> None:
        broken = Message(Role.ASSISTANT, (OpaquePart("cohere_chat", "chart", "{"),))
        assert "opaque part" in refusal(broken)

    def test_tool_results(self) -> None:
        messages = shaped(
            Message(Role.USER, (TextPart("Hello"),)),
            Message(
                Role.TOOL, (ToolResultPart("c1", "12 degrees"), ToolResultPart("c2", "no such city", is_error=True))
            ),
        )["messages"]
        failed = [{"type": "document", "document": {"data": {"error": "no such city"}}}]
        assert messages[1:] == [
            {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
            {"role": "tool", "tool_call_id": "c2", "content": failed},
        ]

    @pytest.mark.parametrize(
        ("role", "part"),
        [
            (Role.SYSTEM, ImagePart(b"x", "image/png")),
            (Role.ASSISTANT, ImagePart(b"x", "image/png")),
            (Role.TOOL, TextPart("secret words")),
            (Role.USER, ToolCallPart("c1", "clock", "{}")),
            (Role.USER, ReasoningPart("secret words")),
            (Role.ASSISTANT, ToolResultPart("c1", "secret words")),
        ],
    )
    def test_part_in_the_wrong_place_is_refused_by_name(self, role: Role, part: Part) -> None:
        detail = refusal(Message(role, (part,)))
        assert "messages" in detail
        assert role.value in detail
        assert "secret words" not in detail
