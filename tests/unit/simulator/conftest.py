"""The simulator under test, and what talks to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from unit.simulator.sdk_readers import KEY, READERS, Read, Reader, Wanted

from pointsman_server.simulator.script import Dialect
from pointsman_server.simulator.server import RunningSimulator, start_simulator


@dataclass(frozen=True)
class Raw:
    """A response as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def raw_request(dialect: Dialect, model: str, stream: bool, extra: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A minimal request: path and body."""
    messages = [{"role": "user", "content": "How many trains leave at noon?"}]
    match dialect:
        case Dialect.GEMINI:
            method = "streamGenerateContent?alt=sse" if stream else "generateContent"
            contents = [{"role": "user", "parts": [{"text": messages[0]["content"]}]}]
            return f"/v1beta/models/{model}:{method}", {"contents": contents, **extra}
        case Dialect.ANTHROPIC:
            path, body = "/v1/messages", {"max_tokens": 1000, "messages": messages}
        case Dialect.OPENAI_CHAT:
            path, body = "/v1/chat/completions", {"messages": messages}
        case Dialect.OPENAI_RESPONSES:
            path, body = "/v1/responses", {"input": messages}
        case Dialect.COHERE:
            path, body = "/v2/chat", {"messages": messages}
    return path, {"model": model, **body, **({"stream": True} if stream else {}), **extra}


class RawClient:
    """Sends minimal requests and shows what comes back, byte for byte."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    def open(self, dialect: Dialect, *, model: str = "some-model", stream: bool = False, **extra: Any) -> Any:
        """The response as context manager, its body not read yet."""
        path, body = raw_request(dialect, model, stream, extra)
        return self.session.post(path, json=body, headers={"authorization": f"Bearer {KEY}"}, allow_redirects=False)

    async def send(self, dialect: Dialect, *, model: str = "some-model", stream: bool = False, **extra: Any) -> Raw:
        async with self.open(dialect, model=model, stream=stream, **extra) as response:
            return Raw(response.status, response.headers, await response.read())


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    running = await start_simulator()
    yield running
    await running.stop()


@pytest.fixture
async def raw(simulator: RunningSimulator) -> AsyncIterator[RawClient]:
    # Bodies that say gzip and are not should arrive as they are.
    async with aiohttp.ClientSession(simulator.base_url, auto_decompress=False) as session:
        yield RawClient(session)


@pytest.fixture
async def ask(simulator: RunningSimulator) -> AsyncIterator[Any]:
    """Asks in a dialect through its official SDK: `await ask(dialect, stream=True, text=..., tools=...)`."""
    readers: dict[Dialect, Reader] = {}

    async def ask_in(dialect: Dialect, *, stream: bool = False, **wanted: Any) -> Read:
        if dialect not in readers:
            readers[dialect] = READERS[dialect](simulator.base_url)
        return await readers[dialect].read(Wanted(**wanted), stream=stream)

    yield ask_in
    for reader in readers.values():
        await reader.close()
