"""What answers without a model is asked when everything else was tried, and takes part in nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from kit.catalog import call, deployment, plan, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.dispatching import Dispatched, dispatch, doorkeepers
from kit.scripted import Step, Wait, answers
from kit.watching import SeenTelemetry
from pointsman_server.domain.call import FailoverMode
from pointsman_server.domain.catalog import Deployment, Dialect, Snapshot, Timeouts
from pointsman_server.domain.control import Control, KillScope, KillSwitch
from pointsman_server.domain.errors import AttemptsFailed, KillSwitchEngaged, StreamInterrupted
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.governance import Governance
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.resilience import HedgePolicy, Resilience, RetryPolicy
from pointsman_server.execution.agenda import Agenda
from pointsman_server.execution.stopping import (
    Heeded,
    StreamStops,
    kept_providers,
    require_running,
    stopped_deployments,
)

DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
BROKEN = ProviderFault(FaultKind.AUTH, "no")
UNKNOWN = ProviderFault(FaultKind.UNAVAILABLE, "no answer to this question", blameless=True)
KB = deployment("kb", by={"id": "house", "dialect": Dialect.LOCAL_KNOWLEDGE})


def run(*scripts: tuple[str | Deployment, Sequence[Step]], **options: Any) -> Dispatched:
    timeouts = Timeouts(first_token_seconds=50.0)
    made = [
        (one if isinstance(one, Deployment) else deployment(one, timeouts=timeouts), script) for one, script in scripts
    ]
    return dispatch(made, **options)


class TestOrder:
    def test_models_are_tried_again_before(self) -> None:
        ran = run(("a", (DOWN,)), (KB, answers("K")), deadline=60.0)
        assert ran.asked[-1] == "kb"
        assert set(ran.asked[:-1]) == {"a"}
        assert len(ran.asked) > 2
        assert ran.text == "K"

    def test_it_is_asked_although_no_attempt_is_left(self) -> None:
        retries = RetryPolicy(attempts_per_call=2)
        scripts: list[tuple[str | Deployment, Sequence[Step]]] = [(name, (BROKEN,)) for name in "abc"]
        ran = run(*scripts, (KB, answers("K")), policy={"resilience": Resilience(retries=retries)})
        assert (ran.asked, ran.text) == (["a", "b", "kb"], "K")

    def test_a_silent_model_leaves_it_time(self) -> None:
        ran = run(("a", (Wait(100.0), *answers("A"))), (KB, answers("K")), deadline=10.0)
        assert (ran.asked[-1], ran.text) == ("kb", "K")
        assert ran.seconds < 10.0

    def test_first_of_the_plan_it_is_asked_first_and_once(self) -> None:
        ran = run((KB, (UNKNOWN,)), ("a", answers("A")))
        assert (ran.asked, ran.text) == (["kb", "a"], "A")
        alone = run((KB, (UNKNOWN,)), deadline=60.0)
        assert alone.asked == ["kb"], "the same question gets the same answer"
        assert isinstance(alone.error, AttemptsFailed)

    def test_one_after_the_other(self) -> None:
        other = deployment("other", by={"dialect": Dialect.LOCAL_KNOWLEDGE})
        ran = run(("a", (BROKEN,)), (KB, (UNKNOWN,)), (other, answers("O")))
        assert (ran.asked, ran.text) == (["a", "kb", "other"], "O")
        assert isinstance(run(("a", (BROKEN,)), (KB, (UNKNOWN,))).error, AttemptsFailed)

    @pytest.mark.parametrize(("second", "hedges"), [(KB, False), (deployment("b"), True)], ids=["kb", "model"])
    def test_it_is_no_hedge(self, second: Deployment, hedges: bool) -> None:
        async def begin() -> bool:
            one = deployment("a")
            resilience = Resilience(hedging=HedgePolicy(most_share=1.0))
            keepers = doorkeepers(LoopClock(), SeenTelemetry())
            keepers.hedges.called()
            under = call(snapshot(one, second, resilience=resilience))
            agenda = Agenda(under, plan([one, second]), [], keepers, LoopClock(), Operation.STREAM_COMPLETE)
            assert agenda.untried() is not None
            return agenda.hedge() is not None

        assert in_virtual_time(begin()) is hedges

    def test_it_does_not_go_on_from_a_models_words(self) -> None:
        words = [*answers("Once upon a time")[:1], ProviderFault(FaultKind.STREAM_CUT, "cut")]
        ran = run(("a", words), (KB, answers("K")), stream=True, failover=FailoverMode.CONTINUE, deadline=20.0)
        assert "kb" not in ran.asked
        assert isinstance(ran.error, StreamInterrupted)


GLOBAL = KillSwitch(KillScope.GLOBAL)
ACME = KillSwitch(KillScope.TENANT, "acme")
MODEL = deployment("model", by={"id": "vendor"})


def policy(*, keeps: bool = True) -> Snapshot:
    return snapshot(KB, MODEL, governance=Governance(kill_switch_keeps_local=keeps))


def under(*switches: KillSwitch) -> Control:
    return Control(kill_switches=frozenset(switches))


class TestStopping:
    def test_who_is_kept(self) -> None:
        assert kept_providers(policy()) == {"house"}
        assert kept_providers(policy(keeps=False)) == frozenset()
        assert kept_providers(snapshot(MODEL, governance=Governance(kill_switch_keeps_local=True))) == frozenset()

    def test_calls(self) -> None:
        require_running(under(GLOBAL), "acme", policy())
        for control, snapshot_ in ((under(GLOBAL), policy(keeps=False)), (under(GLOBAL, ACME), policy())):
            with pytest.raises(KillSwitchEngaged):
                require_running(control, "acme", snapshot_)
        require_running(under(GLOBAL, ACME), "other", policy())

    def test_deployments(self) -> None:
        assert set(stopped_deployments(under(GLOBAL), policy())) == {"model"}
        assert not stopped_deployments(under(GLOBAL), policy(keeps=False))
        assert not stopped_deployments(under(ACME), policy())
        house = KillSwitch(KillScope.PROVIDER, "house")
        assert set(stopped_deployments(under(GLOBAL, house), policy())) == {"model", "kb"}

    @pytest.mark.parametrize(("asked", "ends"), [({"house"}, False), ({"vendor"}, True), ({"house", "vendor"}, True)])
    def test_streams(self, asked: set[str], ends: bool) -> None:
        assert in_virtual_time(read(asked, under(GLOBAL))) == ([] if ends else [1, 2])

    def test_a_stream_between_attempts_ends_with_the_next_that_is_not_kept(self) -> None:
        asked: set[str] = set()
        assert in_virtual_time(read(asked, under(GLOBAL), after_first=lambda: asked.add("vendor"))) == [1]

    def test_the_tenants_own_stop_ends_all(self) -> None:
        assert in_virtual_time(read({"house"}, under(ACME))) == []


async def read(asked: set[str], control: Control, after_first: Any = lambda: None) -> list[int]:
    """What a stream of two events gives before it is stopped."""

    async def events() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    seen: list[int] = []
    heeded = Heeded("acme", lambda: asked, frozenset({"house"}))
    try:
        async for event in StreamStops().until_stopped(events(), control, heeded):
            seen.append(event)
            after_first()
    except KillSwitchEngaged:
        pass
    return seen


def test_a_fault_without_blame_has_no_consequence_but_the_next() -> None:
    rule = UNKNOWN.rule
    assert (rule.try_next, rule.counts_for_breaker, rule.retry_here, rule.cools_down) == (True, False, False, False)
    assert DOWN.rule.counts_for_breaker
