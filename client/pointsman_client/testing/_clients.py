"""Clients whose calls a router in memory answers."""

from __future__ import annotations

from typing import Unpack, cast

import grpc
import grpc.aio

from pointsman_client._options import ClientOptions
from pointsman_client.async_client import AsyncClient
from pointsman_client.client import Client
from pointsman_client.testing._channel import AsyncChannel, SyncChannel
from pointsman_client.testing._router import InMemoryRouter

_TARGET = "localhost"


class FakeClient(Client):
    """A `Client` that asks `in_memory` instead of a server; it takes the same options."""

    def __init__(self, in_memory: InMemoryRouter | None = None, **options: Unpack[ClientOptions]) -> None:
        self.in_memory = in_memory if in_memory is not None else InMemoryRouter()
        super().__init__(_TARGET, channel=cast("grpc.Channel", SyncChannel(self.in_memory.serve)), **options)


class FakeAsyncClient(AsyncClient):
    """An `AsyncClient` that asks `in_memory` instead of a server; it takes the same options."""

    def __init__(self, in_memory: InMemoryRouter | None = None, **options: Unpack[ClientOptions]) -> None:
        self.in_memory = in_memory if in_memory is not None else InMemoryRouter()
        super().__init__(_TARGET, channel=cast("grpc.aio.Channel", AsyncChannel(self.in_memory.serve)), **options)
