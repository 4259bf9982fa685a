"""Answers that were given before: found for who asks the same again, and kept when they may be.

First the very same request is looked for, then a question that is alike and whose traits agree. Nothing here fails a
call or makes it wait for long; what is not found in time is a miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import structlog

from pointsman_server.domain.cache import (
    HITS,
    CachedAnswer,
    CacheOutcome,
    CachePolicy,
    CacheStore,
    Card,
    Entry,
    Traits,
)
from pointsman_server.domain.call import Call, Completion, Decision, Relay, Warning
from pointsman_server.domain.embedder import Embedder, Vector
from pointsman_server.domain.message import ReasoningPart, TextPart
from pointsman_server.domain.plan import Candidate
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.reply import ContentDelta, FinishReason, ReasoningDelta, Reply, TextDelta, Usage
from pointsman_server.domain.request import CacheMode
from pointsman_server.execution.cache_place import Place, Surveyor
from pointsman_server.execution.cache_traffic import READ_SECONDS, Reads, Writer
from pointsman_server.execution.shelves import Shelf, Shelves

FRESH_SECONDS = 2.0
"""How long a partition is searched in this process before the store is asked what others put there."""

EMBEDDING_SECONDS = 0.5
"""How long a call waits for a vector."""

EmbedderOf = Callable[[Call, CachePolicy], Embedder]
"""Who makes the vector of a call's question."""

_HARMLESS = frozenset(
    {
        "simulated",
        "usage_implausible",
        "usage_estimated",
        "max_output_tokens_clamped",
        "repaired",
        "escalated",
        "retried",
        "fallback",
        "hedged",
    }
)
"""Warnings that say nothing against an answer. Any other, those not known here too, keeps it out of the cache."""

_LOG = structlog.stdlib.get_logger("pointsman.cache")


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the cache knows of a call. `answer` is there for hits; `place` is where the answer to come may be kept."""

    outcome: CacheOutcome
    answer: CachedAnswer | None = None
    place: Place | None = None
    vector: Vector = b""
    traits: Traits | None = None

    @property
    def miss(self) -> Recalled:
        """The same, when the answer cannot be used after all."""
        return replace(self, outcome=CacheOutcome.MISS, answer=None)


_BYPASS = Recalled(CacheOutcome.BYPASS)


class Recall:
    """The cache of a process: start → close. Without a store it knows nothing.

    Without an embedder only the very same request is found. `salt` goes into the hashes; all processes that share the
    store have the same.
    """

    def __init__(
        self,
        clock: Clock,
        store: CacheStore | None = None,
        embedder_of: EmbedderOf | None = None,
        salt: bytes = b"",
        *,
        patience_seconds: float = READ_SECONDS,
    ) -> None:
        self._store = store
        self._embedder_of = embedder_of
        self._clock = clock
        self._surveyor = Surveyor(salt)
        self._shelves = Shelves()
        self._reads = Reads(clock, patience_seconds)
        self._writer = None if store is None else Writer(store, clock)

    @property
    def held_answers(self) -> int:
        """Answers that this process holds in its memory."""
        return self._shelves.answers

    @property
    def evicted(self) -> int:
        """Entries that this process removed from the store because their tenants had too many."""
        return self._writer.evicted if self._writer else 0

    @property
    def dropped(self) -> int:
        """Entries that could not be written to the store."""
        return self._writer.dropped if self._writer else 0

    def start(self) -> None:
        """Begins to write in the background."""
        if self._writer is not None:
            self._writer.start()

    async def close(self) -> None:
        """Writes what waits and ends."""
        await self._reads.close()
        if self._writer is not None:
            await self._writer.close()

    async def find(self, call: Call, *, usable: bool = True) -> Recalled:
        """What is known of this call. Whose answer must neither come from the cache nor go there is not `usable`."""
        policy = call.snapshot.caching.of(call.tenant)
        mode = _mode(call, policy)
        if self._store is None or not usable or mode is CacheMode.OFF or not call.request.messages:
            return _BYPASS
        try:
            return await self._find(call, policy, mode, self._store)
        except Exception as error:
            _LOG.warning("cache_failed", error=type(error).__name__)
            return _BYPASS

    def keep(
        self, call: Call, recalled: Recalled, completion: Completion, *, unless: Callable[[], bool] = lambda: False
    ) -> None:
        """Keeps an answer for others, if it is good for others. `unless` is asked last: it may take its time."""
        if recalled.place is None or self._writer is None or completion.cache in HITS:
            return
        policy = call.snapshot.caching.of(call.tenant)
        answer = _answer_of(completion)
        if answer is None or answer.size_bytes > policy.largest_answer_bytes or unless():
            return
        now = self._clock.now()
        card = Card(
            key=recalled.place.key,
            partition=recalled.place.partition,
            stored_at=now,
            expires_at=now + _ttl_seconds(call, policy),
            vector=recalled.vector,
            traits=recalled.traits,
        )
        entry = Entry(card, call.tenant, answer, policy.entries_per_tenant)
        self._shelves.add(entry)
        self._writer.put(entry)

    async def _find(self, call: Call, policy: CachePolicy, mode: CacheMode, store: CacheStore) -> Recalled:
        embedder = self._embedder_of(call, policy) if self._embedder_of and policy.semantic else None
        place = self._surveyor.place_of(call, policy, embedder.name if embedder else "")
        search = _Search(call, policy, place, self._clock.now())
        kept_at = None if mode is CacheMode.READ_ONLY else place
        if mode is CacheMode.REFRESH:
            return Recalled(CacheOutcome.BYPASS, None, kept_at, *await self._embedded(place.question, embedder))
        answer = await self._exact(search, store)
        if answer is not None:
            return Recalled(CacheOutcome.HIT_EXACT, answer, kept_at)
        vector, traits = await self._embedded(place.question, embedder)
        if vector and traits is not None:
            shelf = self._shelves.shelf(place.partition)
            for card in shelf.like(vector, traits, search.least_similarity):
                answer = await self._read(card, search, store)
                if answer is not None:
                    return Recalled(CacheOutcome.HIT_SEMANTIC, answer, kept_at, vector, traits)
        return Recalled(CacheOutcome.MISS, None, kept_at, vector, traits)

    async def _exact(self, search: _Search, store: CacheStore) -> CachedAnswer | None:
        held = self._shelves.get(search.place.key)
        if held is not None and search.takes(held[0]):
            return self._used(*held)
        shelf = await self._loaded(search, store)
        card_there = shelf.cards.get(search.place.key)
        return None if card_there is None else await self._read(card_there, search, store)

    async def _loaded(self, search: _Search, store: CacheStore) -> Shelf:
        partition = search.place.partition
        shelf, now = self._shelves.shelf(partition), self._clock.monotonic()
        if shelf.loaded_at is None or now - shelf.loaded_at > FRESH_SECONDS:
            cards = await self._reads.ask(partition, lambda: store.cards(partition, search.now))
            if cards is not None:
                self._shelves.loaded(partition, cards, now=self._clock.now(), monotonic=now)
                shelf = self._shelves.shelf(partition)
        return shelf

    async def _read(self, card: Card, search: _Search, store: CacheStore) -> CachedAnswer | None:
        if not search.takes(card):
            return None
        held = self._shelves.get(card.key)
        if held is not None:
            return self._used(card, held[1])
        answer = await self._reads.ask(card.key, lambda: store.answer(card.key))
        if answer is None:
            return None
        self._shelves.put(search.call.tenant, card, answer, search.policy.entries_per_tenant)
        return self._used(card, answer)

    def _used(self, card: Card, answer: CachedAnswer) -> CachedAnswer:
        if self._writer is not None:
            self._writer.used(card.key)
        return answer

    async def _embedded(self, question: str, embedder: Embedder | None) -> tuple[Vector, Traits | None]:
        if not question or embedder is None:
            return b"", None
        try:
            async with asyncio.timeout(EMBEDDING_SECONDS):
                (vector,) = await embedder.embed([question])
        except Exception as error:
            _LOG.warning("embedding_failed", error=type(error).__name__)
            return b"", None
        return vector, self._surveyor.traits_of(question) if vector else None


@dataclass(frozen=True, slots=True)
class _Search:
    call: Call
    policy: CachePolicy
    place: Place
    now: float

    @property
    def least_similarity(self) -> float:
        """A request may be stricter than the policy, not laxer."""
        return max(self.policy.min_similarity, self.call.request.cache.min_similarity or 0.0)

    def takes(self, card: Card) -> bool:
        """Whether the entry is young enough, for this request too."""
        return self.now < min(card.expires_at, card.stored_at + _ttl_seconds(self.call, self.policy))


def candidate_of(recalled: Recalled, decision: Decision) -> Candidate | None:
    """The place in the plan of the deployment that gave the answer; None if it has none, or there is no answer."""
    if recalled.answer is None:
        return None
    wanted = recalled.answer.deployment_id
    return next((one for one in decision.plan.candidates if one.deployment.id == wanted), None)


def recalled_completion(call: Call, decision: Decision, recalled: Recalled) -> Completion:
    """The answer once more: nobody was asked, and it costs nothing. The plan has a place for who gave it."""
    answer, candidate = recalled.answer, candidate_of(recalled, decision)
    if answer is None or candidate is None:
        raise AssertionError("only a hit that the plan allows is given again")
    return Completion(
        request_id=call.request_id,
        decision=decision,
        answered_by=candidate,
        reply=Reply(
            parts=answer.parts,
            finish_reason=FinishReason.STOP,
            raw_finish_reason=answer.raw_finish_reason,
            usage=Usage(0, output_tokens=0),
            citations=answer.citations,
            response_id="",
            model=answer.model,
            certainty=answer.certainty,
        ),
        usage=Usage(0, output_tokens=0),
        estimated=False,
        cost_micro_usd=0,
        attempts=(),
        warnings=tuple(_warnings(decision, candidate)),
        cache=recalled.outcome,
        saved_micro_usd=answer.cost_micro_usd,
    )


def replayed(reply: Reply) -> Relay:
    """The whole of a cached answer as pieces of a stream."""
    deltas: list[tuple[int, ContentDelta]] = []
    for index, part in enumerate(reply.parts):
        if isinstance(part, TextPart):
            deltas.append((index, TextDelta(index, part.text, part.signature)))
        elif isinstance(part, ReasoningPart):
            deltas.append((index, ReasoningDelta(index, part.text, part.signature, part.redacted)))
    return Relay(tuple(deltas))


def _warnings(decision: Decision, candidate: Candidate) -> Iterator[Warning]:
    answered_by, chosen = candidate.deployment, decision.plan.candidates[0].deployment
    if answered_by.provider.simulated:
        yield Warning("simulated", "a simulated provider answered; configure a provider key for a real one")
    if answered_by is not chosen:
        yield Warning("cached", f"the answer is from the cache; {answered_by.id} gave it, and not {chosen.id}")


def _mode(call: Call, policy: CachePolicy) -> CacheMode:
    wanted = call.request.cache.mode
    if wanted is None or policy.allow_requests:
        return policy.mode if wanted is None else wanted
    # A request may still use the cache less than the policy does.
    is_less = wanted is CacheMode.OFF or (wanted is CacheMode.READ_ONLY and policy.mode is CacheMode.READ_WRITE)
    return wanted if is_less else policy.mode


def _ttl_seconds(call: Call, policy: CachePolicy) -> float:
    """A request may have an answer forgotten sooner, not kept for longer."""
    wanted = call.request.cache.ttl_seconds
    return policy.ttl_seconds if wanted is None else min(wanted, policy.ttl_seconds)


def _answer_of(completion: Completion) -> CachedAnswer | None:
    """What others may be given of it; None if nothing: cut, refused, with tool calls, doubtful, or true for a day."""
    reply, complexity = completion.reply, completion.decision.plan.complexity
    if completion.answered_by.deployment.is_last_resort:
        return None
    parts = tuple(part for part in reply.parts if isinstance(part, (TextPart, ReasoningPart)))
    if reply.finish_reason is not FinishReason.STOP or len(parts) != len(reply.parts) or not reply.text.strip():
        return None
    if complexity.needs_fresh_facts or any(warning.code not in _HARMLESS for warning in completion.warnings):
        return None
    return CachedAnswer(
        parts=parts,
        citations=reply.citations,
        raw_finish_reason=reply.raw_finish_reason,
        model=reply.model,
        deployment_id=completion.answered_by.deployment.id,
        cost_micro_usd=completion.cost_micro_usd,
        certainty=reply.certainty,
    )
