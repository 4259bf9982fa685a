"""A second look over the wire: taken where the policy wants it, told as a factor, recorded, and replayed alike."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest

from kit.command_line import Cli
from kit.running import MODEL, connected, load_for_test, router, running_service, spec
from pointsman.v1.router_service_pb2 import RouteRequest
from pointsman_server.adapters.stores.decision_file import DECISIONS
from pointsman_server.bootstrap.service import Service
from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.decision.encoder import ENCODER

DOUBTFUL = "Would you trust a date of shell in a lake that lies above older pottery?"

pytestmark = pytest.mark.skipif(
    find_spec(ENCODER.module) is None, reason=f"needs the optional package {ENCODER.package}"
)


def policy(*, second_look: bool) -> LoadedPolicy:
    """One model that nobody calls: only decisions are asked for."""
    return load_for_test(
        {
            "providers": {"one": {"dialect": "openai_chat", "base_url": "http://127.0.0.1:9/v1"}},
            "models": {"one-model": {**MODEL, "price": [{"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}]}},
            "deployments": {"one": {"provider": "one", "model": "one-model", "model_name": "one-1"}},
            "routing": {"second_look": second_look},
        }
    )


async def factors(service: Service, tries: int) -> set[str]:
    """What went into the score, asked again until there was a second look: a busy machine may be too late for it."""
    found: set[str] = set()
    async with connected(service) as channel:
        for _ in range(tries):
            answer = await router(channel).Route(RouteRequest(completion=spec(DOUBTFUL)))
            found = {factor.name for factor in answer.decision.complexity.factors}
            if "second_look" in found:
                break
            await asyncio.sleep(0.05)
    return found


async def test_it_is_told_recorded_and_replayed(tmp_path: Path) -> None:
    async with running_service(policy(second_look=True), state_dir=str(tmp_path)) as service:
        assert "second_look" in await factors(service, tries=400)
    kept = (tmp_path / DECISIONS).read_text()
    assert "second_look" in kept
    assert "shell" not in kept
    replayed = Cli()("replay", str(tmp_path))
    assert replayed.exit_code == 0, replayed.output


async def test_it_is_off_unless_asked_for() -> None:
    async with running_service(policy(second_look=False)) as service:
        assert "second_look" not in await factors(service, tries=3)
