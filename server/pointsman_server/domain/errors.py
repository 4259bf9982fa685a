"""Everything a caller can be told went wrong. `rpc/status.py` turns it into gRPC codes and details.

    RouterError
    ├── Unauthenticated           nobody knows who calls
    ├── PermissionDenied          the caller is known and may not do this
    ├── InvalidRequest            a field is wrong, or fields contradict each other
    │   ├── ContextOverflow       the input fits no context window
    │   ├── UnsupportedContent    the pinned model cannot take the content
    │   └── PromptRejected        a guard of the policy does not let the content pass
    ├── SwitchedOff               an operator does not let this through for now
    │   ├── KillSwitchEngaged     the service, the caller's tenant or a running stream's provider is stopped
    │   └── RouteOnly             the tenant may ask where calls would go, and nothing else
    ├── RateLimited               a limit of the policy is reached
    ├── CountersUnavailable       whether a limit is reached cannot be found out
    ├── RequestIdReused           the request id names another call that was answered
    ├── AnswersUnavailable        whether the request id names an answered call cannot be found out
    ├── DeploymentNotFound        no such deployment, or not for this caller
    ├── NoEligibleDeployment      every deployment is excluded
    ├── NobodyHealthy             those that could answer are all broken or cooling down
    ├── AttemptsFailed            providers were called and none answered
    │   └── StreamInterrupted     part of the answer was already sent
    ├── AnswerInvalid             the model answered, but not as the response_schema demands
    ├── DecisionExpired           the decision that the request names cannot be followed any more
    ├── RequestNotFound           no such answer to judge
    │   └── TraceNotFound         no such call was recorded
    ├── BudgetExceeded            a budget has not enough left for the call
    ├── LedgerUnavailable         what calls cost cannot be booked for now
    ├── GuardsUnavailable         a guard could not look at the request, and nothing passes without
    ├── DeadlineExceeded          the time ran out
    ├── ReaderTooSlow             the caller takes the stream too slowly
    ├── Overloaded                too many calls at once
    └── Draining                  the server is going down

Messages are ours and hold no text of the request or of a provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pointsman_server.domain.control import KillScope, KillSwitch
from pointsman_server.domain.faults import FAULT_RULES, FaultKind
from pointsman_server.domain.governance import Period
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


class Unauthenticated(RouterError):
    """Nobody knows who calls. The words are the same for every reason, so that guessing teaches nothing.

    `why` is for our log alone and holds nothing that was sent.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(
            "the call carries no valid credentials; send one API key as `authorization: Bearer pm_…`, or call over TLS "
            "with a client certificate that the policy names"
        )
        self.why = why


class PermissionDenied(RouterError):
    """The caller is known and may not do this; the message says what is missing."""


class InvalidRequest(RouterError):
    """The request itself is wrong; sending it again unchanged cannot help."""

    def __init__(self, problems: tuple[FieldProblem, ...], *, conflicting: bool = False) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.description}" for problem in problems[:3]))
        self.problems = problems
        self.conflicting = conflicting


class ContextOverflow(InvalidRequest):
    """The input fits no context window that the request may use."""

    def __init__(self, input_tokens: int, largest_window_tokens: int, *, field: str = "completion.messages") -> None:
        what, remedy = ("a text", "split it") if field == "inputs" else ("the input", "shorten the conversation")
        window = f"the largest context window is {largest_window_tokens}"
        description = f"{what} has about {input_tokens} tokens and {window}; {remedy}"
        super().__init__((FieldProblem(field, description),))
        self.input_tokens = input_tokens
        self.largest_window_tokens = largest_window_tokens


class UnsupportedContent(InvalidRequest):
    """The pinned deployment's model cannot take what the request carries."""


class PromptRejected(InvalidRequest):
    """A guard of the policy does not let the content pass: a suspected prompt injection, or sensitive data."""


class GuardsUnavailable(RouterError):
    """A guard could not look at the request, and the policy lets nothing pass without."""

    retry_after_seconds = 1.0

    def __init__(self) -> None:
        super().__init__("a guard could not look at the request, and nothing passes without; try again shortly")


class SwitchedOff(RouterError):
    """An operator does not let calls through for now; `what` is the kind of switch and `subject` whom it is on."""

    def __init__(self, what: str, subject: str, message: str) -> None:
        super().__init__(message)
        self.what = what
        self.subject = subject


class KillSwitchEngaged(SwitchedOff):
    """A kill switch stops the service, this tenant or, under a running stream, the provider that was answering."""

    def __init__(self, switch: KillSwitch) -> None:
        whom, remedy = _STOPPED[switch.scope]
        subject = f"{switch.scope.value}s/{switch.target}" if switch.target else "service"
        super().__init__("KILL_SWITCH", subject, f"an operator has stopped {whom}; {remedy}")
        self.switch = switch


_STOPPED = {
    KillScope.GLOBAL: ("all calls", "ask the operators of this service"),
    KillScope.TENANT: ("the calls of your tenant", "ask the operators of this service"),
    KillScope.PROVIDER: ("the provider that was answering", "call again, and another one answers"),
}
"""Whom each kill switch stops, and what the caller can do."""


class RouteOnly(SwitchedOff):
    """The flag route_only is set for this tenant: decisions are made, answers are not."""

    def __init__(self, tenant: str) -> None:
        message = "an operator lets your tenant use Route only; call Route, or ask the operators of this service"
        super().__init__("ROUTE_ONLY", f"tenants/{tenant}", message)


class RateLimited(RouterError):
    """A limit of the policy is reached. `subject` is whose limit it is, `quota` how much it allows.

    Who comes again after `retry_after_seconds` is let through, if nobody else came; None says that waiting is in vain.
    """

    def __init__(self, subject: str, quota: str, retry_after_seconds: float | None) -> None:
        remedy = (
            "the call alone is more than that: ask for less, or ask the operators of this service for more"
            if retry_after_seconds is None
            else f"try again in {max(0.1, retry_after_seconds):.1f} s"
        )
        super().__init__(f"the limit of {quota} for {subject} is reached; {remedy}")
        self.subject = subject
        self.quota = quota
        self.retry_after_seconds = retry_after_seconds


class CountersUnavailable(RouterError):
    """The limits' counters cannot be reached, and the policy lets nothing through meanwhile."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("whether a rate limit is reached cannot be found out at the moment; try again shortly")
        self.retry_after_seconds = retry_after_seconds


class RequestIdReused(RouterError):
    """The request id names a call that cannot be answered again; `why` says which."""

    def __init__(self, why: str) -> None:
        super().__init__(f"completion.request_id {why}; give every question a request_id of its own")


class AnswersUnavailable(RouterError):
    """The stored answers cannot be reached, so that a call with a request id might be made twice."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(
            "whether this request_id was answered before cannot be found out at the moment; try again shortly, or send "
            "the call without a request_id"
        )
        self.retry_after_seconds = retry_after_seconds


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


class TraceNotFound(RequestNotFound):
    """No call with this request id is recorded."""

    def __init__(self) -> None:
        RouterError.__init__(
            self,
            "request_id names no recorded call; it is unknown, too long ago, or the policy's `traces` leaves it out",
        )


class BudgetExceeded(RouterError):
    """A budget of the tenant has less left than the call may cost."""

    def __init__(self, budget: str, period: Period) -> None:
        super().__init__(
            f"the budget {budget} has less left for this {period.value} than the call may cost; lower "
            f"max_output_tokens, wait for the next {period.value} (UTC), or ask the operators of this service"
        )
        self.budget = budget
        self.period = period


class LedgerUnavailable(RouterError):
    """What calls may cost cannot be set aside, or what they cost cannot be booked, so none is made."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("the accounts cannot be reached, and nothing is spent without them; try again shortly")
        self.retry_after_seconds = retry_after_seconds


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
