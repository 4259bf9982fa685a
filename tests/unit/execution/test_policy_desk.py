"""What operators do with policies: it is checked as a whole, done as a whole, and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from kit.policy_house import House, name_in, text
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.errors import InvalidRequest
from pointsman_server.execution.policy_desk import PolicyDesk, unified_diff


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(text("first"))
    return file


@pytest.fixture
async def house(file: Path, tmp_path: Path) -> AsyncGenerator[House, None]:
    database = Database(f"sqlite:///{tmp_path}/pointsman.db")
    await database.open()
    async with House(file, database=database).open() as house:
        yield house
    await database.close()


@pytest.fixture
def desk(house: House) -> PolicyDesk:
    return house.desk


async def recorded(house: House) -> list[tuple[str, str, str]]:
    assert house.store is not None
    return [(one.action, one.actor, one.comment) for one in await house.store.audit()]


class TestApply:
    async def test_it_is_in_force_when_it_is_told(self, house: House, desk: PolicyDesk) -> None:
        before = house.keeper.current.version
        applied = await desk.apply(text("second"), "key_1", "larger model")
        assert house.keeper.current.version == applied.version != before
        assert name_in(house.keeper.current) == "second"
        assert applied.diff.startswith(f"--- policy {before}\n+++ policy {applied.version}\n@@ ")
        assert "-deployments: {one: {provider: local, model: small, model_name: first}}\n" in applied.diff
        assert (await recorded(house))[0] == ("policy_applied", "key_1", "larger model")
        kept = await desk.version()
        assert (kept.version, kept.yaml, kept.author, kept.comment) == (
            applied.version,
            text("second"),
            "key_1",
            "larger model",
        )

    async def test_checking_changes_nothing(self, house: House, desk: PolicyDesk) -> None:
        before = house.keeper.current.version
        checked = await desk.apply(text("second"), "key_1", "", check_only=True)
        assert checked.version == house.keeper.current.version == before
        assert "model_name: second" in checked.diff
        assert len(await desk.versions(10)) == 1

    async def test_what_is_in_force_already_is_not_applied_again(self, house: House, desk: PolicyDesk) -> None:
        applied = await desk.apply(text("first") + "# a remark\n", "key_1", "")
        assert applied.version == house.keeper.current.version
        assert applied.diff == ""
        assert len(await desk.versions(10)) == 1

    @pytest.mark.parametrize("check_only", [True, False])
    async def test_every_problem_is_told_with_its_line(self, house: House, desk: PolicyDesk, check_only: bool) -> None:
        wrong = text("second").replace("quality: 0.5", "quality: 5").replace("provider: local", "provider: locl")
        before = house.keeper.current
        with pytest.raises(InvalidRequest) as caught:
            await desk.apply(wrong, "key_1", "", check_only=check_only)
        told = [(one.field, one.description) for one in caught.value.problems]
        assert told == [
            ("yaml", "line 4: models.small.quality is 5. Write a number from 0 to 1."),
            ("yaml", "line 5: deployments.one.provider refers to 'locl', but there is no such provider. "
             "Did you mean 'local'?"),
        ]  # fmt: skip
        assert house.keeper.current is before
        assert len(await desk.versions(10)) == 1

    async def test_more_problems_than_an_error_can_carry(self, desk: PolicyDesk) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await desk.apply("".join(f"key_{number}: 1\n" for number in range(60)), "key_1", "")
        told = [one.description for one in caught.value.problems]
        assert 5 < len(told) <= 16
        assert sum(map(len, told)) < 3_000
        assert told[-1].endswith("more problems; `pointsman preflight` tells all")

    async def test_what_would_answer_nobody_is_refused(self, desk: PolicyDesk) -> None:
        keyless = text("second").replace('/v1"', '/v1", api_key: "${NO_SUCH_KEY}"')
        with pytest.raises(InvalidRequest) as caught:
            await desk.apply(keyless, "key_1", "")
        assert any("no deployment can be used" in one.description for one in caught.value.problems)

    async def test_half_a_character_is_no_text(self, desk: PolicyDesk) -> None:
        with pytest.raises(InvalidRequest, match="not UTF-8"):
            await desk.apply("version: 1 # \ud800", "key_1", "")

    async def test_many_at_once_come_one_after_the_other(self, house: House, desk: PolicyDesk) -> None:
        await asyncio.gather(*(desk.apply(text(f"n{number}"), "key_1", "") for number in range(5)))
        history = await desk.versions(10)
        assert len(history) == 6
        assert house.keeper.current.version == history[0].version


class TestRollBack:
    async def test_an_earlier_version_is_in_force_again(self, house: House, desk: PolicyDesk) -> None:
        first = house.keeper.current.version
        second = (await desk.apply(text("second"), "key_1", "")).version
        assert await desk.roll_back(first, "key_2", "second was slow") == first
        assert name_in(house.keeper.current) == "first"
        assert [one.version for one in await desk.versions(10)] == [first, second, first]
        assert (await recorded(house))[0] == ("policy_applied", "key_2", "second was slow")
        assert (await desk.version(second)).yaml == text("second")

    async def test_to_the_one_in_force_is_no_change(self, house: House, desk: PolicyDesk) -> None:
        first = house.keeper.current.version
        assert await desk.roll_back(first, "key_1", "") == first
        assert len(await desk.versions(10)) == 1

    async def test_an_unknown_version_is_told(self, desk: PolicyDesk) -> None:
        with pytest.raises(InvalidRequest, match="version: names no policy that is kept here"):
            await desk.roll_back("nowhere", "key_1", "")
        with pytest.raises(InvalidRequest, match="names no policy"):
            await desk.version("nowhere")

    async def test_one_that_cannot_be_used_any_more_is_refused(self, house: House, desk: PolicyDesk) -> None:
        assert house.store is not None
        await house.store.keep_policy("of_the_future", "version: 2\n")
        with pytest.raises(InvalidRequest) as caught:
            await desk.roll_back("of_the_future", "key_1", "")
        assert {one.field for one in caught.value.problems} == {"version"}


async def test_before_anything_was_applied_there_is_nothing_to_show(file: Path, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/other.db")
    await database.open()
    desk = House(file, database=database).desk
    with pytest.raises(InvalidRequest, match="no policy was applied yet"):
        await desk.version()
    applied = await desk.apply(text("second"), "key_1", "", check_only=True)
    assert "+version: 1" in applied.diff
    await database.close()


def test_a_diff_has_its_lines_and_nothing_for_equals() -> None:
    assert unified_diff("a\nb", "a\nb\n", "1", "2") == ""
    assert unified_diff("a\n", "a\nb\n", "1", "2") == "--- policy 1\n+++ policy 2\n@@ -1 +1,2 @@\n a\n+b\n"
