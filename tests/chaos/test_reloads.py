"""A hundred policies within half a minute, under a load that does not wait for anybody: what do callers notice?"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.command_line import serving
from kit.running import MODEL, router, spec
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1.admin_service_pb2_grpc import AdminServiceStub
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest

RELOADS = 100
CALLS_PER_SECOND = 200
ANSWERED_EACH = 4
"""One call in so many asks for an answer, the others for a decision: all that two cores carry beside other tests."""

CONNECTIONS = 8
"""Together they take 800 calls at once, so that none waits for another on the caller's side."""

EVERY_SECONDS = 0.2
FROM_A_FILE = 10
"""Every so many policies come as a file, the others over AdminService."""


def policy(number: int) -> str:
    """A call costs as many micro-USD as the policy's number says."""
    price = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0, "per_request_usd": f"{number / 1e6:.6f}"}
    return json.dumps(
        {
            "version": 1,
            "providers": {"up": {"dialect": "openai_chat", "base_url": "http://127.0.0.1:1/v1", "simulated": True}},
            "models": {"m": {**MODEL, "price": [price]}},
            "deployments": {"only": {"provider": "up", "model": "m", "model_name": "m-1"}},
        },
        indent=1,
    )


@dataclass
class Answers:
    """What callers saw, and when: version and cost, and the policy in force when the call began.

    A decision has no cost.
    """

    seen: list[tuple[str, int | None, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    latest_start_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)


class Load:
    """Begins a call every two hundredth of a second, whatever became of the others."""

    def __init__(self, channels: list[grpc.aio.Channel]) -> None:
        self._stubs = [router(channel) for channel in channels]
        self.answers = Answers()
        self.in_force = 0
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`; returns when all calls have ended."""
        began, running = time.monotonic(), set[asyncio.Task[None]]()
        number = 0
        while not self._over.is_set():
            due = began + number / CALLS_PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.answers.latest_start_seconds = max(self.answers.latest_start_seconds, time.monotonic() - due)
            stub = self._stubs[number % len(self._stubs)]
            task = asyncio.create_task(self._call(self._ask if number % ANSWERED_EACH == 0 else self._route, stub))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
        await asyncio.gather(*running)

    def stop(self) -> None:
        """No more calls."""
        self._over.set()

    async def _call(self, call: Callable[[Any], Awaitable[tuple[str, int | None]]], stub: Any) -> None:
        in_force, began = self.in_force, time.monotonic()
        try:
            version, cost_micro_usd = await call(stub)
        except grpc.aio.AioRpcError as error:
            self.answers.failures.append(f"{error.code()} {error.details()}")
        else:
            self.answers.seen.append((version, cost_micro_usd, in_force))
            self.answers.seconds.append(time.monotonic() - began)

    async def _ask(self, stub: Any) -> tuple[str, int | None]:
        answer = await stub.Complete(CompleteRequest(completion=spec()), timeout=20)
        return answer.decision.policy_version, answer.usage.cost_micro_usd

    async def _route(self, stub: Any) -> tuple[str, int | None]:
        answer = await stub.Route(RouteRequest(completion=spec()), timeout=20)
        return answer.decision.policy_version, None


async def apply_all(admin: Any, file: Path, load: Load) -> dict[str, int]:
    """Puts one policy after the other in force; gives their numbers by version."""
    first = (await admin.GetPolicy(pb.GetPolicyRequest(), timeout=10)).policy.version
    numbers = {first: 0}
    for number in range(1, RELOADS + 1):
        await asyncio.sleep(EVERY_SECONDS)
        if number % FROM_A_FILE:
            request = pb.ApplyPolicyRequest(yaml=policy(number))
            numbers[(await admin.ApplyPolicy(request, timeout=20)).version] = number
        else:
            numbers[await _from_file(admin, file, number, numbers)] = number
        load.in_force = number
    return numbers


async def _from_file(admin: Any, file: Path, number: int, known: dict[str, int]) -> str:
    written = file.with_suffix(".new")
    written.write_text(policy(number))
    written.replace(file)
    async with asyncio.timeout(5):
        while True:
            version = str((await admin.GetPolicy(pb.GetPolicyRequest(), timeout=10)).policy.version)
            if version not in known:
                return version
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(150)
async def test_a_hundred_reloads_at_200_calls_a_second_cost_no_call(tmp_path: Path) -> None:
    with serving(tmp_path, policy(0), POINTSMAN_STATE_DIR=str(tmp_path / "state")) as (_, address):
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(
                    grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
                )
                for _ in range(CONNECTIONS)
            ]
            load = Load(channels)
            loading, began = asyncio.create_task(load.run()), time.monotonic()
            numbers = await apply_all(AdminServiceStub(channels[0]), tmp_path / "policy.yaml", load)
            seconds = time.monotonic() - began
            load.stop()
            await loading
    answers = load.answers
    assert not answers.failures
    # A load that waits is another one: what is late by more than this was the machine's doing, and is no proof.
    assert len(answers.seen) > 0.98 * seconds * CALLS_PER_SECOND, f"at most {answers.latest_start_seconds:.2f} s late"
    assert len(numbers) == RELOADS + 1
    assert len({version for version, _, _ in answers.seen}) > 0.9 * RELOADS, "calls saw the changes"
    for version, cost_micro_usd, in_force in answers.seen:
        assert cost_micro_usd in (None, numbers[version]), "decided under one policy and paid for under another"
        assert numbers[version] >= in_force, "an earlier policy came back"
    median = sorted(answers.seconds)[len(answers.seconds) // 2]
    print(
        f"{len(answers.seen)} calls in {seconds:.1f} s, begun at most {answers.latest_start_seconds:.3f} s late; "
        f"median {median:.4f} s, longest {max(answers.seconds):.3f} s"
    )
