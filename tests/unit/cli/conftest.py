from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from kit.running import MODEL, compile_for_test, running_service
from pointsman_server.cli.main import commands
from pointsman_server.domain.catalog import Snapshot

MODELS = ("sim-fast", "sim-cited", "sim-length", "sim-long", "sim-fault-401", "sim-fault-stream-error-mid")


def simulated_policy() -> Snapshot:
    """A deployment for each way of answering, named after it; `sim-fast` is the cheapest."""
    provider = {"dialect": "openai_chat", "base_url": "http://127.0.0.1:1/v1", "simulated": True}
    return compile_for_test(
        {
            "providers": {"sim": provider},
            "models": {
                name: {**MODEL, "price": [{"input_usd_per_mtok": place, "output_usd_per_mtok": place}]}
                for place, name in enumerate(MODELS, start=1)
            },
            "deployments": {name: {"provider": "sim", "model": name, "model_name": name} for name in MODELS},
        }
    )


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a whole pointsman, simulator included, that runs in a thread of its own."""
    address: list[str] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with running_service(simulated_policy()) as service:
            address.append(f"127.0.0.1:{service.port}")
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    yield address[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    loop.close()


class Cli:
    """Runs commands as the shell would, with standard output that is no terminal."""

    def __call__(self, *arguments: str, stdin: str | bytes | None = None, **environ: str | None) -> Result:
        cleared: dict[str, str | None] = dict.fromkeys(
            ("POINTSMAN_GRPC_ADDRESS", "POINTSMAN_POLICY_FILE", "POINTSMAN_WORKERS")
        )
        return CliRunner().invoke(commands, arguments, input=stdin, env=cleared | environ, prog_name="pointsman")


@pytest.fixture
def cli() -> Cli:
    return Cli()
