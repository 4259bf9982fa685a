"""The policy that is measured: eight deployments of three tiers, at the upstream."""

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
