"""What one call's attempts came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from pointsman_server.decision.fitting import Fitted
from pointsman_server.domain.call import Attempt
from pointsman_server.domain.errors import FailedAttempt
from pointsman_server.domain.plan import Candidate, TokenEstimate
from pointsman_server.domain.reply import Reply
from pointsman_server.execution.allowance import Limit


@dataclass(slots=True)
class DispatchRecord:
    """What happened so far; `answered_by`, `reply` and `own` are set when an answer stands.

    `reply` is what the caller gets; `own` is what the last attempt brought of it, which is all of it unless it went on
    from another's text (`kept_from`).
    """

    attempts: list[Attempt] = field(default_factory=list)
    answered_by: Candidate | None = None
    reply: Reply | None = None
    own: Reply | None = None
    kept_from: list[Attempt] = field(default_factory=list)
    asking: list[str] = field(default_factory=list)
    """Ids of the providers of the attempts that run."""
    schema_checked: bool = True
    """Whether an answer that had to be checked against a schema could be."""
    of_call: list[Attempt] = field(default_factory=list)
    """The same for all dispatches of the call, in the order in which their attempts ended."""

    cut_at: Limit | None = None
    """Where the answer was cut off, because its provider wrote more than it may."""

    packed: dict[str, Fitted] = field(default_factory=dict)
    """What was packed for the deployments, by id; the others were sent the request as it is."""

    def end(self, attempt: Attempt) -> None:
        """One more attempt is over."""
        self.attempts.append(attempt)
        self.of_call.append(attempt)

    def input_of(self, deployment_id: str, whole: TokenEstimate) -> TokenEstimate:
        """How much a deployment was sent, where the request has as much as `whole`."""
        fitted = self.packed.get(deployment_id)
        if fitted is None or fitted.tokens is None:
            return whole
        return TokenEstimate(fitted.tokens, exact=True, upper_bound=fitted.tokens)

    @property
    def cost_micro_usd(self) -> int:
        """Cost of all attempts so far."""
        return sum(attempt.cost_micro_usd for attempt in self.attempts)

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """The attempts that failed, as callers are told."""
        return tuple(
            FailedAttempt(attempt.deployment.id, attempt.fault.kind, attempt.fault.detail)
            for attempt in self.attempts
            if attempt.fault is not None
        )
