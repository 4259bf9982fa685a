"""A dispatch over scripted providers, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Any

from kit.catalog import call, plan, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.money import Money
from kit.scripted import CharacterCounter, ScriptedAdapter, Step
from kit.watching import SeenCall, SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptOutcome, FailedOver, FailoverMode, Relay
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.errors import RouterError
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.ports import Clock, Operation, Telemetry
from pointsman_server.domain.reply import ContentDelta, TextDelta
from pointsman_server.execution.admission import DeploymentPlaces
from pointsman_server.execution.agenda import Doorkeepers
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.retrying import ShareBudget


@dataclass
class Dispatched:
    """What came of a dispatch; `error` is None when an answer came.

    `out` says who may not be asked next, `full` who has no place.
    """

    adapters: Mapping[str, ScriptedAdapter]
    record: DispatchRecord = field(default_factory=DispatchRecord)
    events: list[Relay | FailedOver] = field(default_factory=list)
    error: RouterError | None = None
    seconds: float = 0.0
    out: dict[str, ExclusionReason] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    money: Money = field(default_factory=Money)
    telemetry: SeenTelemetry = field(default_factory=SeenTelemetry)
    watch: SeenCall | None = None

    @property
    def asked(self) -> list[str]:
        """Ids of the deployments that were called, in order."""
        return [attempt.deployment.id for attempt in self.record.attempts]

    @property
    def outcomes(self) -> list[AttemptOutcome]:
        """How the attempts ended."""
        return [attempt.outcome for attempt in self.record.attempts]

    @property
    def text(self) -> str:
        """The text of the answer."""
        assert self.record.reply is not None
        return self.record.reply.text

    @property
    def failovers(self) -> list[FailedOver]:
        """The moves that were announced."""
        return [event for event in self.events if isinstance(event, FailedOver)]

    @property
    def deltas(self) -> list[tuple[int, ContentDelta]]:
        """What was relayed and not withdrawn."""
        standing: list[tuple[int, ContentDelta]] = []
        for event in self.events:
            if isinstance(event, FailedOver):
                standing.clear()
            else:
                standing.extend(event.deltas)
        return standing

    @property
    def relayed(self) -> str:
        """The text that was relayed and not withdrawn."""
        return "".join(delta.text for _, delta in self.deltas if isinstance(delta, TextDelta))


def doorkeepers(clock: Clock, telemetry: Telemetry, seed: int = 7) -> Doorkeepers:
    """What stands between plans and attempts in a process that just started."""
    health = HealthBoard(clock, telemetry.breaker_changed)
    return Doorkeepers(health, DeploymentPlaces(), ShareBudget(clock), ShareBudget(clock), telemetry, Random(seed))


def dispatch(
    scripts: Sequence[tuple[Deployment, Sequence[Step]]],
    *,
    stream: bool = False,
    failover: FailoverMode = FailoverMode.TERMINATE,
    deadline: float = 1e6,
    policy: Mapping[str, Any] | None = None,
    then: Mapping[str, Sequence[Step]] | None = None,
    money_micro_usd: int | None = None,
    **changes: Any,
) -> Dispatched:
    """Asks these deployments in this order, each of which follows its script, from its second call on that in `then`.

    `policy` and `changes` are fields of the snapshot and of the call. A call may cost `money_micro_usd`, None is
    without end.
    """
    deployments = [one for one, _ in scripts]
    later = then or {}
    done = Dispatched({one.id: ScriptedAdapter(steps, later.get(one.id)) for one, steps in scripts})
    done.money.left_micro_usd = money_micro_usd

    async def go() -> None:
        clock = LoopClock()
        keepers = doorkeepers(clock, done.telemetry)
        adapters = {one.provider.id: done.adapters[one.id] for one in deployments}
        one_call = call(snapshot(*deployments, **(policy or {})), deadline, failover=failover, **changes)
        done.watch = done.telemetry.call(one_call, Operation.STREAM_COMPLETE if stream else Operation.COMPLETE)
        events = Dispatcher(adapters, keepers, SchemaAnswerChecker(), CharacterCounter(), clock).run(
            one_call, plan(deployments), done.record, done.watch, done.money.cover, stream=stream
        )
        try:
            async with aclosing(events):
                async for event in events:
                    done.events.append(event)
        except RouterError as error:
            done.error = error
        done.seconds = asyncio.get_running_loop().time()
        done.full = set(keepers.places.full)
        done.out = {name: rejection.reason for name, rejection in keepers.health.view().rejections.items()}

    in_virtual_time(go())
    assert not any(adapter.open_exchanges for adapter in done.adapters.values()), "a connection was left open"
    return done
