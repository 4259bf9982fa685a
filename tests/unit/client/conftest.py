"""Every combination of backend and form of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from kit.client_backends import BACKENDS, Backend
from kit.client_callers import CALLERS, Caller


@pytest.fixture(params=BACKENDS)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    async with BACKENDS[request.param]() as running:
        yield running


@pytest.fixture(params=CALLERS)
async def connect(request: pytest.FixtureRequest, backend: Backend) -> AsyncIterator[Callable[..., Caller]]:
    """Makes callers with options of their own; they are closed after the test."""
    callers: list[Caller] = []

    def make(**options: Any) -> Caller:
        callers.append(CALLERS[request.param](backend, **options))
        return callers[-1]

    yield make
    for caller in callers:
        await caller.close()


@pytest.fixture
def caller(connect: Callable[..., Caller]) -> Caller:
    return connect()
