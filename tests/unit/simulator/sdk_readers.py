"""One reader for each dialect: what its official SDK makes of an answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import anthropic
import pytest
from google import genai
from google.genai import types

from pointsman_server.simulator.script import Dialect

KEY = "a-key-of-the-tests"


@dataclass(frozen=True)
class Wanted:
    """A request free of any dialect. `demand`: None, "any" or the name of a tool."""

    text: str = "How many trains leave at noon?"
    model: str = "some-model"
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    demand: str | None = None
    schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    thinks: bool = False


@dataclass
class Read:
    """An answer as its SDK shows it. Ids of responses and items are left out: they differ from call to call."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    citations: list[tuple[str, str]] = field(default_factory=list)
    finish: str = ""
    input_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = -1
    reasoning_tokens: int = -1


class Reader(Protocol):
    def __init__(self, base_url: str) -> None: ...

    async def read(self, wanted: Wanted, *, stream: bool) -> Read: ...

    async def close(self) -> None: ...


def nested_tools(wanted: Wanted) -> list[dict[str, Any]]:
    functions = [{"name": name, "parameters": schema} for name, schema in wanted.tools.items()]
    return [{"type": "function", "function": function} for function in functions]


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
                read.citations += [(item.url, item.title) for item in block.citations or ()]
            elif block.type == "thinking":
                assert block.signature
                read.reasoning += block.thinking
            elif block.type == "tool_use":
                read.calls.append((block.id, block.name, block.input))
        usage = message.usage
        read.cached_tokens = usage.cache_read_input_tokens or 0
        read.input_tokens = usage.input_tokens + read.cached_tokens
        read.output_tokens = usage.output_tokens
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


class ChatReader:
    def __init__(self, base_url: str) -> None:
        openai = pytest.importorskip("openai")
        self._client = openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key=KEY, max_retries=0)

    async def close(self) -> None:
        await self._client.close()

    async def read(self, wanted: Wanted, *, stream: bool) -> Read:
        request = self._request(wanted)
        completions = self._client.chat.completions
        if not stream:
            return self._read_completion(await completions.create(**request))
        from openai.lib.streaming.chat import ChatCompletionStreamState

        state = ChatCompletionStreamState()
        chunks = await completions.create(**request, stream=True, stream_options={"include_usage": True})
        async for chunk in chunks:
            state.handle_chunk(chunk)
        return self._read_completion(state.current_completion_snapshot)

    @staticmethod
    def _read_completion(completion: Any) -> Read:
        choice = completion.choices[0]
        read = Read(text=choice.message.content or "", finish=choice.finish_reason)
        read.reasoning = getattr(choice.message, "reasoning_content", None) or ""
        for call in choice.message.tool_calls or ():
            assert call.type == "function"
            read.calls.append((call.id, call.function.name, json.loads(call.function.arguments)))
        for annotation in choice.message.annotations or ():
            # The SDK's stream accumulator leaves annotations as plain mappings.
            cited = annotation["url_citation"] if isinstance(annotation, dict) else annotation.url_citation.to_dict()
            read.citations.append((cited["url"], cited["title"]))
        usage = completion.usage
        read.input_tokens, read.output_tokens = usage.prompt_tokens, usage.completion_tokens
        read.cached_tokens = usage.prompt_tokens_details.cached_tokens
        read.reasoning_tokens = usage.completion_tokens_details.reasoning_tokens
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        return read

    @staticmethod
    def _request(wanted: Wanted) -> dict[str, Any]:
        request: dict[str, Any] = {"model": wanted.model, "messages": [{"role": "user", "content": wanted.text}]}
        if wanted.max_tokens:
            request["max_completion_tokens"] = wanted.max_tokens
        if wanted.stops:
            request["stop"] = list(wanted.stops)
        if wanted.tools:
            request["tools"] = nested_tools(wanted)
        if wanted.demand == "any":
            request["tool_choice"] = "required"
        elif wanted.demand:
            request["tool_choice"] = {"type": "function", "function": {"name": wanted.demand}}
        if wanted.schema:
            given = {"name": "answer", "schema": wanted.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": given}
        if wanted.thinks:
            request["reasoning_effort"] = "low"
        return request


class ResponsesReader:
    def __init__(self, base_url: str) -> None:
        openai = pytest.importorskip("openai")
        self._client = openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key=KEY, max_retries=0)

    async def close(self) -> None:
        await self._client.close()

    async def read(self, wanted: Wanted, *, stream: bool) -> Read:
        request = self._request(wanted)
        if stream:
            response = await self._read_stream(await self._client.responses.create(**request, stream=True))
        else:
            response = await self._client.responses.create(**request)
        details = response.incomplete_details
        read = Read(finish=f"{response.status}/{details.reason if details else ''}")
        for item in response.output:
            self._read_item(item, read)
        usage = response.usage
        read.input_tokens, read.output_tokens = usage.input_tokens, usage.output_tokens
        read.cached_tokens = usage.input_tokens_details.cached_tokens
        read.reasoning_tokens = usage.output_tokens_details.reasoning_tokens
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        return read

    @staticmethod
    async def _read_stream(events: Any) -> Any:
        """The final response, once the deltas have been found to say the same."""
        deltas: dict[str, str] = {}
        sources: list[Any] = []
        response = None
        number = 0
        async for event in events:
            assert event.sequence_number == number
            number += 1
            if event.type.endswith(".delta"):
                deltas[event.item_id] = deltas.get(event.item_id, "") + event.delta
            elif event.type == "response.output_text.annotation.added":
                sources.append(event.annotation.to_dict())
            response = getattr(event, "response", response)
        for item in response.output:
            if item.type == "message":
                assert deltas.get(item.id, "") == "".join(part.text for part in item.content)
                assert [note.to_dict() for part in item.content for note in part.annotations] == sources
            elif item.type == "function_call":
                assert deltas[item.id] == item.arguments
            else:
                assert deltas.get(item.id, "") == "".join(part.text for part in item.summary)
        return response

    @staticmethod
    def _read_item(item: Any, read: Read) -> None:
        if item.type == "message":
            for part in item.content:
                read.text += part.text
                read.citations += [(note.url, note.title) for note in part.annotations]
        elif item.type == "reasoning":
            read.reasoning += "".join(part.text for part in item.summary)
        elif item.type == "function_call":
            read.calls.append((item.call_id, item.name, json.loads(item.arguments)))

    @staticmethod
    def _request(wanted: Wanted) -> dict[str, Any]:
        request: dict[str, Any] = {"model": wanted.model, "input": wanted.text}
        if wanted.max_tokens:
            request["max_output_tokens"] = wanted.max_tokens
        if wanted.tools:
            plain = {"type": "function", "strict": False}
            request["tools"] = [{**plain, "name": name, "parameters": schema} for name, schema in wanted.tools.items()]
        if wanted.demand == "any":
            request["tool_choice"] = "required"
        elif wanted.demand:
            request["tool_choice"] = {"type": "function", "name": wanted.demand}
        if wanted.schema:
            request["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": wanted.schema}}
        if wanted.thinks:
            request["reasoning"] = {"effort": "low", "summary": "auto"}
        return request


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
            message = getattr(getattr(event, "delta", None), "message", None)
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
