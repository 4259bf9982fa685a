"""Random histories of many calls on one process, in virtual time, each from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random

from kit.catalog import EVERYTHING, call, deployment, plan, provider, request, snapshot
from kit.moods import MOODS
from kit.scripted import Step
from kit.stage import Stage
from kit.witness import Reader, WitnessedCall
from pointsman_server.domain.call import AttemptPurpose, FailoverMode
from pointsman_server.domain.catalog import Deployment, Snapshot, Timeouts
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import Capability, CompletionRequest, GenerationConfig, Tier
from pointsman_server.domain.resilience import BreakerPolicy, HedgePolicy, Resilience, RetryPolicy
from pointsman_server.execution.cooldown import MAX_COOLDOWN_SECONDS

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
PROSE = request("Tell me a story.")
STRUCTURED = request("Count.", generation=GenerationConfig(response_schema=SCHEMA))
LONGEST_SECONDS = 150.0
"""When the last caller comes."""

QUIET_SECONDS = MAX_COOLDOWN_SECONDS + 1.0
"""No breaker and no cooldown lasts longer."""


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
    phases: Mapping[str, tuple[Phase, ...]]
    callers: tuple[Caller, ...]
    answered_in_seconds: tuple[float, ...]
    """First-token latencies that are known of every deployment from before."""
    close_seconds: float
    """How long it takes to hang up."""


def plot(seed: int) -> Plot:
    """The history with this seed."""
    random = Random(seed)
    deployments = _deployments(random)
    policy = snapshot(*deployments, resilience=_resilience(random))
    phases = {one.id: _phases(random) for one in deployments}
    callers = tuple(sorted((_caller(random, deployments) for _ in range(random.randint(2, 12))), key=_comes_at))
    known = random.choice(((), (0.1, 0.3), (0.1, 0.3)))
    return Plot(seed, policy, phases, callers, known, random.choice((0.0, 0.0, 0.01)))


async def play(one: Plot) -> Stage:
    """Plays it to its end and checks every promise on the way; then all deployments are well and must be asked."""
    numbers = count()
    is_over = False

    def answer(provider_call: ProviderCall) -> Sequence[Step]:
        random = Random(one.seed * 1_000 + next(numbers))
        phases = one.phases[provider_call.deployment.id]
        mood = [phase.mood for phase in phases if phase.since <= stage.clock.monotonic()][-1]
        return MOODS["up" if is_over else mood](random, provider_call)

    stage = Stage(one.policy, answer, one.seed, one.close_seconds)
    stage.warm_up(one.answered_in_seconds)
    tasks = []
    for number, caller in enumerate(one.callers):
        await asyncio.sleep(max(0.0, caller.comes_at - stage.clock.monotonic()))
        tasks.append(asyncio.create_task(_serve(stage, f"call {number}", caller)))
    await asyncio.gather(*tasks)
    stage.referee.quiet()
    is_over = True
    await _recover(stage)
    stage.check_all()
    return stage


async def _serve(stage: Stage, name: str, caller: Caller) -> WitnessedCall:
    deadline = stage.clock.monotonic() + caller.allowed_seconds
    one_call = call(stage.policy, deadline, request=caller.request, failover=caller.failover, request_id=name)
    seen = WitnessedCall(one_call, plan(caller.candidates), caller.stream, stage.referee)
    await stage.serve(seen, caller.reader, caller.leaves_after_seconds)
    return seen


async def _recover(stage: Stage) -> None:
    """After a while in which nobody calls, each deployment serves again, and its breaker is closed."""
    await asyncio.sleep(QUIET_SECONDS)
    for number, one in enumerate(stage.policy.deployments.values()):
        everyday = Caller(0.0, (one,), PROSE, bool(number % 2), FailoverMode.TERMINATE, 60.0, Reader(), ())
        seen = await _serve(stage, f"everyday call {number}", everyday)
        assert seen.error is None, f"{one.id} is well again, and is not asked: {seen.error}"
        assert [attempt.purpose for attempt in seen.attempts] == [AttemptPurpose.FIRST]
    assert not stage.health.view().rejections


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
            (
                RetryPolicy(),
                RetryPolicy(),
                RetryPolicy(2, 4, 0.5, 1.0, 0.2, 1),
                RetryPolicy(1),
                RetryPolicy(3, 6, 3.0),
                RetryPolicy(2, 2),
            )
        ),
        breaker=random.choice(
            (
                BreakerPolicy(),
                BreakerPolicy(2, open_seconds=5.0),
                BreakerPolicy(4, 0.5, 4, 10.0, 3.0, 20.0),
                BreakerPolicy(50, 0.5, 2, 60.0, 20.0),
            )
        ),
        hedging=random.choice(
            (HedgePolicy(), HedgePolicy(0.5, 0.5, 1), HedgePolicy(0.9, 1.0, 2), HedgePolicy(0.9, 0.2, 1))
        ),
    )


def _phases(random: Random) -> tuple[Phase, ...]:
    moods = ("up", "up", "slow", "cutting", "cutting", "down", *MOODS)
    phases = [Phase(0.0, random.choice(("up", *moods)))]
    while (since := phases[-1].since + random.choice((5.0, 15.0, 40.0))) < LONGEST_SECONDS:
        phases.append(Phase(since, random.choice(moods)))
    return tuple(phases)


def _caller(random: Random, deployments: Sequence[Deployment]) -> Caller:
    candidates = random.sample(deployments, random.randint(1, len(deployments)))
    stream = random.random() < 0.6
    leaves: tuple[float, ...] = ()
    if random.random() < 0.2:
        leaves = (random.choice((0.0, 0.1, 0.25, 1.0, 4.0)), *random.choice(((), (0.005,), (0.0, 0.005))))
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
        allowed_seconds=random.choice((0.05, 0.5, 2.0, 10.0, *(60.0,) * 5, random.uniform(0.0, 3.0))),
        reader=reader,
        leaves_after_seconds=leaves,
    )
