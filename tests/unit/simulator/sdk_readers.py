"""One reader for each dialect: what its official SDK makes of an answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from google import genai
from google.genai import types

from pointsman_server.simulator.script import Dialect
from unit.simulator.openai_readers import ChatReader, ResponsesReader
from unit.simulator.sdk_reading import KEY, Read, Reader, Wanted, nested_tools


class AnthropicReader:
    def __init__(self, base_url: str) -> None:
        self._client = anthropic.AsyncAnthropic(base_url=base_url, api_key=KEY, max_retries=0)

    async def close(self) -> None:
        await self._client.close()

    async def read(self, wanted: Wanted, *, stream: bool) -> Read:
        request = self._request(wanted)
        if stream:
            async with self._client.messages.stream(**request) as events:
                message = await events.get_final_message()
        else:
            message = await self._client.messages.create(**request)
        read = Read(finish=str(message.stop_reason))
        for block in message.content:
            if block.type == "text":
                read.text += block.text
                for item in block.citations or ():
                    assert item.type == "web_search_result_location"
                    read.citations.append((item.url, item.title or ""))
            elif block.type == "thinking":
                assert block.signature
                read.reasoning += block.thinking
            elif block.type == "tool_use":
                read.calls.append((block.id, block.name, block.input))
        usage = message.usage
        read.cached_tokens = usage.cache_read_input_tokens or 0
        read.input_tokens = usage.input_tokens + read.cached_tokens
        read.output_tokens = usage.output_tokens
        assert usage.output_tokens_details
        read.reasoning_tokens = usage.output_tokens_details.thinking_tokens
        return read

    @staticmethod
    def _request(wanted: Wanted) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": wanted.model,
            "max_tokens": wanted.max_tokens or 4096,
            "messages": [{"role": "user", "content": wanted.text}],
        }
        if wanted.tools:
            request["tools"] = [{"name": name, "input_schema": schema} for name, schema in wanted.tools.items()]
        if wanted.demand == "any":
            request["tool_choice"] = {"type": "any"}
        elif wanted.demand:
            request["tool_choice"] = {"type": "tool", "name": wanted.demand}
        if wanted.schema:
            request["output_config"] = {"format": {"type": "json_schema", "schema": wanted.schema}}
        if wanted.stops:
            request["stop_sequences"] = list(wanted.stops)
        if wanted.thinks:
            request["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        return request


class GeminiReader:
    def __init__(self, base_url: str) -> None:
        self._client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=base_url))

    async def close(self) -> None:
        await self._client.aio.aclose()

    async def read(self, wanted: Wanted, *, stream: bool) -> Read:
        request: Any = {"model": wanted.model, "contents": wanted.text, "config": self._config(wanted)}
        models = self._client.aio.models
        if stream:
            answers = [answer async for answer in await models.generate_content_stream(**request)]
        else:
            answers = [await models.generate_content(**request)]
        read = Read()
        for answer in answers:
            self._read_answer(answer, read)
        return read

    @staticmethod
    def _read_answer(answer: types.GenerateContentResponse, read: Read) -> None:
        assert answer.candidates
        candidate = answer.candidates[0]
        for part in (candidate.content.parts if candidate.content else None) or ():
            if part.function_call:
                read.calls.append(("", part.function_call.name or "", part.function_call.args))
            elif part.thought:
                read.reasoning += part.text or ""
            else:
                read.text += part.text or ""
        if candidate.finish_reason:
            read.finish = candidate.finish_reason.value
        if candidate.grounding_metadata:
            chunks = candidate.grounding_metadata.grounding_chunks or ()
            read.citations += [(chunk.web.uri or "", chunk.web.title or "") for chunk in chunks if chunk.web]
        usage = answer.usage_metadata
        assert usage
        read.input_tokens = usage.prompt_token_count or 0
        read.reasoning_tokens = usage.thoughts_token_count or 0
        read.output_tokens = (usage.candidates_token_count or 0) + read.reasoning_tokens
        read.cached_tokens = usage.cached_content_token_count or 0
        assert usage.total_token_count == read.input_tokens + read.output_tokens

    @staticmethod
    def _config(wanted: Wanted) -> types.GenerateContentConfig:
        config = types.GenerateContentConfig(
            max_output_tokens=wanted.max_tokens,
            stop_sequences=list(wanted.stops) or None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        if wanted.tools:
            make = types.FunctionDeclaration
            made = [make(name=name, parameters_json_schema=schema) for name, schema in wanted.tools.items()]
            config.tools = [types.Tool(function_declarations=made)]
        if wanted.demand:
            calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
            if wanted.demand != "any":
                calling.allowed_function_names = [wanted.demand]
            config.tool_config = types.ToolConfig(function_calling_config=calling)
        if wanted.schema:
            config.response_mime_type = "application/json"
            config.response_json_schema = wanted.schema
        if wanted.thinks:
            config.thinking_config = types.ThinkingConfig(include_thoughts=True)
        return config


class CohereReader:
    def __init__(self, base_url: str) -> None:
        cohere = pytest.importorskip("cohere")
        httpx = pytest.importorskip("httpx")
        self._http = httpx.AsyncClient()
        self._client = cohere.AsyncClientV2(api_key=KEY, base_url=base_url, httpx_client=self._http)

    async def close(self) -> None:
        await self._http.aclose()

    async def read(self, wanted: Wanted, *, stream: bool) -> Read:
        request = self._request(wanted)
        if stream:
            return await self._read_stream(self._client.chat_stream(**request))
        answer = await self._client.chat(**request)
        read = Read(finish=str(answer.finish_reason))
        for part in answer.message.content or ():
            if part.type == "text":
                read.text += part.text
            else:
                read.reasoning += part.thinking
        for call in answer.message.tool_calls or ():
            read.calls.append((call.id, call.function.name, json.loads(call.function.arguments)))
        self._read_citations(answer.message.citations or (), read)
        self._read_usage(answer.usage, read)
        return read

    async def _read_stream(self, events: AsyncIterator[Any]) -> Read:
        read = Read()
        arguments: list[list[str]] = []
        async for event in events:
            message: Any = getattr(getattr(event, "delta", None), "message", None)
            if event.type == "content-delta":
                read.text += message.content.text or ""
                read.reasoning += message.content.thinking or ""
            elif event.type == "tool-call-start":
                read.calls.append((message.tool_calls.id, message.tool_calls.function.name, None))
                arguments.append([message.tool_calls.function.arguments])
            elif event.type == "tool-call-delta":
                arguments[event.index].append(message.tool_calls.function.arguments)
            elif event.type == "citation-start":
                self._read_citations([message.citations], read)
            elif event.type == "message-end":
                read.finish = str(event.delta.finish_reason)
                self._read_usage(event.delta.usage, read)
        joined = [json.loads("".join(pieces) or "{}") for pieces in arguments]
        read.calls = [(call[0], call[1], made) for call, made in zip(read.calls, joined, strict=True)]
        return read

    @staticmethod
    def _read_citations(citations: Any, read: Read) -> None:
        for citation in citations:
            document = citation.sources[0].document
            read.citations.append((document["url"], document["title"]))

    @staticmethod
    def _read_usage(usage: Any, read: Read) -> None:
        read.input_tokens = int(usage.billed_units.input_tokens)
        read.output_tokens = int(usage.billed_units.output_tokens)
        assert usage.tokens.input_tokens > usage.billed_units.input_tokens
        read.cached_tokens = int(usage.cached_tokens or 0)
        read.reasoning_tokens = int(getattr(usage.tokens, "reasoning_tokens", None) or 0)

    @staticmethod
    def _request(wanted: Wanted) -> dict[str, Any]:
        request: dict[str, Any] = {"model": wanted.model, "messages": [{"role": "user", "content": wanted.text}]}
        if wanted.max_tokens:
            request["max_tokens"] = wanted.max_tokens
        if wanted.stops:
            request["stop_sequences"] = list(wanted.stops)
        if wanted.tools:
            request["tools"] = nested_tools(wanted)
        if wanted.demand:
            assert wanted.demand == "any", "this dialect cannot demand a tool by its name"
            request["tool_choice"] = "REQUIRED"
        if wanted.schema:
            request["response_format"] = {"type": "json_object", "json_schema": wanted.schema}
        if wanted.thinks:
            request["thinking"] = {"type": "enabled"}
        return request


READERS: dict[Dialect, type[Reader]] = {
    Dialect.ANTHROPIC: AnthropicReader,
    Dialect.GEMINI: GeminiReader,
    Dialect.OPENAI_CHAT: ChatReader,
    Dialect.OPENAI_RESPONSES: ResponsesReader,
    Dialect.COHERE: CohereReader,
}
