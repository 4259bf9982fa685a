"""Speaks to the simulator without any SDK, and shows what comes back byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from pointsman_server.simulator.script import Dialect
from unit.simulator.sdk_reading import KEY


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


async def speak_http(base_url: str, path: str, body: Any) -> bytes:
    """All bytes that come back on a connection of its own."""
    host, _, port = base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    payload = json.dumps(body).encode()
    writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload)
    received = await reader.read()
    writer.close()
    return received


def events(body: bytes) -> list[bytes]:
    """The data of all events, whatever their line ends."""
    return [line[6:] for line in body.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data: ")]
