"""What the inner rooms need from outside, as protocols; adapters implement them, bootstrap connects them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from pointsman_server.domain.call import Attempt, AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.checked import Checked
from pointsman_server.domain.control import AuditEvent, Control, Key, KillScope, PolicyVersion, Rollout
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.message import Message
from pointsman_server.domain.record import DecisionRecord
from pointsman_server.domain.reply import ReplyEvent
from pointsman_server.domain.request import Document, EmbeddingInput, GenerationConfig
from pointsman_server.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One call to one deployment.

    `max_output_tokens` is already clamped to the model's limit. `timeout_seconds` bounds the whole call.
    `headers` are ours to add (trace context); they never carry a caller's own headers. `documents` are the request's
    own material, `task` and `task_variables` the name of its template and what it was filled with, "" without one:
    models find both in the messages, what answers without a model does not. With an `embedding` vectors are asked for,
    and there are no messages.
    """

    deployment: Deployment
    messages: tuple[Message, ...]
    generation: GenerationConfig
    max_output_tokens: int
    stream: bool
    timeout_seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()
    task: str = ""
    task_variables: Mapping[str, Any] = field(default_factory=dict)
    embedding: EmbeddingInput | None = None


class ProviderAdapter(Protocol):
    """Speaks one provider's dialect."""

    def exchange(self, call: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """Sends the call and yields what comes back, in batches as the network delivered it.

        Ends only after the provider's own end marker, with exactly one `Finished` among the events; anything
        else raises `ProviderFault`. Closing the generator closes the connection. A batch may be empty
        (a ping), which is not progress.
        """
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class StoreUnavailableError(Exception):
    """What is stored cannot be read or changed now; the message holds no address, no secret and nothing stored."""


class Clock(Protocol):
    """Time, injected so that tests need not wait."""

    def monotonic(self) -> float:
        """Seconds that never jump."""
        ...

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...


class Ids(Protocol):
    """Fresh identifiers."""

    def new(self, prefix: str) -> str:
        """An id that was never given before, `prefix` and an underscore in front."""
        ...


class TokenCounter(Protocol):
    """Counts tokens exactly, as the models of one family do."""

    @property
    def is_ready(self) -> bool:
        """Whether counting can begin at once, without loading anything."""
        ...

    def warm_up(self) -> None:
        """Loads what counting needs; takes time and belongs off the event loop."""
        ...

    def count(self, text: str) -> int:
        """Tokens of this text. Takes time linear in its length; large texts belong off the event loop."""
        ...


class Reservation(Protocol):
    """Money set aside for one call."""

    async def cover(self, cost_micro_usd: int) -> None:
        """Sets more aside, so that the call may cost this much in all; less than before changes nothing.

        Raises `BudgetExceeded` or `LedgerUnavailable`, and what was set aside before stays.
        """
        ...

    def settle(self, attempts: Sequence[Attempt], *, estimated: bool = False) -> None:
        """Books what the call's attempts cost and releases the rest. Settling twice is an error.

        `estimated` says that counts of the last attempt are ours.
        """
        ...


class Ledger(Protocol):
    """Sets money aside before a call and books what it cost after it."""

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> AbstractAsyncContextManager[Reservation]:
        """A reservation of every budget that the call falls under; leaving it unsettled books the worst case."""
        ...


class VerdictLog(Protocol):
    """Keeps verdicts beyond the life of the process."""

    def append(self, verdict: Verdict) -> None:
        """Keeps one more; returns at once, the writing may happen later."""
        ...


class DecisionLog(Protocol):
    """Keeps decisions, so that they can be read and replayed."""

    def append(self, record: DecisionRecord) -> None:
        """Keeps one more; returns at once, the writing may happen later. Never fails a call."""
        ...


class Operation(Enum):
    """What a caller asked the router for."""

    ROUTE = "route"
    COMPLETE = "complete"
    STREAM_COMPLETE = "stream_complete"
    EMBED = "embed"


class AttemptWatch(Protocol):
    """Watches one attempt."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers for the provider: trace context (W3C), nothing else."""
        ...

    def ended(self, attempt: Attempt) -> None:
        """The attempt is over; called exactly once."""
        ...


class CallWatch(Protocol):
    """Watches one call. The first of `completed` and `failed` ends it; `Route` ends when it decided, or failed."""

    def prepared(self, call: Call) -> None:
        """The prompt is as it may go on: rendered, and as the guards left it. Before anything is decided."""
        ...

    def decided(self, decision: Decision) -> None:
        """The decision was made or, when an earlier one is followed, looked up."""
        ...

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> AttemptWatch:
        """An attempt begins."""
        ...

    def first_content(self) -> None:
        """The first piece of the answer goes to the caller; called at most once."""
        ...

    def completed(self, completion: Completion) -> None:
        """The call ended well."""
        ...

    def failed(self, error: BaseException) -> None:
        """The call ended with this error; `CancelledError` and `GeneratorExit` say that the caller went away."""
        ...


class Telemetry(Protocol):
    """Sees what happens, for traces, metrics and records. Never fails a call, never blocks.

    Keeps no text of a request or an answer, except where the policy wants texts recorded: then only until they are
    masked, and what cannot be masked is forgotten.
    """

    def call(self, call: Call, operation: Operation) -> CallWatch:
        """A call begins."""
        ...

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """A deployment's breaker changed its state."""
        ...

    def retried(self, operation: Operation, number: int) -> None:
        """A deployment is asked once more; `number` is 1 for the first retry of the call."""
        ...

    def hedged(self, *, won: bool) -> None:
        """A hedge ended; `won` says whether its answer was taken."""
        ...

    def shed(self, reason: str) -> None:
        """A call was refused for load: "calls", "queue", "deployment" or "reader"."""
        ...

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """A guard ("sensitive", "injection") found something of this kind, or failed, and did what `action` says."""
        ...


class AnswerChecker(Protocol):
    """Checks answers against the JSON Schema that the request demands."""

    def check(self, schema: Mapping[str, object], text: str) -> Checked:
        """What of this answer does not fit; the violations quote it, so they are for the caller only."""
        ...


class ControlSource(Protocol):
    """Where what operators set can be read. Both methods raise `StoreUnavailableError`."""

    async def revision(self) -> int:
        """Grows with every change; cheap to ask for."""
        ...

    async def load(self) -> Control:
        """Everything as it is at one moment."""
        ...


class ControlKeeper(ControlSource, Protocol):
    """Keeps what operators set. Every change is recorded with its actor (a caller's name) and raises the revision.

    Every method raises `StoreUnavailableError`. Those that return a bool say whether anything changed; when nothing
    did, nothing is recorded.
    """

    async def add_key(self, key: Key, actor: str) -> None:
        """Keeps a new key. Raises `ValueError` when its id or its digest is taken."""
        ...

    async def revoke_key(self, key_id: str, actor: str) -> bool:
        """From now on the key opens nothing; False when there is no such key, or it was revoked before."""
        ...

    async def keys(self) -> list[Key]:
        """All keys, oldest first, the revoked and expired ones too."""
        ...

    async def set_flag(self, name: str, tenant: str, value: Any, actor: str) -> bool:
        """Sets a flag for a tenant, or with "" for all. `value` is plain JSON."""
        ...

    async def clear_flag(self, name: str, tenant: str, actor: str) -> bool:
        """The flag has its default again."""
        ...

    async def set_kill_switch(self, scope: KillScope, target: str, engaged: bool, comment: str, actor: str) -> bool:
        """Turns a kill switch on or off. `target` is a tenant or a provider's id, "" for the global one."""
        ...

    async def keep_policy(self, version: str, yaml: str) -> None:
        """Keeps a policy without putting it in force, so that a rollout may name it. Not a change, not recorded."""
        ...

    async def apply_policy(self, version: str, yaml: str, author: str, comment: str) -> bool:
        """Puts a policy in force, a new one or an earlier one again; False when it is in force already.

        `version` is a hash of `yaml`: what was kept under it once stays.
        """
        ...

    async def policy(self, version: str) -> PolicyVersion | None:
        """A policy as it was last applied; one that was only kept has no author and the time 0."""
        ...

    async def policies(self, limit: int = 100, before: float | None = None) -> list[PolicyVersion]:
        """Every application of a policy, newest first, without texts; `before` is the `applied_at` of the last seen.

        No two have the same `applied_at`.
        """
        ...

    async def set_rollout(self, rollout: Rollout | None, actor: str, comment: str = "") -> bool:
        """Tries a policy, or with None ends the trial."""
        ...

    async def note(
        self,
        actor: str,
        action: str,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        comment: str = "",
    ) -> None:
        """Records a change of something that is kept elsewhere, such as a breaker; the revision stays."""
        ...

    async def audit(
        self,
        limit: int = 100,
        before_id: int | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        actor: str = "",
        action: str = "",
    ) -> list[AuditEvent]:
        """Recorded changes, newest first: from `start` on and before `end`; "" is any actor, any action.

        `before_id` is the id of the last one seen.
        """
        ...
