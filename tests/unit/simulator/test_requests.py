"""Requests that a provider would refuse are refused; requests it would take are taken."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman_server.simulator.script import Dialect
from pointsman_server.simulator.server import RunningSimulator

USER = {"role": "user", "content": "Hello"}
CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "plan", "arguments": "{}"}}
CHAT_BAD_TOOL = {"type": "function", "function": {"name": "plan", "parameters": {"type": "array", "minItems": "x"}}}
CHAT_TOOL = {"type": "function", "function": {"name": "plan", "parameters": {"type": "object"}}}
OTHER_TOOL = {"type": "function", "function": {"name": "not_on_offer"}}
DOCUMENT = {"type": "document", "document": {"data": "Done."}}
THINKING = {"type": "enabled", "budget_tokens": 1024}
STRICT = {"name": "a", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
GEMINI_CALL = {"role": "model", "parts": [{"functionCall": {"name": "plan", "args": {}}}]}
GEMINI_TEXT = {"role": "user", "parts": [{"text": "Hello"}]}

REFUSED: list[tuple[Dialect, dict[str, Any], str]] = [
    (Dialect.ANTHROPIC, {"max_tokens": None}, "max_tokens"),
    (Dialect.ANTHROPIC, {"max_tokens": 0}, "max_tokens"),
    (Dialect.ANTHROPIC, {"temperature": 1.5}, "temperature"),
    (Dialect.ANTHROPIC, {"messages": []}, "messages"),
    (Dialect.ANTHROPIC, {"messages": [{"role": "developer", "content": "x"}]}, "messages.0.role"),
    (Dialect.ANTHROPIC, {"messages": [{"role": "system", "content": "x"}]}, "first message"),
    (Dialect.ANTHROPIC, {"messages": [{"role": "assistant", "content": "x"}]}, "first message"),
    (Dialect.ANTHROPIC, {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "non-empty"),
    (
        Dialect.ANTHROPIC,
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
        "tool_use_id",
    ),
    (
        Dialect.ANTHROPIC,
        {"messages": [
            USER,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "plan", "input": {}}]},
            USER,
        ]},
        "messages.2",
    ),
    (Dialect.ANTHROPIC, {"tool_choice": {"type": "any"}}, "tool_choice"),
    (Dialect.ANTHROPIC, {"thinking": {"type": "enabled", "budget_tokens": 10}}, "budget_tokens"),
    (Dialect.ANTHROPIC, {"thinking": THINKING, "max_tokens": 1024}, "max_tokens"),
    (Dialect.ANTHROPIC, {"thinking": THINKING, "max_tokens": 2048, "temperature": 0.5}, "temperature"),
    (
        Dialect.ANTHROPIC,
        {
            "thinking": THINKING,
            "max_tokens": 2048,
            "tools": [{"name": "plan", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any"},
        },
        "tool_choice",
    ),
    (Dialect.ANTHROPIC, {"stop_sequences": ["\n"]}, "non-whitespace"),
    (Dialect.OPENAI_CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    (Dialect.OPENAI_CHAT, {"messages": [{"role": "user", "content": None}]}, "content"),
    (Dialect.OPENAI_CHAT, {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "video"),
    (Dialect.OPENAI_CHAT, {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "tool_call_id"),
    (Dialect.OPENAI_CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": [CHAT_CALL]}, USER]}, "messages[2]"),
    (Dialect.OPENAI_CHAT, {"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    (Dialect.OPENAI_CHAT, {"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
    (Dialect.OPENAI_CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
    (Dialect.OPENAI_CHAT, {"tool_choice": "required"}, "tool_choice"),
    (Dialect.OPENAI_CHAT, {"tools": [CHAT_TOOL], "tool_choice": OTHER_TOOL}, "tool_choice"),
    (Dialect.OPENAI_CHAT, {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].name"),
    (Dialect.OPENAI_CHAT, {"response_format": {"type": "json_schema", "json_schema": STRICT}}, "response_format"),
    (Dialect.OPENAI_RESPONSES, {"max_output_tokens": 15}, "max_output_tokens"),
    (Dialect.OPENAI_RESPONSES, {"messages": [USER]}, "messages"),
    (Dialect.OPENAI_RESPONSES, {"input": ""}, "input"),
    (Dialect.OPENAI_RESPONSES, {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "type"),
    (
        Dialect.OPENAI_RESPONSES,
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        "input[0].call_id",
    ),
    (Dialect.GEMINI, {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "contents[0].role"),
    (Dialect.GEMINI, {"contents": [{"role": "user", "parts": []}]}, "contents[0].parts"),
    (Dialect.GEMINI, {"contents": [GEMINI_TEXT, GEMINI_CALL, GEMINI_TEXT]}, "function response"),
    (Dialect.GEMINI, {"generationConfig": {"stopSequences": list("abcdef")}}, "stop_sequences"),
    (Dialect.GEMINI, {"generationConfig": {"responseSchema": {"type": "OBJECT"}}}, "mime type"),
    (Dialect.GEMINI, {"toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["plan"]}}}, "ANY"),
    (Dialect.COHERE, {"messages": [{"role": "developer", "content": "x"}]}, "messages[0].role"),
    (Dialect.COHERE, {"temperature": 1.2}, "temperature"),
    (Dialect.COHERE, {"tool_choice": "AUTO"}, "tool_choice"),
    (Dialect.COHERE, {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "video"),
    (Dialect.COHERE, {"stop_sequences": [""]}, "stop_sequences"),
    (Dialect.COHERE, {"model": ""}, "model"),
    (Dialect.OPENAI_CHAT, {"tools": [CHAT_BAD_TOOL], "tool_choice": "required"}, "Invalid schema for function 'plan'"),
    (Dialect.GEMINI, {"contents": [{"parts": [{}]}]}, "contents[0].parts[0].data"),
    (Dialect.GEMINI, {"contents": [{"role": "user", "parts": GEMINI_CALL["parts"]}]}, "belong to the model"),
    (
        Dialect.COHERE,
        {"tools": [CHAT_TOOL], "response_format": {"type": "json_object", "json_schema": {"type": "object"}}},
        "response_format",
    ),
]  # fmt: skip

TAKEN: list[tuple[Dialect, dict[str, Any], str]] = [
    (
        Dialect.ANTHROPIC,
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {"type": "text", "text": "What is it?"},
                ]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "tool_use", "id": "t", "name": "plan", "input": {}},
                ]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "Done."}]},
            ],
        },
        "3 messages, 28 characters, 1 image and 1 tool result",
    ),
    (
        Dialect.OPENAI_CHAT,
        {"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Done."},
        ]},
        "4 messages, 27 characters, 1 image and 1 tool result",
    ),
    (
        Dialect.OPENAI_RESPONSES,
        {"input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}, {"type": "input_image"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "c", "name": "plan", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "Done."},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes"}]},
        ]},
        "2 messages, 15 characters, 1 image and 1 tool result",
    ),
    (
        Dialect.GEMINI,
        {
            "system_instruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}, {"inline_data": {"mime_type": "image/png", "data": "AA"}}]},
                GEMINI_CALL,
                {"role": "user", "parts": [{"functionResponse": {"name": "plan", "response": {"result": "Done."}}}]},
            ],
        },
        "3 messages, 16 characters, 1 image and 1 tool result",
    ),
    (
        Dialect.COHERE,
        {"messages": [
            USER,
            {"role": "assistant", "tool_calls": [CHAT_CALL], "tool_plan": "I will."},
            {"role": "tool", "tool_call_id": "call_1", "content": [DOCUMENT]},
        ]},
        "3 messages, 7 characters and 1 tool result",
    ),
    (
        Dialect.COHERE,
        {"messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "It"}]},
            {"role": "user", "content": "Go on."},
        ]},
        "3 messages, 22 characters and 1 image",
    ),
    (
        Dialect.ANTHROPIC,
        {"messages": [
            USER,
            {"role": "assistant", "content": [
                {"type": "redacted_thinking", "data": "opaque"},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "text", "text": "Yes"},
            ]},
            USER,
        ]},
        "3 messages and 13 characters",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "extra", "named"), REFUSED)
async def test_refused(raw: Any, dialect: Dialect, extra: dict[str, Any], named: str) -> None:
    answer = await raw.send(dialect, **extra)
    assert answer.status == 400
    message = answer.json["message"] if dialect is Dialect.COHERE else answer.json["error"]["message"]
    assert named in message


@pytest.mark.parametrize(("dialect", "extra", "described"), TAKEN)
async def test_taken(raw: Any, dialect: Dialect, extra: dict[str, Any], described: str) -> None:
    answer = await raw.send(dialect, **extra)
    assert answer.status == 200, answer.body
    assert described in answer.body.decode()


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"text"', b"\xff"])
async def test_bodies_that_are_no_request(raw: Any, simulator: RunningSimulator, body: bytes) -> None:
    for path in (
        "/v1/messages",
        "/v1/chat/completions",
        "/v1/responses",
        "/v2/chat",
        "/v1beta/models/m:generateContent",
    ):
        async with raw.session.post(path, data=body) as response:
            assert response.status == 400
            assert isinstance(await response.json(), dict)
    assert simulator.calls.total == 5, "refused requests are in the log"


async def test_unknown_paths(raw: Any) -> None:
    for path in ("/v1/nothing", "/v1beta/models/m:countTokens", "/v1beta/models/m"):
        async with raw.session.post(path, json={}) as response:
            assert response.status == 404


async def test_stream_is_a_boolean(raw: Any) -> None:
    async with raw.session.post("/v2/chat", json={"model": "m", "messages": [USER], "stream": "yes"}) as response:
        assert response.status == 400
        assert "stream" in (await response.json())["message"]
