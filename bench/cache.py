"""`python -m bench.cache [--prompts FILE]`: what the cache finds, what it must not find, and how fast it answers.

Hits are counted in this process, over a database of SQLite and with two tenants; the time is that of calls over gRPC
to a server whose provider takes half a second. With a Parquet file of prompts (column `prompt`), all pairs of real
questions are compared as well, and every question with one of its numbers, names or negations changed.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
from aiohttp import web
from rich.console import Console
from rich.table import Table

from bench import processes
from bench.jobs import Percentiles
from bench.questions import FREE_PARAPHRASES, near_misses, paraphrases, spoiled
from pointsman.v1 import answer_pb2, completion_pb2, router_service_pb2_grpc
from pointsman.v1.router_service_pb2 import CompleteRequest
from pointsman_server.adapters.embedders.local import LocalEmbedder, vector_of
from pointsman_server.adapters.stores.sql.cache_store import SqlCache
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.decision.near_miss import agree, traits_of
from pointsman_server.domain.cache import HITS, CachePolicy, Caching
from pointsman_server.domain.call import Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Rates, Snapshot
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.plan import Candidate, Complexity, RoutePlan, TokenEstimate
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import CacheMode, CompletionRequest, Tier
from pointsman_server.execution.cache_place import LONGEST_QUESTION
from pointsman_server.execution.recall import Recall

PROVIDER_SECONDS = 0.5
LEAST_SIMILARITY = 0.95
_PARAPHRASES = 1_000
_NEAR_MISSES = 2_000
_WORKLOAD_CALLS = 3_000
_WORKLOAD_QUESTIONS = 400
_CALLS = 100
_TENANTS = ("one", "two")


_ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "model": "bench",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Like this."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


def _random(seed: int) -> Random:
    """The same numbers in every run."""
    return Random(seed)  # noqa: S311 - nothing secret depends on them


class Asking:
    """The cache of a process, asked as the pipeline asks it; every miss is answered and kept."""

    def __init__(self, recall: Recall, most_entries: int) -> None:
        usual = CachePolicy(mode=CacheMode.READ_WRITE, entries_per_tenant=most_entries)
        price = Price("bench", None, ((0, Rates(1, 1, 1, 1)),))
        model = Model("m", Tier.STANDARD, 100_000, 1_000, frozenset(), 0.5, price)
        deployment = Deployment("d", Provider("p", Dialect.OPENAI_CHAT, ""), model, "m")
        self._snapshot = Snapshot("bench", "bench", {"d": deployment}, {}, {}, caching=Caching(usual))
        self._candidate = Candidate(deployment, 1.0, (), 0.5, 1, 1, 1.0, 100)
        self._recall = recall

    async def hit(self, tenant: str, question: str) -> tuple[str, str] | None:
        """The tenant and the question that the answer found was given to; None for a miss."""
        request = CompletionRequest((Message(Role.USER, (TextPart(question),)),))
        call = Call(request, "bench", self._snapshot, 1e12, tenant=tenant)
        recalled = await self._recall.find(call)
        if recalled.outcome in HITS and recalled.answer is not None:
            whose, _, asked = "".join(part.text for part in recalled.answer.parts).partition(": ")
            return whose, asked
        self._recall.keep(call, recalled, self._completion(f"{tenant}: {question}"))
        return None

    def _completion(self, text: str) -> Completion:
        complexity = Complexity(0.5, Tier.STANDARD, ())
        plan = RoutePlan((self._candidate,), (), complexity, TokenEstimate(1, True, 1), "bench")
        usage = Usage(10, output_tokens=10)
        reply = Reply((TextPart(text),), FinishReason.STOP, "stop", usage, (), "", "m")
        decision = Decision("bench", plan, 0.0)
        return Completion("bench", decision, self._candidate, reply, usage, False, 100, (), ())


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description=__doc__)
    parser.add_argument("--prompts", type=Path, help="a Parquet file with real questions in its column `prompt`")
    options = parser.parse_args()
    table = Table("cache", "figure", "target")
    with TemporaryDirectory() as name:
        for row in asyncio.run(_found(Path(name))):
            table.add_row(*row)
        for row in asyncio.run(_timed(Path(name))):
            table.add_row(*row)
    for row in _real(options.prompts) if options.prompts else ():
        table.add_row(*row)
    Console(highlight=False, width=140).print(table)


async def _found(directory: Path) -> list[tuple[str, str, str]]:
    groups = list(islice(_shuffled(paraphrases()), _PARAPHRASES // 10))
    return [
        *await _with_recall(directory / "1.db", 10_000, lambda asking: _two_tenants(asking, groups)),
        *await _with_recall(directory / "2.db", 10_000, _near_misses),
        *await _with_recall(directory / "3.db", 10_000, _free),
        *await _with_recall(directory / "4.db", 100, _workload),
    ]


async def _with_recall(file: Path, most_entries: int, measure: Callable[[Asking], Any]) -> list[tuple[str, str, str]]:
    database = Database(f"sqlite:///{file}")
    await database.open()
    local = LocalEmbedder()
    recall = Recall(SystemClock(), SqlCache(database), lambda call, policy: local, b"bench")
    recall.start()
    rows: list[tuple[str, str, str]] = await measure(Asking(recall, most_entries))
    await recall.close()
    await database.close()
    return rows


async def _two_tenants(asking: Asking, groups: Sequence[tuple[str, ...]]) -> list[tuple[str, str, str]]:
    """The first tenant fills the cache; then the second asks each question once, and after that again."""
    first, second = _TENANTS
    crossed = found = wrong = 0
    for question, *_ in groups:
        await asking.hit(first, question)
    for tenant in (second, first):
        for question, *others in groups:
            for other in (question, *others):
                answered = await asking.hit(tenant, other)
                crossed += answered is not None and answered[0] != tenant
                found += answered is not None and other != question
                wrong += answered is not None and answered[1] not in (question, *others)
    asked = sum(len(group) - 1 for group in groups) * len(_TENANTS)
    return [
        (f"two tenants, {sum(map(len, groups))} questions each: hits on the other's answers", str(crossed), "0"),
        ("  hits on the tenant's own answer, plain paraphrases", _share(found, asked), ""),
        ("  hits on the answer to another question", str(wrong), "0"),
    ]


async def _near_misses(asking: Asking) -> list[tuple[str, str, str]]:
    hits, pairs = Counter[str](), Counter[str]()
    for number, (kind, question, other) in enumerate(near_misses(_random(7), _NEAR_MISSES)):
        tenant = f"t{number}"
        await asking.hit(tenant, question)
        pairs[kind] += 1
        hits[kind] += await asking.hit(tenant, other) is not None
    return [(f"near misses, {kind} changed: hits", _share(hits[kind], pairs[kind]), "<= 1 %") for kind in sorted(pairs)]


async def _free(asking: Asking) -> list[tuple[str, str, str]]:
    hits = 0
    for number, (question, other) in enumerate(FREE_PARAPHRASES):
        await asking.hit(f"t{number}", question)
        hits += await asking.hit(f"t{number}", other) is not None
    return [("free paraphrases: hits", _share(hits, len(FREE_PARAPHRASES)), "")]


async def _workload(asking: Asking) -> list[tuple[str, str, str]]:
    """Questions of which some are asked far more often than others, in any of their wordings; a third never again."""
    random, hits, wrong = _random(11), 0, 0
    groups = list(islice(_shuffled(paraphrases()), _WORKLOAD_QUESTIONS))
    weights = [1 / (place + 1) for place in range(len(groups))]
    for number in range(_WORKLOAD_CALLS):
        if number % 3 == 0:
            await asking.hit("one", f"Which of the parts of machine {number} wears out before the others?")
            continue
        group = random.choices(groups, weights)[0]
        answered = await asking.hit("one", random.choice(group))
        hits += answered is not None
        wrong += answered is not None and answered[1] not in group
    name = f"repeated questions, {_WORKLOAD_CALLS} calls, 100 entries"
    return [
        (f"{name}: hits", _share(hits, _WORKLOAD_CALLS), ">= 30 %"),
        ("  hits on the answer to another question", str(wrong), "0"),
    ]


async def _timed(directory: Path) -> list[tuple[str, str, str]]:
    async with _provider() as address:
        with processes.pointsman(_policy(address), directory) as server:
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub: Any = router_service_pb2_grpc.RouterServiceStub(channel)
                misses = await _ask(stub, [f"How do I {verb} the lamp?" for verb in ("fix", "move", "clean")])
                exact = await _ask(stub, ["How do I fix the lamp?"] * _CALLS)
                alike = await _ask(stub, [f"Hi, how can I {verb} my lamp, please?" for verb in ("fix", "move")] * 50)
    outcome = answer_pb2.CacheOutcome.Name
    rows = []
    for name, answers in (("miss", misses), ("exact hit", exact), ("semantic hit", alike)):
        seconds = Percentiles.of([took for took, _ in answers])
        said = ", ".join(sorted({outcome(one).removeprefix("CACHE_OUTCOME_") for _, one in answers}))
        target = "" if name == "miss" else f"<= {PROVIDER_SECONDS * 100:.0f} ms"
        rows.append(
            (f"{name} over gRPC ({said}), p50 / p99", f"{seconds.p50 * 1e3:.1f} / {seconds.p99 * 1e3:.1f} ms", target)
        )
    return rows


async def _ask(stub: Any, questions: Sequence[str]) -> list[tuple[float, answer_pb2.CacheOutcome.ValueType]]:
    answers = []
    for question in questions:
        message = completion_pb2.Message(role=completion_pb2.ROLE_USER, parts=[completion_pb2.Part(text=question)])
        asked = CompleteRequest(completion=completion_pb2.CompletionSpec(messages=[message]))
        began_at = time.perf_counter()
        answer = await stub.Complete(asked, timeout=30)
        answers.append((time.perf_counter() - began_at, answer.cache))
    return answers


@asynccontextmanager
async def _provider() -> AsyncGenerator[str, None]:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(PROVIDER_SECONDS)
        return web.json_response(_ANSWER)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


def _policy(address: str) -> dict[str, Any]:
    model = {
        "tier": "standard",
        "context_window_tokens": 100_000,
        "max_output_tokens": 4_000,
        "capabilities": ["streaming"],
        "quality": 0.5,
        "price": [{"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}],
    }
    return {
        "version": 1,
        "providers": {"slow": {"dialect": "openai_chat", "base_url": f"http://{address}/v1"}},
        "models": {"m": model},
        "deployments": {"slow": {"provider": "slow", "model": "m", "model_name": "bench"}},
        "cache": {"mode": "read_write"},
    }


def _real(file: Path) -> Iterator[tuple[str, str, str]]:
    # Only who has such a file needs what reads it.
    parquet: Any = import_module("pyarrow.parquet")
    prompts = parquet.read_table(file, columns=["prompt"]).column(0).to_pylist()
    questions = sorted({one.strip() for one in prompts if len(one) <= LONGEST_QUESTION})
    vectors = {question: vector for question in questions if (vector := vector_of(question))}
    alike = list(_alike(list(vectors), list(vectors.values())))
    pairs = len(vectors) * (len(vectors) - 1) // 2
    yield f"{len(vectors)} real questions, {pairs} pairs: hits", str(len(alike)), "to be read"
    for one, other in alike:
        yield f"  {one[:60]!r}", f"{other[:60]!r}", ""
    random = _random(3)
    spoilt = list(chain.from_iterable(islice(spoiled(question, random), 1) for question in vectors))
    hits = sum(_is_hit(question, other) for _, question, other in spoilt)
    yield "real questions with a number, name or negation changed: hits", _share(hits, len(spoilt)), "<= 1 %"


def _alike(questions: Sequence[str], vectors: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    rows = np.stack([np.frombuffer(vector, dtype="<f4") for vector in vectors])
    for begin in range(0, len(rows), 500):
        near = rows[begin : begin + 500] @ rows.T >= LEAST_SIMILARITY
        for place, other in zip(*np.nonzero(near), strict=True):
            if begin + place < other and agree(traits_of(questions[begin + place]), traits_of(questions[other])):
                yield questions[begin + place], questions[other]


def _is_hit(question: str, other: str) -> bool:
    one, two = (np.frombuffer(vector_of(text), dtype="<f4") for text in (question, other))
    if one.shape != two.shape or float(one @ two) < LEAST_SIMILARITY:
        return False
    return question != other and agree(traits_of(question), traits_of(other))


def _shuffled(groups: Iterator[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    kept = list(groups)
    _random(5).shuffle(kept)
    return iter(kept)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})"


if __name__ == "__main__":
    main()
