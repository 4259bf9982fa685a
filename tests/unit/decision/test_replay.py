from __future__ import annotations

from typing import Any

from kit.catalog import circumstances, deployment, price, rejection, snapshot
from pointsman_server.decision.engine import decide
from pointsman_server.decision.replay import Comparison, decide_again
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.record import DecisionRecord, PlanSummary, summarise
from pointsman_server.domain.request import RoutingConstraints

CHEAP, DEAR = deployment("cheap"), deployment("dear", of={"price": price(9_000_000, 9_000_000)})
BOTH = snapshot(CHEAP, DEAR)
ILL = HealthView({"cheap": rejection("cheap", ExclusionReason.COOLDOWN)}, {"cheap": 9.0})


def record(outcome: PlanSummary = PlanSummary(), **asked: Any) -> DecisionRecord:  # noqa: B008 - it is frozen
    return DecisionRecord("dec_1", "req_1", 1.0, "v1", circumstances(**asked), outcome)


class TestDecidedAgain:
    def test_it_is_what_the_engine_says(self) -> None:
        assert decide_again(record(health=ILL), BOTH) == summarise(decide(circumstances(health=ILL), BOTH))
        assert decide_again(record(health=ILL), BOTH).excluded == (("cheap", ExclusionReason.COOLDOWN),)

    def test_another_policy_may_say_something_else(self) -> None:
        assert decide_again(record(), BOTH).chosen == "cheap"
        assert decide_again(record(), snapshot(DEAR)).chosen == "dear"

    def test_a_refusal_is_an_outcome(self) -> None:
        limits = RoutingConstraints(max_cost_micro_usd=1)
        assert decide_again(record(constraints=limits), BOTH) == PlanSummary(refusal="NoEligibleDeployment")
        assert decide_again(record(deployment="gone"), BOTH).refusal == "DeploymentNotFound"


def picked(name: str, cost: int = 10) -> PlanSummary:
    return PlanSummary(((name, 0.5, cost),))


REFUSED = PlanSummary(refusal="NoEligibleDeployment")


class TestComparison:
    def test_nothing_changed(self) -> None:
        sums = Comparison()
        sums.add(picked("a"), picked("a"))
        sums.add(REFUSED, REFUSED)
        assert sums == Comparison(decisions=2, same=2, cost_before_micro_usd=10, cost_after_micro_usd=10)

    def test_moves_are_counted_with_what_they_cost(self) -> None:
        sums = Comparison()
        for _ in range(2):
            sums.add(picked("a", 10), picked("b", 4))
        assert (sums.moves, sums.same) == ({("a", "b"): 2}, 0)
        assert (sums.cost_before_micro_usd, sums.cost_after_micro_usd) == (20, 8)

    def test_refusals_are_moves_without_a_cost(self) -> None:
        sums = Comparison()
        sums.add(picked("a", 10), REFUSED)
        sums.add(REFUSED, picked("b", 4))
        assert (sums.newly_refused, sums.newly_answered) == (1, 1)
        assert sums.moves == {("a", ""): 1, ("", "b"): 1}
        assert (sums.cost_before_micro_usd, sums.cost_after_micro_usd) == (0, 0)

    def test_another_score_alone_is_a_difference_without_a_move(self) -> None:
        sums = Comparison()
        sums.add(PlanSummary((("a", 0.5, 10),)), PlanSummary((("a", 0.6, 10),)))
        assert (sums.same, sums.moves) == (0, {})


def test_a_summary_without_candidates_has_no_pick() -> None:
    assert (REFUSED.chosen, REFUSED.expected_cost_micro_usd) == ("", 0)
    assert (picked("a", 7).chosen, picked("a", 7).expected_cost_micro_usd) == ("a", 7)
