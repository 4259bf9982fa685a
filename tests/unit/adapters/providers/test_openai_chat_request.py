from __future__ import annotations

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
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
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

OPENAI = "https://api.openai.com/v1"
MISTRAL = "https://api.mistral.ai/v1"

DETAILS = OpaquePart("openai_chat", "reasoning_details", '[{"type":"reasoning.text","signature":"s"}]')


def shaped(*messages: Message, **settings: Any) -> dict[str, Any]:
    return dict(OpenAiChat().shape(call_of(*messages, **settings)).body)


def said_turn(*parts: Part, **options: Any) -> dict[str, Any]:
    messages = shaped(HELLO, turn(*parts), place=deployment(**options))["messages"]
    return dict(messages[-1])


class TestBody:
    def test_plain_call(self) -> None:
        outgoing = OpenAiChat().shape(call_of())
        assert outgoing.path == "/chat/completions"
        assert outgoing.headers == {}
        assert outgoing.body == {
            "model": "model-1",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": False,
            "max_tokens": 500,
        }

    def test_stream_asks_for_usage(self) -> None:
        body = shaped(stream=True)
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True}

    def test_policy_can_leave_stream_options_out(self) -> None:
        assert "stream_options" not in shaped(stream=True, place=deployment(stream_options=None))

    def test_policy_can_add_to_stream_options(self) -> None:
        place = deployment(stream_options={"include_obfuscation": False})
        assert shaped(stream=True, place=place)["stream_options"] == {
            "include_usage": True,
            "include_obfuscation": False,
        }

    def test_sampling(self) -> None:
        body = shaped(temperature=0.0, top_p=0.5, seed=0, stop_sequences=("END", "\n"), max_output_tokens=9_999)
        assert (body["temperature"], body["top_p"], body["seed"], body["stop"]) == (0.0, 0.5, 0, ["END", "\n"])
        assert body["max_tokens"] == 500

    def test_openai_itself_wants_another_limit(self) -> None:
        body = shaped(place=deployment(OPENAI))
        assert body["max_completion_tokens"] == 500
        assert "max_tokens" not in body

    @pytest.mark.parametrize("base_url", [OPENAI, "http://127.0.0.1:1/v1"])
    def test_policy_names_the_limit(self, base_url: str) -> None:
        body = shaped(place=deployment(base_url, x_max_tokens_field="limit"))
        assert body["limit"] == 500
        assert not {"max_tokens", "max_completion_tokens", "x_max_tokens_field"} & body.keys()

    def test_mistral_has_another_seed_and_no_stream_options(self) -> None:
        body = shaped(place=deployment(MISTRAL), seed=7, stream=True)
        assert body["random_seed"] == 7
        assert not {"seed", "stream_options"} & body.keys()

    def test_policy_names_the_seed(self) -> None:
        assert shaped(place=deployment(x_seed_field="dice"), seed=7)["dice"] == 7

    def test_policy_options_have_the_last_word(self) -> None:
        body = shaped(place=deployment(temperature=0.1, safe_prompt=True), temperature=0.9)
        assert (body["temperature"], body["safe_prompt"]) == (0.1, True)

    def test_unknown_steering_option(self) -> None:
        with pytest.raises(ProviderFault, match="x_typo"):
            shaped(place=deployment(x_typo=1))

    @pytest.mark.parametrize("option", ["x_max_tokens_field", "x_seed_field"])
    @pytest.mark.parametrize("name", [3, None, ""])
    def test_field_without_a_name(self, option: str, name: Any) -> None:
        with pytest.raises(ProviderFault, match=f"{option} must be the name of a body field"):
            shaped(place=deployment(**{option: name}))

    def test_steering_option_of_another_kind(self) -> None:
        with pytest.raises(ProviderFault, match=r"x_reasoning_field must be one of reasoning_content, "):
            shaped(place=deployment(x_reasoning_field="thoughts"))

    def test_schema(self) -> None:
        assert shaped(response_schema=CLOSED_SCHEMA)["response_format"] == {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": CLOSED_SCHEMA, "strict": True},
        }
        assert "strict" not in shaped(response_schema=OPEN_SCHEMA)["response_format"]["json_schema"]

    def test_tools(self) -> None:
        body = shaped(tools=(WEATHER, CLOCK))
        described = {"name": "weather", "description": "Tells the weather.", "parameters": CLOSED_SCHEMA}
        assert body["tools"] == [
            {"type": "function", "function": described},
            {"type": "function", "function": {"name": "clock"}},
        ]
        assert "tool_choice" not in body

    def test_named_tool(self) -> None:
        choice = ToolChoice(ToolChoiceMode.NAMED, "clock")
        assert shaped(tools=(WEATHER, CLOCK), tool_choice=choice)["tool_choice"] == {
            "type": "function",
            "function": {"name": "clock"},
        }

    def test_required_call_of_no_tool_is_refused(self) -> None:
        call = call_of(tool_choice=ToolChoice(ToolChoiceMode.REQUIRED))
        assert "generation.tool_choice" in refusal(OpenAiChat(), call)

    @pytest.mark.parametrize("effort", [ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH])
    def test_effort(self, effort: ReasoningEffort) -> None:
        assert shaped(reasoning_effort=effort)["reasoning_effort"] == effort.value

    def test_effort_of_the_policy(self) -> None:
        switch = {"none": {"thinking": {"type": "disabled"}}, "high": {"reasoning": {"max_tokens": 9_000}}}
        place = deployment(x_reasoning_effort=switch)
        assert shaped(place=place, reasoning_effort=ReasoningEffort.NONE)["thinking"] == {"type": "disabled"}
        body = shaped(place=place, reasoning_effort=ReasoningEffort.HIGH)
        assert body["reasoning"] == {"max_tokens": 9_000}
        assert not {"reasoning_effort", "x_reasoning_effort"} & body.keys()


class TestMessages:
    def test_system_messages_stay_in_their_places(self) -> None:
        system = Message(Role.SYSTEM, (TextPart("Be brief."), TextPart("Be kind.")))
        assert shaped(system, HELLO, Message(Role.SYSTEM, (TextPart("Now rhyme."),)))["messages"] == [
            {"role": "system", "content": "Be brief.\n\nBe kind."},
            {"role": "user", "content": "Hello"},
            {"role": "system", "content": "Now rhyme."},
        ]

    def test_image(self) -> None:
        parts = (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png"))
        assert shaped(Message(Role.USER, parts))["messages"] == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                ],
            }
        ]

    def test_turn_with_tool_calls(self) -> None:
        calls = (ToolCallPart("c1", "weather", '{"city": "Oslo"'), ToolCallPart("c2", "clock", ""))
        assert said_turn(*calls) == {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"'}},
                {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ],
        }

    def test_text_beside_tool_calls(self) -> None:
        said = said_turn(TextPart("Let me "), TextPart("see."), ToolCallPart("c1", "clock", "{}"))
        assert said["content"] == "Let me see."
        assert len(said["tool_calls"]) == 1

    def test_tool_results(self) -> None:
        results = (ToolResultPart("c1", "12 degrees"), ToolResultPart("c2", "no such city", is_error=True))
        assert shaped(HELLO, Message(Role.TOOL, results))["messages"][1:] == [
            {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
            {"role": "tool", "tool_call_id": "c2", "content": '{"error":"no such city"}'},
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
        detail = refusal(OpenAiChat(), call_of(Message(role, (part,))))
        assert detail.startswith("messages: ")
        assert role.value in detail
        assert "secret words" not in detail


class TestReasoningOnItsWayBack:
    TURN = (ReasoningPart("Hm."), ReasoningPart("Well."), TextPart("Yes."), DETAILS)

    def test_stays_out_unless_the_provider_wants_it(self) -> None:
        assert said_turn(*self.TURN) == {"role": "assistant", "content": "Yes."}

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
    def test_as_a_text_beside_the_content(self, name: str) -> None:
        said = said_turn(*self.TURN, x_reasoning_field=name)
        assert said == {"role": "assistant", "content": "Yes.", name: "Hm.\n\nWell."}

    def test_as_openrouters_details_unchanged(self) -> None:
        assert said_turn(*self.TURN, x_reasoning_field="reasoning_details") == {
            "role": "assistant",
            "content": "Yes.",
            "reasoning_details": [{"type": "reasoning.text", "signature": "s"}],
        }

    def test_as_mistrals_thinking_parts(self) -> None:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
        said = said_turn(ReasoningPart("Hm."), TextPart("Yes."), x_reasoning_field="content")
        assert said["content"] == [thinking, {"type": "text", "text": "Yes."}]
        call = ToolCallPart("c1", "clock", "{}")
        assert said_turn(ReasoningPart("Hm."), call, x_reasoning_field="content")["content"] == [thinking]

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "content", "reasoning_details"])
    @pytest.mark.parametrize(
        "foreign",
        [
            ReasoningPart("Hm.", signature="c2ln"),
            ReasoningPart("", signature="c2ln", redacted=True),
            OpaquePart("anthropic_messages", "reasoning_details", "[{}]"),
        ],
    )
    def test_another_dialects_reasoning_stays_out(self, foreign: Part, name: str) -> None:
        said = said_turn(foreign, TextPart("Yes."), x_reasoning_field=name)
        assert said == {"role": "assistant", "content": "Yes."}

    def test_turn_of_nothing_but_foreign_parts_is_left_out(self) -> None:
        foreign = turn(ReasoningPart("", "c2ln", redacted=True), OpaquePart("other", "x", "{}"))
        assert shaped(HELLO, foreign)["messages"] == [{"role": "user", "content": "Hello"}]

    def test_own_block_goes_back_unchanged(self) -> None:
        block = OpaquePart("openai_chat", "reference", '{"type": "reference", "reference_ids": [1]}')
        assert said_turn(TextPart("See."), block)["content"] == [
            {"type": "text", "text": "See."},
            {"type": "reference", "reference_ids": [1]},
        ]

    def test_own_block_that_is_broken_is_refused(self) -> None:
        broken = turn(OpaquePart("openai_chat", "reference", "{"))
        assert "opaque part" in refusal(OpenAiChat(), call_of(HELLO, broken))


def test_fault_of_the_policy_lets_the_next_deployment_answer() -> None:
    with pytest.raises(ProviderFault) as caught:
        OpenAiChat().shape(call_of(place=deployment(x_reasoning_field=3)))
    assert caught.value.kind is FaultKind.UNSUPPORTED
    assert caught.value.rule.try_next
