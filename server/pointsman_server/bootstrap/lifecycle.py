"""From start to end of a serving process: start → serve → drain → close, driven by signals."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import structlog
import uvloop

from pointsman_server.bootstrap.service import Service

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_LOG = structlog.stdlib.get_logger("pointsman.lifecycle")


def run_service(service: Service, *, on_ready: Callable[[int], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends at once. Raises `OSError` when it cannot listen."""
    uvloop.run(_run(service, on_ready))


def run_worker(service: Service, *, on_ready: Callable[[], None]) -> None:
    """Serves as one of several until SIGTERM, or until standard input ends because the parent is gone; SIGINT ends at
    once.

    SIGTERM ends nothing by force however often it comes: who stops a service may send it to all of its processes, and
    so does the parent. Raises `OSError` when it cannot listen.
    """
    ended = threading.Event()
    threading.Thread(target=_end_with_parent, args=(ended,), name="watch-parent", daemon=True).start()
    try:
        uvloop.run(_run(service, lambda _: on_ready(), is_worker=True))
    finally:
        ended.set()


def _end_with_parent(ended: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 4_096):  # not by the stream, which the interpreter wants to close at its end
            pass
    if not ended.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


async def _run(service: Service, on_ready: Callable[[int], None] | None, *, is_worker: bool = False) -> None:
    stop, force = asyncio.Event(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if (number is signal.SIGINT) if is_worker else stop.is_set():
            force.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await service.start()
        if on_ready is not None:
            on_ready(service.port)
        await stop.wait()
        await _drain(service, force)
    finally:
        await service.close()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _drain(service: Service, force: asyncio.Event) -> None:
    draining = asyncio.ensure_future(service.drain())
    forced = asyncio.ensure_future(force.wait())
    await asyncio.wait((draining, forced), return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        _LOG.warning("forced_to_end")
        draining.cancel()
    forced.cancel()
    ended, _ = await asyncio.gather(draining, forced, return_exceptions=True)
    if isinstance(ended, Exception):
        _LOG.error("draining_failed", error=type(ended).__name__)
