"""One process in virtual time, with everything between plans and providers, and a referee beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from kit.exchanges import Wires
from kit.persistence import PersistentWords
from kit.promises import check
from kit.scripted import CharacterCounter, Step
from kit.witness import Reader, WitnessedCall, WitnessingTelemetry, follow, tie
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.execution.admission import DeploymentPlaces
from pointsman_server.execution.agenda import Doorkeepers
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.health import Admission, HealthBoard
from pointsman_server.execution.retrying import ShareBudget


class Stage:
    """A dispatcher whose providers answer as `answer` says; to hang up on them takes `close_seconds`."""

    def __init__(
        self, policy: Snapshot, answer: Callable[[ProviderCall], Sequence[Step]], seed: int, close_seconds: float
    ) -> None:
        self.policy = policy
        self.calls: list[WitnessedCall] = []
        self.clock = _LoopTime()
        self.telemetry = WitnessingTelemetry()
        self.wires = Wires(answer, close_seconds)
        self.health = HealthBoard(self.clock, self.telemetry.breaker_changed)
        self.referee = PersistentWords(policy, self.health, self.clock)
        self.telemetry.referee = self.referee
        self.places = DeploymentPlaces()
        retries, hedges = ShareBudget(self.clock), ShareBudget(self.clock)
        keepers = Doorkeepers(self.health, self.places, retries, hedges, self.telemetry, Random(seed))
        adapters = {one.provider.id: self.wires for one in policy.deployments.values()}
        self._dispatcher = Dispatcher(adapters, keepers, SchemaAnswerChecker(), CharacterCounter(), self.clock)

    def warm_up(self, first_token_seconds: Sequence[float]) -> None:
        """Every deployment answered a few calls just now, this fast."""
        for name, one in self.policy.deployments.items():
            for seconds in first_token_seconds:
                admission = self.health.admit(one, self.policy)
                assert isinstance(admission, Admission)
                admission.succeeded(seconds)
                self.referee.served_before(name)

    async def serve(self, seen: WitnessedCall, reader: Reader, leaves_after_seconds: Sequence[float] = ()) -> None:
        """One call, until its caller has the answer or hangs up: once, or again and again while nothing happens."""
        self.calls.append(seen)
        task = asyncio.create_task(follow(self._dispatcher, seen, reader))
        for seconds in leaves_after_seconds:
            await asyncio.wait([task], timeout=seconds)
            seen.hang_up(self.clock.monotonic())
            task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            seen.ended_at = self.clock.monotonic()
            assert not seen.attempts, "a call ended without its end"
        else:
            task.result()

    def check_all(self) -> None:
        """All that can be said when everything is over: every promise to every call, and that all is given back."""
        self.referee.quiet()
        tie(self.calls, self.wires)
        for seen in self.calls:
            check(seen)
        hedges = [one for seen in self.calls for one in seen.attempts if one.purpose is AttemptPurpose.HEDGE]
        assert len(self.telemetry.hedges) == len(hedges)
        assert not self.places.full
        for one in self.policy.deployments.values():
            given = [self.places.take(one) for _ in range(one.max_concurrent_calls)]
            assert None not in given, f"a place at {one.id} was never given back"


class _LoopTime:
    """The running loop's time, without looking for the loop each time."""

    def __init__(self) -> None:
        self.monotonic = asyncio.get_running_loop().time
        self.now = self.monotonic
