"""A canary that fails or lags far more than the others ends by itself; anything less does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import call, deployment, plan, snapshot
from kit.clock import FakeClock
from kit.policy_house import House, text
from kit.properties import examples
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
from pointsman_server.execution.rollouts import (
    AUTOMATIC,
    JUDGE_SECONDS,
    LEAST_SAMPLES,
    MOST_SAMPLES,
    CanaryWatch,
    Samples,
    verdict_on,
)

FAILED: Any = NoEligibleDeployment(())
CALLERS_OWN = InvalidRequest((FieldProblem("completion.messages", "is empty"),))


def samples(count: int, failed: int = 0, seconds: float = 1.0) -> Samples:
    some = Samples()
    some.failed.extend([True] * failed + [False] * (count - failed))
    some.seconds.extend([seconds] * (count - failed))
    return some


class TestVerdict:
    @pytest.mark.parametrize(
        ("canary", "control", "ends"),
        [
            (samples(50, failed=11), samples(500, failed=50), True),
            (samples(50, failed=10), samples(500, failed=50), False),
            (samples(49, failed=49), samples(500), False),
            (samples(50, failed=2), samples(500), True),
            (samples(50, failed=1), samples(500), False),
            (samples(50, failed=50), samples(0), True),
            (samples(50), samples(50), False),
            (samples(0), samples(0), False),
            (samples(50, seconds=2.1), samples(50), True),
            (samples(50, seconds=2.0), samples(50), False),
            (samples(49, seconds=9.0), samples(500), False),
            (samples(500, seconds=9.0), samples(49), False),
        ],
    )
    def test_table(self, canary: Samples, control: Samples, ends: bool) -> None:
        assert bool(verdict_on(canary, control)) is ends

    def test_it_says_why(self) -> None:
        assert verdict_on(samples(50, failed=25), samples(100)) == "50.0% of its calls failed, 0.0% of the others"
        assert verdict_on(samples(50, seconds=3.0), samples(100)) == (
            "95 % of its answers came within 3.00 s, those of the others within 1.00 s"
        )

    def test_a_few_slow_ones_do_not_count(self) -> None:
        some = samples(100)
        some.seconds.extend([60.0] * 4)
        assert verdict_on(some, samples(100)) == ""
        some.seconds.extend([60.0] * 4)
        assert verdict_on(some, samples(100))

    def test_it_forgets_what_is_long_ago(self) -> None:
        some = samples(MOST_SAMPLES * 3)
        some.failed.extend([True] * MOST_SAMPLES)
        assert some.error_rate == 1.0

    @examples(200)
    @given(st.integers(LEAST_SAMPLES, 500), st.integers(0, 500), st.integers(LEAST_SAMPLES, 500), st.data())
    def test_who_does_no_worse_goes_on(self, count: int, others: int, other_count: int, data: st.DataObject) -> None:
        others = min(others, other_count)
        rate = others / other_count
        failed = data.draw(st.integers(0, int(rate * count)))
        assert verdict_on(samples(count, failed), samples(other_count, others)) == ""


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
