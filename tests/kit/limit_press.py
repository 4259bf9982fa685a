"""A process that presses against a rate limit: `python -m kit.limit_press URL LIMIT SECONDS WORKERS`.

It says "ready", waits for a line, presses until nothing passed for so many seconds, and says when calls were let
through (monotonic clock, which all processes of a machine share), how many were not, and for what reason.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import orjson

from kit.limiting import SALT, governed
from pointsman_server.adapters.stores.redis_counters import RedisCounters
from pointsman_server.adapters.stores.sql.counter_store import SqlCounters
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.errors import RouterError
from pointsman_server.execution.counters import Counters
from pointsman_server.execution.limits import Limits

_TESTS = Path(__file__).resolve().parents[1]
_PAUSE_SECONDS = 0.002


@asynccontextmanager
async def counters_at(url: str) -> AsyncGenerator[Counters, None]:
    """The counters that a server with this URL would use."""
    if url.startswith("redis:"):
        kept = RedisCounters(url)
        try:
            yield kept
        finally:
            await kept.close()
        return
    database = Database(url)
    try:
        yield SqlCounters(database, SystemClock())
    finally:
        await database.close()


async def press(url: str, limit: int, seconds: float, workers: int) -> dict[str, object]:
    """Presses with so many workers at once until nothing passed for so many seconds."""
    passed: list[float] = []
    refused: Counter[str] = Counter()
    async with counters_at(url) as counters:
        await counters.check()
        limits = Limits(counters, SystemClock(), SALT)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        passed.append(monotonic())

        async def work() -> None:
            while monotonic() < passed[-1] + seconds:
                try:
                    await limits.admit("acme", "", "", governed(limit))
                    passed.append(monotonic())
                except RouterError as error:
                    refused[type(error).__name__] += 1
                    await asyncio.sleep(_PAUSE_SECONDS)

        await asyncio.gather(*(work() for _ in range(workers)))
        await limits.close()
    return {"passed": passed[1:], "refused": refused}


@dataclass(frozen=True)
class Pressed:
    """What all processes together saw."""

    passed: list[float]
    refused: Counter[str]

    def most_within(self, seconds: float) -> int:
        """The largest number of calls that were let through within so many seconds, wherever these begin."""
        most = begin = 0
        for end, at in enumerate(self.passed):
            while at - self.passed[begin] >= seconds:
                begin += 1
            most = max(most, end - begin + 1)
        return most


async def press_from(processes: int, url: str, limit: int, seconds: float, workers: int) -> Pressed:
    """Presses from so many processes at the same time."""
    command = [sys.executable, "-m", "kit.limit_press", url, str(limit), str(seconds), str(workers)]
    pipe = asyncio.subprocess.PIPE
    environ = {**os.environ, "PYTHONPATH": str(_TESTS)}
    async with AsyncExitStack() as stack:
        all_of_them = []
        for _ in range(processes):
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environ, limit=2**26)
            stack.callback(_end, process)
            all_of_them.append(process)
        for process in all_of_them:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        saw = await asyncio.gather(*(process.communicate(b"go\n") for process in all_of_them))
    told = [orjson.loads(out.splitlines()[-1]) for out, _ in saw]
    refused: Counter[str] = Counter()
    for one in told:
        refused.update(one["refused"])
    return Pressed(sorted(at for one in told for at in one["passed"]), refused)


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


if __name__ == "__main__":
    _, _url, _limit, _seconds, _workers = sys.argv
    _said = asyncio.run(press(_url, int(_limit), float(_seconds), int(_workers)))
    print(orjson.dumps(_said).decode(), flush=True)
