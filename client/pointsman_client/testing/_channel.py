"""gRPC channels that lead to a router in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message as ProtoMessage

from pointsman_client.errors import Cancelled
from pointsman_client.testing._script import rpc_error


class Served(Protocol):
    """One call that is being answered."""

    cancelled: bool
    responses: tuple[ProtoMessage, ...]
    error: grpc.aio.AioRpcError | None


class Serve(Protocol):
    """Takes a call in and says how it goes."""

    def __call__(self, path: str, request: Any, timeout: float | None, metadata: Any) -> Served: ...


class InMemoryChannel:
    """What the contract's stubs need of a `grpc.Channel`, sync or async: `unary` and `stream` make their methods."""

    def __init__(self, serve: Serve, unary: type[_Method], stream: type[_Method]) -> None:
        self._serve = serve
        self._unary = unary
        self._stream = stream

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, _registered_method: bool = False
    ) -> _Method:
        """See `grpc.Channel`."""
        return self._unary(self._serve, path, request_serializer, response_deserializer)

    def unary_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, _registered_method: bool = False
    ) -> _Method:
        """See `grpc.Channel`."""
        return self._stream(self._serve, path, request_serializer, response_deserializer)


class SyncChannel(InMemoryChannel):
    """Looks like a `grpc.Channel`."""

    def __init__(self, serve: Serve) -> None:
        super().__init__(serve, _SyncUnary, _Stream)

    def close(self) -> None:
        """Nothing is open."""


class AsyncChannel(InMemoryChannel):
    """Looks like a `grpc.aio.Channel`."""

    def __init__(self, serve: Serve) -> None:
        super().__init__(serve, _AsyncUnary, _Stream)

    async def close(self, grace: float | None = None) -> None:
        """Nothing is open."""


class _Method:
    """One RPC. Messages travel as bytes here too, so that neither side holds the other's objects."""

    def __init__(
        self,
        serve: Serve,
        path: str,
        serialize: Callable[[Any], bytes],
        deserialize: Callable[[bytes], Any],
    ) -> None:
        self._serve = serve
        self._path = path
        self._serialize = serialize
        self._deserialize = deserialize

    def _begin(self, request: Any, timeout: float | None, metadata: Any) -> Served:
        copied = type(request).FromString(self._serialize(request))
        return self._serve(self._path, copied, timeout, tuple(metadata or ()))

    def _copy(self, response: ProtoMessage) -> Any:
        return self._deserialize(response.SerializeToString())

    def _only(self, served: Served) -> Any:
        if served.error is not None:
            raise served.error
        return self._copy(served.responses[0])


class _SyncUnary(_Method):
    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **_: Any) -> Any:
        return self._only(self._begin(request, timeout, metadata))


class _AsyncUnary(_Method):
    async def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **_: Any) -> Any:  # noqa: ASYNC109 - gRPC's name
        served = self._begin(request, timeout, metadata)
        await asyncio.sleep(0)
        return self._only(served)


class _Stream(_Method):
    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **_: Any) -> Any:
        return _StreamCall(self._begin(request, timeout, metadata), self._copy)


class _StreamCall:
    """A stream being read, in either way."""

    def __init__(self, served: Served, copy: Callable[[ProtoMessage], Any]) -> None:
        self._served = served
        self._copy = copy
        self._sent = 0
        self._done = False

    def cancel(self) -> bool:
        """Ends the call; False when it was over."""
        if self._done:
            return False
        self._done = self._served.cancelled = True
        return True

    def __iter__(self) -> _StreamCall:
        return self

    def __aiter__(self) -> _StreamCall:
        return self

    def __next__(self) -> Any:
        response = self._next()
        if response is None:
            raise StopIteration
        return response

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        response = self._next()
        if response is None:
            raise StopAsyncIteration
        return response

    def _next(self) -> Any:
        served = self._served
        if served.cancelled:
            raise rpc_error(Cancelled("the call was cancelled", reason=""), "")
        if self._sent < len(served.responses):
            self._sent += 1
            return self._copy(served.responses[self._sent - 1])
        self._done = True
        if served.error is not None:
            raise served.error
        return None

    def __del__(self) -> None:
        self.cancel()
