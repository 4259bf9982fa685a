"""The policies that are delivered: they compile, keep their promises, and agree with the price list."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from genai_prices.data import providers

from pointsman_server.config.policy_file import load_policy
from pointsman_server.domain.catalog import Dialect, Snapshot
from pointsman_server.domain.request import Capability, DataClass, Tier
from pointsman_server.simulator.magic import MODEL_NAMES

POLICIES = Path(__file__).parents[3] / "deploy" / "policies"
KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-test-key-1",
    "GEMINI_API_KEY": "AQ.test-key-1",
    "OPENAI_API_KEY": "sk-test-key-1",
    "PERPLEXITY_API_KEY": "pplx-test-key-1",
    "COHERE_API_KEY": "test-key-number-1",
}
TODAY = date(2026, 11, 21)


@pytest.fixture(scope="module")
def demo() -> Snapshot:
    policy = load_policy(POLICIES / "demo.yaml", {}, TODAY)
    assert policy.warnings == ()
    return policy.snapshot


@pytest.fixture(scope="module")
def default() -> Snapshot:
    policy = load_policy(POLICIES / "default.yaml", KEYS, TODAY)
    assert policy.warnings == ()
    return policy.snapshot


def test_demo_needs_no_key_and_asks_no_model(demo: Snapshot) -> None:
    for deployment in demo.deployments.values():
        assert deployment.provider.simulated
        assert deployment.provider.api_key is None
        assert deployment.provider.unusable_because == ""
        assert deployment.provider.base_url.startswith("http://127.0.0.1:8089")


def test_demo_has_something_to_decide(demo: Snapshot) -> None:
    deployments = list(demo.answering.values())
    models = [deployment.model for deployment in deployments]
    assert {deployment.provider.dialect for deployment in deployments} == set(Dialect) - {Dialect.LOCAL_KNOWLEDGE}
    assert {model.tier for model in models} == set(Tier)
    assert len({model.price.steps for model in models}) == len(models)
    assert len({model.context_window_tokens for model in models}) >= 5
    assert set().union(*(model.capabilities for model in models)) == set(Capability)
    restricted = [item.id for item in deployments if item.approved_data_class is DataClass.RESTRICTED]
    assert restricted == ["wren-house"]
    dearest_light = max(model.price.steps[0][1].output for model in models if model.tier is Tier.LIGHT)
    cheapest_advanced = min(model.price.steps[0][1].output for model in models if model.tier is Tier.ADVANCED)
    assert dearest_light * 10 < cheapest_advanced


def test_demo_asks_for_behaviours_that_the_simulator_has(demo: Snapshot) -> None:
    assert {deployment.model_name for deployment in demo.deployments.values()} <= set(MODEL_NAMES)


def test_both_make_vectors_with_a_model_that_is_named(demo: Snapshot, default: Snapshot) -> None:
    for snapshot in (demo, default):
        making = {one.model.id for one in snapshot.deployments.values() if one.model.embedding is not None}
        assert snapshot.embedding_model in making
    places = [one for one in demo.deployments.values() if one.model.id == demo.embedding_model]
    assert len({one.provider.dialect for one in places}) == len(places) == 2


def test_default_uses_every_vendor(default: Snapshot) -> None:
    used = {deployment.provider.id for deployment in default.deployments.values()}
    assert used == {"anthropic", "gemini", "openai", "perplexity", "cohere", "ollama"}
    assert all(not deployment.provider.unusable_because for deployment in default.deployments.values())


def test_default_without_keys_still_has_the_local_model_in_every_tier() -> None:
    snapshot = load_policy(POLICIES / "default.yaml", {}, TODAY).snapshot
    usable = {name for name, item in snapshot.deployments.items() if not item.provider.unusable_because}
    assert usable == {"llama-local"}
    for tier in Tier:
        assert snapshot.tier_chains[tier][-1] == "llama-local"


def test_default_approves_only_the_local_model_for_more_than_public_data(default: Snapshot) -> None:
    approved = {name for name, item in default.deployments.items() if item.approved_data_class is not DataClass.PUBLIC}
    assert approved == {"llama-local"}


def test_default_windows_are_those_of_the_price_list(default: Snapshot) -> None:
    vendors = {provider.id: provider for provider in providers}
    compared = 0
    for deployment in default.deployments.values():
        vendor, slash, ref = deployment.model.price.version.rpartition(" ")[2].partition("/")
        listed = vendors[vendor].find_model(ref) if slash else None
        if listed and listed.context_window:
            assert deployment.model.context_window_tokens == listed.context_window, deployment.id
            compared += 1
    assert compared == 11


def test_default_prices_follow_the_models_that_are_called(default: Snapshot) -> None:
    """The reference of a price names the model that is asked, so that the two cannot drift apart unseen."""
    for deployment in default.deployments.values():
        if deployment.provider.id != "ollama":
            assert f"/{deployment.model_name}" in deployment.model.price.version, deployment.id
