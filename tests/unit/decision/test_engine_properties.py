"""What holds of every decision, whatever the policy, the request and the state of the providers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kit.policies import Asked, questions, spacious_questions
from kit.properties import examples
from pointsman_server.adapters.stores.decision_file import StateFolder, read_decisions
from pointsman_server.decision.engine import decide
from pointsman_server.decision.replay import decide_again
from pointsman_server.decision.tokens import core_of, correction_of, tokens_for
from pointsman_server.domain.catalog import Deployment, FreshFacts, RoutingRule
from pointsman_server.domain.errors import NoEligibleDeployment, RouterError
from pointsman_server.domain.plan import Candidate, ExclusionReason, Rejection, RoutePlan
from pointsman_server.domain.record import DecisionRecord, PlanSummary, summarise
from pointsman_server.domain.request import Capability, RoutingConstraints, Tier

ROUNDING = 1e-6
dials = st.sampled_from((0.0, 0.25, 0.75, 1.0)) | st.floats(0, 1)
RECORDED = 1_000


def outcome(asked: Asked) -> RoutePlan | RouterError:
    try:
        return decide(asked.under, asked.policy)
    except RouterError as error:
        return error


def candidates(asked: Asked) -> tuple[Candidate, ...]:
    found = outcome(asked)
    return found.candidates if isinstance(found, RoutePlan) else ()


def chosen(asked: Asked) -> set[str]:
    return {one.deployment.id for one in candidates(asked)}


def told(found: RoutePlan | RouterError) -> tuple[Rejection, ...]:
    assert isinstance(found, (RoutePlan, NoEligibleDeployment))
    return found.rejections


def applies(rule: RoutingRule, asked: Asked) -> bool:
    """Whether the rule is about this request, once more and in plain words."""
    facts, when = asked.under.facts, rule.when
    labels = [
        facts.labels.get(label) in {*allowed} - {"*"} for label, allowed in when.labels.items() if "*" not in allowed
    ]
    present = [label in facts.labels for label in when.labels]
    return (
        all(labels)
        and all(present)
        and facts.complexity.task.value in (when.tasks or {facts.complexity.task.value})
        and (facts.tier or facts.complexity.tier) in (when.tiers or {facts.tier or facts.complexity.tier})
        and when.needs_fresh_facts in (None, facts.complexity.needs_fresh_facts)
        and asked.under.tokens.tokens >= when.least_input_tokens
    )


def rules(asked: Asked) -> list[RoutingRule]:
    return [rule for rule in asked.policy.rules if applies(rule, asked)]


def needed(asked: Asked) -> set[Capability]:
    """What request, rules and policy together demand that a model can do."""
    facts = asked.under.facts
    demanded = {*facts.capabilities, *(capability for rule in rules(asked) for capability in rule.require)}
    if facts.complexity.needs_fresh_facts and asked.policy.fresh_facts is FreshFacts.REQUIRE_SEARCH:
        demanded.add(Capability.WEB_SEARCH)
    return demanded


def keeps_every_rule(asked: Asked, one: Deployment) -> bool:
    """The hard rules once more, all at once and in plain words; money apart."""
    facts, limits, model = asked.under.facts, asked.under.facts.constraints, one.model
    names = {one.id, *(alias for alias, target in asked.policy.aliases.items() if target == one.id)}
    chain = asked.policy.tier_chains.get(facts.tier, ()) if facts.tier else ()
    first_token = asked.under.health.first_token_seconds(one)
    return all(
        (
            not facts.deployment or facts.deployment in names,
            not names & limits.denied_deployments,
            not limits.allowed_deployments or names & limits.allowed_deployments,
            facts.tier is None or model.tier is facts.tier or one.id in chain,
            limits.data_class <= one.approved_data_class,
            not limits.regions or limits.regions & one.regions,
            needed(asked) <= model.capabilities,
            not any(one.id in rule.deny for rule in rules(asked)),
            not any(rule.only and one.id not in rule.only for rule in rules(asked)),
            model.context_window_tokens >= limits.min_context_tokens,
            model.context_window_tokens > tokens_for(one, asked.under.tokens).tokens,
            limits.max_first_token_seconds is None or first_token <= limits.max_first_token_seconds,
            not one.provider.unusable_because,
            one.id not in asked.under.health.rejections,
        )
    )


class TestEverybodyIsAccountedFor:
    @examples(150)
    @given(questions)
    def test_everybody_is_candidate_or_rejected_exactly_once(self, asked: Asked) -> None:
        found = outcome(asked)
        if not isinstance(found, (RoutePlan, NoEligibleDeployment)):
            return
        named = [one.deployment.id for one in candidates(asked)]
        rejected = [one.deployment_id for one in told(found)]
        assert not set(named) & set(rejected)
        assert sorted([*named, *rejected]) == sorted(asked.policy.deployments)

    @examples(150)
    @given(questions)
    def test_candidates_keep_every_rule_and_the_others_break_one(self, asked: Asked) -> None:
        found = outcome(asked)
        for one in asked.policy.deployments.values():
            if one.id in chosen(asked):
                assert keeps_every_rule(asked, one)
            elif isinstance(found, (RoutePlan, NoEligibleDeployment)):
                said = next(out.reason for out in told(found) if out.deployment_id == one.id)
                assert keeps_every_rule(asked, one) == (said is ExclusionReason.COST)
            else:
                assert not keeps_every_rule(asked, one)

    @examples(60)
    @given(questions, st.data())
    def test_only_the_pinned_one_answers(self, asked: Asked, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([*asked.policy.deployments, *asked.policy.aliases]))
        pinned = asked.policy.resolve(name)
        assert pinned is not None
        assert chosen(asked.facts(deployment=name)) == chosen(asked.facts(deployment="")) & {pinned.id}


class TestRules:
    @examples(100)
    @given(questions)
    def test_those_that_apply_are_named_in_their_order(self, asked: Asked) -> None:
        found = outcome(asked)
        if isinstance(found, RoutePlan):
            assert found.applied_rules == tuple(rule.name for rule in rules(asked))

    @examples(100)
    @given(questions)
    def test_deny_and_only_hold_always(self, asked: Asked) -> None:
        for rule in rules(asked):
            assert not chosen(asked) & rule.deny
            assert not rule.only or chosen(asked) <= rule.only

    @examples(100)
    @given(questions)
    def test_what_a_rule_prefers_is_picked_whenever_it_may_answer(self, asked: Asked) -> None:
        preferred = [name for rule in rules(asked) for name in rule.prefer if name in chosen(asked)]
        if preferred:
            assert candidates(asked)[0].deployment.id == preferred[0]

    @examples(60)
    @given(questions, st.floats(0, 1))
    def test_what_the_request_says_of_the_dial_goes_before_them(self, asked: Asked, bias: float) -> None:
        found = outcome(asked.facts(quality_bias=bias))
        if isinstance(found, RoutePlan):
            assert found.quality_bias == bias


class TestSameAgain:
    @examples(60)
    @given(questions)
    def test_the_same_inputs_give_the_same_plan(self, asked: Asked) -> None:
        first, second = outcome(asked), outcome(asked)
        assert type(first) is type(second)
        assert str(first) == str(second)

    @examples(60)
    @given(questions, st.randoms(use_true_random=False))
    def test_the_order_of_the_policy_does_not_matter(self, asked: Asked, dice: Any) -> None:
        items = list(asked.policy.deployments.items())
        dice.shuffle(items)
        shuffled = replace(asked, policy=replace(asked.policy, deployments=dict(items)))
        assert type(outcome(asked)) is type(outcome(shuffled))
        assert candidates(asked) == candidates(shuffled)


def not_worse(before: Asked, after: Asked) -> None:
    """Nobody is lost, everybody keeps the score, and so the pick's is at least what it was."""
    scores = {one.deployment.id: one.score for one in candidates(after)}
    for one in candidates(before):
        assert scores[one.deployment.id] == one.score
    if candidates(before):
        assert candidates(after)[0].score >= candidates(before)[0].score


class TestMoreIsNeverWorse:
    @examples(100)
    @given(questions, st.integers(0, 20_000), st.integers(0, 20_000))
    def test_a_higher_cost_cap(self, asked: Asked, cap: int, more: int) -> None:
        capped = asked.constraints(max_cost_micro_usd=cap)
        higher = asked.constraints(max_cost_micro_usd=cap + more)
        not_worse(capped, higher)
        not_worse(higher, asked.constraints(max_cost_micro_usd=None))

    @examples(100)
    @given(questions, st.integers(0, 2_000), st.integers(0, 120_000))
    def test_a_smaller_window_asked_for(self, asked: Asked, window: int, more: int) -> None:
        not_worse(asked.constraints(min_context_tokens=window + more), asked.constraints(min_context_tokens=window))

    @examples(150)
    @given(questions, st.data())
    def test_a_larger_window(self, asked: Asked, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(sorted(asked.policy.deployments.values(), key=lambda one: one.id)))
        window = one.model.context_window_tokens + data.draw(st.integers(1, 3_000))
        wider = replace(one, model=replace(one.model, context_window_tokens=window))
        not_worse(asked, asked.deployment(wider))

    @examples(60)
    @given(questions, st.floats(0.1, 5), st.floats(0, 5))
    def test_more_patience(self, asked: Asked, seconds: float, more: float) -> None:
        patient = asked.constraints(max_first_token_seconds=seconds + more)
        not_worse(asked.constraints(max_first_token_seconds=seconds), patient)

    @examples(200)
    @given(questions, dials, dials)
    def test_the_dial_turned_towards_quality(self, asked: Asked, one: float, other: float) -> None:
        asked = asked.facts(deployment="", capabilities=frozenset(), constraints=RoutingConstraints())
        lower, higher = (candidates(asked.facts(quality_bias=bias)) for bias in sorted((one, other)))
        assert {each.deployment.id for each in lower} == {each.deployment.id for each in higher}
        if lower:
            assert higher[0].expected_quality >= lower[0].expected_quality - ROUNDING


class TestWhatMayBeLeftOut:
    @examples(100)
    @given(spacious_questions)
    def test_it_keeps_nobody_out_of_whose_window_is_wide_enough_for_the_rest(self, asked: Asked) -> None:
        asked = asked.constraints(max_cost_micro_usd=None)
        core = replace(asked, under=replace(asked.under, tokens=core_of(asked.under.tokens)))
        if rules(asked) == rules(core):  # there are rules for long inputs
            assert chosen(asked) == chosen(core)

    @examples(100)
    @given(spacious_questions)
    def test_whoever_takes_all_comes_before_whoever_does_not(self, asked: Asked) -> None:
        found = [one.takes_all for one in candidates(asked)]
        assert found == sorted(found, reverse=True)

    @examples(100)
    @given(spacious_questions)
    def test_the_answer_has_room_beside_what_is_sent(self, asked: Asked) -> None:
        for one in candidates(asked):
            if not one.takes_all:
                assert one.room_tokens is not None
                kept = max(one.room_tokens, core_of(asked.under.tokens).tokens)
                sent = round(kept * correction_of(one.deployment).factor)
                assert sent + one.max_output_tokens <= one.deployment.model.context_window_tokens + 1

    @examples(100)
    @given(spacious_questions, dials, dials)
    def test_the_dial_still_never_lowers_quality(self, asked: Asked, one: float, other: float) -> None:
        asked = asked.facts(deployment="", capabilities=frozenset(), constraints=RoutingConstraints())
        lower, higher = (candidates(asked.facts(quality_bias=bias)) for bias in sorted((one, other)))
        if lower:
            assert higher[0].expected_quality >= lower[0].expected_quality - ROUNDING


class TestCosts:
    @examples(60)
    @given(questions, st.integers(0, 20_000))
    def test_no_candidate_can_cost_more_than_the_cap(self, asked: Asked, cap: int) -> None:
        assert all(one.worst_cost_micro_usd <= cap for one in candidates(asked.constraints(max_cost_micro_usd=cap)))

    @examples(60)
    @given(questions)
    def test_output_stays_within_what_is_wanted_possible_and_left(self, asked: Asked) -> None:
        wanted = asked.under.facts.max_output_tokens or asked.policy.default_max_output_tokens
        for one in candidates(asked):
            model = one.deployment.model
            assert 1 <= one.max_output_tokens <= min(wanted, model.max_output_tokens)
            its_tokens = tokens_for(one.deployment, asked.under.tokens).tokens
            assert its_tokens + one.max_output_tokens <= model.context_window_tokens
            if one.max_output_tokens == min(wanted, model.max_output_tokens):
                assert one.expected_cost_micro_usd <= one.worst_cost_micro_usd


def summary(asked: Asked) -> PlanSummary:
    found = outcome(asked)
    return summarise(found) if isinstance(found, RoutePlan) else PlanSummary(refusal=type(found).__name__)


def test_a_thousand_decisions_read_back_from_their_file_come_out_the_same(tmp_path: Path) -> None:
    recorded: list[Asked] = []

    @settings(
        max_examples=RECORDED // 4,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(questions | spacious_questions)
    def record(asked: Asked) -> None:
        recorded.extend(asked.facts(tier=tier) for tier in (None, *Tier))

    record()
    assert len(recorded) >= RECORDED
    folder = StateFolder(tmp_path)
    folder.open()
    for place, asked in enumerate(recorded):
        named = f"dec_{place}", f"req_{place}", 1.5e9 + place / 7
        folder.decisions.append(DecisionRecord(*named, asked.policy.version, asked.under, summary(asked)))
    folder.close()
    kept = list(read_decisions(tmp_path))
    assert [one.circumstances for one in kept] == [asked.under for asked in recorded]
    assert len({one.outcome.chosen for one in kept}) > 4
    for one, asked in zip(kept, recorded, strict=True):
        assert decide_again(one, asked.policy) == one.outcome == summary(asked)
