from __future__ import annotations

from pathlib import Path

import pytest

from pointsman_server.cli.configuration import ConfigurationError, environment, read_policy, read_settings


def test_options_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_POLICY_FILE", "from-environment.yaml")
    assert environment({"POINTSMAN_POLICY_FILE": "from-option.yaml"})["POINTSMAN_POLICY_FILE"] == "from-option.yaml"
    assert environment({"POINTSMAN_POLICY_FILE": None})["POINTSMAN_POLICY_FILE"] == "from-environment.yaml"


def test_all_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings({"POINTSMAN_GRPC_ADDRESS": "nowhere", "POINTSMAN_WORKERS": "none"})
    lines = caught.value.format_message().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["POINTSMAN_GRPC_ADDRESS", "POINTSMAN_WORKERS"]
    assert caught.value.exit_code == 2


def test_all_problems_of_a_policy_are_told_at_once() -> None:
    file = Path(__file__).parents[1] / "config" / "bad" / "many_at_once.yaml"
    with pytest.raises(ConfigurationError) as caught:
        read_policy(str(file), {})
    lines = caught.value.format_message().splitlines()
    assert len(lines) > 10
    assert all(line.startswith(f"  {file}:") for line in lines[1:])
