"""Every dialect, through real sockets: a streamed answer folds into the whole answer to the same request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio

from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Rates, Secret, Snapshot
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Message, ReasoningPart, Role, TextPart, ToolCallPart, ToolResultPart
from pointsman_server.domain.ports import ProviderAdapter, ProviderCall
from pointsman_server.domain.reply import Finished, FinishReason, Reply, ReplyBuilder, Usage
from pointsman_server.domain.request import (
    Capability,
    GenerationConfig,
    ReasoningEffort,
    Tier,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from pointsman_server.simulator.behaviour import (
    Behaviour,
    Fault,
    Rule,
    Script,
    ScriptedCitation,
    ScriptedToolCall,
    UsageOverride,
)
from pointsman_server.simulator.server import RunningSimulator, start_simulator

# One server and one pool of connections for all tests of a dialect: what breaks one call must not spoil the next.
pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL_NAMES = {
    Dialect.ANTHROPIC_MESSAGES: "claude-sonnet-4-5",
    Dialect.GEMINI_GENERATE: "gemini-2.5-flash",
    Dialect.OPENAI_CHAT: "gpt-5-mini",
    Dialect.OPENAI_RESPONSES: "gpt-5-mini",
    Dialect.COHERE_CHAT: "command-a-reasoning-08-2025",
}
PATH_OF_BASE_URL = {Dialect.OPENAI_CHAT: "/v1", Dialect.OPENAI_RESPONSES: "/v1"}

WEATHER = Tool(
    "weather",
    "Tells the weather.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
)
CLOCK = Tool("clock", "Tells the time.", {"type": "object", "properties": {}, "additionalProperties": False})
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
UNUSUAL_ENDS = {FinishReason.CONTENT_FILTER, FinishReason.REFUSAL, FinishReason.ERROR, FinishReason.UNKNOWN}
TEXT = "Zürich is sunny 🌞, 12 °C, and the lake is calm; 日本語も。"
QUESTION = Message(Role.USER, (TextPart("How is the weather in Zürich?"),))


@dataclass
class Bench:
    """One dialect's adapter, and the simulator that it calls."""

    dialect: Dialect
    adapter: ProviderAdapter
    deployment: Deployment
    simulator: RunningSimulator
    script: Script = field(default_factory=Script)

    def behave(self, **behaviour: Any) -> None:
        self.script = Script((Rule(Behaviour(**behaviour)),))

    async def ask(self, *messages: Message, stream: bool, limit: int = 2_000, **generation: Any) -> Reply:
        # A script from its start gives the same ids to the same call.
        self.simulator.use(self.script)
        talk = messages or (QUESTION,)
        call = ProviderCall(self.deployment, talk, GenerationConfig(**generation), limit, stream, 5.0)
        builder, ends = ReplyBuilder(), 0
        async for batch in self.adapter.exchange(call):
            for event in batch:
                ends += isinstance(event, Finished)
                builder.add(event)
        assert ends == 1
        return builder.build()

    async def ask_both_ways(self, *messages: Message, **asked: Any) -> Reply:
        """The whole answer; that the streamed one folds into the same is checked here."""
        whole = await self.ask(*messages, stream=False, **asked)
        streamed = await self.ask(*messages, stream=True, **asked)
        assert streamed == whole
        return whole


def snapshot_of(dialect: Dialect, base_url: str) -> Snapshot:
    url = base_url + PATH_OF_BASE_URL.get(dialect, "")
    provider = Provider(dialect.value, dialect, url, Secret("key-of-ours", "env:KEY"), simulated=True)
    price = Price("test", None, ((0, Rates(1, 1, 1, 1)),))
    model = Model("m", Tier.STANDARD, 128_000, 8_000, frozenset(Capability), 0.5, price)
    deployment = Deployment("d", provider, model, MODEL_NAMES[dialect])
    return Snapshot("v1", "test", {"d": deployment}, {}, {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def benches() -> AsyncIterator[Mapping[Dialect, Bench]]:
    simulator, wire = await start_simulator(), HttpWire()
    snapshots = {dialect: snapshot_of(dialect, simulator.base_url) for dialect in MODEL_NAMES}
    adapters = AdapterBook(wire)
    for snapshot in snapshots.values():
        adapters.add(snapshot)
    yield {
        dialect: Bench(dialect, adapters[dialect.value], snapshot.deployments["d"], simulator)
        for dialect, snapshot in snapshots.items()
    }
    await wire.close()
    await simulator.stop()


@pytest.fixture(params=list(MODEL_NAMES), ids=lambda dialect: str(dialect.value))
def bench(request: pytest.FixtureRequest, benches: Mapping[Dialect, Bench]) -> Bench:
    chosen = benches[request.param]
    chosen.script = Script()
    return chosen


def reasoning_of(reply: Reply) -> str:
    return "".join(part.text for part in reply.parts if isinstance(part, ReasoningPart))


def calls_of(reply: Reply) -> list[tuple[str, Any]]:
    calls = [part for part in reply.parts if isinstance(part, ToolCallPart)]
    assert all(call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.name, json.loads(call.arguments_json or "{}")) for call in calls]


class TestSoundAnswers:
    async def test_text(self, bench: Bench) -> None:
        bench.behave(reply_text=TEXT)
        reply = await bench.ask_both_ways(temperature=0.5)
        assert (reply.text, reply.finish_reason) == (TEXT, FinishReason.STOP)
        assert reply.usage.input_tokens is not None
        assert reply.usage.output_tokens is not None
        assert min(reply.usage.input_tokens, reply.usage.output_tokens) > 0

    async def test_long_text(self, bench: Bench) -> None:
        bench.behave(output_tokens=500)
        reply = await bench.ask_both_ways()
        assert len(reply.text) > 1_500

    async def test_tool_call(self, bench: Bench) -> None:
        reply = await bench.ask_both_ways(
            tools=(WEATHER, CLOCK), tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather")
        )
        assert reply.finish_reason is FinishReason.TOOL_CALLS
        ((name, arguments),) = calls_of(reply)
        assert name == "weather"
        assert list(arguments) == ["city"]

    async def test_several_tool_calls(self, bench: Bench) -> None:
        wanted = [("weather", {"city": "Zürich 🌞"}), ("clock", {}), ("weather", {"city": 'quoted "name"\n'})]
        bench.behave(tool_calls=tuple(ScriptedToolCall(name, arguments) for name, arguments in wanted))
        reply = await bench.ask_both_ways(tools=(WEATHER, CLOCK))
        assert reply.finish_reason is FinishReason.TOOL_CALLS
        assert calls_of(reply) == wanted

    async def test_answer_after_a_tool(self, bench: Bench) -> None:
        bench.behave(tool_calls=(ScriptedToolCall("clock", {}),))
        asked = await bench.ask_both_ways(tools=(CLOCK,))
        call = next(part for part in asked.parts if isinstance(part, ToolCallPart))
        bench.behave(reply_text="It is noon.")
        turn = Message(Role.ASSISTANT, asked.parts)
        answered = Message(Role.TOOL, (ToolResultPart(call.id, "12:00"),))
        reply = await bench.ask_both_ways(QUESTION, turn, answered, tools=(CLOCK,))
        assert (reply.text, reply.finish_reason) == ("It is noon.", FinishReason.STOP)

    async def test_json_schema(self, bench: Bench) -> None:
        reply = await bench.ask_both_ways(response_schema=PERSON)
        person = json.loads(reply.text)
        assert set(person) == {"name", "age"}
        assert isinstance(person["age"], int)

    async def test_length_stop(self, bench: Bench) -> None:
        bench.behave(output_tokens=400)
        reply = await bench.ask_both_ways(limit=20)
        assert reply.finish_reason is FinishReason.LENGTH
        assert 0 < len(reply.text) < 200

    async def test_stop_sequence(self, bench: Bench) -> None:
        if bench.dialect is Dialect.OPENAI_RESPONSES:
            pytest.skip("this dialect has no stop sequences")
        bench.behave(reply_text="one two three")
        reply = await bench.ask_both_ways(stop_sequences=(" two",))
        assert (reply.text, reply.finish_reason) == ("one", FinishReason.STOP)

    async def test_reasoning(self, bench: Bench) -> None:
        bench.behave(reply_text=TEXT, reasoning_text="First I look at the lake, 日本.")
        reply = await bench.ask_both_ways(reasoning_effort=ReasoningEffort.LOW, limit=4_000)
        assert reply.text == TEXT
        assert reasoning_of(reply) == "First I look at the lake, 日本."
        assert isinstance(reply.parts[0], ReasoningPart)

    async def test_reasoning_before_a_tool_call(self, bench: Bench) -> None:
        bench.behave(reasoning_text="I need a clock.", tool_calls=(ScriptedToolCall("clock", {}),))
        reply = await bench.ask_both_ways(tools=(CLOCK,), reasoning_effort=ReasoningEffort.LOW, limit=4_000)
        assert calls_of(reply) == [("clock", {})]
        assert "I need a clock." in reasoning_of(reply)
        assert reply.finish_reason is FinishReason.TOOL_CALLS

    async def test_citations(self, bench: Bench) -> None:
        cited = (
            ScriptedCitation("https://example.com/a", "A", "doc-0", "sunny 🌞"),
            ScriptedCitation("https://example.com/b", "B", "doc-1", "calm"),
        )
        bench.behave(reply_text=TEXT, citations=cited)
        reply = await bench.ask_both_ways()
        assert reply.text == TEXT
        assert {citation.url for citation in reply.citations} == {citation.url for citation in cited}

    @pytest.mark.parametrize("finish", ["content_filter", "refusal", "something_new"])
    async def test_other_ends(self, bench: Bench, finish: str) -> None:
        bench.behave(reply_text="No.", finish_reason=finish)
        reply = await bench.ask_both_ways()
        assert reply.text in ("No.", "")
        assert reply.finish_reason in UNUSUAL_ENDS


class TestMovingOn:
    @pytest.mark.parametrize("next_dialect", list(MODEL_NAMES), ids=lambda dialect: str(dialect.value))
    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    async def test_conversation_goes_on_with_any_other(
        self, bench: Bench, benches: Mapping[Dialect, Bench], next_dialect: Dialect, stream: bool
    ) -> None:
        asked: dict[str, Any] = {"tools": (CLOCK,), "reasoning_effort": ReasoningEffort.LOW, "limit": 4_000}
        bench.behave(reasoning_text="I need a clock.", tool_calls=(ScriptedToolCall("clock", {}),))
        first = await bench.ask(stream=stream, **asked)
        call = next(part for part in first.parts if isinstance(part, ToolCallPart))
        turns = (Message(Role.ASSISTANT, first.parts), Message(Role.TOOL, (ToolResultPart(call.id, "12:00"),)))
        other = benches[next_dialect]
        other.behave(reply_text="It is noon.")
        reply = await other.ask(QUESTION, *turns, stream=stream, **asked)
        assert reply.text == "It is noon."
        sent = other.simulator.calls[-1].raw_body
        for signature in signatures_of(first):
            own_words = signature.rpartition(":")[2]
            assert signature.encode() not in sent
            assert (own_words.encode() in sent) == (next_dialect is bench.dialect)


def signatures_of(reply: Reply) -> list[str]:
    signed = [part for part in reply.parts if isinstance(part, (TextPart, ReasoningPart, ToolCallPart))]
    return [part.signature for part in signed if part.signature]


class TestUsage:
    async def test_cache_and_reasoning_counts(self, bench: Bench) -> None:
        bench.behave(usage=UsageOverride(input_tokens=900, cached_input_tokens=600, output_tokens=80))
        usage = (await bench.ask_both_ways()).usage
        counted = usage.input_tokens if usage.billed_input_tokens is None else usage.billed_input_tokens
        assert (counted, usage.cached_input_tokens, usage.output_tokens) == (900, 600, 80)
        assert not usage.implausible

    async def test_missing(self, bench: Bench) -> None:
        bench.behave(usage=UsageOverride(missing=True))
        assert (await bench.ask_both_ways()).usage == Usage()

    @pytest.mark.parametrize("count", [-5, 10**12, float("nan"), "lots"], ids=str)
    async def test_impossible(self, bench: Bench, count: Any) -> None:
        bench.behave(reply_text=TEXT, usage=UsageOverride(output_tokens=count))
        reply = await bench.ask_both_ways()
        assert reply.text == TEXT
        assert reply.usage.output_tokens is None
        assert reply.usage.implausible

    async def test_numbers_in_text(self, bench: Bench) -> None:
        bench.behave(usage=UsageOverride(input_tokens="900", output_tokens="80"))
        usage = (await bench.ask_both_ways()).usage
        assert (usage.input_tokens, usage.output_tokens, usage.implausible) == (900, 80, False)


ODD_BUT_SOUND = [
    Fault.JSON_INSTEAD_OF_STREAM,
    Fault.WRONG_CONTENT_TYPE,
    Fault.LEADING_WHITESPACE,
    Fault.STREAM_OTHER_LINE_ENDS,
    Fault.STREAM_COMMENTS,
    Fault.STREAM_BOM,
    Fault.STREAM_DATA_AFTER_DONE,
    Fault.STREAM_NO_DONE,
    Fault.STREAM_EMPTY_CHOICES_FIRST,
    Fault.STREAM_MANY_PINGS,
    Fault.STREAM_SPLIT_BYTES,
]

HOLLOW = [Fault.EMPTY_CHOICES, Fault.NULL_CONTENT, Fault.EMPTY_CONTENT_STOP]

BROKEN_STREAMS = [
    Fault.STREAM_ERROR_FIRST,
    Fault.STREAM_ERROR_MID,
    Fault.STREAM_RESET_MID,
    Fault.STREAM_CLOSE_MID,
    Fault.STREAM_EOF_WITHOUT_FINISH,
    Fault.STREAM_BAD_JSON_MID,
    Fault.TEN_MEGABYTE_LINE,
]

BROKEN_BODIES = [
    Fault.HTML_200,
    Fault.EMPTY_200,
    Fault.TRUNCATED_JSON,
    Fault.JSON_NULL,
    Fault.JSON_ARRAY,
    Fault.TWO_DOCUMENTS,
    Fault.BAD_UTF8,
    Fault.DEEP_JSON,
    Fault.SHORT_CONTENT_LENGTH,
    Fault.LONG_CONTENT_LENGTH,
    Fault.GZIP_LIE,
    Fault.ERROR_BODY_200,
    Fault.REDIRECT_302,
    Fault.RESET_ON_ACCEPT,
    Fault.STREAM_RESET_MID,
    Fault.STREAM_CLOSE_MID,
]

TO_BLAME = {
    FaultKind.STREAM_CUT,
    FaultKind.MALFORMED_REPLY,
    FaultKind.CONNECTION,
    FaultKind.OVERLOADED,
    FaultKind.UNAVAILABLE,
    FaultKind.RATE_LIMITED,
}


class TestOddAnswers:
    @pytest.mark.parametrize("fault", ODD_BUT_SOUND, ids=lambda fault: fault.value)
    async def test_are_read_as_the_plain_one(self, bench: Bench, fault: Fault) -> None:
        bench.behave(reply_text=TEXT)
        plain = await bench.ask_both_ways()
        bench.behave(reply_text=TEXT, fault=fault)
        assert await bench.ask_both_ways() == plain

    async def test_stream_that_nobody_asked_for(self, bench: Bench) -> None:
        bench.behave(reply_text=TEXT)
        plain = await bench.ask_both_ways()
        bench.behave(reply_text=TEXT, fault=Fault.STREAM_INSTEAD_OF_JSON)
        # OpenAI counts tokens only in streams that were asked to.
        for stream in (False, True):
            reply = await bench.ask(stream=stream)
            assert replace(reply, usage=plain.usage) == plain

    @pytest.mark.parametrize("fault", HOLLOW, ids=lambda fault: fault.value)
    async def test_without_content_hold_no_part(self, bench: Bench, fault: Fault) -> None:
        bench.behave(fault=fault)
        for stream in (False, True):
            try:
                outcome: object = (await bench.ask(stream=stream)).parts
            except ProviderFault as unreadable:
                outcome = unreadable.kind
            assert outcome in ((), FaultKind.MALFORMED_REPLY, FaultKind.STREAM_CUT)

    async def test_refused_prompt_is_an_answer(self, bench: Bench) -> None:
        bench.behave(fault=Fault.BLOCKED_PROMPT)
        reply = await bench.ask_both_ways()
        assert reply.parts == ()
        assert reply.finish_reason in UNUSUAL_ENDS

    @pytest.mark.parametrize("fault", [Fault.STREAM_SPLIT_BYTES, Fault.JSON_INSTEAD_OF_STREAM], ids=lambda f: f.value)
    async def test_of_many_parts(self, bench: Bench, fault: Fault) -> None:
        scripted: dict[str, Any] = {
            "reasoning_text": "Hm, 日本.",
            "tool_calls": (ScriptedToolCall("weather", {"city": "Zürich 🌞"}), ScriptedToolCall("clock", {})),
        }
        asked: dict[str, Any] = {"tools": (WEATHER, CLOCK), "reasoning_effort": ReasoningEffort.LOW, "limit": 4_000}
        bench.behave(**scripted)
        plain = await bench.ask_both_ways(**asked)
        bench.behave(**scripted, fault=fault)
        assert await bench.ask_both_ways(**asked) == plain


class TestBrokenAnswers:
    @pytest.mark.parametrize("fault", BROKEN_STREAMS, ids=lambda fault: fault.value)
    async def test_stream_never_passes_for_an_answer(self, bench: Bench, fault: Fault) -> None:
        bench.behave(output_tokens=100, fault=fault)
        with pytest.raises(ProviderFault) as caught:
            await bench.ask(stream=True)
        assert caught.value.kind in TO_BLAME
        await self._check_words_and_recovery(bench, caught.value)

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("fault", BROKEN_BODIES, ids=lambda fault: fault.value)
    async def test_body_never_passes_for_an_answer(self, bench: Bench, fault: Fault, stream: bool) -> None:
        bench.behave(output_tokens=100, fault=fault)
        with pytest.raises(ProviderFault) as caught:
            await bench.ask(stream=stream)
        assert caught.value.kind in TO_BLAME
        await self._check_words_and_recovery(bench, caught.value)

    @staticmethod
    async def _check_words_and_recovery(bench: Bench, fault: ProviderFault) -> None:
        for hidden in ("Zürich", "key-of-ours", bench.simulator.base_url, "simulated answer"):
            assert hidden not in str(fault)
        bench.behave(reply_text="Well again.")
        assert (await bench.ask_both_ways()).text == "Well again."

    @pytest.mark.parametrize(
        ("fault", "kind", "wait_seconds"),
        [
            (Fault.STATUS_400, FaultKind.INVALID_REQUEST, None),
            (Fault.STATUS_400_CONTEXT, FaultKind.CONTEXT_WINDOW, None),
            (Fault.STATUS_401, FaultKind.AUTH, None),
            (Fault.STATUS_403, FaultKind.AUTH, None),
            (Fault.STATUS_404, FaultKind.MODEL_MISSING, None),
            (Fault.STATUS_413, FaultKind.REQUEST_TOO_LARGE, None),
            (Fault.STATUS_429, FaultKind.RATE_LIMITED, 2.0),
            (Fault.STATUS_429_PAST_DATE, FaultKind.RATE_LIMITED, 0.0),
            (Fault.STATUS_429_DAY, FaultKind.RATE_LIMITED, 86_400.0),
            (Fault.STATUS_429_NEGATIVE, FaultKind.RATE_LIMITED, None),
            (Fault.STATUS_429_GARBAGE, FaultKind.RATE_LIMITED, None),
            (Fault.STATUS_429_SILENT, FaultKind.RATE_LIMITED, None),
            (Fault.STATUS_429_QUOTA, FaultKind.QUOTA, None),
            (Fault.STATUS_500, FaultKind.UNAVAILABLE, None),
            (Fault.STATUS_502, FaultKind.UNAVAILABLE, None),
            (Fault.STATUS_503, FaultKind.OVERLOADED, None),
            (Fault.STATUS_504, FaultKind.UNAVAILABLE, None),
            (Fault.STATUS_529, FaultKind.OVERLOADED, None),
        ],
        ids=lambda value: value.value if isinstance(value, Fault) else "",
    )
    async def test_error_statuses_mean_the_same_everywhere(
        self, bench: Bench, fault: Fault, kind: FaultKind, wait_seconds: float | None
    ) -> None:
        bench.behave(fault=fault)
        # Gemini says in the body how long to wait, beside the header and without it.
        said_in_the_body = {2.0} if bench.dialect is Dialect.GEMINI_GENERATE else set()
        for stream in (False, True):
            with pytest.raises(ProviderFault) as caught:
                await bench.ask(stream=stream)
            assert caught.value.kind is kind
            assert caught.value.retry_after_seconds in {wait_seconds, *said_in_the_body}
