"""Texts become policies, with everything that calls under them need; what is wrong is told without secrets."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from kit.policy_house import House, name_in, text
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.bootstrap.policy_workshop import FileOnDisk, PolicyWorkshop
from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.config.simulated import with_simulator
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.execution.policies import PolicyRefused
from pointsman_server.execution.policy_watch import FILE_AUTHOR, SHIPPED_AUTHOR, FileUnreadableError


@pytest.fixture
def house(tmp_path: Path) -> House:
    file = tmp_path / "policy.yaml"
    file.write_text(text())
    return House(file)


async def test_a_text_becomes_a_policy(house: House) -> None:
    policy = await house.workshop.compile(text("second"))
    assert name_in(policy.snapshot) == "second"
    assert policy.record.text == text("second")
    assert policy.failures == {}
    assert any("no deployment is of tier" in told for told in policy.failures.values()) is False


async def test_equipping_makes_adapters_and_keeps_the_record(house: House) -> None:
    policy = await house.workshop.compile(text("second"))
    snapshot = await house.workshop.equip(policy)
    assert house.adapters.providers == set(snapshot.providers.values())
    assert house.records == [policy.record]
    await house.workshop.keep_only([])
    assert len(house.adapters) == 0


async def test_checks_that_fail_here_are_told_with_their_remedy(house: House) -> None:
    policy = await house.workshop.compile(text().replace('/v1"', '/v1", api_key: "${NO_SUCH_KEY}"'))
    assert set(policy.failures) == {"deployments", "tier.light"}
    assert policy.failures["deployments"].endswith("Set at least one of the keys named above.")


async def test_problems_name_lines_but_no_file(house: House) -> None:
    with pytest.raises(PolicyRefused) as caught:
        await house.workshop.compile(text().replace("quality: 0.5", "quality: 7"))
    assert str(caught.value) == "line 4: models.small.quality is 7. Write a number from 0 to 1."
    with pytest.raises(PolicyRefused, match="the text is empty"):
        await house.workshop.compile("")


async def test_keys_are_read_from_the_environment_and_told_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    keyed = text().replace('/v1"', '/v1", api_key: "${HOUSE_KEY}"')
    file.write_text(keyed)
    house = House(file, environ={"HOUSE_KEY": "planted-value"})
    policy = await house.workshop.compile(keyed)
    assert policy.failures == {}
    assert "planted-value" not in repr(policy)


async def test_simulated_providers_are_moved_to_the_simulator(tmp_path: Path) -> None:
    async def simulate(snapshot: Snapshot) -> Snapshot:
        return with_simulator(snapshot, "http://127.0.0.1:4321")

    records: list[PolicyRecord] = []
    book = AdapterBook(HttpWire())
    workshop = PolicyWorkshop(
        str(tmp_path / "policy.yaml"),
        {},
        book,
        simulate=simulate,
        keep_record=records.append,
        today=lambda: date(2026, 11, 21),
    )
    policy = await workshop.compile(text().replace("openai_chat, ", "openai_chat, simulated: true, "))
    snapshot = await workshop.equip(policy)
    assert snapshot.version == policy.snapshot.version
    (provider,) = book.providers
    assert provider.base_url == "http://127.0.0.1:4321/v1"
    assert records[0].priced_on == date(2026, 11, 21)


class TestFile:
    async def test_who_chose_it(self, tmp_path: Path) -> None:
        file = tmp_path / "policy.yaml"
        file.write_text("a")
        assert FileOnDisk(str(file), "a", chosen=True).author == FILE_AUTHOR
        assert FileOnDisk(str(file), "a", chosen=False).author == SHIPPED_AUTHOR
        assert await FileOnDisk(str(file), "a", chosen=True).changed_at() > 0

    async def test_what_is_new_in_it(self, tmp_path: Path) -> None:
        file = tmp_path / "policy.yaml"
        file.write_text("b")
        on_disk = FileOnDisk(str(file), "a", chosen=True, settle_seconds=0)
        assert await on_disk.look(1.0) == "b"
        assert await on_disk.look(2.0) is None
        file.write_bytes(b"\xff")
        with pytest.raises(FileUnreadableError, match="the policy file is not UTF-8 text"):
            await on_disk.look(3.0)
        file.unlink()
        with pytest.raises(FileUnreadableError, match="the policy file does not exist"):
            await on_disk.look(4.0)
