from __future__ import annotations

import asyncio
from time import monotonic, time

import pytest
import structlog
from sqlalchemy import func, select, update

from kit.clock import CountingIds, FakeClock
from kit.naming import DIGEST, OTHER_DIGEST, MoodyAnswers, Upstream, ask, replica, start_caller
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.idempotency_store import SqlAnswers
from pointsman_server.adapters.stores.sql.schema import idempotent_calls
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.errors import AnswersUnavailable, DeadlineExceeded, RequestIdReused, Step
from pointsman_server.execution import idempotency as module
from pointsman_server.execution.idempotency import KEPT_SECONDS, MOST_BYTES, CallName, Holding, Idempotency
from pointsman_server.execution.sealing import Seal

DUPLICATES = 50
NAME = CallName("acme", "n")


@pytest.fixture
def moody(database: Database) -> MoodyAnswers:
    return MoodyAnswers(SqlAnswers(database, SystemClock()))


async def rows(database: Database) -> int:
    async with database.read() as connection:
        return int(await connection.scalar(select(func.count()).select_from(idempotent_calls)) or 0)


async def age(database: Database, seconds: float) -> None:
    """Lets all that is stored expire so much earlier."""
    async with database.write() as connection:
        await connection.execute(update(idempotent_calls).values(expires_at=idempotent_calls.c.expires_at - seconds))


class TestRepeats:
    async def test_get_the_first_answer(self, database: Database) -> None:
        upstream = Upstream()
        async with replica(database) as mine:
            assert [await ask(mine, upstream) for _ in range(3)] == [b"answer 1"] * 3
            assert await ask(mine, upstream, "m") == b"answer 2"
            assert mine.running_calls == 0

    async def test_at_the_same_time_wait_for_it(self, database: Database) -> None:
        upstream = Upstream(seconds=0.1)
        async with replica(database) as mine:
            answers = await asyncio.gather(*(ask(mine, upstream) for _ in range(DUPLICATES)))
        assert (upstream.calls, set(answers)) == (1, {b"answer 1"})

    async def test_at_the_same_time_elsewhere_too(self, database: Database) -> None:
        upstream = Upstream(seconds=0.1)
        async with replica(database) as one, replica(database) as other, replica(database) as third:
            everybody = [one, other, third] * (DUPLICATES // 3)
            answers = await asyncio.gather(*(ask(mine, upstream) for mine in everybody))
        assert (upstream.calls, set(answers)) == (1, {b"answer 1"})

    async def test_after_a_restart(self, database: Database, database_url: str) -> None:
        upstream = Upstream()
        async with replica(database) as mine:
            await ask(mine, upstream)
        again = Database(database_url)
        async with replica(again) as mine:
            assert await ask(mine, upstream) == b"answer 1"
        await again.close()

    async def test_of_another_tenant_are_another_call(self, database: Database) -> None:
        upstream = Upstream()
        async with replica(database) as mine:
            first = await ask(mine, upstream, tenant="acme")
            second = await ask(mine, upstream, tenant="Acme", digest=OTHER_DIGEST)
        assert (first, second) == (b"answer 1", b"answer 2")

    async def test_after_a_day_are_new(self, database: Database) -> None:
        upstream = Upstream()
        async with replica(database) as mine:
            await ask(mine, upstream)
            await age(database, KEPT_SECONDS - 60)
            assert await ask(mine, upstream) == b"answer 1"
            await age(database, 61)
            assert await ask(mine, upstream, digest=OTHER_DIGEST) == b"answer 2"


class TestAnotherContent:
    async def test_is_refused_afterwards(self, database: Database) -> None:
        upstream = Upstream()
        async with replica(database) as mine:
            await ask(mine, upstream)
            with pytest.raises(RequestIdReused, match="another content"):
                await ask(mine, upstream, digest=OTHER_DIGEST)
            assert await ask(mine, upstream) == b"answer 1"

    async def test_is_refused_while_the_first_runs(self, database: Database) -> None:
        upstream = Upstream(seconds=0.3)
        async with replica(database) as one, replica(database) as other:
            first = asyncio.create_task(ask(one, upstream))
            await upstream.began.wait()
            for mine in (one, other):
                with pytest.raises(RequestIdReused):
                    await ask(mine, upstream, digest=OTHER_DIGEST)
            assert await first == b"answer 1"
            assert (upstream.calls, one.running_calls, other.running_calls) == (1, 0, 0)

    async def test_that_waits_takes_over_when_the_first_fails(self, database: Database) -> None:
        upstream = Upstream(seconds=0.2, failures=1)
        async with replica(database) as one, replica(database) as other:
            first = asyncio.create_task(ask(one, upstream))
            await upstream.began.wait()
            same = asyncio.create_task(ask(other, upstream))
            await asyncio.sleep(0.05)
            different = asyncio.create_task(ask(other, upstream, digest=OTHER_DIGEST))
            results = await asyncio.gather(first, same, different, return_exceptions=True)
        assert isinstance(results[0], ConnectionError)
        assert results[1] == b"answer 2"
        assert isinstance(results[2], RequestIdReused)


class TestErrors:
    async def test_are_not_kept(self, database: Database) -> None:
        upstream = Upstream(failures=1)
        async with replica(database) as mine:
            with pytest.raises(ConnectionError):
                await ask(mine, upstream)
            assert await ask(mine, upstream) == b"answer 2"
            assert await ask(mine, upstream) == b"answer 2"

    async def test_let_those_who_wait_try_one_by_one(self, database: Database) -> None:
        upstream = Upstream(seconds=0.02, failures=3)
        async with replica(database) as one, replica(database) as other:
            asked = [ask(mine, upstream) for mine in (one, other) for _ in range(10)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert upstream.calls == 4
        assert sum(isinstance(answer, ConnectionError) for answer in answers) == 3
        assert {answer for answer in answers if isinstance(answer, bytes)} == {b"answer 4"}

    @staticmethod
    async def tell(mine: Idempotency) -> None:
        async with mine.once("acme", "n", DIGEST, monotonic() + 9) as claim:
            claim.keep(b"all of it")
            raise BrokenPipeError

    async def test_after_the_answer_was_there_it_is_kept(self, database: Database) -> None:
        async with replica(database) as mine:
            with pytest.raises(BrokenPipeError):
                await self.tell(mine)
            assert await ask(mine, Upstream()) == b"all of it"

    async def test_a_caller_who_goes_away_leaves_the_name(self, database: Database) -> None:
        upstream = Upstream(seconds=30)
        async with replica(database) as one, replica(database) as other:
            first = asyncio.create_task(ask(one, upstream))
            await upstream.began.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            upstream.seconds = 0
            assert await ask(other, upstream) == b"answer 2"


class TestDeadlines:
    async def test_of_those_who_wait(self, database: Database) -> None:
        upstream = Upstream(seconds=1.0)
        async with replica(database) as one, replica(database) as other:
            first = asyncio.create_task(ask(one, upstream))
            await upstream.began.wait()
            for mine in (one, other):
                started = monotonic()
                with pytest.raises(DeadlineExceeded) as caught:
                    await ask(mine, upstream, seconds=0.15)
                assert caught.value.step is Step.RECALL
                assert monotonic() - started < 0.8
            assert await first == b"answer 1"
            assert upstream.calls == 1


class TestLargeAnswers:
    async def test_are_not_kept_and_not_made_twice(self, database: Database) -> None:
        async with replica(database) as mine:
            async with mine.once("acme", "n", DIGEST, monotonic() + 9) as claim:
                claim.keep(b"x" * (MOST_BYTES + 1))
            for _ in range(2):
                with pytest.raises(RequestIdReused, match="too large"):
                    await ask(mine, Upstream())

    async def test_nor_for_those_who_wait(self, database: Database) -> None:
        async with replica(database) as mine:
            async with mine.once("acme", "n", DIGEST, monotonic() + 9) as claim:
                waiting = asyncio.create_task(ask(mine, Upstream()))
                await asyncio.sleep(0)
                claim.keep(b"x" * (MOST_BYTES + 1))
            with pytest.raises(RequestIdReused, match="too large"):
                await waiting

    async def test_the_largest_is_kept(self, database: Database) -> None:
        largest = b"x" * MOST_BYTES
        async with replica(database) as mine:
            async with mine.once("acme", "n", DIGEST, monotonic() + 9) as claim:
                claim.keep(largest)
            assert await ask(mine, Upstream()) == largest


class TestAtRest:
    async def test_no_word_of_an_answer_can_be_read(self, database: Database) -> None:
        async with replica(database) as mine:
            assert await ask(mine, Upstream()) == b"answer 1"
            assert await ask(mine, Upstream()) == b"answer 1"
        async with database.read() as connection:
            (row,) = (await connection.execute(select(idempotent_calls))).all()
        assert b"answer" not in b"".join(value for value in row if isinstance(value, bytes))
        assert DIGEST not in row

    async def test_what_was_not_sealed_for_this_question_is_refused(self, database: Database) -> None:
        store = SqlAnswers(database, SystemClock())
        await store.claim(Holding(NAME, "me"), Seal.of(DIGEST).digest, 15.0)
        await store.keep(Holding(NAME, "me"), b"in plain words", KEPT_SECONDS)
        async with replica(database) as mine:
            with pytest.raises(RequestIdReused, match="cannot be read any more"):
                await ask(mine, Upstream())


class TestLeases:
    async def test_a_claim_whose_process_was_killed_runs_out(self, database: Database, database_url: str) -> None:
        caller = await start_caller(database_url, "n", lease_seconds=1.0, call_seconds=60)
        assert caller.stdout is not None
        assert await caller.stdout.readline() == b"calling\n"
        caller.kill()
        await caller.wait()
        upstream = Upstream()
        async with replica(database, lease_seconds=1.0) as mine:
            assert await ask(mine, upstream) == b"answer 1"
            assert await ask(mine, upstream) == b"answer 1"

    async def test_a_claim_is_lengthened_while_the_call_runs(self, database: Database) -> None:
        upstream = Upstream(seconds=1.6)
        async with replica(database, lease_seconds=1.0) as one, replica(database, lease_seconds=1.0) as other:
            first = asyncio.create_task(ask(one, upstream))
            await upstream.began.wait()
            assert await ask(other, upstream) == b"answer 1"
            assert await first == b"answer 1"

    async def test_who_lost_his_claim_keeps_nothing(self, database: Database) -> None:
        slow, fast = Upstream(seconds=0.3), Upstream(calls=10)
        async with replica(database) as one, replica(database) as other:
            first = asyncio.create_task(ask(one, slow))
            await slow.began.wait()
            await age(database, 3600)
            assert await ask(other, fast) == b"answer 11"
            with structlog.testing.capture_logs() as logs:
                assert await first == b"answer 1"
            assert [entry["event"] for entry in logs] == ["answer_not_kept"]
            assert await ask(one, slow) == b"answer 11"

    async def test_a_clock_that_was_set_back_keeps_no_dead_claim_alive(self, database: Database) -> None:
        store = SqlAnswers(database, SystemClock())
        assert await store.claim(Holding(NAME, "dead"), DIGEST, 15.0) is None
        assert await store.look(NAME, 15.0) is not None
        await age(database, -3600)
        assert await store.look(NAME, 15.0) is None
        assert await store.claim(Holding(NAME, "next"), OTHER_DIGEST, 15.0) is None

    async def test_what_is_over_is_removed(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CLEANING_SECONDS", 0.0)
        async with replica(database) as mine:
            await ask(mine, Upstream(), "old")
            assert await rows(database) == 1
            await age(database, KEPT_SECONDS)
            await ask(mine, Upstream(), "new")
        async with replica(database, lease_seconds=0.05) as mine:
            for _ in range(100):
                if await rows(database) == 1:
                    break
                await asyncio.sleep(0.02)
            assert await ask(mine, Upstream(), "new") == b"answer 1"
            assert await rows(database) == 1


class TestStoreAway:
    async def test_a_named_call_is_not_made(self, moody: MoodyAnswers) -> None:
        upstream = Upstream()
        async with replica(moody) as mine:
            moody.is_broken = True
            with structlog.testing.capture_logs(), pytest.raises(AnswersUnavailable) as caught:
                await ask(mine, upstream)
            assert (upstream.calls, caught.value.retry_after_seconds) == (0, 1.0)
            moody.is_broken = False
            assert await ask(mine, upstream) == b"answer 1"

    async def test_an_answer_that_cannot_be_kept_is_given(self, moody: MoodyAnswers) -> None:
        upstream = Upstream(seconds=0.05)
        async with replica(moody) as mine:
            first = asyncio.create_task(ask(mine, upstream))
            await upstream.began.wait()
            moody.is_broken = True
            with structlog.testing.capture_logs() as logs:
                assert await first == b"answer 1"
            assert [entry["event"] for entry in logs] == ["answer_not_kept"]
            assert mine.running_calls == 0

    async def test_an_answer_does_not_wait_long_for_being_kept(
        self, moody: MoodyAnswers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "KEEPING_SECONDS", 0.05)
        moody.keeping_seconds = 0.6
        upstream = Upstream()
        async with replica(moody) as mine:
            started = monotonic()
            assert await ask(mine, upstream) == b"answer 1"
            assert monotonic() - started < 0.5
            assert await ask(mine, upstream) == b"answer 1"

    async def test_claims_that_cannot_be_lengthened_are_tried_again(self, moody: MoodyAnswers) -> None:
        with structlog.testing.capture_logs() as logs:
            moody.is_broken = True
            async with replica(moody, lease_seconds=0.06) as mine:
                await asyncio.sleep(0.05)
                moody.is_broken = False
                for _ in range(100):
                    if moody.cleaned:
                        break
                    await asyncio.sleep(0.02)
                assert await ask(mine, Upstream()) == b"answer 1"
        assert {entry["event"] for entry in logs} == {"claims_not_renewed"}


class TestWithoutStarting:
    async def test_calls_are_made_once_too(self, database: Database) -> None:
        clock = FakeClock(monotonic=monotonic(), now=time())
        mine, upstream = Idempotency(SqlAnswers(database, clock), clock, CountingIds()), Upstream()
        assert [await ask(mine, upstream) for _ in range(2)] == [b"answer 1"] * 2
        await mine.close()
