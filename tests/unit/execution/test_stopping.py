from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from dataclasses import replace
from typing import Any

import pytest

from kit.catalog import circumstances, deployment, provider, snapshot
from kit.clock import in_virtual_time
from pointsman_server.decision.engine import decide
from pointsman_server.decision.replay import decide_again
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Control, Key, KillScope, KillSwitch
from pointsman_server.domain.errors import KillSwitchEngaged, NoEligibleDeployment, Unauthenticated
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.record import DecisionRecord, summarise
from pointsman_server.execution.stopping import Heeded, StreamStops, is_stopped, require_running, stopped_deployments

GLOBAL = KillSwitch(KillScope.GLOBAL, comment="leak")
ACME = KillSwitch(KillScope.TENANT, "acme")
UP = KillSwitch(KillScope.PROVIDER, "up")


def under(*switches: KillSwitch) -> Control:
    return Control(kill_switches=frozenset(switches))


class TestCalls:
    @pytest.mark.parametrize(
        ("control", "tenant", "by"),
        [
            (Control(), "acme", None),
            (under(GLOBAL), "acme", GLOBAL),
            (under(GLOBAL, ACME), "acme", GLOBAL),
            (under(ACME), "acme", ACME),
            (under(ACME), "acme2", None),
            (under(UP), "up", None),
        ],
    )
    def test_who_is_stopped_by_what(self, control: Control, tenant: str, by: KillSwitch | None) -> None:
        if by is None:
            require_running(control, tenant)
            return
        with pytest.raises(KillSwitchEngaged, match="an operator has stopped") as caught:
            require_running(control, tenant)
        assert caught.value.switch == by
        assert "leak" not in str(caught.value)


ONE = deployment("one", provider=provider("up"))
TWO = deployment("two", provider=provider("other"))
BOTH = snapshot(ONE, TWO)


class TestProviders:
    def test_nothing_is_stopped(self) -> None:
        assert not stopped_deployments(Control(), BOTH)
        assert not stopped_deployments(under(GLOBAL, ACME), BOTH)
        assert not is_stopped(Control(), "up")
        assert not is_stopped(under(ACME), "acme")

    def test_a_stopped_one_is_left_out_with_its_reason(self) -> None:
        stopped = stopped_deployments(under(UP), BOTH)
        plan = decide(circumstances(health=HealthView(stopped)), BOTH)
        assert [one.deployment.id for one in plan.candidates] == ["two"]
        assert [(one.deployment_id, one.reason) for one in plan.rejections] == [("one", ExclusionReason.KILL_SWITCH)]
        assert is_stopped(under(UP), "up")
        assert not is_stopped(under(UP), "other")

    def test_all_are_stopped(self) -> None:
        stopped = stopped_deployments(under(UP, KillSwitch(KillScope.PROVIDER, "other")), BOTH)
        with pytest.raises(NoEligibleDeployment):
            decide(circumstances(health=HealthView(stopped)), BOTH)

    def test_a_decision_under_a_switch_comes_out_the_same_again(self) -> None:
        seen = circumstances(health=HealthView(stopped_deployments(under(UP), BOTH)))
        record = DecisionRecord("dec_1", "req_1", 0.0, "v1", seen, summarise(decide(seen, BOTH)))
        assert decide_again(record, BOTH) == record.outcome


class Provider:
    """Gives pieces a second apart, for ever; remembers whether its stream was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def events(self) -> AsyncGenerator[int, None]:
        number = 0
        try:
            while True:
                await asyncio.sleep(1.0)
                number += 1
                yield number
        finally:
            self.is_closed = True


class Reader:
    """Reads a stream in a task of its own."""

    def __init__(
        self,
        stops: StreamStops,
        control: Control | None = None,
        *,
        tenant: str = "acme",
        providers: Collection[str] = ("up",),
        seconds_for_each: float = 0.0,
    ) -> None:
        self.provider = Provider()
        self.got: list[int] = []
        events = stops.until_stopped(self.provider.events(), control or Control(), Heeded(tenant, lambda: providers))
        self.task = asyncio.ensure_future(self._read(events, seconds_for_each))

    async def _read(self, events: AsyncGenerator[int, None], seconds_for_each: float) -> None:
        async for event in events:
            self.got.append(event)
            await asyncio.sleep(seconds_for_each)


class TestStreams:
    @pytest.mark.parametrize("switch", [GLOBAL, ACME, UP])
    def test_one_that_waits_ends_at_once(self, switch: KillSwitch) -> None:
        async def scene() -> None:
            stops = StreamStops()
            reader = Reader(stops)
            await asyncio.sleep(2.5)
            stops.changed(Control(), under(switch))
            before = asyncio.get_running_loop().time()
            with pytest.raises(KillSwitchEngaged) as caught:
                await reader.task
            assert asyncio.get_running_loop().time() == before
            assert caught.value.switch == switch
            assert (reader.got, reader.provider.is_closed) == ([1, 2], True)
            assert reader.task.cancelling() == 0

        in_virtual_time(scene())

    def test_what_stops_others_leaves_it_alone(self) -> None:
        async def scene() -> None:
            stops = StreamStops()
            reader = Reader(stops)
            stops.changed(
                Control(), under(KillSwitch(KillScope.TENANT, "other"), KillSwitch(KillScope.PROVIDER, "other"))
            )
            stops.changed(Control(), Control())
            await asyncio.sleep(3.5)
            assert reader.got == [1, 2, 3]
            reader.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader.task
            assert reader.provider.is_closed

        in_virtual_time(scene())

    def test_a_switch_that_was_on_before_it_began(self) -> None:
        async def scene() -> None:
            reader = Reader(StreamStops(), under(UP))
            with pytest.raises(KillSwitchEngaged):
                await reader.task
            assert reader.got == []

        in_virtual_time(scene())

    def test_a_reader_is_not_interrupted_while_it_reads(self) -> None:
        async def scene() -> None:
            stops = StreamStops()
            reader = Reader(stops, seconds_for_each=10.0)
            await asyncio.sleep(5.0)
            stops.changed(Control(), under(ACME))
            stops.changed(Control(), under(GLOBAL))
            with pytest.raises(KillSwitchEngaged) as caught:
                await reader.task
            assert asyncio.get_running_loop().time() == 11.0
            assert (reader.got, caught.value.switch) == ([1], ACME)

        in_virtual_time(scene())

    def test_a_caller_who_goes_away_at_the_same_moment_goes_away(self) -> None:
        async def scene() -> None:
            stops = StreamStops()
            reader = Reader(stops)
            await asyncio.sleep(0.5)
            reader.task.cancel()
            stops.changed(Control(), under(GLOBAL))
            with pytest.raises(asyncio.CancelledError):
                await reader.task
            assert reader.provider.is_closed

        in_virtual_time(scene())

    def test_one_that_is_over_is_forgotten(self) -> None:
        async def three() -> AsyncGenerator[int, None]:
            for number in range(3):
                yield number

        async def scene() -> None:
            stops = StreamStops()
            events = stops.until_stopped(three(), Control(), Heeded("acme", tuple))
            assert [event async for event in events] == [0, 1, 2]
            stops.changed(Control(), under(GLOBAL))
            assert not stops._running

        in_virtual_time(scene())


NOW = 1_000.0


def key(**changes: Any) -> Key:
    return Key(**{"id": "k1", "tenant": "acme", "roles": frozenset({Role.CALL}), "digest": b"1", **changes})


def knowing(*keys: Key) -> Control:
    return Control(keys={one.digest: one for one in keys})


class KeyReader:
    """Reads a stream that was asked for with a key, whatever kill switches say."""

    def __init__(self, stops: StreamStops, control: Control, caller: str = "k1") -> None:
        self.provider = Provider()
        self.got: list[int] = []
        events = stops.until_stopped(self.provider.events(), control, None, stops.key_of(caller, control))
        self.task = asyncio.ensure_future(self._read(events))

    async def _read(self, events: AsyncGenerator[int, None]) -> None:
        async for event in events:
            self.got.append(event)

    async def ended(self) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.task
        assert self.provider.is_closed or not self.got, "one that never began needs no end"
        assert self.task.cancelling() == 0
        return caught.value.why


def on_loop() -> StreamStops:
    return StreamStops(lambda: NOW + asyncio.get_running_loop().time())


class TestKeys:
    @pytest.mark.parametrize("after", [knowing(key(revoked_at=NOW)), knowing(), knowing(key(id="k2", digest=b"2"))])
    def test_the_streams_of_one_that_is_revoked_or_gone_end_at_once(self, after: Control) -> None:
        async def scene() -> None:
            stops, before = on_loop(), knowing(key())
            reader = KeyReader(stops, before)
            await asyncio.sleep(2.5)
            stops.changed(before, after)
            began = asyncio.get_running_loop().time()
            assert await reader.ended() == "revoked_key"
            assert (asyncio.get_running_loop().time(), reader.got) == (began, [1, 2])

        in_virtual_time(scene())

    def test_those_of_others_go_on(self) -> None:
        async def scene() -> None:
            stops, other = on_loop(), key(id="k2", digest=b"2")
            before = knowing(key(), other)
            readers = [KeyReader(stops, before), KeyReader(stops, before, caller="spiffe://company/shop")]
            stops.changed(before, knowing(key(), replace(other, revoked_at=NOW)))
            stops.changed(before, Control(keys=before.keys, kill_switches=frozenset({GLOBAL, ACME, UP})))
            await asyncio.sleep(2.5)
            for reader in readers:
                assert reader.got == [1, 2], "nor do kill switches that the policy does not want to end streams"
                reader.task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reader.task

        in_virtual_time(scene())

    def test_one_that_was_revoked_before_the_stream_began(self) -> None:
        async def scene() -> None:
            reader = KeyReader(on_loop(), knowing(key(revoked_at=1.0)))
            assert await reader.ended() == "revoked_key"
            assert reader.got == []

        in_virtual_time(scene())

    @pytest.mark.parametrize(("lasts", "got"), [(3.5, [1, 2, 3]), (0.0, []), (-5.0, [])])
    def test_one_that_expires_ends_its_streams_at_its_time(self, lasts: float, got: list[int]) -> None:
        async def scene() -> None:
            began = asyncio.get_running_loop().time()
            reader = KeyReader(on_loop(), knowing(key(expires_at=NOW + lasts)))
            assert await reader.ended() == "expired_key"
            assert asyncio.get_running_loop().time() - began == pytest.approx(max(0.0, lasts))
            assert reader.got == got

        in_virtual_time(scene())

    def test_a_stream_that_is_over_leaves_no_timer_and_one_for_years_gets_none(self) -> None:
        async def three() -> AsyncGenerator[int, None]:
            for number in range(3):
                yield number

        async def scene() -> None:
            for expires_at in (NOW + 60.0, NOW + 1e9):
                stops, control = on_loop(), knowing(key(expires_at=expires_at))
                events = stops.until_stopped(three(), control, None, stops.key_of("k1", control))
                assert [event async for event in events] == [0, 1, 2]
                stops.changed(control, knowing())
            await asyncio.sleep(120.0)

        in_virtual_time(scene())

    def test_whichever_ends_it_first_counts(self) -> None:
        async def scene() -> None:
            stops, before = on_loop(), knowing(key())
            provider = Provider()
            heeded = Heeded("acme", lambda: ("up",))
            events = stops.until_stopped(provider.events(), before, heeded, key())
            task = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.5)
            stops.changed(before, Control(kill_switches=frozenset({ACME})))
            with pytest.raises(KillSwitchEngaged):
                await task

        in_virtual_time(scene())
