"""Starting and stopping the simulator as a server of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from pointsman_server.simulator.app import SIMULATION, Simulation, build_app
from pointsman_server.simulator.behaviour import Script
from pointsman_server.simulator.calls import CallLog

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 4010
_BACKLOG = 1_024
_STOP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RunningSimulator:
    """A simulator that listens. `base_url` has no slash at its end."""

    base_url: str
    _runner: web.AppRunner
    _simulation: Simulation

    @property
    def calls(self) -> CallLog:
        """The last requests received, oldest first."""
        return self._simulation.calls

    @property
    def open_connections(self) -> int:
        """How many requests are being served at this moment."""
        return self._simulation.open_connections

    def use(self, script: Script) -> None:
        """Follows another script from now on, with all counters at the start."""
        self._simulation.use(script)

    async def stop(self) -> None:
        """Stops listening and cuts what is being served."""
        await self._runner.cleanup()


async def start_simulator(host: str = LOOPBACK, port: int = 0, script: Script | None = None) -> RunningSimulator:
    """Listens on `host` (this machine alone, unless told otherwise) and `port` (0: any free one).

    Raises `OSError` when the port is taken.
    """
    app = build_app(script)
    # A caller that leaves must be noticed at once, so that open_connections tells the truth.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    except OSError:
        await runner.cleanup()
        raise
    bound_port = runner.addresses[0][1]
    shown_host = f"[{host}]" if ":" in host else host
    return RunningSimulator(f"http://{shown_host}:{bound_port}", runner, app[SIMULATION])


def run_simulator(
    host: str = LOOPBACK,
    port: int = DEFAULT_PORT,
    script: Script | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM. `on_ready` is told the base URL. Raises `OSError` when the port is taken."""
    asyncio.run(_serve_until_signal(host, port, script, on_ready))


async def _serve_until_signal(
    host: str, port: int, script: Script | None, on_ready: Callable[[str], None] | None
) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    simulator = await start_simulator(host, port, script)
    try:
        if on_ready is not None:
            on_ready(simulator.base_url)
        await stopped.wait()
    finally:
        await simulator.stop()
