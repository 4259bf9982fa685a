"""What the official OpenAI SDK makes of an answer, in both of its dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unit.simulator.sdk_reading import KEY, Read, Wanted, nested_tools


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
        response: Any = None
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
