from __future__ import annotations

from pathlib import Path

import pytest

from pointsman_server.bootstrap.policies import choose_policy_file, shipped_policy
from pointsman_server.config.policy_file import load_policy
from pointsman_server.config.settings import Settings

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(**environ: str) -> str:
    return choose_policy_file(Settings.from_environment({}), environ)


def test_without_a_key_it_is_the_demonstration() -> None:
    assert chosen() == str(shipped_policy("demo"))


@pytest.mark.parametrize("key", KEYS)
def test_with_a_key_it_is_the_one_for_real_providers(key: str) -> None:
    assert chosen(**{key: "sk-planted-for-this-test"}) == str(shipped_policy("default"))


def test_a_file_here_goes_before_those_that_come_with_it(somewhere_else: Path) -> None:
    (somewhere_else / "pointsman.yaml").touch()
    assert chosen(ANTHROPIC_API_KEY="sk-planted-for-this-test") == "pointsman.yaml"


def test_a_named_file_is_taken_even_when_it_does_not_exist() -> None:
    settings = Settings.from_environment({"POINTSMAN_POLICY_FILE": "named.yaml"})
    assert choose_policy_file(settings, {"POINTSMAN_POLICY_FILE": "named.yaml"}) == "named.yaml"


@pytest.mark.parametrize("name", ["default", "demo"])
def test_what_comes_with_it_is_sound(name: str) -> None:
    assert load_policy(shipped_policy(name), {}).snapshot.deployments


def test_the_demonstration_is_answered_by_the_simulator_alone() -> None:
    policy = load_policy(shipped_policy("demo"), {}).snapshot
    assert all(deployment.provider.simulated for deployment in policy.deployments.values())
