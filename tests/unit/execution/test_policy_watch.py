"""File and database are followed, the last change wins, and nothing that goes wrong takes the policy away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.typing import EventDict

from kit.policy_house import House, name_in, text, write
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.config.watched_file import SETTLE_SECONDS
from pointsman_server.domain.control import Rollout, RolloutKind
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.execution.policy_watch import FILE_AUTHOR, LOOK_SECONDS, SHIPPED_AUTHOR

QUIET_SECONDS = 0.3
"""Long enough for any change to be noticed."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(text("first"))
    return file


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncGenerator[Database, None]:
    database = Database(f"sqlite:///{tmp_path}/pointsman.db")
    await database.open()
    yield database
    await database.close()


def keyless(name: str) -> str:
    return text(name).replace('/v1"', '/v1", api_key: "${NO_SUCH_KEY}"')


def version_of(content: str, file: Path) -> str:
    beside = file.with_name("other.yaml")
    beside.write_text(content)
    return House(beside).keeper.current.version


async def in_history(store: ControlStore | None) -> list[tuple[str, str]]:
    assert store is not None
    return [(one.author, one.version) for one in await store.policies()]


def not_reloaded(logs: list[EventDict]) -> list[EventDict]:
    return [line for line in logs if line["event"] == "policy_not_reloaded"]


def _make_folder_of(file: Path) -> None:
    file.unlink()
    file.mkdir()


class TestFileAlone:
    async def test_a_change_is_taken_over_within_a_second(self, file: Path) -> None:
        house = House(file, look_seconds=LOOK_SECONDS, settle_seconds=SETTLE_SECONDS)
        async with house.open():
            write(file, text("second"))
            assert await house.has("second", 1.0)
            assert house.watch.problems == ()
            assert [record.text for record in house.records] == [text("first"), text("second")]
            assert house.keeper.applied_version == house.keeper.current.version

    async def test_what_calls_hold_stays_as_it_is(self, file: Path) -> None:
        async with House(file).open() as house:
            held = house.keeper.current
            write(file, text("second"))
            assert await house.has("second")
            assert name_in(held) == "first"

    async def test_a_change_before_the_first_look_is_not_missed(self, file: Path) -> None:
        house = House(file)
        write(file, text("second"))
        async with house.open():
            assert await house.has("second")

    @pytest.mark.parametrize(
        ("spoil", "told"),
        [
            (lambda file: write(file, text("second")[:-40]), "line"),
            (lambda file: write(file, text("second").replace("quality: 0.5", "quality: 5")), "models.small.quality"),
            (lambda file: write(file, ""), "is empty"),
            (lambda file: file.write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
            (os.unlink, "the policy file does not exist"),
            (_make_folder_of, "is not a regular file"),
        ],
    )
    async def test_what_goes_wrong_is_told_once_and_changes_nothing(
        self, file: Path, spoil: Callable[[Path], Any], told: str
    ) -> None:
        with structlog.testing.capture_logs() as logs:
            async with House(file).open() as house:
                before = house.keeper.current
                spoil(file)
                await asyncio.sleep(2 * QUIET_SECONDS)
                assert house.keeper.current is before
                assert any(told in problem for problem in house.watch.problems)
        (line,) = not_reloaded(logs)
        assert line["log_level"] == "error"
        assert any(told in problem for problem in line["problems"])
        assert (line["source"], line["in_force"]) == ("file", before.version)

    async def test_what_is_put_right_is_taken_over(self, file: Path) -> None:
        async with House(file).open() as house:
            os.unlink(file)
            await asyncio.sleep(QUIET_SECONDS)
            assert house.watch.problems
            write(file, text("second"))
            assert await house.has("second")
            assert house.watch.problems == ()

    async def test_what_comes_back_as_it_was_ends_the_alarm(self, file: Path) -> None:
        async with House(file).open() as house:
            before = house.keeper.current
            os.unlink(file)
            await asyncio.sleep(QUIET_SECONDS)
            write(file, text("first"))
            await asyncio.sleep(QUIET_SECONDS)
            assert house.watch.problems == ()
            assert house.keeper.current is before

    async def test_what_would_answer_nobody_any_more_is_refused(self, file: Path) -> None:
        async with House(file).open() as house:
            write(file, keyless("second"))
            await asyncio.sleep(QUIET_SECONDS)
            assert name_in(house.keeper.current) == "first"
            assert any("no deployment can be used" in problem for problem in house.watch.problems)

    async def test_what_answers_nobody_as_before_is_not(self, file: Path) -> None:
        write(file, keyless("first"))
        async with House(file).open() as house:
            write(file, keyless("second"))
            assert await house.has("second")

    async def test_warnings_are_told(self, file: Path) -> None:
        with structlog.testing.capture_logs() as logs:
            async with House(file).open() as house:
                write(file, text("second", more="tenants: {shop: {requests_per_minute: 0}}\n"))
                assert await house.has("second")
        told = [line["message"] for line in logs if line["event"] == "policy_warning"]
        assert any("tenants.shop.requests_per_minute is 0" in message for message in told)


class TestDatabase:
    async def test_the_file_seeds_it(self, file: Path, database: Database) -> None:
        async with House(file, database=database).open() as house:
            assert await in_history(house.store) == [(FILE_AUTHOR, house.keeper.current.version)]
            assert house.book is not None
            assert house.book.current.policy_version == house.keeper.applied_version

    async def test_a_change_reaches_every_process(self, file: Path, database: Database) -> None:
        other = file.with_name("other.yaml")
        other.write_text(text("first"))
        async with House(file, database=database).open() as one, House(other, database=database).open() as two:
            await one.desk.apply(text("second"), "key_1", "")
            assert name_in(one.keeper.current) == "second", "at once where it was made"
            assert await two.has("second")
            write(other, text("third"))
            assert await two.has("third")
            assert await one.has("third")
            assert (await in_history(one.store))[0] == (FILE_AUTHOR, two.keeper.current.version)

    async def test_an_unchanged_file_undoes_nothing(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            await house.desk.apply(text("second"), "key_1", "")
            await asyncio.sleep(QUIET_SECONDS)
            assert name_in(house.keeper.current) == "second"
        with structlog.testing.capture_logs() as logs:
            async with House(file, database=sqlite).open() as again:
                assert name_in(again.keeper.current) == "second"
        (line,) = [line for line in logs if line["event"] == "policy_file_not_applied"]
        assert "policy apply" in line["remedy"]

    async def test_a_touched_file_undoes_nothing(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            await house.desk.apply(text("second"), "key_1", "")
            with structlog.testing.capture_logs() as logs:
                write(file, text("first") + "# a remark\n")
                await asyncio.sleep(QUIET_SECONDS)
            assert name_in(house.keeper.current) == "second"
            assert len(await in_history(house.store)) == 2
            assert [line["event"] for line in logs] == ["policy_file_not_applied"]

    async def test_a_file_that_changed_while_nobody_looked_is_applied(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            await house.desk.apply(text("second"), "key_1", "")
        write(file, text("third"))
        async with House(file, database=sqlite).open() as again:
            assert name_in(again.keeper.current) == "third"
            assert [author for author, _ in await in_history(again.store)] == [FILE_AUTHOR, "key_1", FILE_AUTHOR]

    async def test_a_file_that_was_put_back_is_applied(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            write(file, text("second"))
            assert await house.has("second")
            write(file, text("first"))
            assert await house.has("first"), "while it runs"
            write(file, text("second"))
            assert await house.has("second")
        write(file, text("first"))
        async with House(file, database=sqlite).open() as again:
            assert name_in(again.keeper.current) == "first", "while it does not"

    async def test_a_file_that_others_have_overtaken_is_not(self, file: Path, sqlite: Database) -> None:
        """An old replica starts once more among new ones."""
        newer = file.with_name("newer.yaml")
        newer.write_text(text("second"))
        os.utime(file, (1_000_000_000, 1_000_000_000))
        async with House(file, database=sqlite).open():
            pass
        async with House(newer, database=sqlite).open() as new:
            assert name_in(new.keeper.current) == "second"
            async with House(file, database=sqlite).open() as old:
                assert name_in(old.keeper.current) == "second"
            assert len(await in_history(new.store)) == 2

    async def test_shipped_policies_give_way_to_chosen_ones_only(self, file: Path, sqlite: Database) -> None:
        shipped = file.with_name("demo.yaml")
        shipped.write_text(text("demo"))
        other_shipped = file.with_name("default.yaml")
        other_shipped.write_text(text("default"))
        for path in (shipped, other_shipped, shipped):
            async with House(path, database=sqlite, chosen=False).open() as house:
                assert name_in(house.keeper.current) == path.stem
                assert (await in_history(house.store))[0][0] == SHIPPED_AUTHOR
        async with House(file, database=sqlite).open() as house:
            assert name_in(house.keeper.current) == "first"
        with structlog.testing.capture_logs() as logs:
            async with House(shipped, database=sqlite, chosen=False).open() as house:
                assert name_in(house.keeper.current) == "first"
        assert "policy_file_not_applied" not in [line["event"] for line in logs]

    async def test_a_policy_that_is_useless_here_is_not_taken_over(self, file: Path, sqlite: Database) -> None:
        with structlog.testing.capture_logs() as logs:
            async with House(file, database=sqlite).open() as house:
                assert house.store is not None
                useless = keyless("second")
                await house.store.apply_policy(version_of(useless, file), useless, "key_1", "")
                await asyncio.sleep(QUIET_SECONDS)
                assert name_in(house.keeper.current) == "first"
                assert house.watch.problems
                await house.store.apply_policy(version_of(text("third"), file), text("third"), "key_1", "")
                assert await house.has("third")
                assert house.watch.problems == ()
        (line,) = not_reloaded(logs)
        assert line["source"] == "database"

    async def test_one_that_cannot_be_read_at_the_start_leaves_the_files(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            assert house.store is not None
            await house.store.apply_policy("of_the_future", "version: 2\n", "key_1", "")
        with structlog.testing.capture_logs() as logs:
            async with House(file, database=sqlite).open() as again:
                assert name_in(again.keeper.current) == "first"
                await asyncio.sleep(QUIET_SECONDS)
        assert len(not_reloaded(logs)) == 1

    async def test_prices_that_changed_since_are_told(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            assert house.store is not None
            with structlog.testing.capture_logs() as logs:
                await house.store.apply_policy("of_yesterday", text("second"), "key_1", "")
                assert await house.has("second")
                await asyncio.sleep(QUIET_SECONDS)
            assert house.keeper.applied_version == "of_yesterday"
            assert house.keeper.current.version == version_of(text("second"), file)
        assert len([line for line in logs if line["event"] == "policy_version_differs"]) == 1

    async def test_it_follows_the_database_without_a_file(self, file: Path, sqlite: Database) -> None:
        house = House(file, database=sqlite)
        house.watch._file = None
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(House(file, database=sqlite).open())
            await stack.enter_async_context(house.open())
            await one.desk.apply(text("second"), "key_1", "")
            assert await house.has("second")


class _AwayStore(ControlStore):
    """The database is away while `is_away`."""

    is_away = False

    async def policy(self, version: str) -> Any:
        if self.is_away:
            raise StoreUnavailableError("away")
        return await super().policy(version)

    async def apply_policy(self, *arguments: Any) -> bool:
        if self.is_away:
            raise StoreUnavailableError("away")
        return await super().apply_policy(*arguments)


class TestStoreAway:
    async def test_changes_wait_for_it(self, file: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kit.policy_house.ControlStore", _AwayStore)
        monkeypatch.setattr(_AwayStore, "is_away", False)
        house = House(file, database=sqlite)
        async with house.open():
            _AwayStore.is_away = True
            write(file, text("second"))
            await asyncio.sleep(QUIET_SECONDS)
            assert name_in(house.keeper.current) == "first"
            _AwayStore.is_away = False
            assert await house.has("second"), "the file's"
            _AwayStore.is_away = True
            store = ControlStore(sqlite, SystemClock())
            await store.apply_policy(version_of(text("third"), file), text("third"), "key_1", "")
            await store.set_rollout(Rollout(house.keeper.current.version, RolloutKind.CANARY, 5), "key_1")
            await asyncio.sleep(QUIET_SECONDS)
            assert name_in(house.keeper.current) == "second"
            assert house.keeper.rollout is None
            _AwayStore.is_away = False
            assert await house.has("third"), "the database's"
            await asyncio.sleep(QUIET_SECONDS)
            assert house.keeper.rollout is not None

    async def test_the_unforeseen_is_told_once_and_looking_goes_on(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        house = House(file)
        real = house.workshop.compile

        async def broken(text: str) -> Any:
            raise RuntimeError("planted")

        with structlog.testing.capture_logs() as logs:
            async with house.open():
                monkeypatch.setattr(house.workshop, "compile", broken)
                write(file, text("second"))
                await asyncio.sleep(QUIET_SECONDS)
                write(file, text("third"))
                await asyncio.sleep(QUIET_SECONDS)
                monkeypatch.setattr(house.workshop, "compile", real)
                write(file, text("fourth"))
                assert await house.has("fourth")
        assert {line["error"] for line in logs if line["event"] == "policy_watch_failed"} == {"RuntimeError"}
        assert "planted" not in str(logs)


class TestTrials:
    async def test_they_run_grow_and_end_everywhere(self, file: Path, database: Database) -> None:
        async with House(file, database=database).open() as one, House(file, database=database).open() as two:
            version = await one.desk.keep(text("second"))
            await one.desk.try_out(version, RolloutKind.CANARY, 100, "key_1", "")
            await asyncio.sleep(QUIET_SECONDS)
            for house in (one, two):
                assert name_in(house.keeper.choose("shop", "session")) == "second"
                assert name_in(house.keeper.current) == "first"
                assert house.keeper.canary is not None
                assert house.keeper.shadow is None
            canary = two.keeper.canary
            await one.desk.try_out(version, RolloutKind.CANARY, 0, "key_1", "")
            await asyncio.sleep(QUIET_SECONDS)
            assert name_in(two.keeper.choose("shop", "session")) == "first"
            assert two.keeper.canary is canary, "not compiled again"
            await one.desk.try_out(version, RolloutKind.SHADOW, 0, "key_1", "")
            await asyncio.sleep(QUIET_SECONDS)
            assert two.keeper.shadow is canary
            assert two.keeper.canary is None
            assert name_in(two.keeper.choose("shop", "session")) == "first"
            await one.desk.promote("key_1", "")
            assert name_in(one.keeper.current) == "second"
            assert await two.has("second")
            await asyncio.sleep(QUIET_SECONDS)
            assert one.keeper.rollout is two.keeper.rollout is None
            assert two.keeper.shadow is None

    async def test_one_that_is_useless_here_does_not_run_here(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            assert house.store is not None
            version = await house.desk.keep(text("second"))
            await house.desk.try_out(version, RolloutKind.CANARY, 100, "key_1", "")
            await asyncio.sleep(QUIET_SECONDS)
            with structlog.testing.capture_logs() as logs:
                await house.store.keep_policy("of_the_future", "version: 2\n")
                await house.store.set_rollout(Rollout("of_the_future", RolloutKind.CANARY, 100), "key_1")
                await asyncio.sleep(QUIET_SECONDS)
                assert house.keeper.rollout is None
                assert name_in(house.keeper.choose("shop", "session")) == "first"
                assert house.watch.problems
                await house.store.set_rollout(None, "key_1")
                await asyncio.sleep(QUIET_SECONDS)
                assert house.watch.problems == ()
            assert [line["source"] for line in not_reloaded(logs)] == ["rollout"]

    async def test_a_version_that_is_not_kept_does_not_run(self, file: Path, sqlite: Database) -> None:
        async with House(file, database=sqlite).open() as house:
            assert house.store is not None
            await house.store.set_rollout(Rollout("nowhere", RolloutKind.CANARY, 100), "key_1")
            await asyncio.sleep(QUIET_SECONDS)
            assert house.keeper.rollout is None
            assert house.watch.problems == ("version nowhere is not kept in the database",)
