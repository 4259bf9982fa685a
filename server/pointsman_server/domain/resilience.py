"""How hard a policy tries before it gives up: retries, breakers, hedges and load, as one immutable value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a deployment is asked once more, and how long is waited before.

    The pause before retry n is drawn evenly from 0 to `base_seconds` x 2^(n-1), at most `cap_seconds` ("full jitter").
    Retries of the same deployment are `budget_floor` plus `budget_share` of the calls lately, in the whole process:
    when everything fails, retries must not double the load.
    """

    attempts_per_deployment: int = 3
    attempts_per_call: int = 6
    base_seconds: float = 0.2
    cap_seconds: float = 5.0
    budget_share: float = 0.1
    budget_floor: int = 3


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a deployment is taken out of service, and for how long.

    It opens after `failures_in_a_row`, or when at least `failure_share` of at least `least_attempts` attempts within
    `window_seconds` failed. It stays open for `open_seconds` and then lets one call through; when that fails it opens
    again, for twice as long from the second time on, at most `longest_open_seconds`.
    """

    failures_in_a_row: int = 5
    failure_share: float = 0.5
    least_attempts: int = 10
    window_seconds: float = 30.0
    open_seconds: float = 30.0
    longest_open_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """When a second deployment is asked beside a slow first; `quantile` None means never.

    A hedge starts when the first attempt has no content after the time in which `quantile` of the deployment's
    answers began, which needs `least_answers` observed; at most `most_share` of the calls are hedged.
    """

    quantile: float | None = None
    most_share: float = 0.05
    least_answers: int = 20


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """What happens when more calls come than the server may handle at once.

    Up to `most_queued` calls wait for at most `longest_wait_seconds`, the tenants in turn; the rest is refused at
    once. Calls whose labels match `critical_labels` (any of them) may use all places, others leave `critical_share`
    of them free.
    """

    most_queued: int = 0
    longest_wait_seconds: float = 1.0
    critical_labels: tuple[tuple[str, str], ...] = ()
    critical_share: float = 0.2


@dataclass(frozen=True, slots=True)
class Resilience:
    """All of it. `continuation_prompt` asks a model to go on with a cut answer; "" is the built-in wording."""

    retries: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    hedging: HedgePolicy = field(default_factory=HedgePolicy)
    load: LoadPolicy = field(default_factory=LoadPolicy)
    continuation_prompt: str = ""
