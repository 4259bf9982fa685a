"""The decision: who may answer, in which order, and why everybody else may not.

What a decision makes many of is a named tuple: as immutable as a frozen dataclass, and made in a quarter of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.request import Tier


class ExclusionReason(Enum):
    """Why a deployment is not in the plan."""

    NOT_PINNED = "not_pinned"
    DENIED = "denied"
    NOT_ALLOWED = "not_allowed"
    TIER = "tier"
    CAPABILITY = "capability"
    CONTEXT_WINDOW = "context_window"
    DATA_CLASS = "data_class"
    REGION = "region"
    COST = "cost"
    FIRST_TOKEN_LATENCY = "first_token_latency"  # noqa: S105 - a name, not a secret
    PROVIDER_UNUSABLE = "provider_unusable"
    BREAKER_OPEN = "breaker_open"
    COOLDOWN = "cooldown"
    RULE = "rule"
    BUSY = "busy"
    KILL_SWITCH = "kill_switch"


class TaskType(Enum):
    """What kind of work a request asks for, as far as its text tells."""

    CHAT = "chat"
    LOOKUP = "lookup"
    EXTRACTION = "extraction"
    CLASSIFICATION = "classification"
    REWRITING = "rewriting"
    TRANSLATION = "translation"
    SUMMARISING = "summarising"
    EXPLAINING = "explaining"
    WRITING = "writing"
    CODE = "code"
    MATHEMATICS = "mathematics"
    ANALYSIS = "analysis"
    PLANNING = "planning"


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Input tokens of a request, as o200k_base has them unless said otherwise.

    The `upper_bound` of an estimate is never below the count of any byte-level tokenizer; that of a count (`exact`)
    is never below the count of the tokenizer it was made with. `document_tokens` and `history_tokens` are parts of
    `tokens`: the documents and the earlier turns that may be left out where a window is too small for all.
    """

    tokens: int
    exact: bool
    upper_bound: int
    document_tokens: int = 0
    history_tokens: int = 0


class Factor(NamedTuple):
    """One thing that moved a score, with what it added."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Complexity:
    """How hard the request looks: how much it needs a strong model (`score`, 0..1), the tier of the ask, and why.

    `tier_probabilities` are calibrated, lightest tier first, and sum to 1. `needs_fresh_facts` says that the answer
    depends on what happened lately, which a model without a search cannot know. `difficulty` is the log-odds of the
    quality of a model that answers one such request in two well; `discrimination` how much better models do better.
    """

    score: float
    tier: Tier
    factors: tuple[Factor, ...]
    task: TaskType = TaskType.CHAT
    tier_probabilities: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    needs_fresh_facts: bool = False
    difficulty: float = 0.0
    discrimination: float = 1.0


class Candidate(NamedTuple):
    """A deployment that may answer. Costs are for the expected answer and for the longest allowed one.

    `room_tokens` is how long the input may be that it is sent, in tokens of o200k_base; None where nothing may be left
    out of it. Unless it `takes_all`, something has to be.
    """

    deployment: Deployment
    score: float
    score_parts: tuple[Factor, ...]
    expected_quality: float
    expected_cost_micro_usd: int
    worst_cost_micro_usd: int
    expected_first_token_seconds: float
    max_output_tokens: int
    room_tokens: int | None = None
    takes_all: bool = True


class Rejection(NamedTuple):
    """A deployment that may not answer; `detail` names the numbers and the remedy, never the prompt."""

    deployment_id: str
    reason: ExclusionReason
    detail: str


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Candidates best first, and every other deployment with its reason. The first candidate is the choice."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]
    complexity: Complexity
    input_tokens: TokenEstimate
    policy_version: str
    applied_rules: tuple[str, ...] = ()
    """Names of the policy's rules that had a say."""
    quality_bias: float = 0.0
    """The dial that was in force."""
