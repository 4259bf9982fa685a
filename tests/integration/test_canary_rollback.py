"""A canary over two real processes: neither sees enough by itself, together they do, and both go back."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from kit.command_line import COMMAND, environment, serving
from kit.databases import PostgresServer
from kit.running import MODEL, router, spec
from pointsman.v1.router_service_pb2 import CompleteRequest
from pointsman_server.execution.canary_samples import LEAST_SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.long]

SETTLED_SECONDS = 8.0
"""Within so long the processes told each other, judged, and went back."""


def policy(model_name: str) -> str:
    """A policy whose only deployment is named after its model, so that nothing of one is held against the other."""
    return json.dumps(
        {
            "version": 1,
            "providers": {"up": {"dialect": "openai_chat", "base_url": "http://127.0.0.1:1/v1", "simulated": True}},
            "models": {"m": MODEL},
            "deployments": {model_name: {"provider": "up", "model": "m", "model_name": model_name}},
            "peers": {"requests_per_minute": "none"},
        }
    )


class Site:
    """Two processes over one database."""

    def __init__(self, url: str, addresses: list[str], folder: Path) -> None:
        self.url, self.addresses, self._folder = url, addresses, folder

    def try_out(self, percent: int) -> None:
        """As operators do."""
        file = self._folder / "next.yaml"
        file.write_text(policy("sim-fault-404"))
        subprocess.run(
            [*COMMAND, "policy", "canary", str(file), "--percent", str(percent)],
            check=True, capture_output=True, timeout=60, env=environment(POINTSMAN_DATABASE_URL=self.url),
        )  # fmt: skip

    def events(self) -> list[tuple[str, str, str]]:
        """Who did what with trials and why, in order."""
        with psycopg.connect(self.url) as connection:
            query = "SELECT actor, action, comment FROM audit_events WHERE target = 'rollout' ORDER BY id"
            return list(connection.execute(query))


@pytest.fixture
def site(postgres_server: PostgresServer, tmp_path: Path) -> Generator[Site, None, None]:
    url = postgres_server.make()
    with ExitStack() as stack:
        addresses = []
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            started = serving(folder, policy("sim-fast"), POINTSMAN_DATABASE_URL=url)
            addresses.append(stack.enter_context(started)[1])
        yield Site(url, addresses, tmp_path)


async def outcomes(stub: Any, calls: int) -> Counter[str]:
    """How so many calls end."""
    seen: Counter[str] = Counter()
    for _ in range(calls):
        try:
            await stub.Complete(CompleteRequest(completion=spec()), timeout=20)
        except grpc.aio.AioRpcError as error:
            seen[error.code().name] += 1
        else:
            seen["OK"] += 1
    return seen


async def test_what_all_processes_saw_counts_together_and_all_go_back(site: Site) -> None:
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(one)) for one in site.addresses]
        stubs = [router(channel) for channel in channels]
        site.try_out(50)
        await asyncio.sleep(1.5)
        seen = [await outcomes(stub, 66) for stub in stubs]
        failed = [sum(one.values()) - one["OK"] for one in seen]
        assert max(failed) < LEAST_SAMPLES <= sum(failed), "alone, each has seen too little"
        async with asyncio.timeout(SETTLED_SECONDS):
            while len(site.events()) < 2:  # noqa: ASYNC110 - what it waits for happens in another process
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
        assert [await outcomes(stub, 20) for stub in stubs] == [Counter(OK=20), Counter(OK=20)]
        (_, begun, _), (actor, ended, comment) = site.events()
        assert (begun, actor, ended) == ("rollout_set", "automatic rollback", "rollout_ended")
        assert comment.startswith("100.0% of its calls failed")
