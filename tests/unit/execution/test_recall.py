"""What the cache finds and keeps, and what it does when its store or its embedder lets it down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kit.caching import ON, DictCache, always, asked, completed
from kit.catalog import candidate, deployment, judged, plan, request
from kit.clock import LoopClock, in_virtual_time
from pointsman_server.adapters.embedders.local import LocalEmbedder
from pointsman_server.domain.cache import CacheOutcome
from pointsman_server.domain.call import Decision, Warning
from pointsman_server.domain.catalog import Dialect
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import Citation, FinishReason, ReasoningDelta, TextDelta
from pointsman_server.domain.request import CacheMode
from pointsman_server.execution.cache_traffic import (
    CLEANING_SECONDS,
    MOST_WAITING,
    READ_SECONDS,
    REST_SECONDS,
    USE_SECONDS,
)
from pointsman_server.execution.recall import (
    EMBEDDING_SECONDS,
    FRESH_SECONDS,
    Recall,
    candidate_of,
    recalled_completion,
    replayed,
)

EXACT, SEMANTIC, MISS, BYPASS = CacheOutcome
PARAPHRASE = "Hi, how can I reset the password?"


class OddEmbedder:
    """Says that all texts are alike, or does what the test wants."""

    name = "odd"

    def __init__(self, then: Callable[[], Awaitable[None]] | None = None) -> None:
        self._then = then
        self._local = LocalEmbedder()

    async def embed(self, texts: Sequence[str]) -> Sequence[bytes]:
        if self._then is not None:
            await self._then()
        return await self._local.embed(["the same thing"] * len(texts))


def trial(steps: Callable[[Recall, DictCache], Awaitable[None]], embedder: Any = None, **changes: Any) -> None:
    async def go() -> None:
        store = DictCache()
        recall = Recall(LoopClock(), store, always(embedder or LocalEmbedder()), b"salt", **changes)
        recall.start()
        try:
            await steps(recall, store)
        finally:
            await recall.close()

    in_virtual_time(go())


async def told(
    recall: Recall, text: str = "How do I reset my password?", answer: Any = None, **changes: Any
) -> CacheOutcome:
    """Asks; a miss is answered and kept."""
    one = asked(text, **changes)
    found = await recall.find(one)
    recall.keep(one, found, replace(answer or completed(), cache=found.outcome))
    return found.outcome


async def written() -> None:
    await asyncio.sleep(0.001)


def test_exact_then_semantic() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        assert [await told(recall) for _ in range(2)] == [MISS, EXACT]
        assert await told(recall, PARAPHRASE) is SEMANTIC
        assert await told(recall, "How do I change my address?") is MISS
        assert recall.held_answers == 2

    trial(steps)


def test_another_process_finds_it_in_the_store() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        await told(recall)
        await written()
        for text, outcome in (("How do I reset my password?", EXACT), (PARAPHRASE, SEMANTIC)):
            other = Recall(LoopClock(), store, always(LocalEmbedder()), b"salt")
            other.start()
            assert (await other.find(asked(text))).outcome is outcome
            await other.close()
        assert store.used

    trial(steps)


def test_what_others_write_is_seen_within_seconds() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        other = Recall(LoopClock(), store, always(LocalEmbedder()), b"salt")
        other.start()
        assert (await other.find(asked())).outcome is MISS
        await told(recall)
        await written()
        assert (await other.find(asked())).outcome is MISS
        await asyncio.sleep(FRESH_SECONDS + 0.1)
        assert (await other.find(asked())).outcome is EXACT
        await other.close()

    trial(steps)


def test_uses_are_noted_together_and_not_one_by_one() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        await told(recall)
        await written()
        before = len(store.reads)
        for _ in range(100):
            assert await told(recall) is EXACT
            await asyncio.sleep(0.01)
        assert len(store.reads) == before
        assert not store.used
        await asyncio.sleep(2 * USE_SECONDS)
        assert set(store.used) == set(store.entries)
        assert len(store.reads) == before + 1

    trial(steps)


def test_who_is_asked_often_asks_the_store_seldom() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        for number in range(20):
            await recall.find(asked(f"Question {number}?"))
        assert len(store.reads) == 1

    trial(steps)


def test_an_answer_that_vanished_from_the_store_is_a_miss() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        await told(recall)
        await written()
        other = Recall(LoopClock(), store, always(LocalEmbedder()), b"salt")
        (key,) = store.entries
        gone = store.entries[key]
        store.entries[key] = replace(gone, card=replace(gone.card, key=b"x" * 32))
        assert (await other.find(asked(PARAPHRASE))).outcome is MISS

    trial(steps)


class TestRules:
    @pytest.mark.parametrize(
        ("mode", "allowed", "wanted", "outcomes"),
        [
            (CacheMode.OFF, True, None, (BYPASS, BYPASS)),
            (CacheMode.OFF, True, CacheMode.READ_WRITE, (MISS, EXACT)),
            (CacheMode.OFF, True, CacheMode.READ_ONLY, (MISS, MISS)),
            (CacheMode.OFF, False, CacheMode.READ_WRITE, (BYPASS, BYPASS)),
            (CacheMode.OFF, False, CacheMode.REFRESH, (BYPASS, BYPASS)),
            (CacheMode.READ_WRITE, False, CacheMode.OFF, (BYPASS, BYPASS)),
            (CacheMode.READ_WRITE, False, CacheMode.READ_ONLY, (MISS, MISS)),
            (CacheMode.READ_WRITE, False, CacheMode.REFRESH, (MISS, EXACT)),
            (CacheMode.READ_ONLY, False, CacheMode.READ_WRITE, (MISS, MISS)),
            (CacheMode.READ_ONLY, True, CacheMode.READ_WRITE, (MISS, EXACT)),
            (CacheMode.READ_WRITE, True, CacheMode.REFRESH, (BYPASS, BYPASS)),
        ],
    )
    def test_modes(self, mode: CacheMode, allowed: bool, wanted: CacheMode | None, outcomes: Any) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            policy = replace(ON, mode=mode, allow_requests=allowed)
            found = [await told(recall, policy=policy, cache={"mode": wanted}) for _ in range(2)]
            assert tuple(found) == outcomes

        trial(steps)

    @pytest.mark.parametrize(("policy_ttl", "wanted", "kept"), [(10.0, None, 10), (10.0, 3.0, 3), (10.0, 99.0, 10)])
    def test_how_long_it_is_kept(self, policy_ttl: float, wanted: float | None, kept: int) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            policy = replace(ON, ttl_seconds=policy_ttl)
            await told(recall, policy=policy, cache={"ttl_seconds": wanted})
            await asyncio.sleep(kept - 0.1)
            assert (await recall.find(asked(policy=policy))).outcome is EXACT
            await asyncio.sleep(0.2)
            assert (await recall.find(asked(policy=policy))).outcome is MISS
            assert (await recall.find(asked(PARAPHRASE, policy=policy))).outcome is MISS

        trial(steps)

    def test_a_request_may_want_a_younger_answer(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            await told(recall)
            await asyncio.sleep(5.0)
            assert (await recall.find(asked(cache={"ttl_seconds": 4.0}))).outcome is MISS
            assert (await recall.find(asked(cache={"ttl_seconds": 6.0}))).outcome is EXACT

        trial(steps)

    def test_a_request_may_want_more_likeness_and_not_less(self) -> None:
        strict, lax, other = {"min_similarity": 0.99}, {"min_similarity": 0.1}, "How do I reset my old password?"

        async def steps(recall: Recall, store: DictCache) -> None:
            loose = replace(ON, min_similarity=0.5)
            await told(recall, "How do I reset my new blue password there?", policy=loose)
            asks = "How do I reset my new green password there?"
            assert (await recall.find(asked(asks, policy=loose))).outcome is SEMANTIC
            assert (await recall.find(asked(asks, policy=loose, cache=strict))).outcome is MISS
            assert (await recall.find(asked(other, policy=loose, cache=lax))).outcome is MISS

        trial(steps)

    def test_however_alike_traits_decide(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            await told(recall, "Is 5 kg of it enough?")
            assert (await recall.find(asked("Would 5 kg do?"))).outcome is SEMANTIC
            assert (await recall.find(asked("Is 6 kg of it enough?"))).outcome is MISS

        trial(steps, OddEmbedder())

    def test_what_may_not_be_used_is_left_alone(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            await told(recall)
            found = await recall.find(asked(), usable=False)
            assert (found.outcome, found.answer, found.place) == (BYPASS, None, None)

        trial(steps)

    def test_there_is_nothing_to_find_without_messages(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            assert (await recall.find(asked(request=request(messages=())))).outcome is BYPASS

        trial(steps)


GOOD = [
    completed(reply={"parts": (ReasoningPart("hm", "s"), TextPart("yes", "s"))}),
    completed(reply={"citations": (Citation(url="https://a.example"),), "certainty": 0.9}),
    completed(warnings=(Warning("fallback", "x"), Warning("usage_estimated", "x"))),
]
BAD = {
    "nothing": completed(""),
    "blank": completed(" \n"),
    "thoughts alone": completed(reply={"parts": (ReasoningPart("hm"),)}),
    "tool call": completed(reply={"parts": (TextPart("a"), ToolCallPart("c", "f", "{}"))}),
    "opaque": completed(reply={"parts": (TextPart("a"), OpaquePart("d", "k", "{}"))}),
    "fresh facts": completed(plan={"complexity": judged(needs_fresh_facts=True)}),
    "warned about": completed(warnings=(Warning("prompt_injection", "x"),)),
    "trimmed": completed(warnings=(Warning("documents_left_out", "x"),)),
    "from the knowledge base": completed(
        answered_by=candidate(deployment("d", by={"dialect": Dialect.LOCAL_KNOWLEDGE}))
    ),
    **{
        f"finished by {reason.value}": completed(reply={"finish_reason": reason})
        for reason in FinishReason
        if reason is not FinishReason.STOP
    },
}


@pytest.mark.parametrize("answer", GOOD)
def test_what_is_kept_comes_back_whole(answer: Any) -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        await told(recall, answer=answer)
        found = (await recall.find(asked())).answer
        assert found is not None
        reply = answer.reply
        assert (found.parts, found.citations, found.certainty) == (reply.parts, reply.citations, reply.certainty)

    trial(steps)


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_kept(name: str) -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        assert [await told(recall, answer=BAD[name]) for _ in range(2)] == [MISS, MISS]
        await written()
        assert not store.entries

    trial(steps)


def test_somebodys_answer_and_one_that_is_too_large_are_not_kept() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        one = asked(policy=replace(ON, largest_answer_bytes=10))
        found = await recall.find(one)
        recall.keep(one, found, completed("12345678901"), unless=lambda: pytest.fail("asked for nothing"))
        recall.keep(one, found, completed("1234567890"), unless=lambda: True)
        assert not recall.held_answers
        recall.keep(one, found, completed("1234567890"))
        assert recall.held_answers

    trial(steps)


def test_a_hit_is_not_kept_again() -> None:
    async def steps(recall: Recall, store: DictCache) -> None:
        await told(recall)
        assert await told(recall, PARAPHRASE) is SEMANTIC
        await written()
        assert len(store.entries) == 1

    trial(steps)


class TestTrouble:
    def test_a_store_that_is_down_costs_nothing_and_is_left_in_peace(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            store.down = True
            for number in range(10):
                assert (await recall.find(asked(f"Question {number}?", tenant=f"t{number}"))).outcome is MISS
            assert len(store.reads) == 1
            assert await told(recall) is MISS
            assert await told(recall) is EXACT
            store.down = False
            await asyncio.sleep(REST_SECONDS + 0.1)
            await recall.find(asked("Once more?", tenant="t"))
            assert len(store.reads) > 2

        trial(steps)

    def test_a_store_that_does_not_answer_holds_up_one_call_for_a_moment(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            store.seconds = 20.0
            clock, waited = LoopClock(), []
            for number in range(10):
                began_at = clock.monotonic()
                assert (await recall.find(asked("Why?", tenant=f"t{number}"))).outcome is MISS
                waited.append(clock.monotonic() - began_at)
            assert waited == [pytest.approx(READ_SECONDS), *[0.0] * 9]

        trial(steps)

    def test_an_answer_that_comes_late_serves_the_next(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            store.seconds = 3 * READ_SECONDS
            results = await asyncio.gather(*(recall.find(asked()) for _ in range(5)))
            assert {one.outcome for one in results} == {MISS}
            assert len(store.reads) == 1
            await asyncio.sleep(1.0)
            await recall.find(asked())
            assert len(store.reads) == 2

        trial(steps)

    def test_many_partitions_at_once_wait_for_each_other(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            store.seconds = 0.001
            await asyncio.gather(*(recall.find(asked(tenant=f"t{number}")) for number in range(10)))
            assert len(store.reads) == 10

        trial(steps)

    def test_what_cannot_be_written_is_counted(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            store.down = True
            await told(recall)
            await written()
            assert (recall.dropped, recall.evicted) == (1, 0)
            store.down = False
            await told(recall, "Another one?")
            await asyncio.sleep(REST_SECONDS + 0.1)
            assert len(store.entries) == recall.evicted == 1

        trial(steps)

    def test_what_finds_no_room_to_wait_is_dropped(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            store.seconds = 1_000.0
            for number in range(1 + MOST_WAITING + 3):  # the first is being written
                one = asked("A?", tenant=f"t{number}")
                recall.keep(one, await Recall(LoopClock(), store, always(LocalEmbedder()), b"s").find(one), completed())
            assert recall.dropped == 3

        trial(steps)

    def test_closing_writes_what_waits_but_not_for_ever(self) -> None:
        async def go() -> None:
            for seconds, kept in ((0.1, 1), (50.0, 0)):
                store = DictCache()
                recall = Recall(LoopClock(), store, always(LocalEmbedder()), b"salt")
                recall.start()
                await told(recall)
                store.seconds = seconds
                await recall.close()
                assert len(store.entries) == kept
            await Recall(LoopClock(), DictCache(), always(LocalEmbedder())).close()

        in_virtual_time(go())

    def test_the_store_is_cleaned_now_and_then(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            await asyncio.sleep(2.5 * CLEANING_SECONDS)
            assert store.cleaned == 3
            assert not store.used

        trial(steps)

    @pytest.mark.parametrize("hangs", [True, False])
    def test_without_the_embedder_the_same_is_found_all_the_same(self, hangs: bool) -> None:
        async def fail() -> None:
            if hangs:
                await asyncio.sleep(1_000.0)
            raise ValueError("no")

        async def steps(recall: Recall, store: DictCache) -> None:
            clock = LoopClock()
            began_at = clock.monotonic()
            assert [await told(recall), await told(recall), await told(recall, PARAPHRASE)] == [MISS, EXACT, MISS]
            assert clock.monotonic() - began_at <= 2 * EMBEDDING_SECONDS + 0.01

        trial(steps, OddEmbedder(fail))

    def test_a_bug_in_here_is_no_bug_of_the_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            monkeypatch.setattr(recall, "_find", lambda *_: 1 / 0)
            assert (await recall.find(asked())).outcome is BYPASS

        trial(steps)

    def test_without_a_store_there_is_no_cache(self) -> None:
        async def go() -> None:
            recall = Recall(LoopClock())
            recall.start()
            assert [await told(recall) for _ in range(2)] == [BYPASS, BYPASS]
            assert (recall.held_answers, recall.dropped, recall.evicted) == (0, 0, 0)
            await recall.close()

        in_virtual_time(go())


class TestAnswers:
    def test_a_hit_asks_nobody_and_costs_nothing(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            await told(recall)
            one = asked()
            found, decision = await recall.find(one), completed().decision
            again = recalled_completion(one, decision, found)
            assert again.reply.text == "Like this."
            assert again.reply.finish_reason is FinishReason.STOP
            assert (again.cost_micro_usd, again.saved_micro_usd, again.attempts, again.warnings) == (0, 20, (), ())
            assert (again.usage.input_tokens, again.usage.output_tokens) == (0, 0)
            assert again.answered_by is decision.plan.candidates[0]
            assert again.cache is EXACT

        trial(steps)

    def test_it_is_told_when_another_gave_it_and_when_nobody_real_did(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            await told(recall)
            simulated = deployment("d", by={"simulated": True})
            decision = Decision("x", plan([deployment("first"), simulated]), 0.0)
            again = recalled_completion(asked(), decision, await recall.find(asked()))
            assert [one.code for one in again.warnings] == ["simulated", "cached"]

        trial(steps)

    def test_who_is_not_in_the_plan_does_not_answer(self) -> None:
        async def steps(recall: Recall, store: DictCache) -> None:
            await told(recall)
            found, decision = await recall.find(asked()), Decision("x", plan([deployment("other")]), 0.0)
            assert candidate_of(found, decision) is None
            assert candidate_of(found.miss, completed().decision) is None
            assert (found.miss.outcome, found.miss.answer, found.miss.place) == (MISS, None, found.place)
            with pytest.raises(AssertionError):
                recalled_completion(asked(), decision, found)

        trial(steps)

    def test_pieces(self) -> None:
        reply = completed(reply={"parts": (ReasoningPart("hm", "s", redacted=True), TextPart("yes", "t"))}).reply
        assert replayed(reply).deltas == (
            (0, ReasoningDelta(0, "hm", "s", redacted=True)),
            (1, TextDelta(1, "yes", "t")),
        )
