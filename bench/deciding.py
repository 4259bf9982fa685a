"""The decision in this process, without gRPC: its two parts alone, and all of it as a server makes it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.jobs import Percentiles
from bench.machine import cores, on_core
from bench.payloads import prose, route_request
from pointsman.v1.router_service_pb2 import RouteRequest
from pointsman_server.adapters.stores.decision_file import StateFolder
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.adapters.telemetry.setup import observe
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.bootstrap.identity import RandomIds, SystemClock
from pointsman_server.bootstrap.pipeline import build_memory, build_pipeline, ungoverned
from pointsman_server.config.policy_file import load_policy
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.decision.engine import decide
from pointsman_server.decision.facts import facts_of
from pointsman_server.decision.learned import shipped_judge
from pointsman_server.decision.tokens import estimate_tokens
from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.execution.health import Admission, HealthBoard
from pointsman_server.execution.pipeline import Pipeline
from pointsman_server.rpc.request import read_request

_SMALL, _MIDDLE, _LARGE = 1_000, 8_000, 400_000
"""Characters of the prompts. The large one is so near the end of a window that its tokens are counted one by one."""

_FIRST_TOKEN_SECONDS = 0.3
_DEADLINE_SECONDS = 3_600.0


class Measured(NamedTuple):
    """How long a part of the decision takes, in seconds; `of` names the part."""

    of: str
    seconds: Percentiles


def measure_decision(policy_file: Path, seconds: float) -> Iterator[Measured]:
    """The judge alone and `decide` alone, at 1 kB, and whole decisions at each size; so many seconds for each.

    Unless said otherwise the judge has not seen the text before.
    """
    snapshot = load_policy(policy_file, {"BENCH_KEY": "bench"}).snapshot
    wholes = (
        ("1 kB", _SMALL, snapshot),
        ("8 kB", _MIDDLE, snapshot),
        ("400 kB", _LARGE, snapshot),
        ("400 kB and windows twice as large", _LARGE, _with_larger_windows(snapshot)),
    )
    request = _request(_SMALL)
    circumstances = _circumstances(request, snapshot)
    gc.freeze()  # as the server does when all is loaded
    pair = cores()
    with on_core(pair[0] if pair else None):
        forget = shipped_judge().forget
        yield Measured("judge alone", _in_a_loop(lambda: judge_complexity(request), seconds, before=forget))
        yield Measured("judge alone, the same text again", _in_a_loop(lambda: judge_complexity(request), seconds))
        yield Measured("decide alone", _in_a_loop(lambda: decide(circumstances, snapshot), seconds))
        for name, characters, policy in wholes:
            yield Measured(f"whole decision, {name}", asyncio.run(_whole(_request(characters), policy, seconds)))


def _request(characters: int) -> CompletionRequest:
    return read_request(RouteRequest.FromString(route_request(prose(characters))))


def _with_larger_windows(snapshot: Snapshot) -> Snapshot:
    larger = {
        name: replace(one, model=replace(one.model, context_window_tokens=2 * one.model.context_window_tokens))
        for name, one in snapshot.deployments.items()
    }
    return replace(snapshot, deployments=larger)


def _circumstances(request: CompletionRequest, snapshot: Snapshot) -> Circumstances:
    facts = facts_of(request, judge_complexity(request))
    return Circumstances(facts, estimate_tokens(request), _health(HealthBoard(SystemClock()), snapshot).view())


def _health(board: HealthBoard, snapshot: Snapshot) -> HealthBoard:
    """As it is in a server at work: something is known of every deployment."""
    for deployment in snapshot.deployments.values():
        admission = board.admit(deployment, snapshot)
        if isinstance(admission, Admission):
            admission.succeeded(_FIRST_TOKEN_SECONDS)
    return board


def _in_a_loop(work: Callable[[], object], seconds: float, *, before: Callable[[], None] = lambda: None) -> Percentiles:
    """How long the work takes each time; what is done `before` it does not count."""
    work()
    latencies: list[float] = []
    ends_at = time.perf_counter() + seconds
    while True:
        before()
        started_at = time.perf_counter()
        if started_at >= ends_at:
            return Percentiles.of(latencies)
        work()
        latencies.append(time.perf_counter() - started_at)


async def _whole(request: CompletionRequest, snapshot: Snapshot, seconds: float) -> Percentiles:
    """As `Route` has it made: tokens counted or estimated, judged, decided, remembered; nothing is written.

    The judge has never seen the text: it is made to forget it before each decision.
    """
    pipeline = _pipeline(snapshot)
    call = Call(request, "bench", snapshot, SystemClock().monotonic() + _DEADLINE_SECONDS, request_digest=b"bench")
    await pipeline.route(call)
    latencies: list[float] = []
    ends_at = time.perf_counter() + seconds
    while True:
        shipped_judge().forget()
        started_at = time.perf_counter()
        if started_at >= ends_at:
            return Percentiles.of(latencies)
        await pipeline.route(call)
        latencies.append(time.perf_counter() - started_at)


def _pipeline(snapshot: Snapshot) -> Pipeline:
    clock = SystemClock()
    observed = observe(lambda: snapshot, clock, "bench", {})
    memory = build_memory(clock, StateFolder(None), observed.telemetry)
    _health(memory.health, snapshot)
    governing = ungoverned(clock)
    counter = TiktokenCounter()
    return build_pipeline(memory, {}, observed.telemetry, governing, MemoryLedger(), counter, clock, RandomIds())
