"""The official SDKs read what the simulator answers, and read the same from a stream as from a whole answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from pointsman_server.simulator.script import (
    Behaviour,
    Dialect,
    Rule,
    Script,
    ScriptedCitation,
    ScriptedToolCall,
    UsageOverride,
)
from pointsman_server.simulator.server import RunningSimulator

pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:cohere"),
]
each_dialect = pytest.mark.parametrize("dialect", list(Dialect))
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

STOP = {
    Dialect.ANTHROPIC: "end_turn",
    Dialect.GEMINI: "STOP",
    Dialect.OPENAI_CHAT: "stop",
    Dialect.OPENAI_RESPONSES: "completed/",
    Dialect.COHERE: "COMPLETE",
}
LENGTH = {
    Dialect.ANTHROPIC: "max_tokens",
    Dialect.GEMINI: "MAX_TOKENS",
    Dialect.OPENAI_CHAT: "length",
    Dialect.OPENAI_RESPONSES: "incomplete/max_output_tokens",
    Dialect.COHERE: "MAX_TOKENS",
}
CALLED = {
    Dialect.ANTHROPIC: "tool_use",
    Dialect.GEMINI: "STOP",
    Dialect.OPENAI_CHAT: "tool_calls",
    Dialect.OPENAI_RESPONSES: "completed/",
    Dialect.COHERE: "TOOL_CALL",
}


class Journey(BaseModel):
    """What a tool takes; its own schema is the judge of what the simulator makes up."""

    origin: str = Field(min_length=3)
    passengers: int = Field(ge=2, le=9)
    return_too: bool
    stops: list[str] = Field(min_length=1)


TOOLS: dict[str, Any] = {
    "find_station": {"type": "object", "properties": {}},
    "plan_journey": Journey.model_json_schema(),
}
ODD_TEXT = "Trains <A> & \"B\" leave at 12:00 … 東京 🚆 for 'all'."


def use(simulator: RunningSimulator, behaviour: Behaviour) -> None:
    simulator.use(Script((Rule(behaviour),)))


@each_dialect
@whole_and_streamed
async def test_default_answer(ask: Any, dialect: Dialect, stream: bool) -> None:
    read = await ask(dialect, stream=stream, text="x" * 400)
    assert read.text.startswith("This is a simulated answer")
    assert "400 characters" in read.text
    assert "xx" not in read.text
    assert read.finish == STOP[dialect]
    assert read.calls == []
    assert read.input_tokens == 100
    assert read.output_tokens == -(-len(read.text) // 4)
    assert 20 <= read.output_tokens <= 60
    assert (read.cached_tokens, read.reasoning_tokens) == (0, 0)


@each_dialect
@whole_and_streamed
async def test_demanded_tool_is_called_with_arguments_that_fit(ask: Any, dialect: Dialect, stream: bool) -> None:
    if dialect is Dialect.COHERE:
        # This dialect can demand a call, but not of which tool.
        read = await ask(dialect, stream=stream, tools={"plan_journey": TOOLS["plan_journey"]}, demand="any")
    else:
        read = await ask(dialect, stream=stream, tools=TOOLS, demand="plan_journey")
    ((_, name, arguments),) = read.calls
    assert name == "plan_journey"
    Journey.model_validate(arguments, strict=True)
    # A named function finishes with `stop` in chat, as recorded from the provider.
    assert read.finish == ("stop" if dialect is Dialect.OPENAI_CHAT else CALLED[dialect])


@each_dialect
@whole_and_streamed
async def test_any_tool_demanded(ask: Any, dialect: Dialect, stream: bool) -> None:
    read = await ask(dialect, stream=stream, tools=TOOLS, demand="any")
    assert [(name, arguments) for _, name, arguments in read.calls] == [("find_station", {})]
    assert read.finish == CALLED[dialect]
    assert read.text == ""


@each_dialect
@whole_and_streamed
async def test_tools_on_offer_are_not_called_unasked(ask: Any, dialect: Dialect, stream: bool) -> None:
    read = await ask(dialect, stream=stream, tools=TOOLS)
    assert read.calls == []
    assert "2 tools on offer" in read.text


@each_dialect
@whole_and_streamed
async def test_response_schema_is_satisfied(ask: Any, dialect: Dialect, stream: bool) -> None:
    read = await ask(dialect, stream=stream, schema=Journey.model_json_schema())
    Journey.model_validate_json(read.text, strict=True)
    assert read.finish == STOP[dialect]


@each_dialect
@whole_and_streamed
async def test_stops_at_max_tokens(ask: Any, dialect: Dialect, stream: bool) -> None:
    read = await ask(dialect, stream=stream, max_tokens=16)
    assert read.text == "This is a simulated answer: no language model was asked. The request held"[:64]
    assert read.output_tokens == 16
    assert read.finish == LENGTH[dialect]


@pytest.mark.parametrize("dialect", [dialect for dialect in Dialect if dialect is not Dialect.OPENAI_RESPONSES])
@whole_and_streamed
async def test_stops_at_stop_sequence(ask: Any, dialect: Dialect, stream: bool) -> None:
    read = await ask(dialect, stream=stream, stops=("never", " language"))
    assert read.text == "This is a simulated answer: no"
    assert (
        read.finish
        == {
            Dialect.ANTHROPIC: "stop_sequence",
            Dialect.GEMINI: "STOP",
            Dialect.OPENAI_CHAT: "stop",
            Dialect.COHERE: "STOP_SEQUENCE",
        }[dialect]
    )


@each_dialect
@whole_and_streamed
async def test_reasoning(ask: Any, dialect: Dialect, stream: bool) -> None:
    read = await ask(dialect, stream=stream, thinks=True)
    # OpenAI chat counts reasoning and does not show it.
    assert bool(read.reasoning) == (dialect is not Dialect.OPENAI_CHAT)
    assert read.reasoning_tokens == 18
    assert read.output_tokens == 18 + -(-len(read.text) // 4)


EQUAL_CASES: dict[str, tuple[Behaviour, dict[str, Any]]] = {
    "plain": (Behaviour(), {}),
    "long": (Behaviour(output_tokens=300), {}),
    "foreign characters": (Behaviour(reply_text=ODD_TEXT), {}),
    "thinking": (Behaviour(), {"thinks": True}),
    "scripted reasoning": (Behaviour(reasoning_text="Thinking it over … twice."), {}),
    "cut": (Behaviour(), {"max_tokens": 17}),
    "demanded tool": (Behaviour(), {"tools": TOOLS, "demand": "any", "thinks": False}),
    "two tools and text": (
        Behaviour(
            reply_text="Two calls.",
            tool_calls=(ScriptedToolCall("plan_journey"), ScriptedToolCall("find_station", {"name": "Zürich <HB>"})),
        ),
        {"tools": TOOLS},
    ),
    "schema": (Behaviour(), {"schema": Journey.model_json_schema()}),
    "citations": (
        Behaviour(
            reply_text="Der Zug fährt um zwölf. Später fährt keiner.",
            citations=(
                ScriptedCitation("https://example.com/a", "First", "doc-0", "zwölf"),
                ScriptedCitation("https://example.com/b", "Second", "doc-1", "keiner"),
            ),
        ),
        {},
    ),
    "usage": (
        Behaviour(
            usage=UsageOverride(input_tokens=1000, cached_input_tokens=400, output_tokens=70, reasoning_tokens=9)
        ),
        {},
    ),
}


@each_dialect
@pytest.mark.parametrize("case", EQUAL_CASES)
async def test_streamed_equals_whole(ask: Any, simulator: RunningSimulator, dialect: Dialect, case: str) -> None:
    behaviour, wanted = EQUAL_CASES[case]
    use(simulator, behaviour)
    whole = await ask(dialect, **wanted)
    streamed = await ask(dialect, stream=True, **wanted)
    assert streamed == whole
    assert whole == await ask(dialect, **wanted), "equal requests are answered equally"


@each_dialect
@whole_and_streamed
async def test_scripted_usage(ask: Any, simulator: RunningSimulator, dialect: Dialect, stream: bool) -> None:
    use(simulator, EQUAL_CASES["usage"][0])
    read = await ask(dialect, stream=stream)
    assert (read.input_tokens, read.cached_tokens, read.output_tokens, read.reasoning_tokens) == (1000, 400, 70, 9)


@each_dialect
@whole_and_streamed
async def test_scripted_text_tools_and_sources(
    ask: Any, simulator: RunningSimulator, dialect: Dialect, stream: bool
) -> None:
    use(simulator, EQUAL_CASES["two tools and text"][0])
    read = await ask(dialect, stream=stream, tools=TOOLS)
    assert [name for _, name, _ in read.calls] == ["plan_journey", "find_station"]
    assert read.calls[1][2] == {"name": "Zürich <HB>"}
    assert read.text == "Two calls."
    use(simulator, EQUAL_CASES["citations"][0])
    read = await ask(dialect, stream=stream)
    assert read.text == "Der Zug fährt um zwölf. Später fährt keiner."
    assert read.citations == [("https://example.com/a", "First"), ("https://example.com/b", "Second")]


async def test_a_tool_conversation_goes_on(simulator: RunningSimulator) -> None:
    """The ids the simulator gives are accepted back, and tool results are counted."""
    openai = pytest.importorskip("openai")
    tools = [{"type": "function", "function": {"name": "plan_journey", "parameters": TOOLS["plan_journey"]}}]
    messages: list[Any] = [{"role": "user", "content": "Plan it."}]
    async with openai.AsyncOpenAI(base_url=f"{simulator.base_url}/v1", api_key="key", max_retries=0) as client:
        create = client.chat.completions.create
        first = await create(model="sim-tools", messages=messages, tools=tools)
        call = first.choices[0].message.tool_calls[0]
        messages += [first.choices[0].message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "Done."}]
        second = await create(model="sim-tools", messages=messages, tools=tools)
    assert second.choices[0].message.tool_calls is None
    assert "1 tool result" in second.choices[0].message.content
    Journey.model_validate(json.loads(call.function.arguments), strict=True)
