"""What a good policy compiles to, and what its version depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pointsman_server.config.base_url import Reach
from pointsman_server.config.policy_file import LoadedPolicy, load_policy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.catalog import Dialect, Rates, Timeouts
from pointsman_server.domain.request import Capability, DataClass, Tier

Compile = Callable[..., LoadedPolicy]
KEY = "sk-ant-api03-PLANTEDvalue0123456789"
WITH_KEY = {"ANTHROPIC_API_KEY": KEY}


def test_good_policy_compiles_to_what_it_says(good_policy: str, compile_text: Compile) -> None:
    snapshot = compile_text(good_policy, WITH_KEY).snapshot
    claude, small = snapshot.deployments["claude-direct"], snapshot.deployments["small-local"]
    assert (claude.provider.dialect, claude.provider.base_url) == (
        Dialect.ANTHROPIC_MESSAGES,
        "https://api.anthropic.com",
    )
    assert claude.provider.api_key is not None
    assert (claude.provider.api_key.value, claude.provider.api_key.reference) == (KEY, "${ANTHROPIC_API_KEY}")
    assert claude.model.capabilities == {Capability.TOOLS, Capability.VISION, Capability.STREAMING}
    assert (claude.model.tier, claude.model.quality) == (Tier.STANDARD, 0.8)
    assert claude.approved_data_class is DataClass.INTERNAL
    assert claude.timeouts == Timeouts(total_seconds=90)
    assert small.provider.api_key is None
    assert small.model.capabilities == frozenset()
    assert small.model.price.steps == (
        (0, Rates(150_000, 600_000, 150_000, 150_000)),
        (4000, Rates(300_000, 1_200_000, 300_000, 300_000)),
    )
    assert (snapshot.quality_bias, snapshot.default_max_output_tokens) == (0.25, 512)
    assert snapshot.source == "policy.yaml"


def test_texts_stay_as_written(good_policy: str, compile_text: Compile) -> None:
    snapshot = compile_text(good_policy).snapshot
    assert snapshot.deployments["small-local"].model_name == "012"
    assert snapshot.deployments["claude-direct"].regions == {"us", "no"}
    assert snapshot.deployments["claude-direct"].options == {
        "metadata": {"n": [1, 2.5, "yes please", "on", True, None]}
    }


@pytest.mark.parametrize("text", ["no", "012", "12:30:45", "1e3", "2025-01-01", ".nan", "0x1f", "1_000", "on"])
def test_no_text_field_reads_yaml_types(text: str, good_policy: str, compile_text: Compile) -> None:
    snapshot = compile_text(good_policy.replace("model_name: 012", f"model_name: {text}")).snapshot
    assert snapshot.deployments["small-local"].model_name == text


def test_aliases_are_followed_and_chains_resolved(good_policy: str, compile_text: Compile) -> None:
    snapshot = compile_text(good_policy).snapshot
    assert snapshot.aliases == {"best": "claude-direct", "smart": "claude-direct"}
    assert snapshot.tier_chains == {Tier.LIGHT: ("small-local", "claude-direct")}
    assert snapshot.resolve("best") is snapshot.deployments["claude-direct"]


def test_missing_key_disables_the_provider_only(good_policy: str, compile_text: Compile) -> None:
    provider = compile_text(good_policy, {}).snapshot.deployments["claude-direct"].provider
    assert provider.api_key is None
    assert provider.unusable_because == "environment variable ANTHROPIC_API_KEY is not set"


def test_keys_are_never_shown(good_policy: str, compile_text: Compile) -> None:
    policy = compile_text(good_policy, WITH_KEY)
    told = f"{policy!r} {policy} {policy.snapshot} {policy.snapshot.deployments['claude-direct'].provider}"
    assert "PLANTED" not in told


def test_malformed_key_is_never_shown(good_policy: str, compile_text: Compile) -> None:
    policy = compile_text(good_policy, {"ANTHROPIC_API_KEY": "'PLANTED'\n"})
    assert "PLANTED" not in repr(policy)
    assert policy.snapshot.deployments["claude-direct"].provider.unusable_because


def test_snapshot_cannot_be_changed(good_policy: str, compile_text: Compile) -> None:
    snapshot = compile_text(good_policy).snapshot
    with pytest.raises(FrozenInstanceError):
        snapshot.version = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "# a comment\nversion: 1"),
        ("{total_seconds: 90}", "{ total_seconds:   90.0 }"),
        ("[us, no]", '["no", us]'),
        ("aliases: {best: smart, smart: claude-direct}", "aliases: {smart: claude-direct, best: claude-direct}"),
        ("routing: {", "routing: {  # told apart\n  "),
    ],
)
def test_version_ignores_how_it_is_written(old: str, new: str, good_policy: str, compile_text: Compile) -> None:
    changed = good_policy.replace(old, new)
    assert changed != good_policy
    assert compile_text(changed).snapshot.version == compile_text(good_policy).snapshot.version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("quality: 0.8", "quality: 0.81"),
        ("output_usd_per_mtok: 0.6", "output_usd_per_mtok: 0.600001"),
        ("${ANTHROPIC_API_KEY}", "${OTHER_API_KEY}"),
        ("[small-local, best]", "[best, small-local]"),
        ("n: [1,", "n: [2,"),
        ("default_max_output_tokens: 512", "default_max_output_tokens: 513"),
        ("data_class: restricted", "data_class: confidential"),
    ],
)
def test_version_follows_the_meaning(old: str, new: str, good_policy: str, compile_text: Compile) -> None:
    changed = good_policy.replace(old, new)
    assert changed != good_policy
    assert compile_text(changed).snapshot.version != compile_text(good_policy).snapshot.version


def test_version_ignores_the_values_of_keys(good_policy: str, compile_text: Compile) -> None:
    versions = {
        compile_text(good_policy, environ).snapshot.version
        for environ in ({}, WITH_KEY, {"ANTHROPIC_API_KEY": "sk-ant-other-one-1234"})
    }
    assert len(versions) == 1
    assert len(versions.pop()) == 12


def test_reach_of_providers_is_known(good_policy: str, compile_text: Compile) -> None:
    assert compile_text(good_policy).reaches == {"anthropic": Reach.PUBLIC, "local": Reach.LOOPBACK}


def test_optional_sections_may_be_left_out(good_policy: str, compile_text: Compile) -> None:
    short = good_policy[: good_policy.index("aliases:")]
    snapshot = compile_text(short).snapshot
    assert (dict(snapshot.aliases), dict(snapshot.tier_chains), snapshot.default_max_output_tokens) == ({}, {}, 4096)


def test_what_nobody_uses_is_warned_about(good_policy: str, compile_text: Compile) -> None:
    unused = good_policy.replace(
        "providers:", 'providers:\n  spare: {dialect: openai_chat, base_url: "http://127.0.0.1:1"}'
    )
    warnings = compile_text(unused).warnings
    assert [warning.message for warning in warnings] == ["defines 'spare', which no deployment uses"]


def test_window_beyond_the_listed_one_is_warned_about(good_policy: str, compile_text: Compile) -> None:
    warnings = compile_text(good_policy.replace("tokens: 200000", "tokens: 300000")).warnings
    assert [(warning.line, warning.path_in_file) for warning in warnings] == [
        (6, "models.claude.context_window_tokens")
    ]


def test_searches_billed_besides_are_warned_about_until_priced(good_policy: str, compile_text: Compile) -> None:
    searching = good_policy.replace("[tools, vision, streaming]", "[web_search]")
    assert "10 USD per 1000 searches" in compile_text(searching).warnings[0].message
    priced = searching.replace('sonnet-4-5"}', 'sonnet-4-5", per_request_usd: 0.01}')
    policy = compile_text(priced)
    assert policy.warnings == ()
    assert policy.snapshot.deployments["claude-direct"].model.price.per_request_micro_usd == 10_000


def test_key_of_another_vendor_is_warned_about_without_showing_it(good_policy: str, compile_text: Compile) -> None:
    policy = compile_text(good_policy, {"ANTHROPIC_API_KEY": "pplx-PLANTED-0123"})
    assert len(policy.warnings) == 1
    assert "environment variable ANTHROPIC_API_KEY" in policy.warnings[0].remedy
    assert "PLANTED" not in repr(policy)
    assert policy.snapshot.deployments["claude-direct"].provider.unusable_because == ""


def test_anthropic_key_for_openai_is_warned_about(good_policy: str, compile_text: Compile) -> None:
    swapped = good_policy.replace("anthropic_messages", "openai_responses")
    assert len(compile_text(swapped, WITH_KEY).warnings) == 1
    assert compile_text(swapped, {"ANTHROPIC_API_KEY": "sk-proj-1"}).warnings == ()


def test_vendor_without_key_is_warned_about(good_policy: str, compile_text: Compile) -> None:
    policy = compile_text(good_policy.replace(', api_key: "${ANTHROPIC_API_KEY}"', ""))
    assert [warning.path_in_file for warning in policy.warnings] == ["providers.anthropic"]


def test_file_is_read_from_its_path(tmp_path: Path, good_policy: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(good_policy)
    policy = load_policy(path, WITH_KEY)
    assert policy.snapshot.source == str(path)
    assert set(policy.snapshot.deployments) == {"claude-direct", "small-local"}


def test_missing_file_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        load_policy(tmp_path / "none.yaml", {})


def test_directory_and_device_are_policy_errors(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(PolicyError, match="not a regular file"):
            load_policy(path, {})


def test_unreadable_file_is_a_policy_error(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.symlink_to(path)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(path, {})
