"""The policies that are measured, at the upstream: eight deployments of three tiers, unless said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHAT = "standard-chat"
MESSAGES = "standard-messages"
PACED_CHAT = "paced-chat"
PACED_MESSAGES = "paced-messages"

_TIERS = {"light": 0.5, "standard": 0.7, "advanced": 0.9}


def chat_only(upstream_address: str) -> Mapping[str, Any]:
    """Only OpenAI-compatible providers, which need no vendor's SDK."""
    return _policy(upstream_address, {"chat": ("openai_chat", "/v1")})


def whole(upstream_address: str) -> Mapping[str, Any]:
    """Both dialects; Anthropic's brings its SDK into the process."""
    return _policy(upstream_address, {"chat": ("openai_chat", "/v1"), "messages": ("anthropic_messages", "")})


def watched(upstream_address: str) -> Mapping[str, Any]:
    """Two deployments with everything on that can watch an attempt: places, a least pace, hedging."""
    made = _policy(upstream_address, {"chat": ("openai_chat", "/v1")})
    names = {f"{tier}-chat" for tier in ("light", "standard")}
    watch = {"max_concurrent_calls": 64, "timeouts": {"least_tokens_per_second": 1}}
    deployments = {name: {**one, **watch} for name, one in made["deployments"].items() if name in names}
    return {**made, "deployments": deployments, "resilience": {"hedging": {"quantile": 0.99}}}


def litellm(upstream_address: str) -> Mapping[str, Any]:
    """What LiteLLM's proxy is configured with: one model at the same upstream, all else as it ships."""
    api_base = f"http://{upstream_address}/burst/v1"
    parameters = {"model": "openai/bench", "api_base": api_base, "api_key": "bench"}
    return {"model_list": [{"model_name": "bench", "litellm_params": parameters}]}


def _policy(upstream_address: str, dialects: Mapping[str, tuple[str, str]]) -> Mapping[str, Any]:
    providers = {
        f"{manner}-{name}": {
            "dialect": dialect,
            "base_url": f"http://{upstream_address}/{manner}{path}",
            "api_key": "${BENCH_KEY}",
        }
        for name, (dialect, path) in dialects.items()
        for manner in ("burst", "paced")
    }
    tiers = {f"{tier}-{name}": (tier, f"burst-{name}") for tier in _TIERS for name in dialects}
    paced = {f"paced-{name}": ("standard", f"paced-{name}") for name in dialects}
    return {
        "version": 1,
        "providers": providers,
        "models": {tier: _model(tier) for tier in _TIERS},
        "deployments": {
            name: {"provider": provider, "model": tier, "model_name": "bench"}
            for name, (tier, provider) in {**tiers, **paced}.items()
        },
    }


def _model(tier: str) -> Mapping[str, Any]:
    return {
        "tier": tier,
        "context_window_tokens": 128_000,
        "max_output_tokens": 4_096,
        "capabilities": ["streaming", "tools"],
        "quality": _TIERS[tier],
        "price": [{"input_usd_per_mtok": 1, "output_usd_per_mtok": 4}],
    }
