"""Several serving processes on the same ports: a parent starts them, watches them, shows their metrics and ends them.

The kernel spreads new connections over the processes that listen on a port (SO_REUSEPORT). The parent answers no calls.
It starts processes and never forks: a copy of a process that has threads, gRPC's for example, is not a working one.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException

import orjson
import structlog

from pointsman_server.bootstrap.worker_metrics import merge
from pointsman_server.config.settings import Address, Settings
from pointsman_server.web.server import HttpServer

COMMAND = (sys.executable, "-P", "-m", "pointsman_server.cli", "serve", "--worker")
"""Starts a worker, with its number behind it; `-P` keeps modules of the working directory out."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
"""Between the end of a worker that ended by itself and its next start; twice as long each time it ends early."""

STEADY_SECONDS = 30.0
"""A worker that lived so long has not ended early."""

AT_ONCE_SECONDS = 1.0
"""When all workers ended within so long, something is wrong that starting them again does not mend."""

CLOSING_SECONDS = 10.0
"""Beyond the notice and the grace period of its calls, a worker has so long to close what it has open."""

FORCED_SECONDS = 5.0
"""The same when it was told to end at once."""

USUAL_HTTP_ADDRESS = Settings().http_address

_SCRAPE_SECONDS = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_LOG = structlog.stdlib.get_logger("pointsman.workers")


def run_workers(settings: Settings, environ: Mapping[str, str], *, on_ready: Callable[[int], None]) -> int:
    """Serves with `settings.workers` processes, which get this environment, until SIGTERM or SIGINT.

    A second signal ends at once. `on_ready` hears the port of `settings.grpc_address` when all of them serve. Gives the
    exit code: 0 after a signal, 1 when a worker could not start or none was left. Raises `OSError` when an address is
    taken.
    """
    with ExitStack() as held:
        taken = {name: held.enter_context(reserved(address)) for name, address in settings.grpc_addresses.items()}
        told = {name: str(address) for name, address in taken.items()}
        team = Team(
            COMMAND,
            {**environ, **told, "POINTSMAN_HTTP_ADDRESS": "127.0.0.1:0"},
            settings.workers,
            settings.drain_notice_seconds + settings.drain_grace_seconds,
        )
        port = taken["POINTSMAN_GRPC_ADDRESS"].port
        return asyncio.run(_serve(team, settings.http_address, lambda: on_ready(port)))


@contextmanager
def reserved(address: Address) -> Generator[Address, None, None]:
    """The address with its port, which nobody but processes of ours can take meanwhile. Raises `OSError`."""
    with ExitStack() as held:
        try:
            # Processes that share a port would not notice that it is somebody else's already.
            _bound(address, shares=False).close()
            port = held.enter_context(_bound(address, shares=True)).getsockname()[1]
        except OSError as error:
            raise OSError(f"cannot listen on {address}: is another server running there?") from error
        yield Address(address.host, port)


def _bound(address: Address, *, shares: bool) -> socket.socket:
    family, kind, protocol, _, at = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        bound.bind(at)
    except OSError:
        bound.close()
        raise
    return bound


async def _serve(team: Team, http_address: Address, on_ready: Callable[[], None]) -> int:
    loop = asyncio.get_running_loop()
    http = HttpServer(
        http_address.host,
        http_address.port,
        exposition=team.exposition,
        not_ready_because=lambda: team.not_ready_because,
    )
    for number in _SIGNALS:
        loop.add_signal_handler(number, team.end)
    try:
        http_port = await _start_http(http, http_address)

        def announce() -> None:
            served = str(Address(http_address.host, http_port)) if http_port else ""
            _LOG.info("workers_serve", workers=team.size, http_address=served)
            on_ready()

        return await team.run(announce)
    finally:
        await http.stop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _start_http(http: HttpServer, address: Address) -> int:
    """The port, 0 when it does without."""
    try:
        return await http.start()
    except OSError as error:
        if address != USUAL_HTTP_ADDRESS:
            raise
        # Nobody chose this address; a second server on a machine must not fail for want of a scrape.
        _LOG.warning("http_not_served", reason=str(error), remedy="set POINTSMAN_HTTP_ADDRESS to a free address")
        return 0


class Worker:
    """A place in the team: its process, or none while it waits to be started again.

    `http_port` is 0 until the process serves; `has_served` whether it ever did, `ended_at` when it ended last, on the
    monotonic clock.
    A worker tells its port in a line of JSON on its standard output, and ends when its standard input does: when the
    parent is gone, however that went.
    """

    def __init__(self, number: int, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.number = number
        self.http_port = 0
        self.has_served = False
        self.ended_at = -math.inf
        self._command = (*command, str(number))
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, which need not serve yet."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts its process."""
        self.has_served = False
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environ,
            # A terminal sends Ctrl-C to the whole group: the parent alone is to hear it, and to tell the others.
            process_group=0,
        )

    async def serves(self) -> bool:
        """Waits until it serves; False when it ended before."""
        output = self._output()
        while line := await output.readline():
            with suppress(ValueError, KeyError, TypeError):
                self.http_port = int(orjson.loads(line)["http_port"])
                self.has_served = True
                return True
        return False

    async def ended(self) -> int:
        """Waits for its end; gives the exit code, below 0 when a signal ended it."""
        output = self._output()
        while await output.read(4_096):
            pass
        self.http_port, self.ended_at = 0, time.monotonic()
        return await self._running().wait()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to its process, if there is one."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                self._running().send_signal(number)

    def metrics(self) -> str:
        """What it tells of itself, "" when it does not answer. Waits, and belongs off the event loop."""
        if not self.http_port:
            return ""
        connection = HTTPConnection("127.0.0.1", self.http_port, timeout=_SCRAPE_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return ""
        finally:
            connection.close()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the worker was not started")
        return self._process

    def _output(self) -> asyncio.StreamReader:
        output = self._running().stdout
        if output is None:
            raise RuntimeError("the worker's output is not read")
        return output


class Team:
    """All workers: run until `end`. Who ends by himself is started again, after a pause that grows."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], count: int, grace_seconds: float) -> None:
        self._workers = [Worker(number, command, environ) for number in range(1, count + 1)]
        self._grace_seconds = grace_seconds
        self._ending, self._forced, self._up = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._keepers: set[asyncio.Task[None]] = set()
        self._failed = False
        self._restarts = 0

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._workers)

    @property
    def not_ready_because(self) -> str:
        """Why no calls are answered, "" when they are."""
        if self._ending.is_set():
            return "draining"
        return "" if any(worker.http_port for worker in self._workers) else "no worker serves"

    def end(self) -> None:
        """Lets running calls end within the grace period; called once more, ends them at once."""
        if self._ending.is_set():
            self._forced.set()
        self._ending.set()

    async def run(self, on_ready: Callable[[], None]) -> int:
        """Gives the exit code."""
        self._keepers = {asyncio.create_task(self._keep(worker)) for worker in self._workers}
        await _first_of(self._up.wait(), self._ending.wait())
        if not self._ending.is_set():
            on_ready()
            await self._ending.wait()
        await self._end_all()
        return int(self._failed)

    def exposition(self) -> bytes:
        """The metrics of all workers and of the team. Waits, and belongs off the event loop."""
        with ThreadPoolExecutor(self.size) as pool:
            texts = pool.map(Worker.metrics, self._workers)
        serving = sum(worker.http_port > 0 for worker in self._workers)
        own = (
            "# HELP pointsman_workers Processes that answer calls.\n"
            "# TYPE pointsman_workers gauge\n"
            f"pointsman_workers {serving}\n"
            "# HELP pointsman_worker_restarts_total Processes started again because they had ended by themselves.\n"
            "# TYPE pointsman_worker_restarts_total counter\n"
            f"pointsman_worker_restarts_total {self._restarts}\n"
        )
        numbers = (worker.number for worker in self._workers)
        return (own + merge(dict(zip(numbers, texts, strict=True)))).encode()

    async def _keep(self, worker: Worker) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            started_at = time.monotonic()
            await worker.start()
            if self._ending.is_set():
                worker.send(signal.SIGTERM)
            if await worker.serves() and all(one.has_served for one in self._workers):
                self._up.set()
            code = await worker.ended()
            if self._ending.is_set():
                self._note_end(worker, code)
                return
            if worker.ended_at - started_at > STEADY_SECONDS:
                pause_seconds = FIRST_PAUSE_SECONDS
            hopeless = self._why_give_up(worker)
            if hopeless:
                self._give_up(worker, code, hopeless)
                return
            _LOG.error("worker_ended", worker=worker.number, exit_code=code, again_in_seconds=pause_seconds)
            await self._pause(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
            self._restarts += 1

    def _why_give_up(self, worker: Worker) -> str:
        """Why it is of no use to start it again, "" when it is."""
        if not self._up.is_set():
            return "a worker could not start"
        if any(one.is_alive for one in self._workers):
            return ""
        if all(worker.ended_at - one.ended_at < AT_ONCE_SECONDS for one in self._workers):
            return "all workers ended at once"
        return "" if worker.has_served else "no worker can start any more"

    def _give_up(self, worker: Worker, code: int, reason: str) -> None:
        _LOG.error("worker_ended", worker=worker.number, exit_code=code)
        _LOG.error("workers_given_up", reason=reason)
        self._failed = True
        self._ending.set()

    def _note_end(self, worker: Worker, code: int) -> None:
        # One that had not begun to serve does not know what to do with the signal, and nobody misses it.
        if code and (worker.has_served or code != -signal.SIGTERM):
            _LOG.error("worker_ended", worker=worker.number, exit_code=code)
            self._failed = self._failed or not self._forced.is_set()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)

    async def _end_all(self) -> None:
        _LOG.info("draining", grace_seconds=self._grace_seconds, workers=self.size)
        self._send(signal.SIGTERM)
        await _first_of(self._all_ended(self._grace_seconds + CLOSING_SECONDS), self._forced.wait())
        if self._forced.is_set():
            _LOG.warning("forced_to_end")
            self._send(signal.SIGINT)
            await self._all_ended(FORCED_SECONDS)
        self._send(signal.SIGKILL)  # whoever is left hangs
        await self._all_ended(None)
        _LOG.info("closed")

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(number)

    async def _all_ended(self, timeout_seconds: float | None) -> None:
        await asyncio.wait(self._keepers, timeout=timeout_seconds)


async def _first_of(*awaitables: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(one) for one in awaitables]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
