"""Any gateway that speaks OpenAI's chat dialect over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp

from wall.asks import Ask
from wall.log import Outcome, Status, WallLog
from wall.targets.target import Ability, Patience
from wall.texts import prompt

_STATUSES: Mapping[str, frozenset[int]] = {
    "UNAVAILABLE": frozenset({500, 502, 503, 504, 520, 529}),
    "INTERNAL": frozenset({401, 403, 500, 502, 503}),
    "DEADLINE_EXCEEDED": frozenset({408, 500, 502, 503, 504}),
    "RESOURCE_EXHAUSTED": frozenset({402, 429, 503}),
    "INVALID_ARGUMENT": frozenset({400, 413, 422}),
    "FAILED_PRECONDITION": frozenset({400, 404, 500, 502, 503}),
}
"""Which HTTP statuses are an honest word for what a gRPC status says."""

_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
_LARGEST_LINE_BYTES = 1 << 25
_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What reading something comes to that is no JSON, or JSON of another shape; clients of the dialect fare no better."""


class OpenAIGateway:
    """A gateway at a base URL ending in `/v1`. `lone_model` is a model of it that leads to the primary alone.

    `headers` go with every call: some gateways are configured by them.
    """

    def __init__(
        self, base_url: str, model: str, key: str = "", lone_model: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._lone_model = lone_model
        own = {"authorization": f"Bearer {key}"} if key else {}
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            headers={**own, **(headers or {})}, connector=connector, read_bufsize=_LARGEST_LINE_BYTES
        )

    @property
    def abilities(self) -> frozenset[Ability]:
        """Nothing can be set over HTTP but the model."""
        return frozenset({Ability.ALONE}) if self._lone_model else frozenset()

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def ask(self, ask: Ask, scenario: str, log: WallLog) -> Outcome:
        """One call."""
        outcome = Outcome(ask, log.now())
        patience = Patience(outcome, log)
        try:
            async with asyncio.timeout(ask.deadline_seconds) as deadline:
                await _until_left(self._call(ask, scenario, outcome, patience), ask, patience)
        except TimeoutError:
            if not deadline.expired():
                raise
            _broken(outcome, "DEADLINE_EXCEEDED", "the caller's time ran out")
        except (aiohttp.ClientError, ConnectionError, *_UNREADABLE) as error:
            _broken(outcome, "UNAVAILABLE", type(error).__name__)
        if not patience.has_left:
            outcome.ended_at = log.now()
            outcome.terminals += outcome.status is not Status.SERVED
        return outcome

    async def _call(self, ask: Ask, scenario: str, outcome: Outcome, patience: Patience) -> None:
        async with self._session.post(self._url, json=self._body(ask, scenario)) as response:
            if response.status != 200:
                _refused(outcome, response, await response.text(errors="replace"))
            elif ask.stream and "json" not in response.content_type:
                await _read(response, outcome, patience)
            else:
                _take(json.loads(await response.read()), outcome, patience)

    def _body(self, ask: Ask, scenario: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._lone_model if ask.alone else self._model,
            "messages": [{"role": "user", "content": prompt(scenario, ask.lane, ask.number)}],
            "stream": ask.stream,
        }
        if ask.offers_tool:
            body["tools"] = [_TOOL]
        return body


async def _until_left(call: Any, ask: Ask, patience: Patience) -> None:
    if ask.reader.leaves_after_seconds is None:
        await call
        return
    try:
        await asyncio.wait_for(call, ask.reader.leaves_after_seconds)
    except TimeoutError:
        patience.leave()


def _refused(outcome: Outcome, response: aiohttp.ClientResponse, text: str) -> None:
    codes = {code for code, statuses in _STATUSES.items() if response.status in statuses}
    outcome.status, outcome.codes = Status.FAILED, frozenset(codes) or frozenset({f"HTTP {response.status}"})
    outcome.error_text = text
    try:
        outcome.retry_after_seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        outcome.retry_after_seconds = None


def _broken(outcome: Outcome, code: str, reason: str) -> None:
    begun = bool(outcome.text or outcome.arguments)
    outcome.status = Status.INTERRUPTED if begun else Status.FAILED
    outcome.codes = frozenset({"ABORTED", code} if begun else {code})
    outcome.reason = reason


def _take(answer: Any, outcome: Outcome, patience: Patience) -> None:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices:
        _broken(outcome, "UNAVAILABLE", "a 200 without an answer")
        return
    message = choices[0].get("message") or {}
    patience.took(message.get("content") or "")
    outcome.arguments = "".join(call["function"]["arguments"] for call in message.get("tool_calls") or ())
    outcome.status, outcome.codes = Status.SERVED, frozenset({"OK"})
    outcome.finish = str(choices[0].get("finish_reason") or "")
    outcome.terminals += 1


async def _read(response: aiohttp.ClientResponse, outcome: Outcome, patience: Patience) -> None:
    """Reads as ordinary clients do: a stream that ends without an error is taken for whole."""
    async for data in _events(response):
        if data == "[DONE]":
            outcome.terminals += 1
        elif outcome.terminals:
            outcome.after_terminal += 1
        else:
            content = json.loads(data)
            if "error" in content:
                _broken(outcome, "UNAVAILABLE", "an error event")
                return
            _add(content, outcome, patience)
        if not await patience.before_next():
            return
    outcome.terminals = max(outcome.terminals, 1)
    outcome.status, outcome.codes = Status.SERVED, frozenset({"OK"})


def _add(content: Mapping[str, Any], outcome: Outcome, patience: Patience) -> None:
    for choice in content.get("choices") or ():
        delta = choice.get("delta") or {}
        if delta.get("content"):
            patience.took(delta["content"])
        for call in delta.get("tool_calls") or ():
            outcome.arguments += call.get("function", {}).get("arguments") or ""
        outcome.finish = choice.get("finish_reason") or outcome.finish


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
    async for line in response.content:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("data:"):
            yield text.removeprefix("data:").strip()
