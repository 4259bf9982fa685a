from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.adapters.providers.dialect import DialectAdapter
from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.adapters.providers.sse import SseEvent, SseReader
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Secret, Timeouts
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
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Citation, FinishReason, Reply, ReplyBuilder, Usage, fold
from pointsman_server.domain.request import (
    Capability,
    GenerationConfig,
    ReasoningEffort,
    Tier,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

WEATHER = Tool("weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
CLOCK = Tool("clock", "", {"type": "object", "properties": {}})


def deployment(base_url: str = "http://127.0.0.1:1", **changes: Any) -> Deployment:
    model = Model("command", Tier.STANDARD, 128_000, 4_000, frozenset(), 0.5, Price("test", None, ()))
    provider = Provider("cohere", Dialect.COHERE_CHAT, base_url, Secret("key-of-ours", "env:COHERE"))
    return replace(Deployment("cohere-command", provider, model, "command-a-03-2025"), **changes)


def thinking_deployment(**changes: Any) -> Deployment:
    plain = deployment()
    return replace(plain, model=replace(plain.model, capabilities=frozenset({Capability.REASONING})), **changes)


def call_of(
    *messages: Message, place: Deployment | None = None, stream: bool = False, limit: int = 500, **generation: Any
) -> ProviderCall:
    talk = messages or (Message(Role.USER, (TextPart("Hello"),)),)
    return ProviderCall(place or deployment(), talk, GenerationConfig(**generation), limit, stream, 5.0)


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


def whole(**changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": "a1",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        "usage": {
            "billed_units": {"input_tokens": 5, "output_tokens": 2},
            "tokens": {"input_tokens": 70, "output_tokens": 3},
        },
    }
    return {**answer, **changes}


def read(body: dict[str, Any]) -> Reply:
    return fold(CohereChat().read_whole(body))


def sse(*payloads: Any) -> bytes:
    lines = (f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n" for payload in payloads)
    return "".join(lines).encode() + b"data: [DONE]\n\n"


def read_stream(body: bytes) -> Reply:
    reader, source, builder = CohereChat().open_stream(), SseReader(), ReplyBuilder()
    for event in [*source.feed(body), *source.flush()]:
        for reply_event in reader.feed(event):
            builder.add(reply_event)
    for reply_event in reader.end():
        builder.add(reply_event)
    return builder.build()


def delta(kind: str, index: int, **message: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


def message_end(**changes: Any) -> dict[str, Any]:
    answer = whole(**changes)
    return {"type": "message-end", "delta": {"finish_reason": answer["finish_reason"], "usage": answer["usage"]}}


START = {
    "type": "message-start",
    "id": "a1",
    "delta": {"message": {"role": "assistant", "content": [], "citations": []}},
}
HELLO = (
    START,
    delta("content-start", 0, content={"type": "text", "text": ""}),
    delta("content-delta", 0, content={"text": "Hel"}),
    delta("content-delta", 0, content={"text": "lo"}),
    {"type": "content-end", "index": 0},
    message_end(),
)


def stream_of(answer: dict[str, Any], pieces: int = 3) -> bytes:
    """The stream that says the same as this whole answer, in pieces of so many characters."""
    message = answer["message"]
    payloads: list[dict[str, Any]] = [START]
    for piece in cut(message.get("tool_plan", ""), pieces):
        payloads.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}})
    for index, block in enumerate(message.get("content", [])):
        payloads += block_events(index, block, pieces)
    for index, call in enumerate(message.get("tool_calls", [])):
        payloads += call_events(index, call, pieces)
    for index, citation in enumerate(message.get("citations", [])):
        payloads.append(delta("citation-start", index, citations=citation))
        payloads.append({"type": "citation-end", "index": index})
    end = {"finish_reason": answer.get("finish_reason"), "usage": answer.get("usage")}
    return sse(*payloads, {"type": "message-end", "delta": end})


def block_events(index: int, block: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    field = next(name for name in block if name != "type")
    events = [delta("content-start", index, content={"type": block["type"], field: ""})]
    events += [delta("content-delta", index, content={field: piece}) for piece in cut(block[field], pieces)]
    return [*events, {"type": "content-end", "index": index}]


def call_events(index: int, call: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    function = call["function"]
    events = [delta("tool-call-start", index, tool_calls={**call, "function": {**function, "arguments": ""}})]
    for piece in cut(function["arguments"], pieces):
        events.append(delta("tool-call-delta", index, tool_calls={"function": {"arguments": piece}}))
    return [*events, {"type": "tool-call-end", "index": index}]


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


class TestWholeAnswer:
    def test_text_usage_and_id(self) -> None:
        reply = read(whole())
        assert reply.parts == (TextPart("Hello"),)
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.STOP, "COMPLETE")
        assert reply.usage == Usage(input_tokens=70, output_tokens=3, billed_input_tokens=5, billed_output_tokens=2)
        assert (reply.response_id, reply.model) == ("a1", "")

    def test_plan_thinking_text_and_calls_in_this_order(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
        message = {
            "tool_calls": [call],
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Wait."}],
            "tool_plan": "I will look.",
        }
        assert read(whole(message=message, finish_reason="TOOL_CALL")).parts == (
            ReasoningPart("I will look."),
            ReasoningPart("Hm."),
            TextPart("Wait."),
            ToolCallPart("c1", "clock", "{}"),
        )

    @pytest.mark.parametrize(
        ("arguments", "passed_on"),
        [('{"a": 1', '{"a": 1'), ("", "{}"), (None, "{}"), ({"a": 1}, '{"a":1}'), ([], "[]")],
    )
    def test_arguments_pass_on_as_received(self, arguments: Any, passed_on: str) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": arguments}}
        assert read(whole(message={"tool_calls": [call]})).parts == (ToolCallPart("c1", "clock", passed_on),)

    def test_unknown_block_is_kept(self) -> None:
        reply = read(whole(message={"content": [{"type": "chart", "points": [1]}]}))
        assert reply.parts == (OpaquePart("cohere_chat", "chart", '{"type":"chart","points":[1]}'),)

    @pytest.mark.parametrize(
        "message",
        [
            {},
            {"content": None},
            {"content": []},
            {"content": [{"type": "text", "text": ""}], "tool_plan": ""},
            {"content": [7]},
            {"content": [{}]},
            {"content": [{"type": None}]},
        ],
    )
    def test_answer_without_content_has_no_parts(self, message: dict[str, Any]) -> None:
        assert read(whole(message=message)).parts == ()

    @pytest.mark.parametrize(
        "body", [{}, {"message": None}, {"message": []}, {"id": "a1", "finish_reason": "COMPLETE"}]
    )
    def test_answer_without_a_message_is_malformed(self, body: dict[str, Any]) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().read_whole(body)
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({"id": "e1", "message": "too many tokens: at most 4081"}, FaultKind.CONTEXT_WINDOW),
            ({"message": "internal"}, FaultKind.UNAVAILABLE),
            ({"error": {"type": "rate_limit_error", "message": "slow down"}}, FaultKind.RATE_LIMITED),
            ({"error": "broken"}, FaultKind.UNAVAILABLE),
            ({"message": {"content": []}, "error": "broken"}, FaultKind.UNAVAILABLE),
        ],
    )
    def test_error_inside_a_200(self, body: dict[str, Any], kind: FaultKind) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().read_whole(body)
        assert (caught.value.kind, caught.value.status) == (kind, 200)


CITED = {
    "start": 29,
    "end": 36,
    "text": "4:20 PM",
    "type": "TEXT_CONTENT",
    "sources": [
        {"type": "tool", "id": "clock:0", "tool_output": {"content": "4:20 PM"}},
        {"type": "document", "id": "d1", "document": {"id": "d1", "url": "https://example.org", "title": "Time"}},
    ],
}


class TestCitations:
    def test_one_for_each_source(self) -> None:
        message = {"content": [{"type": "text", "text": "x" * 40}], "citations": [CITED]}
        tool = Citation(document_id="clock:0", quoted_text="4:20 PM", start_index=29, end_index=36)
        page = replace(tool, document_id="d1", url="https://example.org", title="Time")
        assert read(whole(message=message)).citations == (tool, page)

    def test_without_source(self) -> None:
        citations = [{"start": 0, "end": 1, "text": "x"}, {"text": "y", "sources": None}]
        assert read(whole(message={"citations": citations})).citations == (
            Citation(quoted_text="x", start_index=0, end_index=1),
            Citation(quoted_text="y"),
        )

    @pytest.mark.parametrize("kind", ["PLAN", "THINKING_CONTENT"])
    def test_place_outside_the_text_is_no_place_in_it(self, kind: str) -> None:
        found = read(whole(message={"citations": [{**CITED, "type": kind}]})).citations
        assert {(c.start_index, c.end_index, c.quoted_text) for c in found} == {(-1, -1, "4:20 PM")}

    def test_place_in_a_later_block_counts_from_the_start_of_the_text(self) -> None:
        blocks = [
            {"type": "text", "text": "Zürich: "},
            {"type": "thinking", "thinking": "a very long thought"},
            {"type": "text", "text": "12 degrees"},
        ]
        cited = {"start": 0, "end": 2, "text": "12", "content_index": 2, "sources": []}
        answer = whole(message={"content": blocks, "citations": [cited]})
        for reply in (read(answer), read_stream(stream_of(answer))):
            (citation,) = reply.citations
            assert reply.text[citation.start_index : citation.end_index] == "12"


REASONS = [
    ("COMPLETE", FinishReason.STOP),
    ("STOP_SEQUENCE", FinishReason.STOP),
    ("MAX_TOKENS", FinishReason.LENGTH),
    ("ERROR_LIMIT", FinishReason.LENGTH),
    ("TOOL_CALL", FinishReason.TOOL_CALLS),
    ("ERROR_TOXIC", FinishReason.CONTENT_FILTER),
    ("ERROR", FinishReason.ERROR),
    ("TIMEOUT", FinishReason.ERROR),
    ("USER_CANCEL", FinishReason.ERROR),
    ("SOMETHING_NEW", FinishReason.UNKNOWN),
    ("", FinishReason.UNKNOWN),
    (None, FinishReason.UNKNOWN),
]


@pytest.mark.parametrize(("said", "reason"), REASONS)
def test_finish_reason(said: str | None, reason: FinishReason) -> None:
    for reply in (read(whole(finish_reason=said)), read_stream(sse(*HELLO[:-1], message_end(finish_reason=said)))):
        assert (reply.finish_reason, reply.raw_finish_reason) == (reason, said or "")


def test_plain_stop_after_tool_calls_means_tool_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    answer = whole(message={"tool_calls": [call]})
    assert read(answer).finish_reason is FinishReason.TOOL_CALLS
    assert read_stream(stream_of(answer)).finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        ({}, Usage()),
        ("many", Usage()),
        ({"tokens": None, "billed_units": []}, Usage()),
        ({"tokens": {"input_tokens": "12", "output_tokens": 3.0}}, Usage(input_tokens=12, output_tokens=3)),
        ({"tokens": {"input_tokens": -1, "output_tokens": 3}}, Usage(output_tokens=3, implausible=True)),
        ({"tokens": {"input_tokens": 10**12}}, Usage(implausible=True)),
        ({"tokens": {"input_tokens": float("nan")}}, Usage(implausible=True)),
        ({"tokens": {"input_tokens": "a lot"}}, Usage(implausible=True)),
        ({"billed_units": {"input_tokens": -3}}, Usage(implausible=True)),
        (
            {"tokens": {"input_tokens": 9, "output_tokens": 8, "reasoning_tokens": 7}, "cached_tokens": 6},
            Usage(input_tokens=9, cached_input_tokens=6, output_tokens=8, reasoning_tokens=7),
        ),
    ],
)
def test_usage(usage: Any, expected: Usage) -> None:
    assert read(whole(usage=usage)).usage == expected
    assert read_stream(sse(*HELLO[:-1], message_end(usage=usage))).usage == expected


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"id":"e1","message":"invalid request: message must not be empty"}', FaultKind.INVALID_REQUEST),
        (400, b'{"id":"e1","message":"too many tokens: total number of tokens ..."}', FaultKind.CONTEXT_WINDOW),
        (400, b'{"id":"e1","message":"longer","error_type":"TOO_MANY_TOKENS"}', FaultKind.CONTEXT_WINDOW),
        (400, b"too many tokens: 9 over the limit", FaultKind.CONTEXT_WINDOW),
        (400, b"", FaultKind.INVALID_REQUEST),
        (400, b"[]", FaultKind.INVALID_REQUEST),
        (401, b'{"message":"invalid api token"}', FaultKind.AUTH),
        (402, b'{"message":"please add a payment method"}', FaultKind.QUOTA),
        (404, b'{"message":"model not known"}', FaultKind.MODEL_MISSING),
        (413, b"<html>", FaultKind.REQUEST_TOO_LARGE),
        (422, b'{"message":"invalid type"}', FaultKind.INVALID_REQUEST),
        (429, b'{"message":"limited to 40 API calls / minute"}', FaultKind.RATE_LIMITED),
        (429, b'{"message":"Trial key, which is limited to 1000 API calls / month"}', FaultKind.QUOTA),
        (498, b'{"message":"invalid token"}', FaultKind.AUTH),
        (499, b'{"message":"request cancelled"}', FaultKind.UNAVAILABLE),
        (500, b'{"message":"internal server error"}', FaultKind.UNAVAILABLE),
        (502, b"<html>\xff</html>", FaultKind.UNAVAILABLE),
        (503, b'{"message":"over capacity"}', FaultKind.OVERLOADED),
        (504, b"", FaultKind.UNAVAILABLE),
    ],
)
def test_error_body(status: int, body: bytes, kind: FaultKind) -> None:
    fault = CohereChat().read_error(status, {"retry-after": "3"}, body)
    assert (fault.kind, fault.status) == (kind, status)
    assert fault.retry_after_seconds == (3.0 if status in (429, 503) else None)
    assert "tokens:" not in str(fault)


class TestStream:
    def test_text(self) -> None:
        assert read_stream(sse(*HELLO)) == read(whole())

    def test_text_in_the_start_of_a_block_counts(self) -> None:
        begun = delta("content-start", 0, content={"type": "text", "text": "Oh, "})
        assert read_stream(sse(START, begun, *HELLO[2:])).text == "Oh, Hello"

    def test_pieces_without_their_start(self) -> None:
        assert read_stream(sse(*HELLO[2:])).text == "Hello"
        call = {"id": "c1", "function": {"name": "clock", "arguments": "{}"}}
        reply = read_stream(sse(delta("tool-call-delta", 0, tool_calls=call), message_end()))
        assert reply.parts == (ToolCallPart("c1", "clock", "{}"),)

    def test_index_that_comes_again_is_another_part(self) -> None:
        def thinking(text: str) -> Sequence[dict[str, Any]]:
            return block_events(0, {"type": "thinking", "thinking": text}, 9)

        text = block_events(0, {"type": "text", "text": "Yes."}, 9)
        assert read_stream(sse(START, *thinking("Hm."), *thinking("Ah."), *text, message_end())).parts == (
            ReasoningPart("Hm."),
            ReasoningPart("Ah."),
            TextPart("Yes."),
        )

    def test_thinking_and_text_under_one_index_are_two_parts(self) -> None:
        pieces = [delta("content-delta", 0, content={"thinking": "Hm."}), *HELLO[2:4]]
        assert read_stream(sse(START, *pieces, message_end())).parts == (ReasoningPart("Hm."), TextPart("Hello"))

    @pytest.mark.parametrize("content", [None, {}, [], {"type": None}, {"type": "text", "text": None}])
    def test_block_of_nothing_is_no_part(self, content: Any) -> None:
        start = delta("content-start", 0, content=content)
        assert read_stream(sse(START, start, {"type": "content-end", "index": 0}, message_end())).parts == ()

    def test_unknown_block_is_gathered_from_its_pieces(self) -> None:
        pieces = [
            delta("content-start", 0, content={"type": "chart", "points": ""}),
            delta("content-delta", 0, content={"type": "chart", "points": "1,"}),
            delta("content-delta", 0, content={"points": "2", "scale": 3}),
        ]
        kept = OpaquePart("cohere_chat", "chart", '{"type":"chart","points":"1,2","scale":3}')
        for rest in ([{"type": "content-end", "index": 0}, message_end()], [message_end()]):
            assert read_stream(sse(START, *pieces, *rest)).parts == (kept,)

    def test_events_after_the_end_are_ignored(self) -> None:
        late = delta("content-delta", 0, content={"text": "late"})
        assert read_stream(sse(*HELLO, late, message_end(finish_reason="ERROR"))) == read(whole())
        assert read_stream(sse(*HELLO) + b"data: {broken\n\n") == read(whole())

    def test_unknown_and_debug_events_are_ignored(self) -> None:
        odd = [{"type": "debug", "prompt": "x"}, {"type": "heartbeat"}, {"type": "citation-end", "index": 0}]
        assert read_stream(sse(START, *odd, *HELLO[1:])) == read(whole())

    @pytest.mark.parametrize("payload", ["{}", '{"type": null}', '{"type": ["x"]}', '{"delta": 3}', '{"index": 1}'])
    def test_event_without_a_type_is_ignored(self, payload: str) -> None:
        assert CohereChat().open_stream().feed(SseEvent("", payload.encode())) == ()

    @pytest.mark.parametrize(
        "kind", ["message-start", "content-start", "content-delta", "tool-plan-delta", "citation-start"]
    )
    @pytest.mark.parametrize(
        "rest", [{}, {"delta": None}, {"delta": {"message": []}}, {"delta": {"message": {"content": 3}}}]
    )
    def test_hollow_events_do_no_harm(self, kind: str, rest: dict[str, Any]) -> None:
        reader = CohereChat().open_stream()
        reader.feed(SseEvent(kind, json.dumps({"type": kind, **rest}).encode()))

    def test_done_alone_is_no_end(self) -> None:
        with pytest.raises(ProviderFault) as caught:
            read_stream(sse(*HELLO[:-1]))
        assert caught.value.kind is FaultKind.STREAM_CUT

    @pytest.mark.parametrize("data", [b"{", b"not json", b"[]", b"null", b'"text"', b"\xff"])
    def test_event_that_is_not_an_object_is_malformed(self, data: bytes) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().open_stream().feed(SseEvent("", data))
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize(
        ("payload", "kind"),
        [
            ({"message": "too many tokens"}, FaultKind.CONTEXT_WINDOW),
            ({"type": "error", "error": {"type": "overloaded_error"}}, FaultKind.OVERLOADED),
            ({"error": "internal"}, FaultKind.UNAVAILABLE),
            ({"type": "message-end", "delta": {"error": "internal"}}, FaultKind.UNAVAILABLE),
            (
                {"type": "message-end", "delta": {"error": "internal", "finish_reason": "ERROR"}},
                FaultKind.UNAVAILABLE,
            ),
        ],
    )
    def test_error_inside_the_stream(self, payload: dict[str, Any], kind: FaultKind) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().open_stream().feed(SseEvent("", json.dumps(payload).encode()))
        assert (caught.value.kind, caught.value.status) == (kind, 200)

    def test_cut_at_every_byte_never_passes_as_whole(self) -> None:
        body = sse(*HELLO)
        complete = body.index(b"\n\ndata: [DONE]")
        for length in range(complete):
            with pytest.raises(ProviderFault) as caught:
                read_stream(body[:length])
            assert caught.value.kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)
        for length in range(complete, len(body) + 1):
            assert read_stream(body[:length]) == read(whole())

    def test_cut_at_every_event_boundary(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "CET"}'}}
        message = {"tool_plan": "I will look.", "tool_calls": [call], "citations": [CITED]}
        events = stream_of(whole(message=message)).split(b"\n\n")
        end = next(place for place, event in enumerate(events) if b"message-end" in event)
        for count in range(end):
            with pytest.raises(ProviderFault) as caught:
                read_stream(b"\n\n".join(events[:count]) + b"\n\n")
            assert caught.value.kind is FaultKind.STREAM_CUT


words = st.text(max_size=12)
blocks = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, words),
    st.builds(lambda text: {"type": "thinking", "thinking": text}, words),
    st.builds(lambda text: {"type": "chart", "points": text}, words),
)
calls = st.builds(
    lambda id_, name, arguments: {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}},
    words, words, words,
)  # fmt: skip
citations = st.fixed_dictionaries(
    {"start": st.integers(0, 9), "end": st.integers(0, 9), "text": words},
    optional={
        "content_index": st.integers(0, 3),
        "type": st.sampled_from(["TEXT_CONTENT", "PLAN", "THINKING_CONTENT"]),
        "sources": st.lists(st.builds(lambda id_: {"type": "tool", "id": id_}, words), max_size=2),
    },
)
counts = st.one_of(st.none(), st.integers(-5, 10**9), st.floats(0, 1e6), st.sampled_from(["7", "x"]))
usages = st.fixed_dictionaries(
    {},
    optional={
        "tokens": st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "reasoning_tokens"]), counts),
        "billed_units": st.dictionaries(st.sampled_from(["input_tokens", "output_tokens"]), counts),
        "cached_tokens": counts,
    },
)
answers = st.fixed_dictionaries(
    {
        "message": st.fixed_dictionaries(
            {},
            optional={
                "tool_plan": words,
                "content": st.lists(blocks, max_size=4),
                "tool_calls": st.lists(calls, max_size=3),
                "citations": st.lists(citations, max_size=3),
            },
        ),
        "id": st.just("a1"),
    },
    optional={"finish_reason": st.sampled_from([said for said, _ in REASONS]), "usage": usages},
)


@given(answers, st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_fold_of_the_stream_is_the_whole_answer(answer: dict[str, Any], pieces: int) -> None:
    assert read_stream(stream_of(answer, pieces)) == read(answer)


class Upstream:
    """A local server that answers every call with one handler and remembers what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closed = asyncio.Event()

    async def keep(self, request: web.Request) -> None:
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))

    @asynccontextmanager
    async def serve(self, answer: Any) -> AsyncIterator[str]:
        async def handle(request: web.Request) -> web.StreamResponse:
            await self.keep(request)
            response: web.StreamResponse = await answer(self, request)
            return response

        app = web.Application()
        app.router.add_post("/v2/chat", handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def adapter_for(
    upstream: Upstream, answer: Any, **changes: Any
) -> AsyncIterator[tuple[DialectAdapter, ProviderCall]]:
    wire = HttpWire()
    async with upstream.serve(answer) as base_url:
        place = deployment(base_url, timeouts=Timeouts(connect_seconds=1.0))
        try:
            yield DialectAdapter(CohereChat(), BearerEndpoint(place.provider), wire), call_of(place=place, **changes)
        finally:
            await wire.close()


async def converse(adapter: DialectAdapter, call: ProviderCall) -> Reply:
    builder = ReplyBuilder()
    async for batch in adapter.exchange(call):
        for event in batch:
            builder.add(event)
    return builder.build()


async def stream_hello(upstream: Upstream, request: web.Request, *, until: int, then: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(sse(*HELLO)[:until])
    if then == "cut":
        assert request.transport is not None
        request.transport.abort()
    if then == "wait":
        try:
            await asyncio.sleep(30)
        finally:
            upstream.closed.set()
    return response


class TestThroughTheWire:
    async def test_whole_answer(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return web.json_response(whole())

        upstream = Upstream()
        async with adapter_for(upstream, answer) as (adapter, call):
            assert await converse(adapter, call) == read(whole())
        assert upstream.bodies == [CohereChat().shape(call).body]
        assert upstream.headers[0]["Authorization"] == "Bearer key-of-ours"

    async def test_stream(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return await stream_hello(upstream, request, until=10_000, then="end")

        async with adapter_for(Upstream(), answer, stream=True) as (adapter, call):
            assert await converse(adapter, call) == read(whole())

    async def test_error(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "7"})

        async with adapter_for(Upstream(), answer) as (adapter, call):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call)
        fault = caught.value
        assert (fault.kind, fault.status, fault.retry_after_seconds) == (FaultKind.RATE_LIMITED, 429, 7.0)

    @pytest.mark.parametrize("then", ["cut", "end"])
    async def test_body_that_ends_early(self, then: str) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return await stream_hello(upstream, request, until=300, then=then)

        async with adapter_for(Upstream(), answer, stream=True) as (adapter, call):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call)
        assert caught.value.kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)

    async def test_closing_the_generator_closes_the_connection(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return await stream_hello(upstream, request, until=300, then="wait")

        upstream = Upstream()
        async with adapter_for(upstream, answer, stream=True) as (adapter, call):
            events = adapter.exchange(call)
            await anext(events)
            await events.aclose()
            await asyncio.wait_for(upstream.closed.wait(), 0.5)
