"""Servers in a thread of their own, for callers that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")

_SECONDS = 20


@contextmanager
def in_thread(opened: Callable[[], AbstractAsyncContextManager[T]]) -> Generator[T, None, None]:
    """What this opens, on an event loop of its own, until the block ends."""
    begun, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    found: list[T] = []

    async def serve() -> None:
        async with opened() as it:
            found.append(it)
            begun.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert begun.wait(_SECONDS)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(_SECONDS)
        loop.close()
