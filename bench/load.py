"""The load generator: `python -m bench.load` reads a job from standard input and prints its outcome.

A target that begins with `http` is another gateway, and the method its path; all others are servers of ours.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count, cycle
from typing import Any

import aiohttp
import grpc
import uvloop

from bench.http_method import http_method
from bench.jobs import Job, Outcome, Percentiles
from bench.machine import cpu_seconds
from bench.payloads import COUNTED, THINKING_MARK

_CALL_SECONDS = 30.0
_SLOW_SECONDS = 0.03
"""What a slow reader waits after each message."""

_SLOW_EACH, _LEAVING_EACH = 10, 20
"""One caller in so many reads slowly, one in so many leaves after the first text, among the restless."""


class Load:
    """Counts what its callers do while `measuring`."""

    def __init__(self, job: Job, methods: Sequence[Any]) -> None:
        self._job = job
        self._methods = cycle(methods)
        self._begun = 0
        self._latencies: list[float] = []
        self._first_token_added: list[float] = []
        self._messages = 0
        self._failures = 0
        self._numbers = count() if COUNTED in job.request else None
        self.has_measured = asyncio.Event()
        """Whether there is anything to tell of; a disturbed machine may need longer than it was given."""
        self.measuring = False

    async def keep_calling(self, wait_seconds: float) -> None:
        """One caller of a closed loop, which begins after a while."""
        await asyncio.sleep(wait_seconds)
        while True:
            await self.call(time.monotonic())

    async def call(self, due_at: float) -> None:
        """One call that should have begun at `due_at`; its latency counts from there."""
        try:
            last = await (self._stream(due_at) if self._job.stream else self._whole())
        except (grpc.RpcError, aiohttp.ClientError, TimeoutError):
            last = b""
        if self.measuring:
            self._latencies.append(time.monotonic() - due_at)
            self._failures += self._job.expected not in last
            self.has_measured.set()

    async def _whole(self) -> bytes:
        request = self._job.request
        if self._numbers is not None:
            request = request.replace(COUNTED, b"%010d" % next(self._numbers))
        response: bytes = await next(self._methods)(request, timeout=_CALL_SECONDS)
        return response

    async def _stream(self, due_at: float) -> bytes:
        message, begun = b"", False
        self._begun += 1
        pause_seconds = _SLOW_SECONDS if self._job.restless and self._begun % _SLOW_EACH == 0 else 0.0
        leaves = self._job.restless and self._begun % _LEAVING_EACH == 1
        call = next(self._methods)(self._job.request, timeout=_CALL_SECONDS)
        async for message in call:
            self._messages += self.measuring
            if pause_seconds:
                await asyncio.sleep(pause_seconds)
            if leaves and begun:
                call.cancel()
                return self._job.expected
            if not begun and (mark := THINKING_MARK.search(message)):
                begun = True
                if self.measuring:
                    self._first_token_added.append(time.monotonic() - due_at - int(mark[1]) / 1e9)
        return message

    def outcome(self, seconds: float, server_cpu_seconds: float, load_cpu_seconds: float) -> Outcome:
        """The account."""
        return Outcome(
            seconds=seconds,
            calls=len(self._latencies),
            messages=self._messages,
            failures=self._failures,
            server_cpu_seconds=server_cpu_seconds,
            load_cpu_seconds=load_cpu_seconds,
            latency=Percentiles.of(self._latencies),
            first_token_added=Percentiles.of(self._first_token_added),
        )


async def _run(job: Job) -> Outcome:
    async with AsyncExitStack() as stack:
        load = Load(job, await (_over_http if job.target.startswith("http") else _over_grpc)(job, stack))
        drive = _open_loop(load, job) if job.calls_per_second else _closed_loop(load, job)
        callers = asyncio.ensure_future(drive)
        await asyncio.sleep(job.warmup_seconds)
        outcome = await _measure(load, job)
        callers.cancel()
        await asyncio.wait([callers])
    return outcome


async def _over_http(job: Job, stack: AsyncExitStack) -> list[Any]:
    connector = aiohttp.TCPConnector(limit=0)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    return [http_method(session, job.target + job.method, stream=job.stream)]


async def _over_grpc(job: Job, stack: AsyncExitStack) -> list[Any]:
    channels = [await stack.enter_async_context(_channel(job)) for _ in range(job.connections)]
    for channel in channels:
        await channel.channel_ready()
    return [_method(job, channel) for channel in channels]


def _channel(job: Job) -> grpc.aio.Channel:
    own = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(job.target, options=own)


def _method(job: Job, channel: grpc.aio.Channel) -> Any:
    open_method: Any = channel.unary_stream if job.stream else channel.unary_unary
    method = open_method(job.method)
    return partial(method, metadata=(("authorization", f"Bearer {job.key}"),)) if job.key else method


async def _measure(load: Load, job: Job) -> Outcome:
    pids = (job.server_pid, os.getpid())
    before, started_at = [cpu_seconds(pid) for pid in pids], time.monotonic()
    load.measuring = True
    await asyncio.sleep(job.seconds)
    async with asyncio.timeout(_CALL_SECONDS):
        await load.has_measured.wait()
    load.measuring = False
    seconds, after = time.monotonic() - started_at, [cpu_seconds(pid) for pid in pids]
    return load.outcome(seconds, after[0] - before[0], after[1] - before[1])


async def _closed_loop(load: Load, job: Job) -> None:
    # Callers that begin together would stay together: streams of equal length would all start at the same moments.
    spread = job.warmup_seconds / job.concurrency
    await asyncio.gather(*(load.keep_calling(number * spread) for number in range(job.concurrency)))


async def _open_loop(load: Load, job: Job) -> None:
    draw: Callable[[float], float] = random.Random(1).expovariate  # noqa: S311 - the same moments in every run
    running: set[asyncio.Task[None]] = set()
    due_at = time.monotonic()
    while True:
        due_at += draw(job.calls_per_second)
        await _sleep_until(due_at)
        task = asyncio.ensure_future(load.call(due_at))
        running.add(task)
        task.add_done_callback(running.discard)


def _sleep_until(moment: float) -> Awaitable[None]:
    return asyncio.sleep(max(0.0, moment - time.monotonic()))


if __name__ == "__main__":
    print(uvloop.run(_run(Job.from_json(sys.stdin.read()))).to_json())
