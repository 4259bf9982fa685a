"""One call on its journey, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pointsman_server.domain.cache import CacheOutcome
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.confidence import Confidence
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.plan import Candidate, RoutePlan
from pointsman_server.domain.reply import ContentDelta, Reply, Usage
from pointsman_server.domain.request import CompletionRequest, EmbeddingInput
from pointsman_server.domain.safety import UNGUARDED, Guarded


class FailoverMode(Enum):
    """What to do when a provider fails after part of its answer was sent."""

    TERMINATE = "terminate"
    CONTINUE = "continue"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Call:
    """A validated request with its surroundings. `deadline` is on the monotonic clock, in seconds."""

    request: CompletionRequest
    request_id: str
    snapshot: Snapshot
    deadline: float
    failover: FailoverMode = FailoverMode.TERMINATE
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers for the provider: trace context, nothing of the caller's."""
    decision_id: str = ""
    """A decision to be followed, "" to decide anew."""
    request_digest: bytes = b""
    """What the request says, as a hash: two calls with the same digest ask the same."""
    tenant: str = ""
    caller: str = ""
    """Who calls: the id of an API key, or the name in a certificate."""
    peer: str = ""
    """The network address that the call comes from."""
    guarded: Guarded = UNGUARDED
    """What the guards found; the request is as they left it."""
    embedding: EmbeddingInput | None = None
    """What is to become vectors. `request` has no messages then; its labels, end user and constraints hold."""


class AttemptOutcome(Enum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptPurpose(Enum):
    """Why an attempt is made."""

    FIRST = "first"
    RETRY = "retry"
    FALLBACK = "fallback"
    HEDGE = "hedge"
    CONTINUATION = "continuation"
    REPAIR = "repair"
    ESCALATION = "escalation"
    CROSS_CHECK = "cross_check"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one deployment, after its end. `usage` is what the provider reported, nothing guessed."""

    deployment: Deployment
    latency_seconds: float
    first_token_seconds: float | None
    outcome: AttemptOutcome
    usage: Usage
    cost_micro_usd: int
    fault: ProviderFault | None = None
    purpose: AttemptPurpose = AttemptPurpose.FIRST
    estimated: bool = False
    """Whether counts are ours after all, because the provider left them out."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Pieces of the answer, each with the index of its part in the final message."""

    deltas: tuple[tuple[int, ContentDelta], ...]


@dataclass(frozen=True, slots=True)
class FailedOver:
    """The answer moves to another deployment; so many characters of the text sent so far still count."""

    from_deployment_id: str
    to_deployment_id: str
    mode: FailoverMode
    characters_kept: int


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision was made."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Completed:
    """The whole answer; always the last."""

    completion: Completion


CallEvent = Decided | Relay | FailedOver | Completed


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan with its name and how long it took to make.

    `template` is the prompt template of the request with its version (`greet@2`), "" without one.
    """

    id: str
    plan: RoutePlan
    latency_seconds: float
    template: str = ""

    def __hash__(self) -> int:
        """Of the name alone: it says which decision this is, and the plan is large."""
        return hash(self.id)


@dataclass(frozen=True, slots=True)
class Warning:
    """Something the caller should know although the call succeeded; `code` is stable."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer with its account. `usage` has no None left; `estimated` says whether a count is ours."""

    request_id: str
    decision: Decision
    answered_by: Candidate
    reply: Reply
    usage: Usage
    estimated: bool
    cost_micro_usd: int
    attempts: tuple[Attempt, ...]
    warnings: tuple[Warning, ...]
    confidence: Confidence | None = None
    redactions: Mapping[str, int] = field(default_factory=dict)
    """Sensitive data that was found, by kind: in the request, and in the answer where the policy looks there."""
    cache: CacheOutcome = CacheOutcome.BYPASS
    saved_micro_usd: int = 0
    """What the answer cost when it was made, for one that came from the cache."""
