from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from google.genai import Client, types

from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.adapters.providers.gemini_shape import DEFAULT_BUDGETS_TOKENS
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import (
    Capability,
    GenerationConfig,
    ReasoningEffort,
    Tier,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "Tells the weather.", SCHEMA)
CLOCK = Tool("clock", "", {})
HELLO = Message(Role.USER, (TextPart("Hello"),))
PROVIDER = Provider("gemini", Dialect.GEMINI_GENERATE, "http://127.0.0.1:1", simulated=True)
THINKER = Model("g", Tier.STANDARD, 1_000_000, 64_000, frozenset({Capability.REASONING}), 0.8, Price("test", None, ()))


def shape(
    *messages: Message, model: str = "gemini-3.8-flash", limit: int = 60_000, stream: bool = False,
    place: dict[str, Any] | None = None, **generation: Any,
) -> Outgoing:  # fmt: skip
    deployment = replace(Deployment("d", PROVIDER, THINKER, model), **(place or {}))
    call = ProviderCall(deployment, messages or (HELLO,), GenerationConfig(**generation), limit, stream, 5.0)
    return GeminiGenerate().shape(call)


def body(*messages: Message, **settings: Any) -> dict[str, Any]:
    return dict(shape(*messages, **settings).body)


def refusal(*messages: Message, **settings: Any) -> str:
    with pytest.raises(ProviderFault) as caught:
        shape(*messages, **settings)
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    return caught.value.detail


def sdk_request(contents: list[types.Content], config: types.GenerateContentConfig, *, stream: bool) -> httpx2.Request:
    """What the official SDK sends for this call."""
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json={"candidates": []})

    options = types.HttpOptions(
        retry_options=types.HttpRetryOptions(attempts=1), client_args={"transport": httpx2.MockTransport(answer)}
    )
    client = Client(enterprise=False, api_key="unused", http_options=options)
    if stream:
        list(client.models.generate_content_stream(model="gemini-3.8-flash", contents=list(contents), config=config))
    else:
        client.models.generate_content(model="gemini-3.8-flash", contents=list(contents), config=config)
    return sent[0]


def camel_case(value: Any) -> Any:
    """The vendor takes both spellings of a key, and the SDK mixes them."""
    if isinstance(value, dict):
        return {re.sub("_([a-z])", lambda at: at[1].upper(), key): camel_case(inner) for key, inner in value.items()}
    return [camel_case(inner) for inner in value] if isinstance(value, list) else value


class TestPlainCalls:
    def test_the_least(self) -> None:
        assert shape() == Outgoing(
            "/models/gemini-3.8-flash:generateContent",
            {
                "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
                "generationConfig": {"maxOutputTokens": 60_000},
            },
            {},
        )

    @pytest.mark.parametrize("name", ["models/gemini-3.8-flash", "tunedModels/ours-1"])
    def test_a_resource_name_is_taken_as_it_is(self, name: str) -> None:
        assert shape(model=name, stream=True).path == f"/{name}:streamGenerateContent?alt=sse"

    def test_sampling(self) -> None:
        shaped = body(temperature=0.0, top_p=0.9, seed=0, stop_sequences=("END", "\n\n"), limit=5)
        assert shaped["generationConfig"] == {
            "maxOutputTokens": 5, "temperature": 0.0, "topP": 0.9, "seed": 0, "stopSequences": ["END", "\n\n"],
        }  # fmt: skip

    def test_response_schema(self) -> None:
        shaped = body(response_schema=SCHEMA)["generationConfig"]
        assert shaped["responseMimeType"] == "application/json"
        assert shaped["responseJsonSchema"] == SCHEMA


class TestTools:
    def test_declarations(self) -> None:
        declared = [
            {"name": "weather", "description": "Tells the weather.", "parametersJsonSchema": SCHEMA},
            {"name": "clock", "description": ""},
        ]
        shaped = body(tools=(WEATHER, CLOCK))
        assert shaped["tools"] == [{"functionDeclarations": declared}]
        assert "toolConfig" not in shaped

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            (ToolChoice(ToolChoiceMode.AUTO), {"mode": "AUTO"}),
            (ToolChoice(ToolChoiceMode.NONE), {"mode": "NONE"}),
            (ToolChoice(ToolChoiceMode.REQUIRED), {"mode": "ANY"}),
            (ToolChoice(ToolChoiceMode.NAMED, "clock"), {"mode": "ANY", "allowedFunctionNames": ["clock"]}),
        ],
    )
    def test_choice(self, choice: ToolChoice, expected: dict[str, Any]) -> None:
        shaped = body(tools=(WEATHER, CLOCK), tool_choice=choice)
        assert shaped["toolConfig"] == {"functionCallingConfig": expected}

    @pytest.mark.parametrize("mode", [ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED])
    def test_a_forced_choice_needs_tools(self, mode: ToolChoiceMode) -> None:
        assert refusal(tool_choice=ToolChoice(mode, "clock")).startswith("generation.tool_choice: ")

    def test_a_free_choice_among_none_says_nothing(self) -> None:
        assert "toolConfig" not in body(tool_choice=ToolChoice(ToolChoiceMode.AUTO))


class TestReasoning:
    def thinking(self, effort: ReasoningEffort | None, **settings: Any) -> Any:
        return body(reasoning_effort=effort, **settings)["generationConfig"].get("thinkingConfig")

    def test_unset_is_the_models_own_choice(self) -> None:
        assert self.thinking(None) is None

    @pytest.mark.parametrize(
        ("effort", "level"),
        [(ReasoningEffort.LOW, "LOW"), (ReasoningEffort.MEDIUM, "MEDIUM"), (ReasoningEffort.HIGH, "HIGH")],
    )
    def test_levels(self, effort: ReasoningEffort, level: str) -> None:
        assert self.thinking(effort) == {"includeThoughts": True, "thinkingLevel": level}

    def test_none_is_the_least_level(self) -> None:
        assert self.thinking(ReasoningEffort.NONE) == {"includeThoughts": False, "thinkingLevel": "MINIMAL"}

    def test_none_is_not_said_to_a_model_that_cannot_think(self) -> None:
        plain = replace(THINKER, capabilities=frozenset())
        assert self.thinking(ReasoningEffort.NONE, place={"model": plain}) is None

    @pytest.mark.parametrize("effort", list(ReasoningEffort))
    def test_older_models_take_budgets(self, effort: ReasoningEffort) -> None:
        assert self.thinking(effort, model="gemini-2.5-flash") == {
            "includeThoughts": effort is not ReasoningEffort.NONE,
            "thinkingBudget": DEFAULT_BUDGETS_TOKENS[effort],
        }

    def test_the_policys_budget_wins(self) -> None:
        place = {"reasoning_token_budgets": {"low": 777}}
        assert self.thinking(ReasoningEffort.LOW, place=place) == {"includeThoughts": True, "thinkingBudget": 777}
        assert self.thinking(ReasoningEffort.HIGH, place=place) == {"includeThoughts": True, "thinkingLevel": "HIGH"}

    def test_a_budget_leaves_half_of_the_output_to_the_answer(self) -> None:
        shaped = self.thinking(ReasoningEffort.HIGH, model="gemini-2.5-flash", limit=1_000)
        assert shaped["thinkingBudget"] == 500


class TestOptions:
    def test_they_are_merged_field_by_field_and_say_the_last_word(self) -> None:
        options = {
            "generationConfig": {"topK": 40, "temperature": 0.1, "imageConfig": {"aspectRatio": "1:1"}},
            "tools": [{"googleSearch": {}}],
            "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
            "serviceTier": "flex",
        }
        shaped = body(tools=(CLOCK,), temperature=0.9, limit=9, place={"options": options})
        assert shaped == {
            "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
            "generationConfig": {
                "maxOutputTokens": 9, "temperature": 0.1, "topK": 40, "imageConfig": {"aspectRatio": "1:1"},
            },
            "tools": [{"functionDeclarations": [{"name": "clock", "description": ""}]}, {"googleSearch": {}}],
            "safetySettings": options["safetySettings"],
            "serviceTier": "flex",
        }  # fmt: skip
        assert options["generationConfig"] == {"topK": 40, "temperature": 0.1, "imageConfig": {"aspectRatio": "1:1"}}


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_sdk_sends_the_same(stream: bool) -> None:
    talk = (
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (TextPart("What is this?"), ImagePart(b"picture!", "image/png"))),
        Message(
            Role.ASSISTANT, (TextPart("A city.", "c2ln"), ToolCallPart("c1", "weather", '{"city":"Bern"}', "c2ln"))
        ),
        Message(Role.TOOL, (ToolResultPart("c1", "sunny"),)),
    )
    ours = shape(
        *talk, stream=stream, limit=4_000, temperature=0.5, top_p=0.9, seed=7, stop_sequences=("END",),
        response_schema=SCHEMA, tools=(WEATHER,), tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather"),
        reasoning_effort=ReasoningEffort.LOW,
    )  # fmt: skip
    theirs = sdk_request(
        [
            types.Content(
                role="user",
                parts=[
                    types.Part(text="What is this?"),
                    types.Part(inline_data=types.Blob(data=b"picture!", mime_type="image/png")),
                ],
            ),
            types.Content(
                role="model",
                parts=[
                    types.Part(text="A city.", thought_signature=b"sig"),
                    types.Part(
                        function_call=types.FunctionCall(id="c1", name="weather", args={"city": "Bern"}),
                        thought_signature=b"sig",
                    ),
                ],
            ),
            types.Content(
                role="user",
                parts=[
                    types.Part(
                        function_response=types.FunctionResponse(id="c1", name="weather", response={"output": "sunny"})
                    )
                ],
            ),
        ],
        types.GenerateContentConfig(
            system_instruction="Be brief.",
            max_output_tokens=4_000,
            temperature=0.5,
            top_p=0.9,
            seed=7,
            stop_sequences=["END"],
            response_mime_type="application/json",
            response_json_schema=SCHEMA,
            thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.LOW),
            tools=[
                types.Tool(
                    function_declarations=[
                        types.FunctionDeclaration(
                            name="weather", description="Tells the weather.", parameters_json_schema=SCHEMA
                        )
                    ]
                )
            ],
            tool_config=types.ToolConfig(
                function_calling_config=types.FunctionCallingConfig(
                    mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"]
                )
            ),
        ),
        stream=stream,
    )
    assert ours.body == camel_case(json.loads(theirs.content))
    assert str(theirs.url).endswith(ours.path)
