"""The simulator under test, and what talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from pointsman_server.simulator.script import Dialect
from pointsman_server.simulator.server import RunningSimulator, start_simulator
from unit.simulator.sdk_readers import READERS
from unit.simulator.sdk_reading import Read, Reader, Wanted
from unit.simulator.wire_client import RawClient


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
