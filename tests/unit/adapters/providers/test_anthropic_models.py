from __future__ import annotations

import pytest

from pointsman_server.adapters.providers.anthropic_models import ThinkingOff, traits_of

# name: adaptive thinking, thinking budget, how to turn thinking off, sampling, both samplings, forced tools
KNOWN = {
    "claude-3-opus-20240229": (False, True, ThinkingOff.UNSAID, True, True, True),
    "claude-3-7-sonnet-20250219": (False, True, ThinkingOff.UNSAID, True, True, True),
    "claude-sonnet-4-20250514": (False, True, ThinkingOff.UNSAID, True, True, True),
    "claude-opus-4-1-20250805": (False, True, ThinkingOff.UNSAID, True, False, True),
    "claude-haiku-4-5-20251001": (False, True, ThinkingOff.UNSAID, True, False, True),
    "claude-sonnet-4-6": (True, True, ThinkingOff.UNSAID, True, False, True),
    "anthropic/claude-opus-4.6": (True, True, ThinkingOff.UNSAID, True, False, True),
    "claude-opus-4-7": (True, False, ThinkingOff.UNSAID, False, False, True),
    "anthropic.claude-opus-4-8-v1:0": (True, False, ThinkingOff.UNSAID, False, False, True),
    "claude-mythos-preview": (True, False, ThinkingOff.IMPOSSIBLE, False, False, True),
    "claude-opus-5": (True, False, ThinkingOff.DISABLED, False, False, True),
    "claude-sonnet-5": (True, False, ThinkingOff.DISABLED, False, False, True),
    "claude-fable-5": (True, False, ThinkingOff.IMPOSSIBLE, False, False, True),
    "claude-fable-5-1": (True, False, ThinkingOff.IMPOSSIBLE, False, False, False),
    "claude-opus-5-5": (True, False, ThinkingOff.IMPOSSIBLE, False, False, False),
    "claude-sonnet-5-5": (True, False, ThinkingOff.BETWEEN_TOOLS, False, False, False),
    "claude-haiku-5-5": (True, False, ThinkingOff.DISABLED, False, False, True),
    "claude-mythos-5-2": (True, False, ThinkingOff.IMPOSSIBLE, False, False, False),
    "kimi-k3": (False, True, ThinkingOff.UNSAID, True, True, True),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_each_model_accepts(name: str) -> None:
    traits = traits_of(name)
    assert (
        traits.adaptive_thinking,
        traits.thinking_budget,
        traits.thinking_off,
        traits.sampling,
        traits.both_samplings,
        traits.forced_tools,
    ) == KNOWN[name]


def test_a_date_is_not_a_version() -> None:
    assert traits_of("claude-sonnet-4-20250514") == traits_of("claude-sonnet-4-0")
    assert traits_of("claude-opus-4@20250514") == traits_of("claude-opus-4-0")


def test_models_yet_to_come_follow_the_latest_rules() -> None:
    assert traits_of("claude-opus-7-2") == traits_of("claude-opus-5-5")
