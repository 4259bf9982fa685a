from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from typing import Any

import pytest

from kit.catalog import deployment
from kit.clock import LoopClock, in_virtual_time
from kit.staying import staying
from pointsman_server.domain.errors import DeadlineExceeded, Draining, Overloaded, Step
from pointsman_server.domain.resilience import LoadPolicy
from pointsman_server.execution.admission import (
    FIRST_RETRY_SECONDS,
    LEAST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    PACE_MEMORY_SECONDS,
    DeploymentPlaces,
    Gate,
)

NO_LABELS: Mapping[str, str] = {}
URGENT = {"class": "urgent"}


def timeless(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test runs in virtual time."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        in_virtual_time(test(*args, **kwargs))

    return run


class House:
    """A gate with its calls; `served` lists them by name in the order in which they came in."""

    def __init__(self, places: int, **policy: Any) -> None:
        self.policy = LoadPolicy(**policy)
        self.shed: list[str] = []
        self.gate = Gate(places, lambda: self.policy, LoopClock(), self.shed.append)
        self.served: list[str] = []
        self._go: dict[str, asyncio.Event] = {}

    async def call(
        self, name: str, tenant: str = "", labels: Mapping[str, str] = NO_LABELS, seconds: float = math.inf
    ) -> asyncio.Task[None]:
        """A call that has arrived, and stays until it may go."""
        task = asyncio.create_task(self._stay(name, tenant, labels, asyncio.get_running_loop().time() + seconds))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    async def let_go(self, *names: str) -> None:
        """These calls end."""
        for name in names:
            self._go[name].set()
        for _ in range(4):
            await asyncio.sleep(0)

    async def _stay(self, name: str, tenant: str, labels: Mapping[str, str], deadline: float) -> None:
        self._go[name] = asyncio.Event()
        async with staying(self.gate, tenant, labels, deadline):
            self.served.append(name)
            await self._go[name].wait()


def now() -> float:
    return asyncio.get_running_loop().time()


class TestPlaces:
    @timeless
    async def test_more_than_the_places_are_refused_at_once(self) -> None:
        house = House(2)
        await house.call("a")
        await house.call("b")
        refused = await house.call("c")
        with pytest.raises(Overloaded) as caught:
            await refused
        assert caught.value.retry_after_seconds == FIRST_RETRY_SECONDS
        assert (now(), house.shed, house.gate.in_flight, house.gate.queued) == (0, ["calls"], 2, 0)
        await house.let_go("a")
        await house.call("d")
        assert house.served == ["a", "b", "d"]

    @timeless
    async def test_a_gate_without_places_lets_nobody_in(self) -> None:
        with pytest.raises(Overloaded):
            await (await House(0).call("a"))

    @timeless
    async def test_a_call_that_fails_gives_its_place_back(self) -> None:
        house = House(1)
        with pytest.raises(ValueError, match="broken"):
            async with staying(house.gate, "", NO_LABELS):
                raise ValueError("broken")
        assert house.gate.in_flight == 0

    @timeless
    async def test_nobody_needs_to_watch(self) -> None:
        gate = Gate(0, LoadPolicy, LoopClock())
        with pytest.raises(Overloaded):
            async with staying(gate, "", NO_LABELS):
                pass


class TestQueue:
    @timeless
    async def test_those_who_wait_come_in_in_order(self) -> None:
        house = House(1, most_queued=2)
        for name in "abc":
            await house.call(name)
        assert (house.served, house.gate.queued) == (["a"], 2)
        await house.let_go("a")
        await house.let_go("b")
        assert (house.served, house.gate.queued, house.gate.in_flight, house.shed) == (["a", "b", "c"], 0, 1, [])

    @timeless
    async def test_nobody_waits_longer_than_allowed(self) -> None:
        house = House(1, most_queued=2, longest_wait_seconds=0.7)
        await house.call("a")
        waiting = await house.call("b")
        with pytest.raises(Overloaded):
            await waiting
        assert now() == pytest.approx(0.7)
        assert (house.shed, house.gate.queued) == (["queue"], 0)

    @timeless
    async def test_nor_past_the_deadline_which_is_told(self) -> None:
        house = House(1, most_queued=2)
        await house.call("a")
        waiting = await house.call("b", seconds=0.25)
        with pytest.raises(DeadlineExceeded) as caught:
            await waiting
        assert caught.value.step is Step.DOOR
        assert now() == pytest.approx(0.25)
        assert house.shed == ["queue"]

    @timeless
    async def test_a_deadline_long_past_is_no_reason_to_wait(self) -> None:
        house = House(1, most_queued=2)
        await house.call("a")
        with pytest.raises(DeadlineExceeded):
            await (await house.call("b", seconds=-5))
        assert now() == 0

    @timeless
    async def test_no_time_to_wait_is_no_queue(self) -> None:
        house = House(1, most_queued=2, longest_wait_seconds=0)
        await house.call("a")
        with pytest.raises(Overloaded):
            await (await house.call("b"))
        assert house.shed == ["calls"]

    @timeless
    async def test_a_cancelled_call_leaves_the_queue_at_once(self) -> None:
        house = House(1, most_queued=1)
        await house.call("a")
        gone = await house.call("b")
        gone.cancel()
        await asyncio.sleep(0)
        await house.call("c")
        assert (house.gate.queued, house.shed) == (1, [])
        await house.let_go("a")
        assert house.served == ["a", "c"]

    @timeless
    async def test_a_call_cancelled_as_its_turn_comes_passes_it_on(self) -> None:
        house = House(1, most_queued=2)
        await house.call("a")
        gone = await house.call("b")
        await house.call("c")
        house._go["a"].set()
        await asyncio.sleep(0)
        assert house.gate.queued == 1
        gone.cancel()
        await asyncio.sleep(0.01)
        assert (house.served, house.gate.in_flight) == (["a", "c"], 1)

    @timeless
    async def test_a_call_cancelled_just_before_its_turn_passes_it_on(self) -> None:
        house = House(1, most_queued=2)
        await house.call("a")
        gone = await house.call("b")
        await house.call("c")
        gone.cancel()
        house.gate.leave(False)  # as "a" does, before "b" knows of its end
        await asyncio.sleep(0.01)
        assert house.served == ["a", "c"]
        assert house.gate.in_flight == 1

    @timeless
    async def test_a_call_cancelled_as_its_time_ends_is_cancelled(self) -> None:
        house = House(1, most_queued=1, longest_wait_seconds=1.0)
        await house.call("a")
        gone = await house.call("b")
        asyncio.get_running_loop().call_at(1.0, gone.cancel)
        with pytest.raises((asyncio.CancelledError, Overloaded)):
            await gone
        assert (house.gate.queued, house.gate.in_flight) == (0, 1)

    @timeless
    async def test_a_call_whose_turn_comes_as_its_time_ends_gets_in(self) -> None:
        house = House(1, most_queued=1, longest_wait_seconds=1.0)
        await house.call("a")
        asyncio.get_running_loop().call_at(1.0, house.gate.leave, False)
        await house.call("b")
        await asyncio.sleep(2.0)
        assert (house.served, house.shed) == (["a", "b"], [])

    @timeless
    async def test_who_comes_later_does_not_get_in_earlier(self) -> None:
        house = House(1, most_queued=2)
        await house.call("a")
        await house.call("b")
        house._go["a"].set()
        await house.call("c")
        await asyncio.sleep(0.01)
        assert house.served == ["a", "b"]


class TestTenants:
    @timeless
    async def test_they_take_turns(self) -> None:
        house = House(1, most_queued=9)
        await house.call("first")
        for name in ("big1", "big2", "big3", "big4"):
            await house.call(name, "big")
        await house.call("small1", "small")
        await house.call("small2", "small")
        for name in ("first", "big1", "small1", "big2", "small2", "big3"):
            await house.let_go(name)
        assert house.served == ["first", "big1", "small1", "big2", "small2", "big3", "big4"]

    @timeless
    async def test_one_cannot_keep_others_out_of_the_queue(self) -> None:
        house = House(1, most_queued=4)
        await house.call("first")
        greedy = [await house.call(f"big{number}", "big") for number in range(4)]
        await house.call("small", "small")
        with pytest.raises(Overloaded):
            await greedy[3]
        assert (house.shed, house.gate.queued) == (["queue"], 4)
        await house.let_go("first")
        await house.let_go("big0")
        assert house.served == ["first", "big0", "small"]

    @timeless
    async def test_nobody_gives_way_to_one_who_has_as_many(self) -> None:
        house = House(1, most_queued=4)
        await house.call("first")
        for number in range(2):
            await house.call(f"one{number}", "one")
            await house.call(f"two{number}", "two")
        with pytest.raises(Overloaded):
            await (await house.call("one2", "one"))
        await house.call("three", "three")
        with pytest.raises(Overloaded):
            await (await house.call("three1", "three"))
        assert house.shed == ["calls", "queue", "calls"]


class TestCritical:
    POLICY: Mapping[str, Any] = {"critical_labels": (("class", "urgent"), ("class", "alarm")), "critical_share": 0.2}

    @timeless
    async def test_others_leave_them_places(self) -> None:
        house = House(10, **self.POLICY)
        for number in range(8):
            await house.call(str(number), labels={"class": "slow", "x": "urgent"})
        with pytest.raises(Overloaded):
            await (await house.call("8"))
        await house.call("a", labels=URGENT)
        await house.call("b", labels={"class": "alarm"})
        with pytest.raises(Overloaded):
            await (await house.call("c", labels=URGENT))
        assert house.gate.in_flight == 10

    @timeless
    async def test_they_may_use_all(self) -> None:
        house = House(3, **self.POLICY)
        for name in "abc":
            await house.call(name, labels=URGENT)
        assert house.served == ["a", "b", "c"]
        with pytest.raises(Overloaded):
            await (await house.call("d"))

    @timeless
    async def test_a_small_house_serves_others_too(self) -> None:
        house = House(1, **self.POLICY)
        await house.call("a")
        assert house.served == ["a"]

    @timeless
    async def test_they_go_first_and_do_not_wait_for_those_who_may_not(self) -> None:
        house = House(2, most_queued=4, **self.POLICY)
        await house.call("a")
        await house.call("b")  # one place stays free for what is critical
        await house.call("c", labels=URGENT)
        assert house.served == ["a", "c"]
        await house.call("d", labels=URGENT)
        await house.let_go("a")
        assert house.served == ["a", "c", "d"]
        await house.let_go("c")
        assert house.served == ["a", "c", "d", "b"]

    @timeless
    async def test_ordinary_calls_give_them_their_place_in_a_full_queue(self) -> None:
        house = House(1, most_queued=2, **self.POLICY)
        await house.call("a")
        await house.call("b")
        last = await house.call("c")
        await house.call("d", labels=URGENT)
        with pytest.raises(Overloaded):
            await last
        await house.call("e", labels=URGENT)
        with pytest.raises(Overloaded):
            await (await house.call("f", labels=URGENT))
        await house.let_go("a")
        assert house.served == ["a", "d"]

    @timeless
    async def test_without_such_labels_nothing_is_kept_free(self) -> None:
        house = House(2, critical_share=0.9)
        await house.call("a", labels=URGENT)
        await house.call("b")
        assert house.served == ["a", "b"]


class TestDrain:
    @timeless
    async def test_who_waits_and_who_comes_is_refused(self) -> None:
        house = House(1, most_queued=2, critical_labels=(("class", "urgent"),))
        running = await house.call("a")
        waiting = [await house.call("b"), await house.call("c", labels=URGENT)]
        house.gate.drain()
        for one in waiting:
            with pytest.raises(Draining):
                await one
        await house.let_go("a")
        await running
        with pytest.raises(Draining):
            await (await house.call("d"))
        assert (house.gate.in_flight, house.gate.queued, house.shed) == (0, 0, [])


class TestWhenToTryAgain:
    async def told(self, house: House) -> float:
        with pytest.raises(Overloaded) as caught:
            await (await house.call("refused"))
        return caught.value.retry_after_seconds

    async def busy_second(self, house: House, ended: int) -> None:
        """A second in which so many calls end, and whose pace is then known."""
        await self.told(house)
        for number in range(ended):
            await house.let_go(str(number))
            await house.call(str(number + 1))
        await asyncio.sleep(1.0)

    @timeless
    async def test_it_follows_the_pace_and_those_before(self) -> None:
        house = House(1)
        await house.call("0")
        await self.told(house)
        await asyncio.sleep(2.0)  # what was before the first refusal counts as unhurried
        await self.busy_second(house, 5)
        seconds = [await self.told(house) for _ in range(3)]
        assert seconds == pytest.approx([0.2, 0.4, 0.6])
        assert [await self.told(house) for _ in range(40)][-1] == MOST_RETRY_SECONDS

    @timeless
    async def test_a_quick_house_does_not_ask_for_a_storm(self) -> None:
        house = House(1)
        await house.call("0")
        await self.busy_second(house, 200)
        assert await self.told(house) == LEAST_RETRY_SECONDS

    @timeless
    async def test_where_nothing_ends_it_takes_long(self) -> None:
        house = House(1)
        await house.call("0")
        await self.told(house)
        await asyncio.sleep(1.5)
        assert await self.told(house) == MOST_RETRY_SECONDS

    @timeless
    async def test_what_was_long_ago_is_forgotten(self) -> None:
        house = House(1)
        await house.call("0")
        await self.busy_second(house, 5)
        await asyncio.sleep(PACE_MEMORY_SECONDS + 1)
        assert await self.told(house) == FIRST_RETRY_SECONDS


class TestDeployments:
    def test_no_limit(self) -> None:
        places = DeploymentPlaces()
        taken = [places.take(deployment("d")) for _ in range(50)]
        assert all(taken)
        assert not places.full
        for one in taken:
            assert one is not None
            one.give_back()

    def test_a_limit(self) -> None:
        places, limited = DeploymentPlaces(), deployment("d", max_concurrent_calls=2)
        first, second = places.take(limited), places.take(limited)
        assert first is not None
        assert second is not None
        assert places.take(limited) is None
        assert set(places.full) == {"d"}
        assert places.take(deployment("e", max_concurrent_calls=1)) is not None
        assert set(places.full) == {"d", "e"}
        first.give_back()
        first.give_back()
        assert set(places.full) == {"e"}
        assert places.take(limited) is not None
        assert places.take(limited) is None
        second.give_back()

    def test_nothing_is_kept_of_an_idle_deployment(self) -> None:
        places, limited = DeploymentPlaces(), deployment("d", max_concurrent_calls=1)
        for _ in range(3):
            place = places.take(limited)
            assert place is not None
            place.give_back()
        assert not places.full
        assert not places._taken
