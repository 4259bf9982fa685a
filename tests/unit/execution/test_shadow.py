"""A shadow decides beside the policy in force: what would differ is counted, and no call notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import structlog

from kit.catalog import circumstances
from kit.policy_house import House, text
from kit.remembering import DecisionList
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.decision.engine import decide
from pointsman_server.domain.control import RolloutKind
from pointsman_server.domain.record import DecisionRecord, summarise
from pointsman_server.domain.request import Tier
from pointsman_server.execution.shadow import MOST_WAITING, TELL_SECONDS, ShadowLog

DEARER = text("second").replace("input_usd_per_mtok: 1, output_usd_per_mtok: 1", "input_usd_per_mtok: 2, "
                                "output_usd_per_mtok: 2")  # fmt: skip
GONE = text("second").replace("deployments: {one:", "deployments: {two:")


class Beside:
    def __init__(self, house: House) -> None:
        self.house = house
        self.kept = DecisionList()
        self.log = ShadowLog(self.kept, house.keeper)

    async def shadow(self, policy: str) -> str:
        version = await self.house.desk.keep(policy)
        await self.house.desk.try_out(version, RolloutKind.SHADOW, 0, "key_1", "")
        await self.house.watch.look()
        return version

    def decides(self, policy_version: str = "", **facts: object) -> None:
        under = circumstances(**{"tier": Tier.LIGHT, **facts})  # type: ignore[arg-type]
        current = self.house.keeper.current
        outcome = summarise(decide(under, current))
        self.log.append(DecisionRecord("dec", "req", 1.0, policy_version or current.version, under, outcome))


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncGenerator[Beside, None]:
    file = tmp_path / "policy.yaml"
    file.write_text(text("first"))
    database = Database(f"sqlite:///{tmp_path}/pointsman.db")
    await database.open()
    async with House(file, database=database).open() as house:
        yield Beside(house)
    await database.close()


async def test_everything_is_kept_as_ever(beside: Beside) -> None:
    beside.decides()
    await beside.shadow(DEARER)
    beside.decides()
    assert len(beside.kept.kept) == 2


async def test_what_would_cost_more_is_told(beside: Beside) -> None:
    version = await beside.shadow(DEARER)
    for _ in range(3):
        beside.decides()
    with structlog.testing.capture_logs() as logs:
        beside.log.compare()
        beside.log.tell()
        beside.log.tell()
    seen = beside.log.comparison
    assert (seen.decisions, seen.newly_refused, seen.moves) == (3, 0, {})
    assert seen.cost_after_micro_usd == 2 * seen.cost_before_micro_usd > 0
    (line,) = [line for line in logs if line["event"] == "shadow_compared"]
    assert (line["policy_version"], line["decisions"]) == (version, 3)
    assert line["shadow_cost_micro_usd"] == 2 * line["expected_cost_micro_usd"]


async def test_what_would_go_elsewhere_or_be_refused_is_told(beside: Beside) -> None:
    await beside.shadow(GONE)
    beside.decides()
    beside.decides(deployment="one")
    with structlog.testing.capture_logs() as logs:
        beside.log.compare()
        beside.log.tell()
    assert beside.log.comparison.moves == {("one", "two"): 1, ("one", ""): 1}
    assert beside.log.comparison.newly_refused == 1
    (line,) = [line for line in logs if line["event"] == "shadow_compared"]
    assert {(move["from"], move["to"]) for move in line["moves"]} == {("one", "two"), ("one", "")}


async def test_a_shadow_that_means_the_same_changes_nothing(beside: Beside) -> None:
    await beside.shadow(text("second"))
    beside.decides()
    beside.log.compare()
    assert beside.log.comparison.same == beside.log.comparison.decisions == 1


async def test_decisions_of_other_policies_are_left_alone(beside: Beside) -> None:
    await beside.shadow(DEARER)
    beside.decides(policy_version="of a canary")
    beside.log.compare()
    assert beside.log.comparison.decisions == 0


async def test_what_does_not_fit_is_left_out_and_counted(beside: Beside) -> None:
    await beside.shadow(DEARER)
    for _ in range(MOST_WAITING + 7):
        beside.decides()
    assert beside.log.left_out == 7
    beside.log.compare()
    assert beside.log.comparison.decisions == MOST_WAITING


async def test_each_shadow_has_its_own_count(beside: Beside) -> None:
    await beside.shadow(DEARER)
    beside.log.compare()
    beside.decides()
    beside.log.compare()
    with structlog.testing.capture_logs() as logs:
        await beside.shadow(GONE)
        beside.log.compare()
    assert beside.log.comparison.decisions == 0
    assert [line["decisions"] for line in logs if line["event"] == "shadow_compared"] == [1]
    beside.decides()
    await beside.house.desk.stop("key_1", "")
    beside.log.compare()
    assert beside.log.comparison.decisions == 0


async def test_it_works_beside_the_calls(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman_server.execution.shadow.TELL_SECONDS", 0.05)
    await beside.shadow(DEARER)
    beside.log.start()
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            beside.decides()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        await beside.log.close()
    assert beside.log.comparison.decisions == 20
    assert [line for line in logs if line["event"] == "shadow_compared"]
    assert TELL_SECONDS >= 10


async def test_what_never_started_can_be_closed(beside: Beside) -> None:
    with structlog.testing.capture_logs() as logs:
        await beside.log.close()
    assert logs == []
