"""The policy's own rules: who is preferred or left out for which requests, and what the request is taken to need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pointsman_server.domain.catalog import FreshFacts, RuleCondition, Snapshot
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.request import Capability, Tier

T = TypeVar("T")

_ANY = "*"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What request, rules and policy together want of the decision.

    `tier` is what the request is taken to need; `preferred` come before all others, in order. `only` and `denied`
    are the rules' own, with the name of the rule; the request's lists are filters of their own.
    """

    tier: Tier
    quality_bias: float
    preferred: tuple[str, ...] = ()
    only: tuple[tuple[str, frozenset[str]], ...] = ()
    denied: tuple[tuple[str, frozenset[str]], ...] = ()
    required: frozenset[Capability] = frozenset()
    prefers_search: bool = False
    applied_rules: tuple[str, ...] = ()


def gather_wishes(circumstances: Circumstances, snapshot: Snapshot) -> Wishes:
    """The request's own words first, then the rules in their order, then the policy's defaults and the judgement."""
    facts = circumstances.facts
    rules = tuple(rule for rule in snapshot.rules if applies(rule.when, circumstances)) if snapshot.rules else ()
    tier = facts.tier or _first([rule.tier for rule in rules]) or facts.complexity.tier
    bias = facts.quality_bias
    if bias is None:
        bias = _first([rule.quality_bias for rule in rules])
    fresh = facts.complexity.needs_fresh_facts
    required = frozenset[Capability]().union(*[rule.require for rule in rules])
    if fresh and snapshot.fresh_facts is FreshFacts.REQUIRE_SEARCH:
        required |= {Capability.WEB_SEARCH}
    return Wishes(
        tier=tier,
        quality_bias=snapshot.quality_bias if bias is None else bias,
        preferred=tuple(dict.fromkeys(name for rule in rules for name in rule.prefer)),
        only=tuple((rule.name, rule.only) for rule in rules if rule.only),
        denied=tuple((rule.name, rule.deny) for rule in rules if rule.deny),
        required=required,
        prefers_search=fresh and snapshot.fresh_facts is FreshFacts.PREFER_SEARCH,
        applied_rules=tuple(rule.name for rule in rules),
    )


def applies(when: RuleCondition, circumstances: Circumstances) -> bool:
    """Whether a rule with this condition has a say under these circumstances."""
    facts = circumstances.facts
    complexity = facts.complexity
    return (
        all(_allows(values, facts.labels.get(label)) for label, values in when.labels.items())
        and (not when.tasks or complexity.task.value in when.tasks)
        and (not when.tiers or (facts.tier or complexity.tier) in when.tiers)
        and (when.needs_fresh_facts is None or when.needs_fresh_facts is complexity.needs_fresh_facts)
        and circumstances.tokens.tokens >= when.least_input_tokens
    )


def _allows(values: frozenset[str], value: str | None) -> bool:
    return value is not None and (value in values or _ANY in values)


def _first(values: list[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def excluded_by(wishes: Wishes, deployment_id: str) -> str:
    """The name of the rule that leaves this deployment out, "" if none does."""
    for name, ids in wishes.denied:
        if deployment_id in ids:
            return name
    for name, ids in wishes.only:
        if deployment_id not in ids:
            return name
    return ""
