"""The deployments' health as attempts reveal it: breakers, cooldowns and observed latencies.

What opens a breaker and what cools a deployment is told in docs/health.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from pointsman_server.domain.catalog import Deployment, Model, Snapshot
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState, HealthNews, HealthReport, HealthView, NewsKind
from pointsman_server.domain.plan import ExclusionReason, Rejection
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.request import Tier
from pointsman_server.execution.breaker import Breaker
from pointsman_server.execution.cooldown import (
    FIRST_LIMITED_SECONDS,
    FIRST_REFUSED_SECONDS,
    LONGEST_LIMITED_SECONDS,
    LONGEST_REFUSED_SECONDS,
    MAX_COOLDOWN_SECONDS,
    Account,
    Cooldown,
)
from pointsman_server.execution.observations import ObservationBook

_LOG = structlog.stdlib.get_logger("pointsman.health")

_ACCOUNT_EVENTS = {FaultKind.AUTH: "provider_key_refused", FaultKind.QUOTA: "provider_quota_used_up"}
"""Faults that mean the whole account of a provider, with what the log calls them."""

_BREAKER_EVENTS = {
    BreakerState.OPEN: "breaker_opened",
    BreakerState.HALF_OPEN: "breaker_half_open",
    BreakerState.CLOSED: "breaker_closed",
}

BreakerListener = Callable[[str, BreakerState, BreakerState], None]
"""Hears of every transition: the deployment's id, the state before, the state after."""


class _DeploymentHealth:
    __slots__ = ("account", "breaker", "cooldown", "id")

    def __init__(self, deployment_id: str, account: Account, breaker: Breaker) -> None:
        self.id = deployment_id
        self.account = account
        self.breaker = breaker
        self.cooldown = Cooldown()

    def cooldown_seconds(self, now: float) -> float:
        return max(self.cooldown.until_seconds, self.account.cooldown.until_seconds) - now

    def refusal(self, now: float) -> tuple[Rejection, float] | None:
        cooldown_seconds = self.cooldown_seconds(now)
        refused = self.breaker.refusal(now)
        if refused is not None:
            detail, seconds = refused
            return Rejection(self.id, ExclusionReason.BREAKER_OPEN, detail), max(seconds, cooldown_seconds)
        if cooldown_seconds > 0:
            return Rejection(self.id, ExclusionReason.COOLDOWN, self._why_cooling(now)), cooldown_seconds
        return None

    def _why_cooling(self, now: float) -> str:
        own_seconds = self.cooldown.until_seconds - now
        account_seconds = self.account.cooldown.until_seconds - now
        if account_seconds > own_seconds:
            return f"{self.account.trouble}; next try in {account_seconds:.0f} s"
        return f"its provider wants to be left alone for another {own_seconds:.0f} s"


class HealthBoard:
    """Learns from every attempt; shows the decision who cannot be called now, and lets attempts pass or not.

    Everything keys on the deployment's id and survives a change of policy. For one event loop.
    """

    def __init__(self, clock: Clock, listener: BreakerListener | None = None) -> None:
        self._clock = clock
        self._listener = listener
        self._tell: Callable[[HealthNews], None] | None = None
        self._by_id: dict[str, _DeploymentHealth] = {}
        self._accounts: dict[str, Account] = {}
        self._unwell: set[str] = set()
        self._observations = ObservationBook()
        self._snapshot: Snapshot | None = None

    def view(self) -> HealthView:
        """Health at this moment. Changes no breaker: one whose time is over is listed as available."""
        now = self._clock.monotonic()
        observed = self._observations.view(now)
        if not self._unwell:
            return HealthView(observed=observed)
        rejections: dict[str, Rejection] = {}
        back_in_seconds: dict[str, float] = {}
        for deployment_id in tuple(self._unwell):
            health = self._by_id[deployment_id]
            refusal = health.refusal(now)
            if refusal is not None:
                rejections[deployment_id], back_in_seconds[deployment_id] = refusal
            elif health.breaker.state is BreakerState.CLOSED:
                self._unwell.discard(deployment_id)
        return HealthView(rejections, back_in_seconds, observed)

    def admit(self, deployment: Deployment, snapshot: Snapshot) -> Admission | Rejection:
        """Asks right before an attempt. While a breaker is half open one call is admitted, the probe, until it ended.

        Whoever is admitted says how it ended, or that it has no verdict.
        """
        now = self._clock.monotonic()
        self._snapshot = snapshot
        health = self._by_id.get(deployment.id)
        if health is None or health.account.id != deployment.provider.id:
            health = self._enrol(deployment.id, deployment.provider.id)
        if deployment.id in self._unwell:
            refusal = health.refusal(now)
            if refusal is not None:
                return refusal[0]
            health.breaker.let_pass(now)
        return Admission(self, health, snapshot, now)

    def report(self, deployment_id: str) -> HealthReport:
        """The state of one deployment, for operators; that of a healthy one if it was never called."""
        now = self._clock.monotonic()
        observations = self._observations.of(deployment_id)
        observed = observations.view(now) if observations is not None else None
        health = self._by_id.get(deployment_id)
        if health is None:
            return HealthReport(BreakerState.CLOSED, 0.0, 0.0, observed)
        breaker = health.breaker
        half_open_seconds = max(0.0, breaker.open_until - now) if breaker.state is BreakerState.OPEN else 0.0
        return HealthReport(breaker.state, half_open_seconds, max(0.0, health.cooldown_seconds(now)), observed)

    def reset(self, deployment_id: str) -> None:
        """What an operator orders: the breaker is closed, the cooldown gone, that of the provider account too."""
        health = self._by_id.get(deployment_id)
        if health is not None:
            self._reset(health, "an operator's reset")
        self._spread(HealthNews(deployment_id, NewsKind.RESET))

    def answers(self, deployment_id: str) -> float:
        """How many answers with a first-token latency were observed lately, older ones counting less and less."""
        observations = self._observations.of(deployment_id)
        return observations.answers(self._clock.monotonic()) if observations is not None else 0.0

    def first_token_quantile_seconds(self, deployment_id: str, share: float) -> float | None:
        """The time in which this share of the observed answers began, None before the first."""
        observations = self._observations.of(deployment_id)
        return observations.first_token_quantile_seconds(share) if observations is not None else None

    def share_with(self, tell: Callable[[HealthNews], None]) -> None:
        """From now on what changes here is told, so that other replicas know. `tell` returns at once."""
        self._tell = tell

    def adopt(self, news: HealthNews) -> None:
        """What another replica tells. Own experience that is newer goes before; it is not told on."""
        now = self._clock.monotonic()
        health = self._by_id.get(news.deployment_id)
        if health is None or (news.account and health.account.id != news.account):
            health = self._enrol(news.deployment_id, news.account)
        self._unwell.add(health.id)
        is_old = now - news.age_seconds < health.breaker.moved_at
        match news.kind:
            case NewsKind.OPENED:
                if not is_old and not (news.by_rate and not self._may_open_by_rate(health, self._snapshot)):
                    health.breaker.open_for(news.seconds, news.failed_probes, now, by_rate=news.by_rate)
            case NewsKind.CLOSED:
                if not is_old and health.breaker.state is not BreakerState.CLOSED:
                    health.breaker.reset("a successful probe of another replica", now)
            case NewsKind.COOLED:
                cooldown = health.account.cooldown if news.account else health.cooldown
                cooldown.extend(now + min(news.seconds, MAX_COOLDOWN_SECONDS))
            case NewsKind.RESET:
                self._reset(health, "an operator's reset of another replica")

    def _succeeded(self, admission: Admission, first_token_seconds: float | None) -> None:
        now = self._clock.monotonic()
        health, snapshot = admission.health, admission.snapshot
        self._observations.answered(health.id, first_token_seconds, now)
        health.cooldown.succeed(admission.admitted_at)
        health.account.serve(admission.admitted_at)
        before = health.breaker.state
        may_open = partial(self._may_open_by_rate, health, snapshot)
        health.breaker.succeed(admission.generation, snapshot.resilience.breaker, now, may_open)
        self._spread_move(health, before, now)

    def _failed(self, admission: Admission, fault: ProviderFault) -> None:
        now = self._clock.monotonic()
        health, snapshot = admission.health, admission.snapshot
        if not (fault.rule.counts_for_breaker or fault.rule.cools_down):
            health.breaker.release(admission.generation)
            return
        self._observations.failed(health.id, now)
        if fault.rule.cools_down:
            if fault.kind in _ACCOUNT_EVENTS:
                self._cool_account(admission, fault, now)
            else:
                self._cool_deployment(admission, fault, now)
        if not fault.rule.counts_for_breaker:
            health.breaker.release(admission.generation)
            return
        before = health.breaker.state
        may_open = partial(self._may_open_by_rate, health, snapshot)
        health.breaker.fail(admission.generation, snapshot.resilience.breaker, now, may_open)
        self._spread_move(health, before, now)

    def _cool_deployment(self, admission: Admission, fault: ProviderFault, now: float) -> None:
        health = admission.health
        pause = health.cooldown.refuse(admission.admitted_at, FIRST_LIMITED_SECONDS, LONGEST_LIMITED_SECONDS)
        wish = pause if fault.retry_after_seconds is None else fault.retry_after_seconds
        health.cooldown.extend(now + min(wish, MAX_COOLDOWN_SECONDS))
        self._unwell.add(health.id)
        if health.cooldown.is_news():
            seconds = health.cooldown.until_seconds - now
            self._spread(HealthNews(health.id, NewsKind.COOLED, seconds))

    def _cool_account(self, admission: Admission, fault: ProviderFault, now: float) -> None:
        account = admission.health.account
        pause = account.cooldown.refuse(admission.admitted_at, FIRST_REFUSED_SECONDS, LONGEST_REFUSED_SECONDS)
        wish = max(pause, fault.retry_after_seconds or 0.0)
        account.cooldown.extend(now + min(wish, MAX_COOLDOWN_SECONDS))
        if account.lose(fault.kind):
            _LOG.error(_ACCOUNT_EVENTS[fault.kind], provider=account.id)
        siblings = [one.id for one in admission.snapshot.deployments.values() if one.provider.id == account.id]
        for deployment_id in siblings:
            known = self._by_id.get(deployment_id)
            if known is None or known.account is not account:
                self._enrol(deployment_id, account.id)
        self._unwell.update(siblings)
        if account.cooldown.is_news():
            seconds = account.cooldown.until_seconds - now
            for deployment_id in siblings:
                self._spread(HealthNews(deployment_id, NewsKind.COOLED, seconds, account=account.id))

    def _may_open_by_rate(self, health: _DeploymentHealth, policy: Snapshot | None) -> bool:
        """At most half of the policy's deployments of a tier, or of those that make vectors, go out by their failure
        rate, and one of a single one."""
        deployment = policy.deployments.get(health.id) if policy is not None else None
        if policy is None or deployment is None:
            return False
        group = [one.id for one in policy.deployments.values() if _kind(one.model) == _kind(deployment.model)]
        out = sum(
            name in self._unwell and self._by_id[name].breaker.state is not BreakerState.CLOSED
            for name in group
            if name != health.id
        )
        return out < max(1, len(group) // 2)

    def _reset(self, health: _DeploymentHealth, reason: str) -> None:
        health.cooldown.clear()
        health.account.restore()
        health.breaker.reset(reason, self._clock.monotonic())

    def _enrol(self, deployment_id: str, provider_id: str) -> _DeploymentHealth:
        account = self._accounts.setdefault(provider_id, Account(provider_id))
        health = self._by_id.get(deployment_id)
        if health is None:
            breaker = Breaker(deployment_id, partial(self._moved, deployment_id))
            health = self._by_id[deployment_id] = _DeploymentHealth(deployment_id, account, breaker)
        health.account = account
        self._unwell.add(deployment_id)  # its account may be cooling; the next view looks, and drops who is well
        return health

    def _moved(self, deployment_id: str, before: BreakerState, after: BreakerState, reason: str) -> None:
        self._unwell.add(deployment_id)
        log = _LOG.warning if after is BreakerState.OPEN else _LOG.info
        log(_BREAKER_EVENTS[after], deployment=deployment_id, reason=reason)
        if self._listener is not None:
            self._listener(deployment_id, before, after)

    def _spread_move(self, health: _DeploymentHealth, before: BreakerState, now: float) -> None:
        breaker = health.breaker
        if breaker.state is before:
            return
        if breaker.state is BreakerState.CLOSED:
            self._spread(HealthNews(health.id, NewsKind.CLOSED))
        else:
            seconds, probes = breaker.open_until - now, breaker.failed_probes
            by_rate = breaker.opened_by_rate
            self._spread(HealthNews(health.id, NewsKind.OPENED, seconds, failed_probes=probes, by_rate=by_rate))

    def _spread(self, news: HealthNews) -> None:
        if self._tell is not None:
            self._tell(news)


class Admission:
    """One attempt that was let pass. Its end says so once; what is said after that changes nothing."""

    __slots__ = ("_board", "_has_ended", "admitted_at", "generation", "health", "snapshot")

    def __init__(self, board: HealthBoard, health: _DeploymentHealth, snapshot: Snapshot, admitted_at: float) -> None:
        self._board = board
        self._has_ended = False
        self.health = health
        self.generation = health.breaker.generation
        self.snapshot = snapshot
        self.admitted_at = admitted_at

    def succeeded(self, first_token_seconds: float | None) -> None:
        """The attempt gave its answer; None where it was not streamed."""
        if self._end():
            self._board._succeeded(self, first_token_seconds)

    def failed(self, fault: ProviderFault) -> None:
        """The attempt failed with this fault."""
        if self._end():
            self._board._failed(self, fault)

    def released(self) -> None:
        """The attempt was cancelled or lost a race: no verdict, and a probe's place is free again."""
        if self._end():
            self.health.breaker.release(self.generation)

    def _end(self) -> bool:
        first = not self._has_ended
        self._has_ended = True
        return first


def _kind(model: Model) -> tuple[bool, Tier]:
    return model.embedding is not None, model.tier
