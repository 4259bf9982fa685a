from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

import pytest

from pointsman_server.config.policy_file import LoadedPolicy, compile_policy

TODAY = date(2026, 11, 21)

GOOD_POLICY = """\
version: 1
providers:
  anthropic: {dialect: anthropic_messages, api_key: "${ANTHROPIC_API_KEY}"}
  local: {dialect: openai_chat, base_url: "http://127.0.0.1:8089/v1"}
models:
  claude: {tier: standard, context_window_tokens: 200000, max_output_tokens: 64000,
    capabilities: [tools, vision, streaming], quality: 0.8, price: {ref: "anthropic/claude-sonnet-4-5"}}
  small: {tier: light, context_window_tokens: 8000, max_output_tokens: 1000, capabilities: [], quality: 0.5,
    price: [{input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6, above: [
      {input_tokens: 4000, input_usd_per_mtok: 0.3, output_usd_per_mtok: 1.2}]}]}
deployments:
  claude-direct: {provider: anthropic, model: claude, model_name: claude-sonnet-4-5, data_class: internal,
    regions: [us, no], timeouts: {total_seconds: 90}, options: {metadata: {n: [1, 2.5, yes please, "on", true, null]}}}
  small-local: {provider: local, model: small, model_name: 012, data_class: restricted}
aliases: {best: smart, smart: claude-direct}
tiers: {light: {chain: [small-local, best]}}
routing: {quality_bias: 0.25, default_max_output_tokens: 512}
"""

Compile = Callable[..., LoadedPolicy]


@pytest.fixture
def good_policy() -> str:
    return GOOD_POLICY


@pytest.fixture
def compile_text() -> Compile:
    def compile_(text: str | bytes, environ: Mapping[str, str] | None = None, today: date = TODAY) -> LoadedPolicy:
        data = text.encode() if isinstance(text, str) else text
        return compile_policy(data, "policy.yaml", environ or {}, today)

    return compile_
