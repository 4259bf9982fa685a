"""Who may come in: so many calls at once in the process, so many attempts at once at a deployment.

What cannot come in at once waits a little, the tenants in turn, or is refused at once. The healthy path costs about a
microsecond; only what waits costs a timer.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping

from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.errors import DeadlineExceeded, Draining, Overloaded, RouterError, Step
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.resilience import LoadPolicy

DRAINING_RETRY_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.5
"""What refused callers are told while nothing is known of the pace at which calls end."""

LEAST_RETRY_SECONDS = 0.1
MOST_RETRY_SECONDS = 5.0
PACE_WINDOW_SECONDS = 1.0
PACE_MEMORY_SECONDS = 10.0
"""A pace is measured over a window or more while callers are refused; what was longer ago says nothing of now."""

SHED_AT_ONCE = "calls"
SHED_FROM_QUEUE = "queue"


def _tell_nobody(reason: str) -> None:
    """For gates that nobody watches."""


class Gate:
    """At most `places` calls at once; `policy` says who waits, for how long, and who is critical.

    Ordinary calls never hold more places than the policy leaves them; critical ones may hold all and go first. Among
    waiting calls of the same kind the tenants take turns, each in the order of its arrivals. When the queue is full, a
    tenant that has fewer calls in it than another takes the place of that one's newest.
    `shed` is told of each call that is refused: "calls" at once, "queue" after it waited in vain.
    """

    def __init__(
        self,
        places: int,
        policy: Callable[[], LoadPolicy],
        clock: Clock,
        shed: Callable[[str], None] = _tell_nobody,
    ) -> None:
        self._places = places
        self._policy = policy
        self._clock = clock
        self._shed = shed
        self._pace = _Pace()
        self._critical = _Turns()
        self._ordinary = _Turns()
        self._critical_stay = Stay(self, True)
        self._ordinary_stay = Stay(self, False)
        self._ordinary_in_flight = 0
        self._draining = False
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return self._critical.count + self._ordinary.count

    @property
    def reads_labels(self) -> bool:
        """Whether labels matter now; where they do not, nobody needs to find out what they are."""
        return bool(self._policy().critical_labels)

    def enter_now(self, labels: Mapping[str, str]) -> Stay | None:
        """A place that must be ended, if there is one at once; who is refused here may still `enter`."""
        policy = self._policy()
        critical = bool(policy.critical_labels) and _is_critical(labels, policy)
        if self._draining or not self._has_room(critical, policy):
            return None
        # Whoever waits got the last place that was freed, so that nobody is overtaken here.
        return self._take(critical)

    async def enter(self, tenant: str, labels: Mapping[str, str], deadline: float = math.inf) -> Stay:
        """A place that must be ended; waits for one if that is allowed. `deadline` is on the clock, in seconds.

        Raises `Overloaded`, `Draining`, or `DeadlineExceeded` when the deadline passes in the queue.
        """
        if self._draining:
            raise Draining(DRAINING_RETRY_SECONDS)
        stay = self.enter_now(labels)
        if stay is None:
            policy = self._policy()
            stay = await self._wait(_Waiter(tenant, _is_critical(labels, policy)), policy, deadline)
        return stay

    def drain(self) -> None:
        """Refuses all that wait and all that come."""
        self._draining = True
        for turns in (self._critical, self._ordinary):
            while turns.count:
                turns.next().refuse(Draining(DRAINING_RETRY_SECONDS))

    def leave(self, critical: bool) -> None:
        """Gives a place to whoever is next; `Stay.end` does it."""
        self._pace.ended += 1
        self._give_back(critical)

    def _take(self, critical: bool) -> Stay:
        self.in_flight += 1
        if critical:
            return self._critical_stay
        self._ordinary_in_flight += 1
        return self._ordinary_stay

    def _give_back(self, critical: bool) -> None:
        self.in_flight -= 1
        if not critical:
            self._ordinary_in_flight -= 1
        if self._critical.count or self._ordinary.count:
            self._call_in()

    def _has_room(self, critical: bool, policy: LoadPolicy) -> bool:
        if self.in_flight >= self._places:
            return False
        if critical or not policy.critical_labels:
            return True
        # One place stays for ordinary calls, however small the house is.
        kept_free = min(math.ceil(self._places * policy.critical_share), self._places - 1)
        return self._ordinary_in_flight < self._places - kept_free

    def _call_in(self) -> None:
        policy = self._policy()
        for turns, critical in ((self._critical, True), (self._ordinary, False)):
            while turns.count and self._has_room(critical, policy):
                # The place is taken before the waiter runs: nobody who comes in between can have it.
                turns.next().let_in(self._take(critical))

    async def _wait(self, waiter: _Waiter, policy: LoadPolicy, deadline: float) -> Stay:
        if policy.longest_wait_seconds <= 0 or not self._has_turn(waiter, policy):
            self._shed(SHED_AT_ONCE)
            raise Overloaded(self._retry_after_seconds())
        turns = self._turns_of(waiter)
        turns.add(waiter)
        left_seconds = max(0.0, deadline - self._clock.monotonic())
        out_of_time = left_seconds < policy.longest_wait_seconds
        waits_for_seconds = min(policy.longest_wait_seconds, left_seconds)
        timer = waiter.loop.call_later(waits_for_seconds, self._expire, waiter, out_of_time)
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            self._forget(waiter)
            raise
        finally:
            timer.cancel()
        if isinstance(answer, Stay):
            return answer
        raise answer

    def _has_turn(self, waiter: _Waiter, policy: LoadPolicy) -> bool:
        """Whether it may wait; in a full queue somebody else's newest call gives way to it, or nobody's."""
        if self.queued < policy.most_queued:
            return True
        turns = self._turns_of(waiter)
        if waiter.critical and self._ordinary.count:
            turns = self._ordinary
        elif turns.longest() <= turns.held_by(waiter.tenant) + 1:
            return False
        self._refuse(turns.newest_of_longest())
        return True

    def _expire(self, waiter: _Waiter, out_of_time: bool) -> None:
        if waiter.stay is None and not waiter.refused:
            self._turns_of(waiter).remove(waiter)
            self._refuse(waiter, DeadlineExceeded(Step.DOOR) if out_of_time else None)

    def _refuse(self, waiter: _Waiter, error: RouterError | None = None) -> None:
        self._shed(SHED_FROM_QUEUE)
        waiter.refuse(error or Overloaded(self._retry_after_seconds()))

    def _forget(self, waiter: _Waiter) -> None:
        """The call was cancelled while it waited, perhaps just as it was its turn."""
        if waiter.stay is not None:
            self._give_back(waiter.critical)
        elif not waiter.refused:
            self._turns_of(waiter).remove(waiter)

    def _turns_of(self, waiter: _Waiter) -> _Turns:
        return self._critical if waiter.critical else self._ordinary

    def _retry_after_seconds(self) -> float:
        return self._pace.retry_after_seconds(self._clock.monotonic(), self.queued)


class Stay:
    """The stay of a call behind a gate. All calls of a kind share one; each must end it exactly once."""

    __slots__ = ("_critical", "_gate")

    def __init__(self, gate: Gate, critical: bool) -> None:
        self._gate = gate
        self._critical = critical

    def end(self) -> None:
        """The call is over; its place goes to whoever is next."""
        self._gate.leave(self._critical)


class Place:
    """A place at a deployment, for one attempt."""

    __slots__ = ("_deployment_id", "_places")

    def __init__(self, places: DeploymentPlaces | None, deployment_id: str) -> None:
        self._places = places
        self._deployment_id = deployment_id

    def give_back(self) -> None:
        """Frees the place; more than once is the same as once."""
        places, self._places = self._places, None
        if places is not None:
            places.free(self._deployment_id)


class DeploymentPlaces:
    """At most `Deployment.max_concurrent_calls` attempts at once at each; 0 is no limit."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self._full: set[str] = set()

    @property
    def full(self) -> Collection[str]:
        """Ids of the deployments that take no further attempt now; a live view."""
        return self._full

    def take(self, deployment: Deployment) -> Place | None:
        """A place that must be given back, or None when all are taken."""
        most = deployment.max_concurrent_calls
        if not most:
            return _UNCOUNTED
        taken = self._taken.get(deployment.id, 0)
        if taken >= most:
            return None
        self._taken[deployment.id] = taken + 1
        if taken + 1 >= most:
            self._full.add(deployment.id)
        return Place(self, deployment.id)

    def free(self, deployment_id: str) -> None:
        """One attempt less; `Place.give_back` calls it once."""
        left = self._taken[deployment_id] - 1
        if left:
            self._taken[deployment_id] = left
        else:
            del self._taken[deployment_id]
        self._full.discard(deployment_id)


_UNCOUNTED = Place(None, "")


class _Waiter:
    """A call that waits for a place. The answer may come when the call was cancelled and does not know it yet."""

    __slots__ = ("answer", "critical", "loop", "refused", "stay", "tenant")

    def __init__(self, tenant: str, critical: bool) -> None:
        self.tenant = tenant
        self.critical = critical
        self.loop = asyncio.get_running_loop()
        # Refusals are results, not exceptions: a cancelled call never looks at its answer, and none is missed.
        self.answer: asyncio.Future[Stay | RouterError] = self.loop.create_future()
        self.stay: Stay | None = None
        self.refused = False

    def let_in(self, stay: Stay) -> None:
        """Its turn has come."""
        self.stay = stay
        self._tell(stay)

    def refuse(self, error: RouterError) -> None:
        """It waited in vain."""
        self.refused = True
        self._tell(error)

    def _tell(self, answer: Stay | RouterError) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class _Turns:
    """Waiting calls: the tenants in turn, and each tenant's calls in the order in which they came."""

    def __init__(self) -> None:
        self._by_tenant: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()
        self.count = 0

    def add(self, waiter: _Waiter) -> None:
        """The last of its tenant; a tenant that had nobody waiting comes after all others."""
        self._by_tenant.setdefault(waiter.tenant, OrderedDict())[waiter] = None
        self.count += 1

    def next(self) -> _Waiter:
        """Takes out the one whose turn it is; there must be one."""
        tenant, waiting = next(iter(self._by_tenant.items()))
        waiter, _ = waiting.popitem(last=False)
        self._by_tenant.move_to_end(tenant)
        self._taken_from(tenant)
        return waiter

    def remove(self, waiter: _Waiter) -> None:
        """Takes out one that waits no longer."""
        del self._by_tenant[waiter.tenant][waiter]
        self._taken_from(waiter.tenant)

    def newest_of_longest(self) -> _Waiter:
        """Takes out the last call of the tenant that has most; there must be one."""
        tenant = max(self._by_tenant, key=self.held_by)
        waiter, _ = self._by_tenant[tenant].popitem()
        self._taken_from(tenant)
        return waiter

    def held_by(self, tenant: str) -> int:
        """How many of this tenant wait."""
        return len(self._by_tenant.get(tenant, ()))

    def longest(self) -> int:
        """How many wait of the tenant that has most."""
        return max(map(len, self._by_tenant.values()), default=0)

    def _taken_from(self, tenant: str) -> None:
        self.count -= 1
        if not self._by_tenant[tenant]:
            del self._by_tenant[tenant]


class _Pace:
    """How fast calls end, for telling refused callers when to come back; costs nothing until somebody is refused."""

    def __init__(self) -> None:
        self.ended = 0
        self._since = -math.inf
        self._ended_before = 0
        self._refused = 0
        self._per_second: float | None = None

    def retry_after_seconds(self, now: float, queued: int) -> float:
        """When those who wait and those who were refused lately, this one the last, will have had their turn."""
        passed_seconds = now - self._since
        if passed_seconds >= PACE_WINDOW_SECONDS:
            lately = passed_seconds <= PACE_MEMORY_SECONDS
            self._per_second = (self.ended - self._ended_before) / passed_seconds if lately else None
            self._since, self._ended_before, self._refused = now, self.ended, 0
        self._refused += 1
        if self._per_second is None:
            return FIRST_RETRY_SECONDS
        seconds = (queued + self._refused) / self._per_second if self._per_second else MOST_RETRY_SECONDS
        return min(max(LEAST_RETRY_SECONDS, seconds), MOST_RETRY_SECONDS)


def _is_critical(labels: Mapping[str, str], policy: LoadPolicy) -> bool:
    return any(labels.get(key) == value for key, value in policy.critical_labels)
