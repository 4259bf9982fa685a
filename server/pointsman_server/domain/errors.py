"""Everything a caller can be told went wrong. `rpc/status.py` turns it into gRPC codes and details.

    RouterError
    ├── InvalidRequest            a field is wrong, or fields contradict each other
    │   ├── FeatureUnavailable    the field is right but not offered by this server
    │   ├── ContextOverflow       the input fits no context window
    │   └── UnsupportedContent    the pinned model cannot take the content
    ├── DeploymentNotFound        no such deployment, or not for this caller
    ├── NoEligibleDeployment      every deployment is excluded
    ├── NobodyHealthy             those that could answer are all broken or cooling down
    ├── AttemptsFailed            providers were called and none answered
    │   └── StreamInterrupted     part of the answer was already sent
    ├── AnswerInvalid             the model answered, but not as the response_schema demands
    ├── DecisionExpired           the decision that the request names cannot be followed any more
    ├── RequestNotFound           no such answer to judge
    ├── DeadlineExceeded          the time ran out
    ├── ReaderTooSlow             the caller takes the stream too slowly
    ├── Overloaded                too many calls at once
    └── Draining                  the server is going down

Messages are ours and hold no text of the request or of a provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pointsman_server.domain.faults import FAULT_RULES, FaultKind
from pointsman_server.domain.plan import Rejection


class Step(Enum):
    """Where in its journey a call was."""

    DOOR = "door"
    PREPARE = "prepare"
    RECALL = "recall"
    DECIDE = "decide"
    RESERVE = "reserve"
    DISPATCH = "dispatch"
    SETTLE = "settle"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """A wrong field, by its path in the request, with what would be right."""

    field: str
    description: str


class RouterError(Exception):
    """The call failed; the message may be shown to the caller."""


class InvalidRequest(RouterError):
    """The request itself is wrong; sending it again unchanged cannot help."""

    def __init__(self, problems: tuple[FieldProblem, ...], *, conflicting: bool = False) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.description}" for problem in problems[:3]))
        self.problems = problems
        self.conflicting = conflicting


class FeatureUnavailable(InvalidRequest):
    """The request asks for a feature that this server does not offer."""


class ContextOverflow(InvalidRequest):
    """The input fits no context window that the request may use."""

    def __init__(self, input_tokens: int, largest_window_tokens: int) -> None:
        description = (
            f"the input has about {input_tokens} tokens and the largest context window is {largest_window_tokens}; "
            "shorten the conversation"
        )
        super().__init__((FieldProblem("completion.messages", description),))
        self.input_tokens = input_tokens
        self.largest_window_tokens = largest_window_tokens


class UnsupportedContent(InvalidRequest):
    """The pinned deployment's model cannot take what the request carries."""


class DeploymentNotFound(RouterError):
    """No such deployment; the same words whether it does not exist or is not for this caller."""

    def __init__(self, field: str = "completion.deployment") -> None:
        super().__init__(f"{field} names no deployment that you may use")


class NoEligibleDeployment(RouterError):
    """Every deployment is excluded; `rejections` says why, one by one."""

    def __init__(self, rejections: tuple[Rejection, ...]) -> None:
        super().__init__("no deployment may answer this request; the details name the reason for each")
        self.rejections = rejections


class NobodyHealthy(RouterError):
    """Deployments could answer, but all of them have an open breaker or are cooling down."""

    def __init__(self, rejections: tuple[Rejection, ...], retry_after_seconds: float) -> None:
        super().__init__("every deployment that could answer is out of service for now; try again later")
        self.rejections = rejections
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed, as it is told to the caller."""

    deployment_id: str
    kind: FaultKind
    detail: str


class AttemptsFailed(RouterError):
    """Every attempt failed; there was at least one."""

    def __init__(self, attempts: tuple[FailedAttempt, ...], retry_after_seconds: float | None = None) -> None:
        super().__init__(
            "every attempt failed: " + "; ".join(f"{attempt.deployment_id}: {attempt.detail}" for attempt in attempts)
        )
        self.attempts = attempts
        self.retry_after_seconds = retry_after_seconds

    @property
    def kind(self) -> FaultKind | None:
        """The fault that ended it: one that no other candidate could mend, or the one that all attempts met."""
        if not FAULT_RULES[self.attempts[-1].kind].try_next:
            return self.attempts[-1].kind
        kinds = {attempt.kind for attempt in self.attempts}
        return kinds.pop() if len(kinds) == 1 else None


class StreamInterrupted(AttemptsFailed):
    """The provider failed after part of its answer had been sent to the caller."""

    def __init__(self, attempts: tuple[FailedAttempt, ...], output_tokens: int, cost_micro_usd: int) -> None:
        super().__init__(attempts)
        self.output_tokens = output_tokens
        self.cost_micro_usd = cost_micro_usd


class AnswerInvalid(RouterError):
    """A model answered, but not as the request's response_schema demands, and could not be made to.

    `text` is the whole answer and `violations` quote it: both are for the caller only, never for a log. `streamed` says
    whether the caller has read the answer already.
    """

    def __init__(
        self,
        attempts: tuple[FailedAttempt, ...],
        *,
        text: str,
        violations: tuple[str, ...],
        output_tokens: int,
        cost_micro_usd: int,
        streamed: bool,
    ) -> None:
        super().__init__(
            "the answer does not fit completion.generation.response_schema; the details hold it with what does not "
            "fit: make the schema simpler or say in the prompt what it demands"
        )
        self.attempts = attempts
        self.text = text
        self.violations = violations
        self.output_tokens = output_tokens
        self.cost_micro_usd = cost_micro_usd
        self.streamed = streamed


class DecisionExpired(RouterError):
    """The decision that the request names cannot be followed; `why` continues a sentence that begins with it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the decision that decision_id names {why}; ask Route again, or leave decision_id empty")


class RequestNotFound(RouterError):
    """No answer with this request id is remembered for this caller."""

    def __init__(self) -> None:
        super().__init__("request_id names no answer that can be judged; it is unknown or too long ago")


class DeadlineExceeded(RouterError):
    """The caller's deadline, or the server's, passed in this step."""

    def __init__(self, step: Step, attempts: tuple[FailedAttempt, ...] = ()) -> None:
        super().__init__(f"the deadline passed in step {step.value}")
        self.step = step
        self.attempts = attempts


class Overloaded(RouterError):
    """The server is handling as many calls as it may."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("the server is handling as many calls as it may; try again shortly")
        self.retry_after_seconds = retry_after_seconds


class ReaderTooSlow(RouterError):
    """The caller did not take what was sent to it."""

    def __init__(self) -> None:
        super().__init__("the stream was given up because its events were not read; read them as they come")


class Draining(RouterError):
    """The server is going down and takes no new calls."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("the server is going down; try another replica")
        self.retry_after_seconds = retry_after_seconds
