"""Bytes on the wire: line ends, event lines, end markers, padding, and what is said only when asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
from unit.simulator.wire_client import events

TOOL = {"type": "function", "function": {"name": "plan", "parameters": {"type": "object", "properties": {}}}}
USAGE_ASKED = {"stream_options": {"include_usage": True}}


async def stream_of(raw: Any, dialect: Dialect, **extra: Any) -> bytes:
    answer = await raw.send(dialect, stream=True, **extra)
    assert answer.status == 200
    body: bytes = answer.body
    return body


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_line_ends_and_end_markers(raw: Any, dialect: Dialect) -> None:
    body = await stream_of(raw, dialect)
    assert (b"\r\n\r\n" in body) == (dialect is Dialect.GEMINI)
    assert body.count(b"\n") == 2 * body.count(b"\r\n\r\n") or dialect is not Dialect.GEMINI
    named = dialect in (Dialect.ANTHROPIC, Dialect.OPENAI_RESPONSES, Dialect.COHERE)
    assert body.startswith(b"event: " if named else b"data: ")
    has_done = dialect in (Dialect.OPENAI_CHAT, Dialect.COHERE)
    assert body.endswith(b"data: [DONE]\n\n") == has_done
    assert body.count(b"[DONE]") == has_done


async def test_content_types(raw: Any) -> None:
    async def types(dialect: Dialect) -> tuple[str, str]:
        whole, streamed = await raw.send(dialect), await raw.send(dialect, stream=True)
        assert "content-length" in whole.headers
        assert "content-length" not in streamed.headers
        return whole.headers["content-type"], streamed.headers["content-type"]

    assert await types(Dialect.GEMINI) == ("application/json; charset=UTF-8", "text/event-stream")
    assert await types(Dialect.COHERE) == ("application/json", "text/event-stream")
    for dialect in (Dialect.ANTHROPIC, Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES):
        assert await types(dialect) == ("application/json", "text/event-stream; charset=utf-8")


async def test_white_space_of_whole_answers(raw: Any) -> None:
    bodies = {dialect: (await raw.send(dialect)).body for dialect in Dialect}
    assert bodies[Dialect.OPENAI_CHAT].startswith(b'{\n  "id"')
    assert bodies[Dialect.OPENAI_CHAT].endswith(b"}\n")
    assert bodies[Dialect.OPENAI_RESPONSES].endswith(b"\n}")
    assert bodies[Dialect.GEMINI].startswith(b'{\n  "candidates"')
    assert b"\n" not in bodies[Dialect.ANTHROPIC] + bodies[Dialect.COHERE]


async def test_escapes(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(Script((Rule(Behaviour(reply_text="<b> & Zürich 🚆")),)))
    bodies = {dialect: (await raw.send(dialect)).body for dialect in Dialect}
    assert rb"\u003cb\u003e & " in bodies[Dialect.GEMINI]
    assert rb"\u003cb\u003e \u0026 " in bodies[Dialect.COHERE]
    assert rb"<b> & Z\u00fcrich \ud83d\ude86" in bodies[Dialect.OPENAI_RESPONSES]
    for dialect in (Dialect.ANTHROPIC, Dialect.OPENAI_CHAT, Dialect.GEMINI, Dialect.COHERE):
        assert "Zürich 🚆".encode() in bodies[dialect]


async def test_anthropic_events(raw: Any) -> None:
    body = await stream_of(raw, Dialect.ANTHROPIC)
    kinds = [json.loads(event)["type"] for event in events(body)]
    assert kinds[:4] == ["message_start", "content_block_start", "ping", "content_block_delta"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    names = [line[7:].decode() for line in body.split(b"\n") if line.startswith(b"event: ")]
    assert names == kinds
    opening = json.loads(events(body)[0])["message"]
    assert opening["usage"]["output_tokens"] == 1, "the first count is not the final one"
    assert opening["content"] == []
    paddings = {len(event) - len(event[:-1].rstrip()) - 1 for event in events(body)}
    assert len(paddings) > 3, "blanks before the last brace change from event to event"


async def test_anthropic_tool_use_begins_with_an_empty_piece(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(Script((Rule(Behaviour(tool_calls=(ScriptedToolCall("plan", {"a": "b"}),))),)))
    sent = [json.loads(event) for event in events(await stream_of(raw, Dialect.ANTHROPIC))]
    (start,) = [event["content_block"] for event in sent if event["type"] == "content_block_start"]
    assert start["input"] == {}
    pieces = [event["delta"]["partial_json"] for event in sent if event["type"] == "content_block_delta"]
    assert pieces[0] == ""
    assert "".join(pieces) == '{"a":"b"}'


async def test_anthropic_thinking_ends_with_a_signature(raw: Any) -> None:
    sent = [json.loads(event) for event in events(await stream_of(raw, Dialect.ANTHROPIC, model="sim-reasoning"))]
    first_block = [event["delta"]["type"] for event in sent if event.get("index") == 0 and "delta" in event]
    assert first_block[-1] == "signature_delta"
    assert set(first_block[:-1]) == {"thinking_delta"}


async def test_chat_usage_only_when_asked(raw: Any) -> None:
    silent = [json.loads(event) for event in events(await stream_of(raw, Dialect.OPENAI_CHAT))[:-1]]
    assert not any("usage" in chunk for chunk in silent)
    assert all(chunk["choices"] for chunk in silent)
    asked = [json.loads(event) for event in events(await stream_of(raw, Dialect.OPENAI_CHAT, **USAGE_ASKED))[:-1]]
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["prompt_tokens"] > 0
    assert [chunk["usage"] for chunk in asked[:-1]] == [None] * (len(asked) - 1)


async def test_chat_deltas(raw: Any) -> None:
    extra: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
    chunks = [json.loads(event) for event in events(await stream_of(raw, Dialect.OPENAI_CHAT, **extra))[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": None, "refusal": None}
    (first,) = deltas[1]["tool_calls"]
    assert first["function"] == {"name": "plan", "arguments": ""}
    assert first["id"].startswith("call_")
    assert deltas[2] == {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    assert deltas[-1] == {}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert len({chunk["obfuscation"] for chunk in chunks}) > 1
    extra["stream_options"] = {"include_obfuscation": False}
    assert b"obfuscation" not in await stream_of(raw, Dialect.OPENAI_CHAT, **extra)


async def test_responses_events(raw: Any) -> None:
    body = await stream_of(raw, Dialect.OPENAI_RESPONSES, instructions="Be brief.")
    sent = [json.loads(event) for event in events(body)]
    kinds = [event["type"] for event in sent]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    assert sent[0]["response"]["usage"] is None
    assert sent[-1]["response"]["instructions"] == "Be brief."
    cut = events(await stream_of(raw, Dialect.OPENAI_RESPONSES, max_output_tokens=16))
    assert json.loads(cut[-1])["type"] == "response.incomplete"


async def test_gemini_chunks(raw: Any) -> None:
    chunks = [json.loads(event) for event in events(await stream_of(raw, Dialect.GEMINI, model="sim-long"))]
    counts = [chunk["usageMetadata"]["candidatesTokenCount"] for chunk in chunks]
    assert counts == sorted(set(counts)), "usage grows from chunk to chunk"
    assert [("finishReason" in chunk["candidates"][0]) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len({chunk["responseId"] for chunk in chunks}) == 1
    filtered = (await raw.send(Dialect.GEMINI, model="sim-filtered")).json
    assert filtered["candidates"][0]["finishReason"] == "SAFETY"


async def test_gemini_without_sse_is_one_array(raw: Any, simulator: RunningSimulator) -> None:
    path = "/v1beta/models/some-model:streamGenerateContent"
    contents = {"contents": [{"parts": [{"text": "Hello"}]}]}
    async with raw.session.post(path, json=contents) as response:
        documents = await response.json()
    texts = [document["candidates"][0]["content"]["parts"][0]["text"] for document in documents]
    assert "".join(texts).startswith("This is a simulated answer")
    assert simulator.calls[-1].model == "some-model"


async def test_gemini_grounding_counts_bytes(raw: Any, simulator: RunningSimulator) -> None:
    citation = ScriptedCitation("https://example.com/", "A source", quoted_text="zwölf")
    simulator.use(Script((Rule(Behaviour(reply_text="Um zwölf geht's los.", citations=(citation,))),)))
    answer = (await raw.send(Dialect.GEMINI)).json
    (support,) = answer["candidates"][0]["groundingMetadata"]["groundingSupports"]
    assert support["segment"] == {"startIndex": 3, "endIndex": 9, "text": "zwölf"}
    citing = (await raw.send(Dialect.COHERE)).json["message"]["citations"][0]
    assert (citing["start"], citing["end"]) == (3, 8)


async def test_cohere_events(raw: Any) -> None:
    extra = {"tools": [TOOL], "tool_choice": "REQUIRED"}
    sent = [json.loads(event) for event in events(await stream_of(raw, Dialect.COHERE, **extra))[:-1]]
    kinds = list(dict.fromkeys(event["type"] for event in sent))
    assert kinds == ["message-start", "tool-plan-delta", "tool-call-start", "tool-call-end", "message-end"]
    assert sent[0]["delta"]["message"]["tool_calls"] == []
    (start,) = [event for event in sent if event["type"] == "tool-call-start"]
    assert start["delta"]["message"]["tool_calls"]["function"] == {"name": "plan", "arguments": ""}


async def test_finish_reasons_beyond_the_known(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(Script((Rule(Behaviour(finish_reason="made_up")),)))
    assert (await raw.send(Dialect.ANTHROPIC)).json["stop_reason"] == "made_up"
    assert (await raw.send(Dialect.GEMINI)).json["candidates"][0]["finishReason"] == "made_up"
    assert (await raw.send(Dialect.OPENAI_CHAT)).json["choices"][0]["finish_reason"] == "made_up"
    assert (await raw.send(Dialect.COHERE)).json["finish_reason"] == "made_up"
    response = (await raw.send(Dialect.OPENAI_RESPONSES)).json
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "made_up"})


async def test_refusals(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(Script((Rule(Behaviour(reply_text="I will not.", finish_reason="refusal")),)))
    message = (await raw.send(Dialect.OPENAI_CHAT)).json["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I will not.")
    (item,) = (await raw.send(Dialect.OPENAI_RESPONSES)).json["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "I will not."}]
    streamed = [json.loads(event) for event in events(await stream_of(raw, Dialect.OPENAI_RESPONSES))]
    assert "".join(event["delta"] for event in streamed if event["type"] == "response.refusal.delta") == "I will not."
    chunks = [json.loads(event) for event in events(await stream_of(raw, Dialect.OPENAI_CHAT))[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("refusal") or "" for chunk in chunks) == "I will not."
    assert (await raw.send(Dialect.ANTHROPIC)).json["stop_reason"] == "refusal"


async def test_odd_usage(raw: Any, simulator: RunningSimulator) -> None:
    async def usage(override: UsageOverride) -> Any:
        simulator.use(Script((Rule(Behaviour(usage=override)),)))
        answer = await raw.send(Dialect.OPENAI_CHAT)
        return answer.json.get("usage"), answer.body

    assert (await usage(UsageOverride(missing=True)))[0] is None
    negative, _ = await usage(UsageOverride(output_tokens=-5))
    assert negative["completion_tokens"] == -5
    absurd, _ = await usage(UsageOverride(output_tokens=10**12))
    assert absurd["completion_tokens"] == 10**12
    strings, _ = await usage(UsageOverride(input_tokens="9", output_tokens="3"))
    assert (strings["prompt_tokens"], strings["completion_tokens"]) == ("9", "3")
    assert "total_tokens" not in strings
    _, body = await usage(UsageOverride(input_tokens=float("nan")))
    assert b'"prompt_tokens": NaN,' in body


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_odd_usage_in_every_dialect(
    raw: Any, simulator: RunningSimulator, dialect: Dialect, stream: bool
) -> None:
    for value, written in ((-5, b"-5"), (10**12, b"1000000000000"), ("many", b'"many"'), (float("nan"), b"NaN")):
        simulator.use(Script((Rule(Behaviour(usage=UsageOverride(output_tokens=value))),)))
        extra = USAGE_ASKED if stream and dialect is Dialect.OPENAI_CHAT else {}
        answer = await raw.send(dialect, stream=stream, **extra)
        assert written in answer.body
    simulator.use(Script((Rule(Behaviour(usage=UsageOverride(missing=True))),)))
    body = (await raw.send(dialect, stream=stream)).body
    assert b"input_tokens" not in body
    assert b"TokenCount" not in body


async def test_broken_tool_arguments_are_sent_as_they_are(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(Script((Rule(Behaviour(tool_calls=(ScriptedToolCall("plan", '{"a": '),))),)))
    call = (await raw.send(Dialect.OPENAI_CHAT)).json["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == '{"a": '
    sent = [json.loads(event) for event in events(await stream_of(raw, Dialect.ANTHROPIC))]
    pieces = [event["delta"]["partial_json"] for event in sent if event["type"] == "content_block_delta"]
    assert "".join(pieces) == '{"a": '


async def test_reported_model_and_headers(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(Script((Rule(Behaviour(reported_model="another", headers={"retry-after": "7"})),)))
    answer = await raw.send(Dialect.OPENAI_CHAT)
    assert answer.json["model"] == "another"
    assert answer.headers["retry-after"] == "7"
