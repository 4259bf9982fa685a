"""The policy in force: one reference, calls keep what they took, and what nobody needs is given up."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from datetime import date

import pytest
import structlog

from kit.catalog import deployment, snapshot
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Rollout, RolloutKind
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.execution.policies import CompiledPolicy, PolicyKeeper, PolicyProblem, PolicyRefused, new_failures


def policy(version: str, **failures: str) -> CompiledPolicy:

    record = PolicyRecord(version, "text", "policy.yaml", date(2026, 11, 21))
    return CompiledPolicy(snapshot(deployment("one"), version=version), record, failures)


class Workshop:
    """Makes copies of what it equips, as the real one does for simulated policies, and notes what is still needed."""

    def __init__(self) -> None:
        self.equipped: list[str] = []
        self.needed: list[list[str]] = []
        self.broken = False

    async def compile(self, text: str) -> CompiledPolicy:
        raise AssertionError("the keeper compiles nothing")

    async def equip(self, policy: CompiledPolicy) -> Snapshot:
        if self.broken:
            raise OSError("no place for an adapter")
        self.equipped.append(policy.snapshot.version)
        return snapshot(deployment("one"), version=policy.snapshot.version)

    async def keep_only(self, snapshots: Sequence[Snapshot]) -> None:
        self.needed.append([one.version for one in snapshots])


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
async def keeper(workshop: Workshop) -> PolicyKeeper:
    keeper = PolicyKeeper(policy("v1"), workshop)
    await keeper.open()
    return keeper


class TestSwap:
    async def test_the_first_one_is_equipped_before_calls_come(self, keeper: PolicyKeeper, workshop: Workshop) -> None:
        assert workshop.equipped == ["v1"]
        assert keeper.current.version == keeper.applied_version == "v1"

    async def test_calls_that_come_get_the_new_one_and_those_that_run_keep_theirs(self, keeper: PolicyKeeper) -> None:
        before = keeper.current
        await keeper.adopt(policy("v2"), "v2")
        assert keeper.current.version == "v2"
        assert keeper.policy.snapshot.version == "v2"
        assert before.version == "v1"

    async def test_one_that_cannot_be_equipped_changes_nothing(self, keeper: PolicyKeeper, workshop: Workshop) -> None:
        before, workshop.broken = keeper.current, True
        with pytest.raises(OSError, match="no place"):
            await keeper.adopt(policy("v2"), "v2")
        assert keeper.current is before
        assert keeper.applied_version == "v1"

    async def test_another_first_one(self, workshop: Workshop) -> None:
        keeper = PolicyKeeper(policy("v1"), workshop)
        keeper.begin_with(policy("v2"), "applied")
        await keeper.open()
        assert (keeper.current.version, keeper.applied_version) == ("v2", "applied")
        assert workshop.equipped == ["v2"]

    async def test_listeners_hear_of_it(self, keeper: PolicyKeeper) -> None:
        heard: list[str] = []
        keeper.subscribe(lambda snapshot: heard.append(snapshot.version))
        await keeper.adopt(policy("v2"), "v2")
        await keeper.try_out(policy("v3"), Rollout("v3", RolloutKind.CANARY, 10))
        assert heard == ["v2"]

    async def test_it_is_told(self, keeper: PolicyKeeper) -> None:
        with structlog.testing.capture_logs() as logs:
            await keeper.adopt(policy("v2"), "v2")
            await keeper.adopt(policy("v3"), "of_yesterday")
        events = [(line["event"], line["policy_version"]) for line in logs]
        assert events == [("policy_in_force", "v2"), ("policy_in_force", "v3"), ("policy_version_differs", "v3")]


class TestGivenUp:
    async def test_what_no_call_holds_any_more(self, keeper: PolicyKeeper, workshop: Workshop) -> None:
        await keeper.adopt(policy("v2"), "v2")
        gc.collect()
        await keeper.tidy_up()
        assert workshop.needed[-1] == ["v2"]

    async def test_not_what_a_call_still_holds(self, keeper: PolicyKeeper, workshop: Workshop) -> None:
        held = keeper.current
        await keeper.adopt(policy("v2"), "v2")
        await keeper.adopt(policy("v3"), "v3")
        gc.collect()
        await keeper.tidy_up()
        assert sorted(workshop.needed[-1]) == ["v1", "v3"]
        del held
        gc.collect()
        await keeper.tidy_up()
        assert workshop.needed[-1] == ["v3"]
        times = len(workshop.needed)
        await keeper.tidy_up()
        assert len(workshop.needed) == times, "nothing to do"

    async def test_a_trial_is_held_until_it_ends(self, keeper: PolicyKeeper, workshop: Workshop) -> None:
        await keeper.try_out(policy("v2"), Rollout("v2", RolloutKind.SHADOW, 0))
        await keeper.tidy_up()
        assert workshop.needed == []
        await keeper.end_trial()
        gc.collect()
        await keeper.tidy_up()
        assert workshop.needed[-1] == ["v1"]


class TestTrials:
    async def test_a_canary_gets_its_share(self, keeper: PolicyKeeper) -> None:
        await keeper.try_out(policy("v2"), Rollout("v2", RolloutKind.CANARY, 30))
        got = [keeper.choose("shop", f"session-{number}").version for number in range(1_000)]
        assert 250 < got.count("v2") < 350
        assert got == [keeper.choose("shop", f"session-{number}").version for number in range(1_000)]
        assert keeper.current.version == "v1"

    async def test_who_follows_a_decision_gets_the_policy_it_was_made_under(self, keeper: PolicyKeeper) -> None:
        await keeper.try_out(policy("v2"), Rollout("v2", RolloutKind.CANARY, 50))
        keys = [str(number) for number in range(50)]
        assert {keeper.choose("shop", key, "v1").version for key in keys} == {"v1"}
        assert {keeper.choose("shop", key, "v2").version for key in keys} == {"v2"}
        assert {keeper.choose("shop", key, "long gone").version for key in keys} == {"v1", "v2"}

    async def test_a_shadow_gets_none(self, keeper: PolicyKeeper) -> None:
        await keeper.try_out(policy("v2"), Rollout("v2", RolloutKind.SHADOW, 100))
        assert {keeper.choose("shop", str(number)).version for number in range(100)} == {"v1"}
        assert keeper.shadow is not None
        assert keeper.shadow.version == "v2"
        assert keeper.canary is None

    async def test_a_new_policy_in_force_leaves_the_trial(self, keeper: PolicyKeeper) -> None:
        await keeper.try_out(policy("v2"), Rollout("v2", RolloutKind.CANARY, 100))
        await keeper.adopt(policy("v3"), "v3")
        assert keeper.choose("shop", "x").version == "v2"
        await keeper.resize(Rollout("v2", RolloutKind.CANARY, 0))
        assert keeper.choose("shop", "x").version == "v3"
        await keeper.end_trial()
        await keeper.end_trial()
        assert keeper.rollout is None


class TestFailures:
    def test_only_what_worked_before_counts(self) -> None:
        now = policy("v1", deployments="none can be used", **{"tier.light": "no key"})
        new = policy("v2", deployments="none can be used", **{"tier.standard": "no key for it"})
        assert new_failures(new, now) == ("no key for it",)
        assert new_failures(now, now) == ()


def test_problems_are_told_with_their_lines() -> None:
    error = PolicyRefused([PolicyProblem(3, "a is wrong"), PolicyProblem(0, "all is wrong")])
    assert str(error) == "line 3: a is wrong; all is wrong"
