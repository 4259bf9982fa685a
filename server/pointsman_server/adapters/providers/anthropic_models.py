"""What each generation of Claude accepts, told by its name, because the vendor's rules differ by model.

Written from the vendor's model pages and migration guides: adaptive thinking since 4.6, token budgets and sampling
parameters until 4.6, thinking that cannot be turned off and no forced tools on some models since 5.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

_NAME = re.compile(r"claude-(?:(?P<family>[a-z]+)-)?(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)")
_ALWAYS_THINKING = frozenset({"fable", "mythos"})


class ThinkingOff(Enum):
    """How a model is told not to think."""

    UNSAID = "unsaid"
    DISABLED = "disabled"
    BETWEEN_TOOLS = "between_tools"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class ClaudeTraits:
    """What one model accepts.

    `adaptive_thinking`: it can choose its own depth, steered by an effort. `thinking_budget`: its thinking can be
    given a number of tokens. `sampling`: it takes temperature or top_p; `both_samplings`: the two together.
    `forced_tools`: it can be made to call a tool.
    """

    adaptive_thinking: bool
    thinking_budget: bool
    thinking_off: ThinkingOff
    sampling: bool
    both_samplings: bool
    forced_tools: bool


_UNVERSIONED = ClaudeTraits(
    adaptive_thinking=False,
    thinking_budget=True,
    thinking_off=ThinkingOff.UNSAID,
    sampling=True,
    both_samplings=True,
    forced_tools=True,
)
"""Names without a version: mostly other vendors that speak this dialect, all of them in its older form."""

_MYTHOS_PREVIEW = ClaudeTraits(
    adaptive_thinking=True,
    thinking_budget=False,
    thinking_off=ThinkingOff.IMPOSSIBLE,
    sampling=False,
    both_samplings=False,
    forced_tools=True,
)


@lru_cache(maxsize=256)
def traits_of(model_name: str) -> ClaudeTraits:
    """What the model with this name accepts; a name newer than this table is taken for the latest known rules."""
    if "claude-mythos-preview" in model_name:
        return _MYTHOS_PREVIEW
    found = _NAME.search(model_name)
    if found is None:
        return _UNVERSIONED
    family = found["family"] or ""
    version = (int(found["major"]), int(found["minor"] or 0))
    return ClaudeTraits(
        adaptive_thinking=version >= (4, 6),
        thinking_budget=version < (4, 7),
        thinking_off=_thinking_off(family, version),
        sampling=version < (4, 7),
        both_samplings=version < (4, 1),
        forced_tools=version < (5, 1) or family == "haiku",
    )


def _thinking_off(family: str, version: tuple[int, int]) -> ThinkingOff:
    if version < (5, 0):
        return ThinkingOff.UNSAID
    if family in _ALWAYS_THINKING or (family == "opus" and version >= (5, 5)):
        return ThinkingOff.IMPOSSIBLE
    if family == "sonnet" and version >= (5, 5):
        return ThinkingOff.BETWEEN_TOOLS
    return ThinkingOff.DISABLED
