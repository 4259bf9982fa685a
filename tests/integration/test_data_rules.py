"""No provider ever sees data of a class, or bound to a region, that its deployment is not approved for.

Random requests through every method, while providers fail, stall and break off, a second policy with other approvals is
tried, and everything that asks somebody else is on: retries, fallbacks, hedges, failover, second opinions, the cache.
Every text says what its data is bound to, and every provider reads what it is sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import grpc
import pytest

from kit.border_guards import CLASSES, Approval, Border, mark, running_border
from kit.callers import bearer
from kit.fresh_database import fresh_database_url
from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from pointsman.v1 import embedding_service_pb2, embedding_service_pb2_grpc, router_service_pb2
from pointsman.v1.answer_pb2 import ATTEMPT_OUTCOME_CANCELLED, STREAM_FAILOVER_CONTINUE, STREAM_FAILOVER_RESTART
from pointsman.v1.completion_pb2 import CompletionSpec, DataClass, Document, RoutingConstraints
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key, Rollout, RolloutKind
from pointsman_server.execution.keys import make_key

REGIONS = ("eu", "us", "ap")
RAISED_TO = "confidential"
SENSITIVE = "Write to ottilie.brandwein@quarrymail.net today."
LEAST = {"open": "public", "careful": "internal", "clinic": "restricted"}
MOODS = ("well", "well", "slow", "slow", "failing", "breaking")
CALLS, AT_ONCE = 300, 12
SECONDS = 30


def approvals(random: Random, policy: str) -> dict[str, Approval]:
    """Two deployments for each class and some more, each in one or two regions; half as many make vectors."""
    found: dict[str, Approval] = {}
    for kind, count in (("chat", 9), ("vectors", 6)):
        for number in range(count):
            regions = frozenset(random.sample(REGIONS, random.choice((1, 2))))
            found[f"{policy}-{kind}-{number}"] = Approval(CLASSES[number % len(CLASSES)], regions)
    return found


def policy(border: Border, which: str, random: Random) -> LoadedPolicy:
    places = {place: one for place, one in border.approvals.items() if place.startswith(f"{which}-")}
    prices = {place: random.randint(1, 9) for place in places}
    vectors = {"kind": "embedding", "context_window_tokens": 1_000, "dimensions": 2, "tokenizer": "o200k"}
    return load_for_test(
        {
            "providers": {p: {"dialect": "openai_chat", "base_url": f"{border.url}/{p}/v1"} for p in places},
            # One model makes all vectors, so that several deployments stand in for each other.
            "models": {
                "vec": {**vectors, "price": [{"input_usd_per_mtok": 1}]},
                **{
                    place: {
                        **MODEL,
                        "tier": random.choice(("light", "standard", "advanced")),
                        "price": [{"input_usd_per_mtok": price, "output_usd_per_mtok": price}],
                    }
                    for place, price in prices.items()
                    if "chat" in place
                },
            },
            "deployments": {
                place: {
                    "provider": place,
                    "model": place if "chat" in place else "vec",
                    "model_name": "m-1",
                    "data_class": approved.data_class,
                    "regions": sorted(approved.regions),
                }
                for place, approved in places.items()
            },
            "safety": {"sensitive_data": {"mode": "detect", "raises_data_class": RAISED_TO}},
            "cache": {"mode": "read_write"},
            "confidence": {"escalate_below": 0.95},
            "resilience": {
                "retries": {"base_seconds": 0.005, "cap_seconds": 0.01, "budget_share": 1},
                "hedging": {"quantile": 0.5, "most_share": 1, "least_answers": 1},
                "breaker": {"failures_in_a_row": 1_000, "least_attempts": 100_000},
            },
            "peers": {"requests_per_minute": "none"},
            "tenants": {name: {"least_data_class": least} for name, least in LEAST.items()},
        }
    )


class Binding(NamedTuple):
    """What a request says of its data, and whether it holds what raises its class."""

    data_class: str
    regions: tuple[str, ...]
    is_sensitive: bool

    @property
    def constraints(self) -> RoutingConstraints:
        return RoutingConstraints(
            data_class=DataClass.Value(f"DATA_CLASS_{self.data_class.upper()}"), regions=self.regions
        )


@dataclass
class House:
    """A service over the border, with a key for each tenant; `did` counts what became of the calls."""

    border: Border
    router: Any
    embedding: Any
    keys: Mapping[str, str]
    random: Random
    did: Counter[str] = field(default_factory=Counter)
    asked: list[tuple[str, CompletionSpec]] = field(default_factory=list)

    async def call(self, number: int) -> None:
        """One call of any kind; refusals are fine."""
        tenant = self.random.choice(list(LEAST))
        kind = self.random.choice(("route", "complete", "stream", "stream", "bound", "again", "embed"))
        try:
            await getattr(self, f"_{kind}")(tenant, number)
        except grpc.RpcError as error:
            self.did[RichError(error).reason] += 1

    async def _route(self, tenant: str, number: int) -> router_service_pb2.RouteResponse:
        asked = RouteRequest(completion=self._spec(tenant, number))
        answer: router_service_pb2.RouteResponse = await self.router.Route(asked, **self._as(tenant))
        self.did["routed"] += 1
        return answer

    async def _complete(self, tenant: str, number: int) -> None:
        asked = self._spec(tenant, number)
        await self._completed(tenant, asked)
        self.asked.append((tenant, asked))

    async def _again(self, tenant: str, number: int) -> None:
        """What was asked before, which may be cached."""
        if not self.asked:
            return
        tenant, asked = self.random.choice(self.asked)
        await self._completed(tenant, asked)

    async def _bound(self, tenant: str, number: int) -> None:
        """A decision is followed, also by a request that it was not made for."""
        asked = self._spec(tenant, number)
        route = await self.router.Route(RouteRequest(completion=asked), **self._as(tenant))
        follows = self.random.choice((asked, self._spec(tenant, number)))
        await self._completed(tenant, follows, route.decision.decision_id)

    async def _completed(self, tenant: str, asked: CompletionSpec, decision_id: str = "") -> None:
        sent = CompleteRequest(completion=asked, decision_id=decision_id)
        answer = await self.router.Complete(sent, **self._as(tenant))
        self.did["completed"] += 1
        self.did["cached"] += not answer.attempts
        self.did["fallback"] += len({attempt.deployment for attempt in answer.attempts}) > 1

    async def _stream(self, tenant: str, number: int) -> None:
        failover = self.random.choice((STREAM_FAILOVER_CONTINUE, STREAM_FAILOVER_RESTART))
        sent = StreamCompleteRequest(completion=self._spec(tenant, number), failover=failover)
        events = [event async for event in self.router.StreamComplete(sent, **self._as(tenant))]
        self.did["streamed"] += 1
        self.did["failed over"] += any(event.WhichOneof("event") == "failover" for event in events)
        self.did["hedged"] += any(one.outcome == ATTEMPT_OUTCOME_CANCELLED for one in events[-1].completed.attempts)

    async def _embed(self, tenant: str, number: int) -> None:
        bound = self._binding()
        texts = [self._marked(tenant, bound, f"v{number}.{place}") for place in range(self.random.randint(1, 4))]
        texts += [SENSITIVE] * bound.is_sensitive
        sent = embedding_service_pb2.EmbedRequest(inputs=texts, constraints=bound.constraints)
        await self.embedding.Embed(sent, **self._as(tenant))
        self.did["embedded"] += 1

    def _spec(self, tenant: str, number: int) -> CompletionSpec:
        bound = self._binding()
        said = f"What of {self._marked(tenant, bound, str(number))}? {SENSITIVE if bound.is_sensitive else ''}"
        asked = spec(said, constraints=bound.constraints, session_id=f"s{number}")
        if self.random.random() < 0.3:
            asked.documents.append(Document(id="d", text=f"As to {self._marked(tenant, bound, f'd{number}')}: no."))
        return asked

    def _binding(self) -> Binding:
        regions = self.random.sample(REGIONS, self.random.choice((0, 0, 1, 2)))
        return Binding(self.random.choice(CLASSES), tuple(regions), self.random.random() < 0.25)

    def _marked(self, tenant: str, bound: Binding, name: str) -> str:
        """The mark says what the data is bound to after all: by the request, the tenant and what it holds."""
        classes = [bound.data_class, LEAST[tenant], *([RAISED_TO] * bound.is_sensitive)]
        return mark(max(classes, key=CLASSES.index), bound.regions, name)

    def _as(self, tenant: str) -> dict[str, Any]:
        return {"metadata": bearer(self.keys[tenant]), "timeout": SECONDS}


@asynccontextmanager
async def house(seed: int, kind: RolloutKind) -> AsyncGenerator[House, None]:
    random = Random(seed)
    places = {**approvals(random, "force"), **approvals(random, "trial")}
    async with running_border(places, dict.fromkeys(places, MOODS), seed) as border:
        in_force, tried = policy(border, "force", random), policy(border, "trial", random)
        url, keys = fresh_database_url(), {tenant: make_key() for tenant in LEAST}
        database = Database(url)
        store = ControlStore(database, SystemClock())
        for tenant, key in keys.items():
            await store.add_key(Key(key.id, tenant, frozenset({Role.CALL}), key.digest), "test")
        await store.keep_policy(tried.snapshot.version, tried.text)
        await store.set_rollout(Rollout(tried.snapshot.version, kind, 50), "test")
        await database.close()
        async with running_service(in_force, database_url=url) as service, connected(service) as channel:
            stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
            texts = {tenant: key.text for tenant, key in keys.items()}
            yield House(border, router(channel), stub, texts, random)


async def run(here: House, calls: int) -> None:
    """So many calls, a few at a time."""
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            await here.call(number)

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_provider_sees_what_it_is_not_approved_for(seed: int) -> None:
    async with house(seed, RolloutKind.CANARY) as here:
        await run(here, CALLS)
        assert here.border.trespasses == []
        assert set(here.border.unmarked) <= {place for place in here.border.approvals if "vectors" in place}
        happened = {"routed", "completed", "streamed", "embedded", "cached", "fallback", "failed over", "hedged"}
        assert {name for name in happened if not here.did[name]} == set(), here.did
        assert here.did["NO_ELIGIBLE_DEPLOYMENT"]
        assert {place.split("-")[0] for place in here.border.seen} == {"force", "trial"}


async def test_a_shadow_asks_nobody() -> None:
    async with house(3, RolloutKind.SHADOW) as here:
        await run(here, 60)
        assert here.border.trespasses == []
        assert {place.split("-")[0] for place in here.border.seen} == {"force"}
