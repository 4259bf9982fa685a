"""The pointsman policy that a run needs: for every lane of every scenario a primary and a fallback of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wall.scenario import PRIMARY, ROLES, Setting, Stage

_PRICES = {PRIMARY: 1, "fallback": 10}
"""US dollars for a million tokens; the primary is preferred anyway."""


def deployment_id(scenario: str, lane: str, role: str) -> str:
    """What the deployment is called."""
    return f"{scenario.lower()}-{lane}-{role}"


_ENDLESS_TOKENS = 5_000_000
"""More than any scenario's answer has: what is longer than was asked for is cut, which the wall is not about."""


def deployments_for(scenario: str, lane: str, *, alone: bool) -> list[str]:
    """The deployments that may answer a call."""
    return [deployment_id(scenario, lane, role) for role in (ROLES[:1] if alone else ROLES)]


def make_policy(stages: Mapping[str, Stage], addresses: Mapping[str, str], setting: Setting) -> dict[str, Any]:
    """A policy for these scenarios; `addresses` are the upstreams' by role.

    Scenarios that ask for a resilience of their own can only share a policy with those that ask for the same.
    """
    own = [stage.resilience for stage in stages.values()]
    if any(resilience != own[0] for resilience in own):
        raise ValueError("these scenarios need different settings of retries and breakers; run them one by one")
    providers: dict[str, Any] = {}
    deployments: dict[str, Any] = {}
    for name, role, deployment in _deployments(stages, setting):
        providers[name] = {"dialect": "openai_chat", "base_url": f"{addresses[role]}/v1"}
        deployments[name] = {"provider": name, **deployment}
    primaries = [name for name in deployments if name.endswith(PRIMARY)]
    return {
        "version": 1,
        "providers": providers,
        "models": {f"{role}{suffix}": _model(role, suffix) for role in ROLES for suffix in ("", "-prefill")},
        "deployments": deployments,
        "routing": {
            "default_max_output_tokens": _ENDLESS_TOKENS,
            "rules": [{"name": "primaries-first", "prefer": primaries}],
        },
        "resilience": _resilience(setting, own[0]),
    }


def shareable(stage: Stage) -> bool:
    """Whether the scenario can be run against a server that was started for all of them."""
    return not stage.resilience and not stage.settings


def _deployments(stages: Mapping[str, Stage], setting: Setting) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for scenario, stage in stages.items():
        for lane, details in stage.lanes.items():
            timeouts = {**_timeouts(setting), **stage.timeouts, **details.timeouts}
            for role in ROLES:
                model = f"{role}{'-prefill' if details.prefill else ''}"
                fields = {"model": model, "model_name": "wall-1", "timeouts": timeouts}
                yield deployment_id(scenario, lane, role), role, fields


def _model(role: str, suffix: str) -> dict[str, Any]:
    price = _PRICES[role]
    return {
        "tier": "standard",
        "context_window_tokens": 2 * _ENDLESS_TOKENS,
        "max_output_tokens": _ENDLESS_TOKENS,
        "capabilities": ["streaming", "tools", "seed", "sampling", *(["prefill"] if suffix else [])],
        "quality": 0.5,
        "tokenizer": "o200k",
        "price": [{"input_usd_per_mtok": price, "output_usd_per_mtok": price}],
    }


def _timeouts(setting: Setting) -> dict[str, float]:
    return {
        "connect_seconds": setting.patience_seconds("connect"),
        "first_token_seconds": setting.patience_seconds("first token"),
        "idle_seconds": setting.patience_seconds("between chunks"),
        "total_seconds": max(20.0, setting.patience_seconds("total")),
    }


def _resilience(setting: Setting, own: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    scaled: dict[str, dict[str, object]] = {
        "retries": {"base_seconds": round(setting.seconds(0.2), 4), "cap_seconds": round(setting.seconds(5), 4)},
        "breaker": {
            "window_seconds": round(setting.seconds(30), 4),
            "open_seconds": round(setting.seconds(30), 4),
            "longest_open_seconds": round(setting.seconds(300), 4),
        },
    }
    return {key: {**scaled.get(key, {}), **own.get(key, {})} for key in {*scaled, *own}}
