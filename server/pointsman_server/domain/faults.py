"""One taxonomy for everything that goes wrong between pointsman and a provider.

A fault names what happened; `FAULT_RULES` decides what follows from it. Adapters raise `ProviderFault` and
nothing else; no text of a provider is ever part of its message.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class FaultKind(Enum):
    """What happened to an attempt."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    AUTH = "auth"
    QUOTA = "quota"
    CONTEXT_WINDOW = "context_window"
    REQUEST_TOO_LARGE = "request_too_large"
    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED = "unsupported"
    MODEL_MISSING = "model_missing"
    MALFORMED_REPLY = "malformed_reply"
    EMPTY_REPLY = "empty_reply"
    STREAM_CUT = "stream_cut"
    ANSWER_INVALID = "answer_invalid"
    TOO_SLOW = "too_slow"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FaultRule:
    """What follows from a fault.

    `try_next`: the next candidate may be asked. `larger_window_only`: only one with a larger window.
    `retry_here`: the same deployment may be asked again after a pause. `counts_for_breaker`: the deployment is to
    blame. `cools_down`: keep it out of picks for a while.
    """

    try_next: bool
    counts_for_breaker: bool
    retry_here: bool = False
    cools_down: bool = False
    larger_window_only: bool = False


FAULT_RULES: dict[FaultKind, FaultRule] = {
    FaultKind.RATE_LIMITED: FaultRule(try_next=True, counts_for_breaker=False, retry_here=True, cools_down=True),
    FaultKind.OVERLOADED: FaultRule(try_next=True, counts_for_breaker=True, retry_here=True),
    FaultKind.UNAVAILABLE: FaultRule(try_next=True, counts_for_breaker=True, retry_here=True),
    FaultKind.CONNECTION: FaultRule(try_next=True, counts_for_breaker=True, retry_here=True),
    FaultKind.TIMEOUT: FaultRule(try_next=True, counts_for_breaker=True, retry_here=True),
    FaultKind.AUTH: FaultRule(try_next=True, counts_for_breaker=True, cools_down=True),
    FaultKind.QUOTA: FaultRule(try_next=True, counts_for_breaker=True, cools_down=True),
    FaultKind.CONTEXT_WINDOW: FaultRule(try_next=True, counts_for_breaker=False, larger_window_only=True),
    FaultKind.REQUEST_TOO_LARGE: FaultRule(try_next=True, counts_for_breaker=False, larger_window_only=True),
    FaultKind.INVALID_REQUEST: FaultRule(try_next=False, counts_for_breaker=False),
    FaultKind.UNSUPPORTED: FaultRule(try_next=True, counts_for_breaker=False),
    FaultKind.MODEL_MISSING: FaultRule(try_next=True, counts_for_breaker=True),
    FaultKind.MALFORMED_REPLY: FaultRule(try_next=True, counts_for_breaker=True, retry_here=True),
    FaultKind.EMPTY_REPLY: FaultRule(try_next=True, counts_for_breaker=True, retry_here=True),
    FaultKind.STREAM_CUT: FaultRule(try_next=True, counts_for_breaker=True, retry_here=True),
    FaultKind.ANSWER_INVALID: FaultRule(try_next=False, counts_for_breaker=False),
    FaultKind.TOO_SLOW: FaultRule(try_next=True, counts_for_breaker=True),
    FaultKind.UNKNOWN: FaultRule(try_next=True, counts_for_breaker=True),
}


class ProviderFault(Exception):
    """An attempt failed.

    `detail` is our own short wording, safe to show and to log; the provider's words stay on `__cause__`
    or are dropped. `retry_after_seconds` is what the provider asked for, already parsed, None if it said
    nothing usable. `blameless` says that the deployment did all it could: asking it again gives the same, and nothing
    is held against it.
    """

    def __init__(
        self,
        kind: FaultKind,
        detail: str,
        *,
        status: int = 0,
        retry_after_seconds: float | None = None,
        blameless: bool = False,
    ) -> None:
        super().__init__(f"{kind.value}: {detail}")
        self.kind = kind
        self.detail = detail
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.blameless = blameless

    @property
    def rule(self) -> FaultRule:
        """What follows from this fault."""
        rule = FAULT_RULES[self.kind]
        return replace(rule, counts_for_breaker=False, retry_here=False, cools_down=False) if self.blameless else rule
