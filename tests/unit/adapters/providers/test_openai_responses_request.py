from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.openai_calls import (
    CLOCK,
    CLOSED_SCHEMA,
    HELLO,
    OPEN_SCHEMA,
    WEATHER,
    call_of,
    deployment,
    refusal,
    turn,
)
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
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
from pointsman_server.domain.request import ReasoningEffort, ToolChoice, ToolChoiceMode

RESPONSES = OpenAiResponses()


def shaped(*messages: Message, **settings: Any) -> dict[str, Any]:
    return dict(RESPONSES.shape(call_of(*messages, **settings)).body)


def items(*messages: Message) -> list[dict[str, Any]]:
    return list(shaped(HELLO, *messages)["input"])[1:]


class TestBody:
    def test_plain_call(self) -> None:
        outgoing = RESPONSES.shape(call_of())
        assert outgoing.path == "/responses"
        assert outgoing.headers == {}
        assert outgoing.body == {
            "model": "model-1",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
            "stream": False,
            "store": False,
            "max_output_tokens": 500,
        }

    def test_stream(self) -> None:
        assert shaped(stream=True)["stream"] is True

    def test_reasoning_is_asked_back_encrypted_from_models_that_reason(self) -> None:
        assert shaped(place=deployment(reasons=True))["include"] == ["reasoning.encrypted_content"]

    def test_sampling(self) -> None:
        body = shaped(temperature=0.0, top_p=0.5)
        assert (body["temperature"], body["top_p"]) == (0.0, 0.5)

    @pytest.mark.parametrize(("name", "value"), [("seed", 0), ("stop_sequences", ("END",))])
    def test_what_the_api_does_not_know_is_refused(self, name: str, value: Any) -> None:
        assert f"generation.{name}" in refusal(RESPONSES, call_of(**{name: value}))

    def test_policy_options_have_the_last_word(self) -> None:
        place = deployment(store=True, temperature=None, service_tier="flex")
        body = shaped(place=place, temperature=0.9)
        assert (body["store"], body["service_tier"]) == (True, "flex")
        assert "temperature" not in body

    @pytest.mark.parametrize("name", ["x_typo", "x_max_tokens_field"])
    def test_unknown_steering_option(self, name: str) -> None:
        with pytest.raises(ProviderFault, match=name) as caught:
            shaped(place=replace(deployment(), options={name: "limit"}))
        assert caught.value.kind is FaultKind.UNSUPPORTED

    def test_schema(self) -> None:
        assert shaped(response_schema=CLOSED_SCHEMA)["text"] == {
            "format": {"type": "json_schema", "name": "response", "schema": CLOSED_SCHEMA, "strict": True}
        }
        assert shaped(response_schema=OPEN_SCHEMA)["text"]["format"]["strict"] is False

    def test_verbosity_of_the_policy_goes_beside_the_schema(self) -> None:
        text = shaped(response_schema=OPEN_SCHEMA, place=deployment(text={"verbosity": "low"}))["text"]
        assert text["verbosity"] == "low"
        assert text["format"]["schema"] == OPEN_SCHEMA

    def test_tools_say_always_whether_they_are_strict(self) -> None:
        assert shaped(tools=(WEATHER, CLOCK))["tools"] == [
            {
                "type": "function",
                "name": "weather",
                "description": "Tells the weather.",
                "parameters": CLOSED_SCHEMA,
                "strict": True,
            },
            {"type": "function", "name": "clock", "parameters": None, "strict": False},
        ]

    def test_named_tool(self) -> None:
        choice = ToolChoice(ToolChoiceMode.NAMED, "clock")
        assert shaped(tools=(WEATHER, CLOCK), tool_choice=choice)["tool_choice"] == {
            "type": "function",
            "name": "clock",
        }

    @pytest.mark.parametrize("effort", [ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH])
    def test_effort(self, effort: ReasoningEffort) -> None:
        place = deployment(reasoning={"summary": "auto"})
        assert shaped(reasoning_effort=effort, place=place)["reasoning"] == {"effort": effort.value, "summary": "auto"}

    def test_effort_of_the_policy(self) -> None:
        place = deployment(x_reasoning_effort={"none": {"reasoning": {"effort": "minimal"}}})
        assert shaped(reasoning_effort=ReasoningEffort.NONE, place=place)["reasoning"] == {"effort": "minimal"}


class TestItems:
    def test_first_system_messages_are_the_instructions(self) -> None:
        system = Message(Role.SYSTEM, (TextPart("Be brief."), TextPart("Be kind.")))
        late = Message(Role.SYSTEM, (TextPart("Now rhyme."),))
        body = shaped(system, Message(Role.SYSTEM, (TextPart("No lists."),)), HELLO, late)
        assert body["instructions"] == "Be brief.\n\nBe kind.\n\nNo lists."
        assert body["input"][1:] == [{"role": "system", "content": "Now rhyme."}]

    def test_image(self) -> None:
        picture = Message(Role.USER, (TextPart("What?"), ImagePart(b"\x89PNG", "image/png")))
        assert items(picture) == [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"},
                ],
            }
        ]

    def test_turn_keeps_the_order_of_its_parts(self) -> None:
        said = turn(
            ReasoningPart("Hm.", "gAAA"),
            TextPart("Let me see."),
            TextPart(""),
            OpaquePart("openai_responses", "web_search_call", '{"type": "web_search_call", "id": "ws_1"}'),
            ToolCallPart("c1", "clock", ""),
            ToolCallPart("c2", "weather", '{"city"'),
        )
        assert items(said) == [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": "gAAA",
            },
            {"role": "assistant", "content": "Let me see."},
            {"type": "web_search_call", "id": "ws_1"},
            {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"city"'},
        ]

    def test_encrypted_reasoning_without_a_summary(self) -> None:
        hidden = turn(ReasoningPart("", "gAAA", redacted=True))
        assert items(hidden) == [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]

    @pytest.mark.parametrize(
        "foreign",
        [
            ReasoningPart("Hm."),
            OpaquePart("anthropic_messages", "server_tool_use", "{}"),
        ],
    )
    def test_what_cannot_be_said_again_stays_out(self, foreign: Part) -> None:
        assert items(turn(foreign, TextPart("Yes."))) == [{"role": "assistant", "content": "Yes."}]

    def test_tool_results(self) -> None:
        results = (ToolResultPart("c1", "12 degrees"), ToolResultPart("c2", "no such city", is_error=True))
        assert items(Message(Role.TOOL, results)) == [
            {"type": "function_call_output", "call_id": "c1", "output": "12 degrees"},
            {"type": "function_call_output", "call_id": "c2", "output": '{"error":"no such city"}'},
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
        detail = refusal(RESPONSES, call_of(Message(role, (part,))))
        assert detail.startswith("messages: ")
        assert role.value in detail
        assert "secret words" not in detail

    def test_own_item_that_a_caller_broke_is_refused(self) -> None:
        broken = turn(OpaquePart("openai_responses", "web_search_call", "{"))
        assert "opaque part" in refusal(RESPONSES, call_of(HELLO, broken))
