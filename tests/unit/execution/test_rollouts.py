"""A canary that fails or lags far more than the others ends by itself; anything less does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kit.catalog import call, deployment, plan, snapshot
from kit.clock import FakeClock
from kit.policy_house import House, text
from kit.watching import SeenTelemetry
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.call import AttemptPurpose, Decision
from pointsman_server.domain.control import Rollout, RolloutKind
from pointsman_server.domain.errors import (
    AttemptsFailed,
    ContextOverflow,
    DeadlineExceeded,
    FieldProblem,
    InvalidRequest,
    NoEligibleDeployment,
    Overloaded,
    Step,
)
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import Operation, StoreUnavailableError
from pointsman_server.execution import rollouts
from pointsman_server.execution.canary_samples import LEAST_SAMPLES, Tallies, Tally
from pointsman_server.execution.rollouts import (
    AUTOMATIC,
    JUDGE_SECONDS,
    SHARE_SECONDS,
    CanaryWatch,
)

FAILED: Any = NoEligibleDeployment(())
CALLERS_OWN = InvalidRequest((FieldProblem("completion.messages", "is empty"),))


class Trial:
    """A house with a canary, and calls that end as the test says."""

    def __init__(self, house: House) -> None:
        assert house.store is not None
        assert house.book is not None
        self.house = house
        self.telemetry = SeenTelemetry()
        self.clock = FakeClock()
        self.watch = CanaryWatch(self.telemetry, house.keeper, self.clock, house.store, house.book)

    @property
    def policies(self) -> tuple[Any, Any]:
        return self.house.keeper.canary, self.house.keeper.current

    def ends(self, policy: Any, error: BaseException | None = None, seconds: float = 1.0, **options: Any) -> None:
        watch = self.watch.call(call(policy), options.get("operation", Operation.COMPLETE))
        if options.get("streams"):
            self.clock.advance(seconds)
            watch.first_content()
            self.clock.advance(100.0)
        else:
            self.clock.advance(seconds)
        if error is None:
            watch.completed(None)  # type: ignore[arg-type]
        else:
            watch.failed(error)


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncGenerator[Trial, None]:
    file = tmp_path / "policy.yaml"
    file.write_text(text("first"))
    database = Database(f"sqlite:///{tmp_path}/pointsman.db")
    await database.open()
    async with House(file, database=database).open() as house:
        version = await house.desk.keep(text("second"))
        await house.desk.try_out(version, RolloutKind.CANARY, 10, "key_1", "")
        await house.watch.look()
        yield Trial(house)
    await database.close()


class TestCounting:
    async def test_each_side_has_its_own(self, trial: Trial) -> None:
        canary, control = trial.policies
        trial.ends(canary)
        trial.ends(canary, FAILED)
        trial.ends(control, seconds=3.0)
        assert list(trial.watch.canary.failed) == [False, True]
        assert list(trial.watch.control.failed) == [False]
        assert list(trial.watch.control.seconds) == [3.0]

    async def test_calls_of_policies_that_are_gone_are_not_counted(self, trial: Trial) -> None:
        trial.ends(snapshot(deployment("x"), version="gone"))
        assert not trial.watch.canary.failed
        assert not trial.watch.control.failed

    async def test_decisions_alone_are_not_counted(self, trial: Trial) -> None:
        trial.ends(trial.policies[0], operation=Operation.ROUTE)
        assert not trial.watch.canary.failed

    async def test_a_stream_counts_until_its_first_content(self, trial: Trial) -> None:
        trial.ends(trial.policies[0], streams=True, seconds=0.5)
        assert list(trial.watch.canary.seconds) == [0.5]

    @pytest.mark.parametrize(
        ("error", "counted"),
        [
            (FAILED, True),
            (AttemptsFailed(()), True),
            (DeadlineExceeded(Step.DISPATCH), True),
            (ContextOverflow(100, 10), True),
            (RuntimeError("a bug"), True),
            (CALLERS_OWN, False),
            (Overloaded(1.0), False),
            (asyncio.CancelledError(), False),
            (GeneratorExit(), False),
        ],
    )
    async def test_only_what_another_policy_could_have_spared(
        self, trial: Trial, error: BaseException, counted: bool
    ) -> None:
        trial.ends(trial.policies[0], error)
        assert bool(trial.watch.canary.failed) is counted

    async def test_a_call_ends_once(self, trial: Trial) -> None:
        watch = trial.watch.call(call(trial.policies[0]), Operation.COMPLETE)
        watch.completed(None)  # type: ignore[arg-type]
        watch.failed(FAILED)
        assert list(trial.watch.canary.failed) == [False]
        other = trial.watch.call(call(trial.policies[0]), Operation.COMPLETE)
        other.failed(FAILED)
        other.completed(None)  # type: ignore[arg-type]
        assert list(trial.watch.canary.failed) == [False, True]

    async def test_another_trial_begins_anew(self, trial: Trial) -> None:
        trial.ends(trial.policies[0], FAILED)
        version = await trial.house.desk.keep(text("third"))
        await trial.house.desk.try_out(version, RolloutKind.CANARY, 10, "key_1", "")
        await trial.house.watch.look()
        trial.ends(trial.policies[0])
        assert list(trial.watch.canary.failed) == [False]

    async def test_all_is_passed_on(self, trial: Trial) -> None:
        one = trial.policies[0].deployments["one"]
        watch = trial.watch.call(call(trial.policies[0]), Operation.COMPLETE)
        decision = Decision("dec_1", plan([one]), 0.0)
        watch.decided(decision)
        watch.attempt(one, AttemptPurpose.FIRST)
        watch.first_content()
        watch.failed(FAILED)
        trial.watch.retried(Operation.COMPLETE, 1)
        trial.watch.hedged(won=True)
        trial.watch.shed("calls")
        trial.watch.guard_hit("sensitive", "EMAIL", "mask", 2)
        trial.watch.breaker_changed("one", BreakerState.CLOSED, BreakerState.OPEN)
        (seen,) = trial.telemetry.calls
        assert (seen.decisions, seen.first_contents, seen.error) == ([decision], 1, FAILED)
        assert [one.deployment_id for one in seen.attempts] == ["one"]
        assert trial.telemetry.guard_hits == [("sensitive", "EMAIL", "mask", 2)]

    async def test_without_a_canary_nothing_is_between(self, trial: Trial) -> None:
        await trial.house.desk.stop("key_1", "")
        watch = trial.watch.call(call(trial.house.keeper.current), Operation.COMPLETE)
        assert watch is trial.telemetry.calls[-1]


class Exchange:
    """See `TallyExchange`. What the others told is `others`."""

    def __init__(self) -> None:
        self.others: list[Tallies] = []
        self.told: list[tuple[str, Tallies]] = []
        self.withdrawn = 0
        self.seconds = 0.0
        self.down = False

    async def exchange(self, trial: str, own: Tallies) -> list[Tallies]:
        """See `TallyExchange.exchange`."""
        await self._reach()
        self.told.append((trial, own))
        return self.others

    async def withdraw(self) -> None:
        """See `TallyExchange.withdraw`."""
        await self._reach()
        self.withdrawn += 1

    async def _reach(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.down:
            raise StoreUnavailableError("down")


BAD = Tallies(Tally(LEAST_SAMPLES, LEAST_SAMPLES, {}), Tally(LEAST_SAMPLES, 0, {}))
"""What a process tells whose canary always fails."""


class TestSharing:
    @pytest.fixture
    def exchange(self, trial: Trial) -> Exchange:
        house, exchange = trial.house, Exchange()
        assert house.store is not None
        assert house.book is not None
        trial.watch = CanaryWatch(trial.telemetry, house.keeper, trial.clock, house.store, house.book, exchange)
        return exchange

    async def test_the_calls_of_others_count_too(self, trial: Trial, exchange: Exchange) -> None:
        canary, control = trial.policies
        expected_name = f"{canary.version}|{control.version}"
        trial.ends(canary)
        trial.ends(control, FAILED)
        await trial.watch.judge()
        assert trial.house.keeper.canary is canary
        ((trial_name, own),) = exchange.told
        assert trial_name == expected_name
        assert (own.canary[:2], own.control[:2]) == ((1, 0), (1, 1))
        exchange.others = [BAD]
        trial.clock.advance(SHARE_SECONDS)
        await trial.watch.judge()
        assert trial.house.keeper.rollout is None

    async def test_they_are_asked_for_now_and_then_and_remembered_between(
        self, trial: Trial, exchange: Exchange
    ) -> None:
        for _ in range(10):
            await trial.watch.judge()
        assert len(exchange.told) == 1
        trial.clock.advance(SHARE_SECONDS)
        await trial.watch.judge()
        assert len(exchange.told) == 2

    @pytest.mark.parametrize("trouble", ["down", "slow"])
    async def test_without_the_store_each_judges_by_its_own(
        self, trial: Trial, exchange: Exchange, trouble: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rollouts, "LOOK_SECONDS", 0.01)
        exchange.down, exchange.seconds = trouble == "down", 1.0 if trouble == "slow" else 0.0
        exchange.others = [BAD]
        canary, control = trial.policies
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await trial.watch.judge()
                trial.clock.advance(SHARE_SECONDS)
            assert trial.house.keeper.canary is canary
            for _ in range(LEAST_SAMPLES):
                trial.ends(canary, FAILED)
                trial.ends(control)
            await trial.watch.judge()
        assert trial.house.keeper.rollout is None
        assert [line["event"] for line in logs].count("canary_judged_alone") == 1, "told once"

    async def test_nobody_judges_the_next_trial_by_the_last_one(self, trial: Trial, exchange: Exchange) -> None:
        await trial.watch.judge()
        await trial.house.desk.stop("key_1", "")
        exchange.down = True
        await trial.watch.judge()
        exchange.down = False
        await trial.watch.judge()
        await trial.watch.judge()
        assert exchange.withdrawn == 1
        exchange.others = [BAD]
        await trial.house.desk.try_out(await trial.house.desk.keep(text("third")), RolloutKind.SHADOW, 0, "key_1", "")
        await trial.house.watch.look()
        await trial.watch.judge()
        assert trial.house.keeper.rollout is not None, "a shadow is not judged"

    async def test_the_same_policy_tried_again_is_judged_anew(self, trial: Trial, exchange: Exchange) -> None:
        canary, control = trial.policies
        for _ in range(LEAST_SAMPLES):
            trial.ends(canary, FAILED)
            trial.ends(control)
        await trial.watch.judge()
        assert trial.house.keeper.rollout is None
        await trial.watch.judge()
        await trial.house.desk.try_out(canary.version, RolloutKind.CANARY, 10, "key_1", "")
        await trial.house.watch.look()
        await trial.watch.judge()
        assert trial.house.keeper.canary is not None


class TestEnding:
    def fail(self, trial: Trial) -> None:
        canary, control = trial.policies
        for _ in range(LEAST_SAMPLES):
            trial.ends(canary, FAILED)
            trial.ends(control)

    async def test_it_ends_for_all_and_says_why(self, trial: Trial) -> None:
        self.fail(trial)
        version = trial.policies[0].version
        with structlog.testing.capture_logs() as logs:
            await trial.watch.judge()
        assert trial.house.keeper.rollout is None
        assert trial.house.store is not None
        assert (await trial.house.store.load()).rollout is None
        (event,) = await trial.house.store.audit(1)
        assert (event.actor, event.action) == (AUTOMATIC, "rollout_ended")
        assert event.comment == "100.0% of its calls failed, 0.0% of the others"
        (line,) = [line for line in logs if line["event"] == "rollout_rolled_back"]
        assert (line["policy_version"], line["percent"], line["log_level"]) == (version, 10, "error")
        await trial.watch.judge()
        assert len(await trial.house.store.audit()) == 3, "ended once"

    async def test_it_is_done_within_seconds_by_itself(self, trial: Trial) -> None:
        trial.watch.start()
        self.fail(trial)
        await asyncio.sleep(JUDGE_SECONDS + 0.5)
        await trial.watch.close()
        assert trial.house.keeper.rollout is None

    async def test_one_that_does_well_goes_on(self, trial: Trial) -> None:
        canary, control = trial.policies
        for _ in range(LEAST_SAMPLES * 2):
            trial.ends(canary)
            trial.ends(control)
        await trial.watch.judge()
        assert trial.house.keeper.canary is canary

    async def test_it_ends_here_even_if_nobody_can_be_told(self, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        async def away(*arguments: Any) -> bool:
            raise StoreUnavailableError("away")

        self.fail(trial)
        monkeypatch.setattr(ControlStore, "set_rollout", away)
        with structlog.testing.capture_logs() as logs:
            await trial.watch.judge()
        assert trial.house.keeper.rollout is None
        assert "rollback_not_shared" in [line["event"] for line in logs]
        await trial.house.watch.look()
        assert trial.house.keeper.rollout is None, "not begun again"

    async def test_what_somebody_changed_meanwhile_stays(self, trial: Trial) -> None:
        self.fail(trial)
        async with trial.house.keeper.changing:
            judging = asyncio.create_task(trial.watch.judge())
            await asyncio.sleep(0)
            await trial.house.keeper.resize(Rollout(trial.policies[0].version, RolloutKind.CANARY, 50))
        await judging
        assert trial.house.keeper.rollout is not None

    async def test_a_new_trial_is_not_judged_by_the_old_ones_calls(self, trial: Trial) -> None:
        self.fail(trial)
        version = await trial.house.desk.keep(text("third"))
        await trial.house.desk.try_out(version, RolloutKind.CANARY, 10, "key_1", "")
        await trial.house.watch.look()
        await trial.watch.judge()
        assert trial.house.keeper.canary is not None

    async def test_without_a_trial_nothing_is_judged(self, trial: Trial) -> None:
        self.fail(trial)
        await trial.house.desk.stop("key_1", "")
        await trial.watch.judge()
        await trial.watch.close()
