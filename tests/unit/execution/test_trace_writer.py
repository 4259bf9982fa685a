"""How recorded calls get into the database, and what becomes of those that do not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence

import pytest
from structlog.testing import capture_logs

from kit.accounts import attempt, decision
from kit.catalog import call, deployment, plan, request, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.guards import PlainScanner
from kit.recording import TEXT, ListTraces, ended
from pointsman_server.domain.call import Attempt, Decision
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.trace import EndedCall
from pointsman_server.domain.trace_policy import TracePolicy
from pointsman_server.execution.background import CLOSING_SECONDS
from pointsman_server.execution.trace_text import TraceMasker
from pointsman_server.execution.trace_writer import (
    CLEANING_SECONDS,
    GATHERING_SECONDS,
    MOST_AT_ONCE,
    MOST_WAITING,
    MOST_WAITING_TOKENS,
    REST_SECONDS,
    TraceWriter,
)

A = deployment("a")
DAY_SECONDS = 86_400
SOON_SECONDS = GATHERING_SECONDS + 0.1


def encode(decided: Decision | None, attempts: Sequence[Attempt]) -> bytes:
    return f"{decided.id if decided else '-'} {len(attempts)}".encode()


def writing(
    journey: Callable[[TraceWriter], Awaitable[None]], store: ListTraces, scanner: PlainScanner | None = None
) -> TraceWriter:
    """The writer after this journey, closed."""

    async def run() -> TraceWriter:
        writer = TraceWriter(store, encode, TraceMasker(scanner or PlainScanner()), LoopClock())
        writer.start()
        await journey(writer)
        await writer.close()
        return writer

    return in_virtual_time(run())


def with_text(text: str = "I am ann@x.org", tokens: int = 10, request_id: str = "r") -> EndedCall:
    asked = call(snapshot(), request=request(text))
    decided = Decision("dec", plan([A], input_tokens=TokenEstimate(tokens, exact=True, upper_bound=tokens)), 0.0)
    return ended(request_id, TEXT, decision=decided, shown=asked)


def test_a_call_is_there_soon_with_all_that_is_known() -> None:
    store = ListTraces()
    policy = TracePolicy(retention_days=3)

    async def journey(writer: TraceWriter) -> None:
        one = ended(policy=policy, labels={"a": "b"}, decision=decision(A), attempts=(attempt(A),))
        writer.record(one)
        await asyncio.sleep(SOON_SECONDS)
        (trace,) = store.traces
        assert trace.line == one.line
        assert trace.expires_at == one.line.started_at + 3 * DAY_SECONDS
        assert (trace.account, trace.labels, trace.prompt, trace.answer) == (b"dec_1 1", {"a": "b"}, "", "")

    assert writing(journey, store).dropped == 0


def test_texts_are_masked_before_they_are_written() -> None:
    store = ListTraces()

    async def journey(writer: TraceWriter) -> None:
        writer.record(with_text())

    writing(journey, store)
    assert store.traces[0].prompt == "user: I am [EMAIL_1]"


def test_a_text_that_cannot_be_masked_is_not_written() -> None:
    store = ListTraces()

    async def journey(writer: TraceWriter) -> None:
        writer.record(with_text("a secret that breaks the scanner"))
        writer.record(with_text("fine", request_id="s"))

    with capture_logs() as logs:
        writer = writing(journey, store, PlainScanner(fails_at="secret"))
    assert [trace.prompt for trace in store.traces] == ["", "user: fine"]
    assert writer.dropped == 0
    assert [(one["event"], one["request_id"], one["error"]) for one in logs] == [
        ("trace_without_text", "r", "RuntimeError")
    ]
    assert "secret" not in str(logs)


def test_calls_are_written_together_and_not_too_many() -> None:
    store = ListTraces()

    async def journey(writer: TraceWriter) -> None:
        for number in range(MOST_AT_ONCE + 10):
            writer.record(ended(f"{number}"))
        await asyncio.sleep(SOON_SECONDS)

    writing(journey, store)
    assert store.writes == [MOST_AT_ONCE, 10]
    assert [one.line.request_id for one in store.traces] == [f"{number}" for number in range(MOST_AT_ONCE + 10)]


def test_what_finds_no_room_is_dropped_and_counted() -> None:
    store = ListTraces()

    async def journey(writer: TraceWriter) -> None:
        for number in range(MOST_WAITING + 3):
            writer.record(ended(f"{number}"))
        assert writer.dropped == 3

    assert writing(journey, store).dropped == 3
    assert len(store.traces) == MOST_WAITING


def test_long_texts_need_more_room_and_give_it_back() -> None:
    store = ListTraces()

    async def journey(writer: TraceWriter) -> None:
        for _ in range(2):
            writer.record(with_text(tokens=MOST_WAITING_TOKENS))
            writer.record(with_text(tokens=1))
            writer.record(ended())
            await asyncio.sleep(SOON_SECONDS)

    assert writing(journey, store).dropped == 2
    assert len(store.traces) == 4


def test_a_store_that_is_away_costs_what_was_to_be_written_and_a_rest() -> None:
    store = ListTraces(down=True)

    async def journey(writer: TraceWriter) -> None:
        writer.record(ended("lost"))
        await asyncio.sleep(SOON_SECONDS)
        assert writer.dropped == 1
        store.down = False
        writer.record(ended("kept"))
        await asyncio.sleep(REST_SECONDS + SOON_SECONDS)

    with capture_logs() as logs:
        assert writing(journey, store).dropped == 1
    assert [one.line.request_id for one in store.traces] == ["kept"]
    assert [one["event"] for one in logs] == ["traces_not_written"]


def test_a_store_that_never_answers_holds_up_nobody_and_the_end_not_long() -> None:
    store = ListTraces(seconds=1e6)

    async def journey(writer: TraceWriter) -> None:
        writer.record(ended("first"))
        await asyncio.sleep(SOON_SECONDS)
        for number in range(MOST_WAITING + 5):
            writer.record(ended(f"{number}"))
        assert writer.dropped == 5
        began_at = asyncio.get_running_loop().time()
        await writer.close()
        assert asyncio.get_running_loop().time() - began_at == pytest.approx(CLOSING_SECONDS)

    assert writing(journey, store).dropped == MOST_WAITING + 6
    assert store.traces == []


def test_a_store_that_is_away_at_the_end_is_not_waited_for() -> None:
    store = ListTraces(down=True)

    async def journey(writer: TraceWriter) -> None:
        for number in range(MOST_AT_ONCE + 1):
            writer.record(ended(f"{number}"))

    assert writing(journey, store).dropped == MOST_AT_ONCE + 1


def test_what_waits_at_the_end_is_written() -> None:
    store = ListTraces()

    async def journey(writer: TraceWriter) -> None:
        writer.record(ended())

    assert writing(journey, store).dropped == 0
    assert len(store.traces) == 1


def test_a_writer_that_never_began_can_be_closed() -> None:
    async def run() -> int:
        writer = TraceWriter(ListTraces(), encode, TraceMasker(PlainScanner()), LoopClock())
        writer.record(ended())
        await writer.close()
        return writer.dropped

    assert in_virtual_time(run()) == 0


class TestCleaning:
    def test_goes_on_until_nothing_is_left(self) -> None:
        store = ListTraces(removed=[500, 20])

        async def journey(writer: TraceWriter) -> None:
            writer.record(ended(tenant="b"))
            writer.record(ended(tenant="a"))
            writer.record(ended(tenant="a"))
            await asyncio.sleep(SOON_SECONDS)

        writing(journey, store)
        assert [tenants for _, tenants in store.cleanings] == [("a", "b")] * 3

    def test_is_done_now_and_then_and_for_who_was_seen_since(self) -> None:
        store = ListTraces()

        async def journey(writer: TraceWriter) -> None:
            for tenant in ("a", "b", "c"):
                writer.record(ended(tenant=tenant))
                await asyncio.sleep(CLEANING_SECONDS * 0.6)
            await asyncio.sleep(3 * CLEANING_SECONDS)

        writing(journey, store)
        tenants = [tenants for _, tenants in store.cleanings]
        assert tenants[:2] == [("a",), ("b", "c")]
        assert set(tenants[2:]) == {()}
        times = [now for now, _ in store.cleanings]
        assert all(later - earlier >= CLEANING_SECONDS for earlier, later in itertools.pairwise(times))

    def test_that_fails_is_tried_again_later(self) -> None:
        store = ListTraces()

        async def journey(writer: TraceWriter) -> None:
            await asyncio.sleep(CLEANING_SECONDS)
            store.down = True
            await asyncio.sleep(2 * CLEANING_SECONDS)
            store.down = False
            await asyncio.sleep(3 * CLEANING_SECONDS)

        assert writing(journey, store).dropped == 0
        assert store.cleanings
