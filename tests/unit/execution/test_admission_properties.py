"""Any mix of arrivals, ends, failures, cancellations and waits: nobody is forgotten, and no place is lost."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kit.catalog import deployment
from kit.clock import LoopClock, _VirtualTimeLoop, in_virtual_time
from kit.properties import examples
from kit.staying import staying
from pointsman_server.domain.errors import DeadlineExceeded, Draining, Overloaded
from pointsman_server.domain.resilience import LoadPolicy
from pointsman_server.execution.admission import DeploymentPlaces, Gate, Place

URGENT = ("class", "urgent")
TENANTS = ("", "small", "big")
SLACK_SECONDS = 1e-6

_ANY = st.integers(0, 99)


@dataclass(eq=False)
class Visit:
    """One call as its caller sees it. Times are the loop's."""

    tenant: str
    critical: bool
    arrived_at: float
    may_wait_seconds: float
    go: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    inside: bool = False
    was_inside: bool = False
    waited_seconds: float = 0.0
    task: asyncio.Task[None] | None = None


class Broken(Exception):
    """What a handler may raise."""


class GateMachine(RuleBasedStateMachine):
    """A gate in virtual time against what its description promises."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=_VirtualTimeLoop)
        self.all: list[Visit] = []
        self.shed: list[str] = []
        self.drained = False

    @initialize(
        places=st.integers(1, 4),
        most_queued=st.sampled_from((3, 5, 1, 0)),
        longest=st.sampled_from((1.0, 0.5, 0.0)),
        critical=st.booleans(),
    )
    def build(self, places: int, most_queued: int, longest: float, critical: bool) -> None:
        labels = (URGENT,) if critical else ()
        self.places = places
        self.policy = LoadPolicy(most_queued, longest, labels, critical_share=0.3)
        self.gate = Gate(places, lambda: self.policy, LoopClock(), self.shed.append)

    def settle(self, seconds: float = 0.0) -> None:
        self.runner.run(_pass(seconds))

    @rule(
        tenant=st.sampled_from(TENANTS),
        critical=st.booleans(),
        seconds=st.sampled_from((math.inf, math.inf, 0.3, 0.0)),
        together=st.integers(1, 4),
    )
    def arrive(self, tenant: str, critical: bool, seconds: float, together: int) -> None:
        for _ in range(together):
            self.runner.run(self._start(tenant, critical, seconds))
        self.settle()

    async def _start(self, tenant: str, critical: bool, seconds: float) -> Visit:
        at = asyncio.get_running_loop().time()
        may_wait_seconds = min(self.policy.longest_wait_seconds, seconds)
        visit = Visit(tenant, critical and bool(self.policy.critical_labels), at, may_wait_seconds)
        labels = dict([URGENT]) if critical else {}
        visit.task = asyncio.create_task(self._visit(visit, labels, at + seconds))
        self.all.append(visit)
        return visit

    async def _visit(self, visit: Visit, labels: dict[str, str], deadline: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with staying(self.gate, visit.tenant, labels, deadline):
                visit.inside = visit.was_inside = True
                visit.waited_seconds = loop.time() - visit.arrived_at
                try:
                    await visit.go.wait()
                    if visit.fails:
                        raise Broken
                finally:
                    visit.inside = False
        except (Overloaded, DeadlineExceeded, Draining):
            visit.waited_seconds = loop.time() - visit.arrived_at
        except Broken:
            pass

    @property
    def inside(self) -> list[Visit]:
        return [visit for visit in self.all if visit.inside]

    @property
    def waiting(self) -> list[Visit]:
        return [visit for visit in self.all if visit.task and not visit.task.done() and not visit.was_inside]

    @precondition(lambda self: self.inside)
    @rule(which=_ANY, fails=st.booleans())
    def end(self, which: int, fails: bool) -> None:
        visit = _pick(self.inside, which)
        visit.fails = fails
        visit.go.set()
        self.settle()

    @precondition(lambda self: self.inside or self.waiting)
    @rule(which=_ANY)
    def cancel(self, which: int) -> None:
        _cancel(_pick(self.inside + self.waiting, which))
        self.settle()

    @precondition(lambda self: self.inside and self.waiting)
    @rule(ending=_ANY, cancelled=_ANY)
    def cancel_as_another_ends(self, ending: int, cancelled: int) -> None:
        self.runner.run(_end_and_cancel(_pick(self.inside, ending), _pick(self.waiting, cancelled)))
        self.settle()

    @rule(seconds=st.sampled_from((0.1, 0.3, 0.5, 1.0)))
    def wait(self, seconds: float) -> None:
        self.settle(seconds)

    @rule()
    def drain(self) -> None:
        if len(self.all) > 8:  # a drained gate has nothing more to show
            self.drained = True
            self.gate.drain()
            self.settle()

    @invariant()
    def places_are_kept(self) -> None:
        if not self.all:
            return
        inside = self.inside
        assert len(inside) == self.gate.in_flight <= self.places
        kept_free = min(math.ceil(self.places * 0.3), self.places - 1) if self.policy.critical_labels else 0
        assert sum(not visit.critical for visit in inside) <= self.places - kept_free

    @invariant()
    def the_queue_is_kept(self) -> None:
        if not self.all:
            return
        now = self.runner.run(_now())
        waiting = self.waiting
        assert len(waiting) == self.gate.queued <= self.policy.most_queued
        for visit in waiting:
            assert now - visit.arrived_at <= visit.may_wait_seconds + SLACK_SECONDS
        assert all(visit.waited_seconds <= visit.may_wait_seconds + SLACK_SECONDS for visit in self.all)

    @invariant()
    def nobody_waits_for_a_free_place(self) -> None:
        if self.all and self.gate.queued and not self.policy.critical_labels:
            assert self.gate.in_flight == self.places
        if self.drained:
            assert not self.gate.queued

    def teardown(self) -> None:
        for visit in self.all:
            visit.go.set()
        self.settle(2.0)
        if self.all:
            assert (self.gate.in_flight, self.gate.queued) == (0, 0)
            assert all(visit.task and visit.task.done() for visit in self.all)
            assert len(self.shed) == sum(not v.was_inside and _was_refused(v) for v in self.all) or self.drained
        self.runner.close()


def _was_refused(visit: Visit) -> bool:
    return visit.task is not None and not visit.task.cancelled()


async def _end_and_cancel(ending: Visit, cancelled: Visit) -> None:
    """Cancels the one when it was perhaps called in, and does not know it yet."""
    ending.go.set()
    await asyncio.sleep(0)
    _cancel(cancelled)


def _pick(visits: list[Visit], which: int) -> Visit:
    return visits[which % len(visits)]


def _cancel(visit: Visit) -> None:
    assert visit.task is not None
    visit.task.cancel()


async def _pass(seconds: float) -> None:
    await asyncio.sleep(seconds)
    for _ in range(6):
        await asyncio.sleep(0)


async def _now() -> float:
    return asyncio.get_running_loop().time()


TestGate = GateMachine.TestCase
TestGate.settings = settings(examples(100), stateful_step_count=40)


@given(
    loads=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    places=st.integers(1, 3),
    order=st.randoms(use_true_random=False),
)
@examples(100)
def test_whatever_the_others_ask_for_each_tenant_waits_one_round_at_most(
    loads: list[int], places: int, order: object
) -> None:
    """Between two turns of a tenant that waits, no other has more than one."""
    arrivals = [f"t{number}" for number, load in enumerate(loads) for _ in range(load)]
    order.shuffle(arrivals)  # type: ignore[attr-defined]
    served = in_virtual_time(_served(arrivals, places))
    assert sorted(served) == sorted(arrivals)
    waited = served[places:]
    for tenant in set(waited):
        turns = [place for place, one in enumerate(waited) if one == tenant]
        for before, after in zip([-1, *turns], turns, strict=False):
            between = waited[before + 1 : after]
            assert len(set(between)) == len(between)


async def _served(arrivals: list[str], places: int) -> list[str]:
    gate = Gate(places, lambda: LoadPolicy(most_queued=200, longest_wait_seconds=1e6), LoopClock())
    served: list[str] = []

    async def visit(tenant: str) -> None:
        async with staying(gate, tenant, {}):
            served.append(tenant)
            await asyncio.sleep(1.0)

    await asyncio.gather(*(visit(tenant) for tenant in arrivals))
    return served


@given(
    limit=st.integers(0, 3), steps=st.lists(st.tuples(st.sampled_from(("take", "give", "again")), st.integers(0, 9)))
)
@examples(100)
def test_places_of_a_deployment_are_neither_lost_nor_doubled(limit: int, steps: list[tuple[str, int]]) -> None:
    places, limited = DeploymentPlaces(), deployment("d", max_concurrent_calls=limit)
    taken: list[Place] = []
    given_back: list[Place] = []
    for step, which in steps:
        if step == "take":
            place = places.take(limited)
            assert (place is None) == (limit > 0 and len(taken) == limit)
            if place is not None:
                taken.append(place)
        elif step == "give" and taken:
            given_back.append(taken.pop(which % len(taken)))
            given_back[-1].give_back()
        elif given_back:
            given_back[which % len(given_back)].give_back()
        assert ("d" in places.full) == (limit > 0 and len(taken) == limit)
