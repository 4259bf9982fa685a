"""The client in its two forms, called alike, so that one test can try both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.message import Message as ProtoMessage

from pointsman_client import Answer, AsyncClient, Client, Decision, Embeddings, PointsmanError, StreamEvent


@dataclass
class Target:
    """Any running server."""

    target: str

    def client(self, **options: Any) -> Client:
        return Client(self.target, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        return AsyncClient(self.target, **options)


@dataclass
class Reading:
    """What reading a stream gave."""

    events: list[StreamEvent] = field(default_factory=list)
    deltas: list[str] = field(default_factory=list)
    answer: Answer | None = None
    partial_text: str = ""
    error: PointsmanError | None = None


class Caller(Protocol):
    """The client in one of its forms, called alike."""

    async def complete(self, prompt: Any, **options: Any) -> Answer:
        """See `Client.complete`."""

    async def route(self, prompt: Any, **options: Any) -> Decision:
        """See `Client.route`."""

    async def embed(self, texts: Any, **options: Any) -> Embeddings:
        """See `Client.embed`."""

    async def record_feedback(self, *verdict: Any, **options: Any) -> None:
        """See `Client.record_feedback`."""

    async def read(self, prompt: Any, **options: Any) -> Reading:
        """Reads a stream event by event."""

    async def read_text(self, prompt: Any, **options: Any) -> Reading:
        """Reads a stream's text."""

    async def finish(self, prompt: Any, **options: Any) -> Answer:
        """Reads one event of a stream by itself and lets `finish()` do the rest."""

    async def leave_loop(self, prompt: Any, **options: Any) -> Any:
        """Leaves a loop after the first event and returns the stream, still referenced."""

    async def leave_text_loop(self, prompt: Any, **options: Any) -> Any:
        """Leaves a loop over the text after the first piece and returns the stream, still referenced."""

    async def leave_block(self, prompt: Any, **options: Any) -> Any:
        """Reads one event inside a `with` block, leaves the block and returns the stream."""

    async def step_until_error(self, prompt: Any, **options: Any) -> Any:
        """Reads events one by one until one cannot be read, and returns the stream, still referenced."""

    async def raw(self, rpc: str, request: ProtoMessage, **options: Any) -> Any:
        """Calls a stub of the contract."""

    async def close(self) -> None:
        """See `Client.close`."""


class SyncCaller:
    """The sync client, called from a thread."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def complete(self, prompt: Any, **options: Any) -> Answer:
        return await asyncio.to_thread(self.client.complete, prompt, **options)

    async def route(self, prompt: Any, **options: Any) -> Decision:
        return await asyncio.to_thread(self.client.route, prompt, **options)

    async def embed(self, texts: Any, **options: Any) -> Embeddings:
        return await asyncio.to_thread(self.client.embed, texts, **options)

    async def record_feedback(self, *verdict: Any, **options: Any) -> None:
        await asyncio.to_thread(self.client.record_feedback, *verdict, **options)

    async def read(self, prompt: Any, **options: Any) -> Reading:
        def read() -> Reading:
            reading = Reading()
            with self.client.stream(prompt, **options) as stream:
                try:
                    for event in stream:
                        reading.events.append(event)
                    reading.answer = stream.answer
                except PointsmanError as error:
                    reading.error = error
                reading.partial_text = stream.partial_text
            return reading

        return await asyncio.to_thread(read)

    async def read_text(self, prompt: Any, **options: Any) -> Reading:
        def read() -> Reading:
            stream = self.client.stream(prompt, **options)
            return Reading(deltas=list(stream.text_deltas()), answer=stream.answer)

        return await asyncio.to_thread(read)

    async def finish(self, prompt: Any, **options: Any) -> Answer:
        def read() -> Answer:
            stream = self.client.stream(prompt, **options)
            next(stream)
            return stream.finish()

        return await asyncio.to_thread(read)

    async def leave_loop(self, prompt: Any, **options: Any) -> Any:
        def read() -> Any:
            stream = self.client.stream(prompt, **options)
            for _ in stream:
                break
            return stream

        return await asyncio.to_thread(read)

    async def leave_text_loop(self, prompt: Any, **options: Any) -> Any:
        def read() -> Any:
            stream = self.client.stream(prompt, **options)
            for _ in stream.text_deltas():
                break
            return stream

        return await asyncio.to_thread(read)

    async def leave_block(self, prompt: Any, **options: Any) -> Any:
        def read() -> Any:
            with self.client.stream(prompt, **options) as stream:
                next(stream)
            return stream

        return await asyncio.to_thread(read)

    async def step_until_error(self, prompt: Any, **options: Any) -> Any:
        def read() -> Any:
            stream = self.client.stream(prompt, **options)
            with contextlib.suppress(PointsmanError):
                while next(stream, None):
                    pass
            return stream

        return await asyncio.to_thread(read)

    async def raw(self, rpc: str, request: ProtoMessage, **options: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client.router, rpc), request, **options)

    async def close(self) -> None:
        self.client.close()


class AsyncCaller:
    """The async client."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def complete(self, prompt: Any, **options: Any) -> Answer:
        return await self.client.complete(prompt, **options)

    async def route(self, prompt: Any, **options: Any) -> Decision:
        return await self.client.route(prompt, **options)

    async def embed(self, texts: Any, **options: Any) -> Embeddings:
        return await self.client.embed(texts, **options)

    async def record_feedback(self, *verdict: Any, **options: Any) -> None:
        await self.client.record_feedback(*verdict, **options)

    async def read(self, prompt: Any, **options: Any) -> Reading:
        reading = Reading()
        async with self.client.stream(prompt, **options) as stream:
            try:
                async for event in stream:
                    reading.events.append(event)
                reading.answer = stream.answer
            except PointsmanError as error:
                reading.error = error
            reading.partial_text = stream.partial_text
        return reading

    async def read_text(self, prompt: Any, **options: Any) -> Reading:
        stream = self.client.stream(prompt, **options)
        return Reading(deltas=[text async for text in stream.text_deltas()], answer=stream.answer)

    async def finish(self, prompt: Any, **options: Any) -> Answer:
        stream = self.client.stream(prompt, **options)
        await anext(stream)
        return await stream.finish()

    async def leave_loop(self, prompt: Any, **options: Any) -> Any:
        stream = self.client.stream(prompt, **options)
        async for _ in stream:
            break
        return stream

    async def leave_text_loop(self, prompt: Any, **options: Any) -> Any:
        stream = self.client.stream(prompt, **options)
        async for _ in stream.text_deltas():
            break
        return stream

    async def leave_block(self, prompt: Any, **options: Any) -> Any:
        async with self.client.stream(prompt, **options) as stream:
            await anext(stream)
        return stream

    async def step_until_error(self, prompt: Any, **options: Any) -> Any:
        stream = self.client.stream(prompt, **options)
        with contextlib.suppress(PointsmanError):
            while await anext(stream, None):
                pass
        return stream

    async def raw(self, rpc: str, request: ProtoMessage, **options: Any) -> Any:
        return await getattr(self.client.router, rpc)(request, **options)

    async def close(self) -> None:
        await self.client.close()


CALLERS: dict[str, Callable[..., Caller]] = {
    "sync": lambda backend, **options: SyncCaller(backend.client(**options)),
    "async": lambda backend, **options: AsyncCaller(backend.async_client(**options)),
}


@asynccontextmanager
async def caller_of(form: str, target: str, **options: Any) -> AsyncIterator[Any]:
    """A caller of any server; closed in the end."""
    caller = CALLERS[form](Target(target), **options)
    try:
        yield caller
    finally:
        await caller.close()
