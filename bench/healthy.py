"""What retries, breakers, deadlines, places, hedging and the watch over streams add to a call that goes well.

One process asks the same upstream by turns: through the provider's adapter, and through the dispatch, which asks
through the same adapter. The difference of the medians is what the machinery adds. The dispatch does all that it does
in a server, metrics of the attempt included; not the rooms before and after it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import NamedTuple

import uvloop

from bench.jobs import Percentiles
from bench.machine import cores, on_core
from bench.payloads import PROMPT, route_request
from pointsman.v1.router_service_pb2 import RouteRequest
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.adapters.telemetry.setup import observe
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.config.policy_file import load_policy
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.decision.engine import decide
from pointsman_server.decision.facts import facts_of
from pointsman_server.decision.tokens import estimate_tokens
from pointsman_server.domain.call import Call, Relay
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.plan import RoutePlan
from pointsman_server.domain.ports import Operation, ProviderCall, Telemetry
from pointsman_server.domain.reply import CONTENT_DELTAS
from pointsman_server.execution.admission import DeploymentPlaces
from pointsman_server.execution.agenda import Doorkeepers
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.retrying import ShareBudget
from pointsman_server.rpc.request import read_request

_CALL_SECONDS = 30.0
_WARMING_CALLS = 20


class Added(NamedTuple):
    """How long calls take in seconds: those that ask the adapter, and those that go through the dispatch."""

    of: str
    direct: Percentiles
    dispatched: Percentiles

    @property
    def p50_seconds(self) -> float:
        """What is added at the median."""
        return self.dispatched.p50 - self.direct.p50


class _Took(NamedTuple):
    """One call: seconds until the first of its text was there, and until all of it was."""

    first: float
    whole: float


def measure_healthy_path(policy_file: Path, seconds: float) -> Iterator[Added]:
    """Whole answers, then streams, to their first text and to their last event; so many seconds for each of the two.

    One call at a time, on the servers' core.
    """
    snapshot = load_policy(policy_file, {"BENCH_KEY": "bench"}).snapshot
    gc.freeze()  # as the server does when all is loaded
    pair = cores()
    with on_core(pair[0] if pair else None):
        direct, dispatched = uvloop.run(_measure(snapshot, seconds, stream=False))
        yield _added("whole answer", direct, dispatched, lambda took: took.whole)
        direct, dispatched = uvloop.run(_measure(snapshot, seconds, stream=True))
        yield _added("first text of a stream", direct, dispatched, lambda took: took.first)
        yield _added("last event of a stream", direct, dispatched, lambda took: took.whole)


def _added(of: str, direct: Sequence[_Took], dispatched: Sequence[_Took], seconds: Callable[[_Took], float]) -> Added:
    return Added(of, Percentiles.of([*map(seconds, direct)]), Percentiles.of([*map(seconds, dispatched)]))


async def _measure(snapshot: Snapshot, seconds: float, *, stream: bool) -> tuple[list[_Took], list[_Took]]:
    way = _Way(snapshot, stream=stream)
    direct: list[_Took] = []
    dispatched: list[_Took] = []
    try:
        for _ in range(_WARMING_CALLS):
            await _timed(way.directly())
            await _timed(way.dispatched())
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            direct.append(await _timed(way.directly()))
            dispatched.append(await _timed(way.dispatched()))
    finally:
        await way.close()
    return direct, dispatched


async def _timed(answer: AsyncGenerator[object, None]) -> _Took:
    started_at, first = time.perf_counter(), 0.0
    async with aclosing(answer) as batches:
        async for batch in batches:
            if not first and _has_content(batch):
                first = time.perf_counter() - started_at
    return _Took(first, time.perf_counter() - started_at)


def _has_content(batch: object) -> bool:
    """Of what an adapter yields and of what the dispatch does."""
    if isinstance(batch, Relay):
        return bool(batch.deltas)
    return isinstance(batch, Sequence) and any(isinstance(event, CONTENT_DELTAS) for event in batch)


class _Way:
    """The same call, directly and dispatched, over the same connection."""

    def __init__(self, snapshot: Snapshot, *, stream: bool) -> None:
        self._clock, self._stream = SystemClock(), stream
        self._operation = Operation.STREAM_COMPLETE if stream else Operation.COMPLETE
        self._wire = HttpWire()
        self._book = AdapterBook(self._wire)
        self._book.add(snapshot)
        self._snapshot = snapshot
        self._request = read_request(RouteRequest.FromString(route_request(PROMPT)))
        self._telemetry = observe(lambda: snapshot, self._clock, "bench", {}).telemetry
        health = HealthBoard(self._clock, self._telemetry.breaker_changed)
        self._dispatcher = self._build(health, self._telemetry)
        self._plan = self._decide(health)

    async def close(self) -> None:
        """Closes the connection."""
        await self._book.close()
        await self._wire.close()

    def directly(self) -> AsyncGenerator[Sequence[object], None]:
        """What the adapter yields."""
        candidate = self._plan.candidates[0]
        return self._book.exchange(
            ProviderCall(
                deployment=candidate.deployment,
                messages=self._request.messages,
                generation=self._request.generation,
                max_output_tokens=candidate.max_output_tokens,
                stream=self._stream,
                timeout_seconds=_CALL_SECONDS,
            )
        )

    def dispatched(self) -> AsyncGenerator[object, None]:
        """What the dispatch relays."""
        call = Call(self._request, "bench", self._snapshot, self._clock.monotonic() + _CALL_SECONDS)
        watch = self._telemetry.call(call, self._operation)
        return self._dispatcher.run(call, self._plan, DispatchRecord(), watch, _covered, stream=self._stream)

    def _build(self, health: HealthBoard, telemetry: Telemetry) -> Dispatcher:
        retries, hedges = ShareBudget(self._clock), ShareBudget(self._clock)
        random = Random(1)  # noqa: S311 - pauses need to differ, not to be secret
        keepers = Doorkeepers(health, DeploymentPlaces(), retries, hedges, telemetry, random)
        return Dispatcher(self._book, keepers, SchemaAnswerChecker(), TiktokenCounter(), self._clock)

    def _decide(self, health: HealthBoard) -> RoutePlan:
        facts = facts_of(self._request, judge_complexity(self._request))
        return decide(Circumstances(facts, estimate_tokens(self._request), health.view()), self._snapshot)


async def _covered(cost_micro_usd: int) -> None:
    """The budget is no part of what is measured."""
