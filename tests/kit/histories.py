"""Random histories of many calls on one process, in virtual time, each from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from kit.catalog import EVERYTHING, call, deployment, plan, provider, request, snapshot
from kit.clock import LoopClock
from kit.exchanges import Wires
from kit.moods import MOODS
from kit.promises import check
from kit.persistence import PersistentWords
from kit.scripted import CharacterCounter, Step
from kit.witness import Reader, WitnessedCall, WitnessingTelemetry, follow, tie
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptPurpose, FailoverMode
from pointsman_server.domain.catalog import Deployment, Snapshot, Timeouts
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import Capability, CompletionRequest, GenerationConfig, Tier
from pointsman_server.domain.resilience import BreakerPolicy, HedgePolicy, Resilience, RetryPolicy
from pointsman_server.execution.admission import DeploymentPlaces
from pointsman_server.execution.agenda import Doorkeepers
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.retrying import ShareBudget

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
PROSE = request("Tell me a story.")
STRUCTURED = request("Count.", generation=GenerationConfig(response_schema=SCHEMA))
LONGEST_SECONDS = 150.0
"""When the last caller comes."""


@dataclass(frozen=True)
class Caller:
    """Somebody who comes at a time, with a wish, and perhaps leaves."""

    comes_at: float
    candidates: tuple[Deployment, ...]
    request: CompletionRequest
    stream: bool
    failover: FailoverMode
    allowed_seconds: float
    reader: Reader
    leaves_after_seconds: tuple[float, ...]
    """When he hangs up, once or more often; never if empty."""


@dataclass(frozen=True)
class Phase:
    """From a time on, a deployment is in a mood."""

    since: float
    mood: str


@dataclass(frozen=True)
class Plot:
    """All that a history is made of."""

    seed: int
    policy: Snapshot
    phases: dict[str, tuple[Phase, ...]]
    callers: tuple[Caller, ...]
    close_seconds: float


@dataclass
class Told:
    """What came of a history."""

    calls: list[WitnessedCall]
    log: list[tuple[float, str, str]]
    openings: int
    hedges: int = 0
    moods: set[str] = field(default_factory=set)


def plot(seed: int) -> Plot:
    """The history with this seed."""
    random = Random(seed)
    deployments = _deployments(random)
    policy = snapshot(*deployments, resilience=_resilience(random))
    phases = {one.id: _phases(random) for one in deployments}
    callers = tuple(sorted((_caller(random, deployments) for _ in range(random.randint(2, 14))), key=_comes_at))
    return Plot(seed, policy, phases, callers, random.choice((0.0, 0.0, 0.01)))


async def play(one: Plot) -> Told:
    """Plays it to its end and checks every promise on the way; then all deployments are well and must be asked."""
    stage = _Stage(one)
    tasks = []
    for number, caller in enumerate(one.callers):
        await asyncio.sleep(max(0.0, caller.comes_at - stage.clock.monotonic()))
        tasks.append(asyncio.create_task(stage.serve(number, caller)))
    await asyncio.gather(*tasks)
    stage.referee.quiet()
    stage.well = True
    await stage.recover()
    stage.check_all()
    return Told(stage.calls, stage.referee.log, stage.referee.openings, len(stage.telemetry.hedges), stage.moods)


class _Stage:
    def __init__(self, one: Plot) -> None:
        self.plot = one
        self.well = False
        self.moods: set[str] = set()
        self.calls: list[WitnessedCall] = []
        self.clock = LoopClock()
        self.telemetry = WitnessingTelemetry()
        self.wires = Wires(self._script, one.close_seconds)
        self.health = HealthBoard(self.clock, self.telemetry.breaker_changed)
        self.referee = PersistentWords(one.policy, self.health, self.clock)
        self.telemetry.referee = self.referee
        self.places = DeploymentPlaces()
        keepers = Doorkeepers(
            self.health,
            self.places,
            ShareBudget(self.clock),
            ShareBudget(self.clock),
            self.telemetry,
            Random(one.seed),
        )
        adapters = {one.provider.id: self.wires for one in one.policy.deployments.values()}
        self.dispatcher = Dispatcher(adapters, keepers, SchemaAnswerChecker(), CharacterCounter(), self.clock)

    async def serve(self, number: int, caller: Caller) -> None:
        """One caller's call, until he has his answer or hangs up."""
        deadline = self.clock.monotonic() + caller.allowed_seconds
        one_call = call(
            self.plot.policy,
            deadline,
            request=caller.request,
            failover=caller.failover,
            request_id=f"{number}",
        )
        seen = WitnessedCall(one_call, plan(caller.candidates), caller.stream, self.referee)
        self.calls.append(seen)
        task = asyncio.create_task(follow(self.dispatcher, seen, caller.reader))
        for seconds in caller.leaves_after_seconds:
            await asyncio.wait([task], timeout=seconds)
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        else:
            self._left_before_it_began(seen)

    async def recover(self) -> None:
        """After a while in which nobody calls, each deployment serves again, and its breaker is closed."""
        await asyncio.sleep(3_700.0)
        for number, one in enumerate(self.plot.policy.deployments.values()):
            everyday = Caller(0.0, (one,), PROSE, bool(number % 2), FailoverMode.TERMINATE, 60.0, Reader(), ())
            await self.serve(1_000 + number, everyday)
            seen = self.calls[-1]
            assert seen.error is None, f"{one.id} is well again, and is not asked: {seen.error}"
            assert [attempt.purpose for attempt in seen.attempts] == [AttemptPurpose.FIRST]
        assert not self.health.view().rejections
        self.referee.quiet()

    def check_all(self) -> None:
        """Everything that can be said when all is over."""
        tie(self.calls, self.wires)
        for seen in self.calls:
            check(seen)
        assert not self.places.full
        for one in self.plot.policy.deployments.values():
            given = [self.places.take(one) for _ in range(one.max_concurrent_calls)]
            assert None not in given, f"a place at {one.id} was never given back"

    def _script(self, provider_call: ProviderCall) -> Sequence[Step]:
        name, number = provider_call.deployment.id, len(self.wires.exchanges)
        now = self.clock.monotonic()
        mood = "up"
        if not self.well:
            mood = [phase.mood for phase in self.plot.phases[name] if phase.since <= now][-1]
        self.moods.add(mood)
        return MOODS[mood](Random(self.plot.seed * 1_000 + number), provider_call)

    def _left_before_it_began(self, seen: WitnessedCall) -> None:
        assert not seen.attempts
        seen.left = True
        seen.ended_at = self.clock.monotonic()


def _comes_at(caller: Caller) -> float:
    return caller.comes_at


def _deployments(random: Random) -> list[Deployment]:
    accounts = [provider(name) for name in ("one", "two")]
    made = []
    for place in range(random.randint(1, 4)):
        able = EVERYTHING
        if random.random() < 0.15:
            able -= {Capability.STREAMING}
        if random.random() < 0.5:
            able -= {Capability.PREFILL}
        of = {
            "capabilities": able,
            "context_window_tokens": random.choice((1_000, 2_000, 3_000)),
            "tier": random.choice((Tier.STANDARD, Tier.STANDARD, Tier.LIGHT)),
        }
        timeouts = Timeouts(
            first_token_seconds=random.choice((1.0, 4.0)),
            idle_seconds=3.0,
            total_seconds=random.choice((6.0, 30.0)),
            least_tokens_per_second=random.choice((0.0, 1.0)),
        )
        own = random.random() < 0.7
        account = provider(f"own{place}") if own else random.choice(accounts)
        limit = random.choice((0, 0, 1, 2, 3))
        made.append(deployment(f"d{place}", of=of, provider=account, timeouts=timeouts, max_concurrent_calls=limit))
    return made


def _resilience(random: Random) -> Resilience:
    return Resilience(
        retries=random.choice(
            (RetryPolicy(), RetryPolicy(), RetryPolicy(2, 4, 0.5, 1.0, 0.2, 1), RetryPolicy(1), RetryPolicy(3, 6, 3.0))
        ),
        breaker=random.choice(
            (BreakerPolicy(), BreakerPolicy(2, open_seconds=5.0), BreakerPolicy(4, 0.5, 4, 10.0, 3.0, 20.0))
        ),
        hedging=random.choice(
            (HedgePolicy(), HedgePolicy(0.5, 0.5, 1), HedgePolicy(0.9, 1.0, 2), HedgePolicy(0.9, 0.05, 1))
        ),
    )


def _phases(random: Random) -> tuple[Phase, ...]:
    phases = [Phase(0.0, random.choice(("up", "up", *MOODS)))]
    while (since := phases[-1].since + random.choice((5.0, 15.0, 40.0))) < LONGEST_SECONDS:
        phases.append(Phase(since, random.choice(("up", "up", "down", *MOODS))))
    return tuple(phases)


def _caller(random: Random, deployments: Sequence[Deployment]) -> Caller:
    candidates = random.sample(deployments, random.randint(1, len(deployments)))
    stream = random.random() < 0.6
    leaves: tuple[float, ...] = ()
    if random.random() < 0.2:
        leaves = (random.choice((0.0, 0.1, 0.25, 1.0, 4.0)),) + random.choice(((), (0.005,), (0.0, 0.005)))
    reader = Reader()
    if stream and random.random() < 0.2:
        reader = Reader(random.choice((0.0, 0.1, 2.0)), random.choice((None, 1, 2)))
    return Caller(
        # Callers come in crowds: at a few moments, and some on their own.
        comes_at=random.choice((10.0, 40.0, 45.0, 80.0, 120.0, random.uniform(0.0, LONGEST_SECONDS))),
        candidates=tuple(candidates),
        request=STRUCTURED if random.random() < 0.1 else PROSE,
        stream=stream,
        failover=random.choice(tuple(FailoverMode)),
        allowed_seconds=random.choice((0.01, 0.05, 0.5, 2.0, 10.0, 60.0, 60.0)),
        reader=reader,
        leaves_after_seconds=leaves,
    )
