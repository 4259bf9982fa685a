from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.catalog import price, request
from kit.clock import in_virtual_time
from kit.opinions import SURE, UNSURE, House, last, purposes
from kit.scripted import END, Hang, Step, Wait, answers, says, used
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose, Relay
from pointsman_server.domain.catalog import Dialect
from pointsman_server.domain.confidence_policy import ConfidencePolicy
from pointsman_server.domain.errors import RouterError
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.governance import Governance, TenantPolicy
from pointsman_server.domain.reply import Finished, FinishReason, ToolCallDelta
from pointsman_server.domain.request import GenerationConfig, RoutingConstraints, Tier

LIGHT, STANDARD, ADVANCED = Tier.LIGHT, Tier.STANDARD, Tier.ADVANCED
FIRST, ESCALATION, CROSS_CHECK = AttemptPurpose.FIRST, AttemptPurpose.ESCALATION, AttemptPurpose.CROSS_CHECK
DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
ESCALATES = ConfidencePolicy(escalate_below=0.4)
CHECKS = ConfidencePolicy(cross_check_with="d1")
BOTH = ConfidencePolicy(escalate_below=0.4, cross_check_with="d1")
CALLS_TOOL: tuple[Step, ...] = (
    (ToolCallDelta("t", "c1", "clock", "{}"),),
    says(UNSURE),
    used(100, 50),
    (Finished(FinishReason.TOOL_CALLS, "tool_calls"),),
)


def factors(completion: Any) -> dict[str, float]:
    return {factor.name: factor.value for factor in completion.confidence.factors}


def warned(completion: Any) -> list[str]:
    return [warning.code for warning in completion.warnings]


def two(first: Sequence[Step] = answers(UNSURE), second: Sequence[Step] = answers(SURE), **more: Any) -> House:
    """A light and a standard one."""
    return House([(LIGHT, first), (STANDARD, second)], **{"confidence": ESCALATES, **more})


class TestEscalation:
    def test_an_answer_below_the_threshold_is_asked_for_once_more_from_a_higher_tier(self) -> None:
        house = two()
        done = house.complete()
        assert done.reply.text == SURE
        assert done.answered_by.deployment.id == "d1"
        assert purposes(done) == [("d0", FIRST), ("d1", ESCALATION)]
        assert warned(done) == ["escalated"]
        assert "d0" in done.warnings[0].message
        assert "d1" in done.warnings[0].message
        assert done.confidence is not None
        assert done.confidence.score == pytest.approx(0.5)

    def test_both_are_paid_for_and_booked(self) -> None:
        house = two()
        done = house.complete()
        assert done.cost_micro_usd == house.ledger.booked_micro_usd == 150 + 300
        assert done.usage.output_tokens == 50
        assert house.holds_nothing

    def test_money_is_set_aside_for_both_together(self) -> None:
        house = two()
        done = house.complete()
        worst = {one.deployment.id: one.worst_cost_micro_usd for one in done.decision.plan.candidates}
        assert house.ledger.covered == [150 + worst["d1"]]

    def test_an_answer_that_is_trusted_stands(self) -> None:
        house = two(answers(SURE))
        done = house.complete()
        assert (done.reply.text, house.asked, warned(done)) == (SURE, [1, 0], [])
        assert house.ledger.covered == []

    def test_without_a_threshold_nobody_else_is_asked(self) -> None:
        house = two(confidence=ConfidencePolicy())
        assert house.complete().reply.text == UNSURE
        assert house.asked == [1, 0]

    def test_a_weaker_stronger_answer_is_paid_for_and_not_given(self) -> None:
        house = two(second=answers("I'm sorry, but I cannot help with that."))
        done = house.complete()
        assert done.reply.text == UNSURE
        assert done.answered_by.deployment.id == "d0"
        assert purposes(done) == [("d1", ESCALATION), ("d0", FIRST)], "the attempt that answered is the last"
        assert (done.cost_micro_usd, warned(done)) == (450, [])

    def test_one_that_fails_leaves_the_first_answer(self) -> None:
        house = two(second=(used(10, 0), DOWN))
        done = house.complete()
        assert done.reply.text == UNSURE
        assert [one.outcome for one in done.attempts] == [AttemptOutcome.FAILED, AttemptOutcome.SUCCEEDED]
        assert done.cost_micro_usd == house.ledger.booked_micro_usd == 20 + 150
        assert warned(done) == []

    def test_it_is_asked_once_even_where_others_could_be(self) -> None:
        house = House([(LIGHT, answers(UNSURE)), (STANDARD, (DOWN,)), (ADVANCED, answers(SURE))], ESCALATES)
        assert house.complete().reply.text == UNSURE
        assert house.asked == [1, 1, 0]

    def test_who_cannot_be_asked_now_is_passed_over(self) -> None:
        house = House([(LIGHT, answers(UNSURE)), (STANDARD, answers(SURE)), (ADVANCED, answers("Paris."))], ESCALATES)
        house.changes["d1"] = {"max_concurrent_calls": 1}
        house.__post_init__()
        # The decision itself leaves a full deployment out, so the place is taken while the first one answers.
        house.adapters[0].steps = (Wait(1.0), *answers(UNSURE))

        async def taken_meanwhile() -> Any:
            asked = asyncio.ensure_future(house.pipeline.complete(house.call()))
            await asyncio.sleep(0.5)
            assert house.remembered.places.take(house.deployments[1]) is not None
            return await asked

        done = in_virtual_time(taken_meanwhile())
        assert (done.reply.text, house.asked) == ("Paris.", [1, 0, 1])
        assert house.telemetry.sheds == []

    def test_nobody_has_a_place_and_no_call_is_lost_by_that(self) -> None:
        house = two((Wait(1.0), *answers(UNSURE)), changes={"d1": {"max_concurrent_calls": 1}})

        async def go() -> Any:
            asked = asyncio.ensure_future(house.pipeline.complete(house.call()))
            await asyncio.sleep(0.5)
            assert house.remembered.places.take(house.deployments[1]) is not None
            return await asked

        done = in_virtual_time(go())
        assert (done.reply.text, house.asked, house.telemetry.sheds) == (UNSURE, [1, 0], [])

    def test_a_bug_in_what_is_asked_beside_it_costs_no_answer(self) -> None:
        house = two(second=(used(10, 0), RuntimeError("bug")))
        assert house.complete().reply.text == UNSURE
        assert house.holds_nothing

    def test_an_answer_that_does_not_fit_the_schema_is_none(self) -> None:
        schema = {"type": "object", "required": ["city"]}
        house = two(answers('{"city": "I\'m not sure"}'), answers("Paris"), confidence=ConfidencePolicy(0.9))
        done = house.complete(request=request(generation=GenerationConfig(response_schema=schema)))
        assert "not sure" in done.reply.text
        assert house.asked == [1, 1]

    def test_counts_that_were_left_out_are_ours_on_each_attempt(self) -> None:
        house = two((says(UNSURE), used(100, None), END), (says(SURE), used(100, None), END))
        done = house.complete()
        assert [one.estimated for one in done.attempts] == [True, True]
        assert done.cost_micro_usd == house.ledger.booked_micro_usd > 0
        assert done.attempts[0].usage.output_tokens == len(UNSURE)


class TestMoney:
    def test_one_that_cannot_be_afforded_is_not_asked(self) -> None:
        house = two(most_micro_usd=200)
        done = house.complete()
        assert (done.reply.text, house.asked) == (UNSURE, [1, 0])
        assert house.ledger.booked_micro_usd == 150

    @pytest.mark.parametrize("whose", ["request", "tenant"])
    def test_the_cap_of_one_request_is_for_both(self, whose: str) -> None:
        house = two()
        asked = request(generation=GenerationConfig(max_output_tokens=1_000))
        plan = house.complete(request=asked).decision.plan
        cap = plan.candidates[1].worst_cost_micro_usd
        house = two()
        if whose == "request":
            asked = request(generation=asked.generation, constraints=RoutingConstraints(max_cost_micro_usd=cap))
        else:
            tenant = TenantPolicy(max_cost_per_request_micro_usd=cap)
            house.policy["governance"] = Governance(tenants={"shop": tenant})
        done = house.complete(request=asked, tenant="shop")
        assert len(done.decision.plan.candidates) == 2
        assert (done.reply.text, house.asked) == (UNSURE, [1, 0])


class TestTime:
    def test_one_that_does_not_answer_in_time_leaves_the_first_answer(self) -> None:
        house = two((Wait(1.0), *answers(UNSURE)), (Hang(),))
        done = house.complete(deadline=10.0)
        assert done.reply.text == UNSURE
        assert purposes(done)[0] == ("d1", ESCALATION)

    def test_it_is_not_asked_where_time_is_short(self) -> None:
        house = two((Wait(2.9), *answers(UNSURE)))
        assert house.complete(deadline=5.0).reply.text == UNSURE
        assert house.asked == [1, 0], "a second until its first token, another for 50 tokens, and the answer's own"

    def test_it_is_asked_where_time_suffices(self) -> None:
        assert two((Wait(2.5), *answers(UNSURE))).complete(deadline=5.0).reply.text == SURE

    def test_a_caller_who_leaves_meanwhile_pays_for_the_first(self) -> None:
        house = two(second=(used(7, 0), Hang()))

        async def go() -> None:
            asked = asyncio.ensure_future(house.pipeline.complete(house.call()))
            await asyncio.sleep(5.0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

        in_virtual_time(go())
        assert house.ledger.booked_micro_usd == 150 + 14
        assert house.holds_nothing


class TestNeverEscalated:
    def test_streams(self) -> None:
        house = two()
        events = house.stream()
        assert last(events).reply.text == UNSURE
        assert last(events).confidence is not None
        assert house.asked == [1, 0]

    def test_pinned_deployments(self) -> None:
        house = two()
        assert house.complete(request=request(deployment="d0")).reply.text == UNSURE
        assert house.asked == [1, 0]

    def test_a_tier_that_the_request_names(self) -> None:
        house = two(policy={"tier_chains": {LIGHT: ("d0", "d1")}})
        done = house.complete(request=request(tier=LIGHT))
        assert len(done.decision.plan.candidates) == 2
        assert (done.reply.text, house.asked) == (UNSURE, [1, 0])

    def test_calls_of_tools(self) -> None:
        house = two(CALLS_TOOL)
        assert house.complete().reply.text == UNSURE
        assert house.asked == [1, 0]

    def test_the_same_tier_or_a_lower_one(self) -> None:
        house = House([(STANDARD, answers(UNSURE)), (STANDARD, answers(SURE)), (LIGHT, answers(SURE))], ESCALATES)
        assert house.complete().reply.text == UNSURE
        assert house.asked == [1, 0, 0]

    def test_to_one_that_failed_already(self) -> None:
        house = House([(STANDARD, (DOWN,)), (LIGHT, answers(UNSURE))], ESCALATES)
        done = house.complete()
        assert (done.reply.text, house.asked) == (UNSURE, [1, 1])

    def test_from_or_to_what_answers_without_a_model(self) -> None:
        local = {
            "by": {"dialect": Dialect.LOCAL_KNOWLEDGE},
            "of": {"tier": ADVANCED, "price": price(0, 0)},
        }
        house = two(second=answers(SURE), changes={"d1": local})
        assert house.complete().reply.text == UNSURE
        assert house.asked == [1, 0]
        house = two((DOWN,), answers(UNSURE), changes={"d1": local})
        assert house.complete().reply.text == UNSURE


class TestCrossCheck:
    def test_agreement_speaks_for_the_answer(self) -> None:
        house = two(answers(SURE), answers("Paris"), confidence=CHECKS)
        done = house.complete()
        assert done.reply.text == SURE
        assert purposes(done) == [("d1", CROSS_CHECK), ("d0", FIRST)]
        assert factors(done)["cross_validation"] == pytest.approx(1.2)
        assert done.cost_micro_usd == house.ledger.booked_micro_usd == 450
        assert warned(done) == []

    def test_disagreement_speaks_against_it(self) -> None:
        done = two(answers(SURE), answers("London"), confidence=CHECKS).complete()
        assert factors(done)["cross_validation"] == pytest.approx(-1.2)

    @pytest.mark.parametrize("second", [(DOWN,), (RuntimeError("bug"),), (Hang(),)], ids=["fault", "bug", "silence"])
    def test_one_that_fails_says_nothing(self, second: Sequence[Step]) -> None:
        done = two(answers(SURE), second, confidence=CHECKS).complete(deadline=30.0)
        assert done.reply.text == SURE
        assert "cross_validation" not in factors(done)

    def test_one_that_cannot_be_afforded_is_not_asked(self) -> None:
        house = two(answers(SURE), confidence=CHECKS, most_micro_usd=200)
        assert house.complete().reply.text == SURE
        assert house.asked == [1, 0]

    @pytest.mark.parametrize(("labels", "asked"), [({}, 0), ({"importance": "low"}, 0), ({"importance": "high"}, 1)])
    def test_only_for_labels_where_the_policy_says_so(self, labels: dict[str, str], asked: int) -> None:
        policy = ConfidencePolicy(cross_check_with="d1", cross_check_labels=(("importance", "high"),))
        house = two(answers(SURE), confidence=policy)
        house.complete(request=request(labels=labels))
        assert house.asked == [1, asked]

    def test_the_same_model_is_no_second_opinion(self) -> None:
        house = two(answers(SURE), confidence=ConfidencePolicy(cross_check_with="d0"))
        house.complete()
        assert house.asked == [1, 0]

    def test_who_may_not_answer_is_not_asked(self) -> None:
        house = two(answers(SURE), confidence=CHECKS)
        house.complete(request=request(constraints=RoutingConstraints(denied_deployments=frozenset({"d1"}))))
        assert house.asked == [1, 0]

    def test_streams_are_not_compared(self) -> None:
        house = two((says(SURE), used(100, 50), END), confidence=CHECKS)
        events = house.stream()
        assert any(isinstance(event, Relay) for event in events)
        assert house.asked == [1, 0]

    def test_answers_without_text_are_not_compared(self) -> None:
        house = two((says(" "), used(1, 1), END), confidence=CHECKS)
        house.complete()
        assert house.asked == [1, 0]


class TestBoth:
    def test_disagreement_can_lead_to_a_stronger_model(self) -> None:
        scripts = [(LIGHT, answers(SURE)), (LIGHT, answers("Lyon")), (STANDARD, answers("Lyon is the capital."))]
        house = House(scripts, BOTH)
        done = house.complete()
        assert done.reply.text == "Lyon is the capital."
        assert purposes(done) == [("d0", FIRST), ("d1", CROSS_CHECK), ("d2", ESCALATION)]
        assert factors(done)["cross_validation"] == pytest.approx(1.2), "it is compared with the same other answer"
        assert done.cost_micro_usd == house.ledger.booked_micro_usd == 150 + 300 + 450

    def test_agreement_can_spare_it(self) -> None:
        scripts = [(LIGHT, answers(UNSURE)), (LIGHT, answers("Not sure, Lyon?")), (STANDARD, answers(SURE))]
        house = House(scripts, BOTH)
        assert house.complete().reply.text == UNSURE
        assert house.asked == [1, 1, 0]


SCRIPTS: dict[str, Sequence[Step]] = {
    "sure": answers(SURE),
    "unsure": answers(UNSURE),
    "refuses": answers("I'm sorry, but I cannot help with that."),
    "down": (used(10, 0), DOWN),
    "silent": (Hang(),),
    "slow": (Wait(20.0), *answers(SURE)),
    "tool": CALLS_TOOL,
    "uncounted": (says(UNSURE), used(100, None), END),
}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(Tier), st.sampled_from(sorted(SCRIPTS))), min_size=1, max_size=5),
    st.none() | st.floats(0.0, 1.0),
    st.sampled_from(["", "d0", "d1", "d4"]),
    st.none() | st.integers(0, 20_000),
    st.booleans(),
)
def test_whatever_happens_there_is_one_of_each_at_most_and_the_money_suffices(
    places: list[tuple[Tier, str]], threshold: float | None, other: str, most_micro_usd: int | None, streams: bool
) -> None:
    scripts = [(tier, SCRIPTS[name]) for tier, name in places]
    alone = House(scripts)
    house = House(scripts, ConfidencePolicy(threshold, other), most_micro_usd)
    answers_alone = _outcome(alone, streams)
    done = _outcome(house, streams)
    seen = [one.purpose for one in house.telemetry.calls[0].attempts]
    assert seen.count(ESCALATION) <= 1
    assert seen.count(CROSS_CHECK) <= 1
    if streams:
        assert not {ESCALATION, CROSS_CHECK} & set(seen)
    if most_micro_usd is not None:
        assert all(covered <= most_micro_usd for covered in house.ledger.covered)
    assert house.holds_nothing
    if most_micro_usd is None:
        assert (done is None) is (answers_alone is None), "a favour never costs an answer, nor makes one"
    if done is not None:
        assert house.ledger.booked_micro_usd == done.cost_micro_usd == sum(one.cost_micro_usd for one in done.attempts)
        assert done.attempts[-1].deployment is done.answered_by.deployment
        assert done.attempts[-1].outcome is AttemptOutcome.SUCCEEDED
        assert sorted(map(str, seen)) == sorted(str(one.purpose) for one in done.attempts)
        assert ("escalated" in warned(done)) is (done.attempts[-1].purpose is ESCALATION)


def _outcome(house: House, streams: bool) -> Any:
    try:
        return last(house.stream(deadline=60.0)) if streams else house.complete(60.0)
    except RouterError:
        return None
