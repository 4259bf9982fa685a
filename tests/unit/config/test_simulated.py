"""Simulated providers follow the simulator that runs; real ones stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

from pointsman_server.config.policy_file import LoadedPolicy, load_policy
from pointsman_server.config.simulated import with_simulator

Compile = Callable[..., LoadedPolicy]
DEMO = Path(__file__).parents[3] / "deploy" / "policies" / "demo.yaml"


def test_every_dialect_keeps_its_path() -> None:
    snapshot = load_policy(DEMO, {}, date(2026, 11, 21)).snapshot
    moved = with_simulator(snapshot, "http://127.0.0.1:4321/")
    urls = {
        deployment.provider.dialect.value: deployment.provider.base_url for deployment in moved.deployments.values()
    }
    assert urls == {
        "anthropic_messages": "http://127.0.0.1:4321",
        "gemini_generate": "http://127.0.0.1:4321",
        "openai_chat": "http://127.0.0.1:4321/v1",
        "openai_responses": "http://127.0.0.1:4321/v1",
        "cohere_chat": "http://127.0.0.1:4321",
    }
    assert moved.version == snapshot.version


def test_real_providers_are_left_alone(good_policy: str, compile_text: Compile) -> None:
    mixed = good_policy.replace('"http://127.0.0.1:8089/v1"', '"http://127.0.0.1:8089/v1", simulated: true')
    moved = with_simulator(compile_text(mixed).snapshot, "http://127.0.0.1:4321")
    assert moved.deployments["claude-direct"].provider.base_url == "https://api.anthropic.com"
    assert moved.deployments["small-local"].provider.base_url == "http://127.0.0.1:4321/v1"


def test_simulated_provider_without_address_never_points_to_a_vendor(good_policy: str, compile_text: Compile) -> None:
    bare = good_policy.replace('base_url: "http://127.0.0.1:8089/v1"', "simulated: true")
    provider = compile_text(bare).snapshot.deployments["small-local"].provider
    assert provider.base_url == "http://127.0.0.1:8089/v1"
