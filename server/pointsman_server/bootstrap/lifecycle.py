"""From start to end of a serving process: start → serve → drain → close, driven by signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import structlog
import uvloop

from pointsman_server.bootstrap.service import Service

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_LOG = structlog.stdlib.get_logger("pointsman.lifecycle")


def run_service(service: Service, *, on_ready: Callable[[int], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends at once. Raises `OSError` when it cannot listen."""
    uvloop.run(_run(service, on_ready))


async def _run(service: Service, on_ready: Callable[[int], None] | None) -> None:
    stop, force = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (force if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
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
