"""Reads how a policy wants requests routed: the dial, the rules, and what to do with questions about the latest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from pointsman_server.config.calibration import Calibration, read_calibration, with_calibration
from pointsman_server.config.deployments import one_defined
from pointsman_server.config.models import MAX_WINDOW_TOKENS, TIERS
from pointsman_server.config.routes import named_deployments
from pointsman_server.config.scalars import (
    decimal_number,
    identifier,
    list_of,
    one_of,
    share,
    some,
    switch,
    whole_number,
)
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.decision.dial import Offer, solve_weights
from pointsman_server.decision.learned import calibration_set
from pointsman_server.domain.catalog import FreshFacts, RoutingRule, RuleCondition, Snapshot
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Capability

ROUTING_KEYS: Keys = {
    "quality_bias": "quality_bias: 0.5",
    "default_max_output_tokens": "default_max_output_tokens: 4096",
    "fresh_facts": "fresh_facts: prefer_search",
    "first_token_weight": "first_token_weight: 0.02",
    "learn_from_feedback": "learn_from_feedback: true",
    "second_look": "second_look: true",
    "calibration": "calibration: calibration.json",
    "embedding": "embedding: text-embedding-3-small",
    "rules": "rules: [{name: research, when: {labels: {agent: [research]}}, tier: advanced}]",
}
RULE_KEYS: Keys = {
    "name": "name: research",
    "when": "when: {labels: {agent: [research]}}",
    "tier": "tier: advanced",
    "quality_bias": "quality_bias: 0.9",
    "prefer": "prefer: [first-deployment]",
    "only": "only: [one-deployment, another]",
    "deny": "deny: [one-deployment]",
    "require": "require: [web_search]",
}
CONDITION_KEYS: Keys = {
    "labels": "labels: {agent: [research, analyst]}",
    "tasks": "tasks: [code]",
    "tiers": "tiers: [advanced]",
    "needs_fresh_facts": "needs_fresh_facts: true",
    "least_input_tokens": "least_input_tokens: 50000",
}
MAX_RULES = 100

_TYPICAL_INPUT_TOKENS, _TYPICAL_OUTPUT_TOKENS = 1_000, 450
"""The request by which the dial compares the models' costs."""


def with_routing(snapshot: Snapshot, spot: Spot | None, kept_calibration: str | None) -> tuple[Snapshot, str]:
    """The policy with its routing section and with the dial solved for its models; the calibration file's text.

    `kept_calibration` is that text where it was kept, so that the file is not read.
    """
    routed, calibration = snapshot, Calibration()
    if spot:
        section = Section(spot, ROUTING_KEYS)
        calibration = section.optional(
            "calibration", lambda value: read_calibration(value, kept_calibration), calibration
        )
        routed = with_calibration(_with_section(snapshot, section), calibration)
    if any(not one.is_last_resort for one in routed.answering.values()):
        routed = replace(routed, cost_weights=_solve_dial(routed))
    return routed, calibration.text


def _with_section(snapshot: Snapshot, routing: Section) -> Snapshot:
    tokens = whole_number(1, MAX_WINDOW_TOKENS)
    weight = decimal_number(Decimal(0), Decimal(1))
    fresh = one_of({word.value: word for word in FreshFacts})
    return replace(
        snapshot,
        quality_bias=routing.optional("quality_bias", share, snapshot.quality_bias),
        default_max_output_tokens=routing.optional(
            "default_max_output_tokens", tokens, snapshot.default_max_output_tokens
        ),
        fresh_facts=routing.optional("fresh_facts", fresh, snapshot.fresh_facts),
        first_token_weight=float(
            routing.optional("first_token_weight", weight, Decimal(str(snapshot.first_token_weight)))
        ),
        learn_from_feedback=routing.optional("learn_from_feedback", switch, snapshot.learn_from_feedback),
        second_look=routing.optional("second_look", switch, snapshot.second_look),
        rules=routing.optional("rules", lambda value: _read_rules(value, snapshot), ()),
        embedding_model=_read_embedding_model(routing, snapshot),
    )


def _read_embedding_model(routing: Section, snapshot: Snapshot) -> str:
    """The model that makes vectors unless a request says otherwise, by its id or that of a deployment, or an alias."""
    making = {name: one.model.id for name, one in snapshot.deployments.items() if one.model.embedding is not None}
    by_alias = {alias: making[name] for alias, name in snapshot.aliases.items() if name in making}
    models = {model: model for model in making.values()}
    if len(models) > 1 and not routing.at("embedding"):
        routing.spot.warn(
            f"does not say which of {len(models)} embedding models to use, so the cheapest is, and prices change",
            f"Add `embedding: {min(models)}`: vectors of different models do not compare.",
        )
    return routing.optional("embedding", one_defined("embedding model", {**making, **by_alias, **models}), "")


def _read_rules(spot: Spot, snapshot: Snapshot) -> tuple[RoutingRule, ...]:
    names: set[str] = set()
    rules: list[RoutingRule] = []
    for item in spot.items():
        rule = item.read(lambda one: _read_rule(one, snapshot), None)
        if rule is None:
            continue
        if rule.name in names:
            item.refuse("has the name of an earlier rule", "Give every rule a name of its own.")
        if rule.name:
            names.add(rule.name)
        rules.append(rule)
    if len(rules) > MAX_RULES:
        raise UnacceptableError(f"has {len(rules)} rules", f"Write at most {MAX_RULES}.")
    return tuple(rules)


def _read_rule(spot: Spot, snapshot: Snapshot) -> RoutingRule:
    keys = {key for key, _ in spot.entries()}
    section = Section(spot, RULE_KEYS)
    places = named_deployments(snapshot)
    capabilities = some(list_of(one_of({capability.value: capability for capability in Capability})))
    rule = RoutingRule(
        name=section.required("name", identifier, ""),
        when=section.optional("when", _read_condition, RuleCondition()),
        tier=section.optional("tier", one_of(TIERS), None),
        quality_bias=section.optional("quality_bias", share, None),
        prefer=section.optional("prefer", places, ()),
        only=frozenset(section.optional("only", places, ())),
        deny=frozenset(section.optional("deny", places, ())),
        require=frozenset(section.optional("require", capabilities, ())),
    )
    if not keys & RULE_KEYS.keys() - {"name", "when"}:
        spot.refuse("does nothing", "Add for example `tier: advanced` or `prefer: [a-deployment]`.")
    return rule


def _read_condition(spot: Spot) -> RuleCondition:
    section = Section(spot, CONDITION_KEYS)
    tasks = some(list_of(one_of({task.value: task.value for task in TaskType})))
    return RuleCondition(
        labels=section.optional("labels", some(_read_labels), {}),
        tasks=frozenset(section.optional("tasks", tasks, ())),
        tiers=frozenset(section.optional("tiers", some(list_of(one_of(TIERS))), ())),
        needs_fresh_facts=section.optional("needs_fresh_facts", switch, None),
        least_input_tokens=section.optional("least_input_tokens", whole_number(0, MAX_WINDOW_TOKENS), 0),
    )


def _read_labels(spot: Spot) -> Mapping[str, frozenset[str]]:
    values = some(list_of(Spot.text))
    return {label: frozenset(value.read(values, ())) for label, value in spot.entries()}


def _solve_dial(snapshot: Snapshot) -> tuple[float, ...]:
    # What answers without a model is never weighed against models.
    asked = [one for one in snapshot.answering.values() if not one.is_last_resort]
    models = {one.model.id: one.model for one in asked}.values()
    costs = [model.price.tokens_cost_micro_usd(_TYPICAL_INPUT_TOKENS, _TYPICAL_OUTPUT_TOKENS) for model in models]
    strongest = snapshot.strongest.model.price.tokens_cost_micro_usd(_TYPICAL_INPUT_TOKENS, _TYPICAL_OUTPUT_TOKENS)
    offers = [Offer(one.quality, cost / (strongest or 1), one.tier) for one, cost in zip(models, costs, strict=True)]
    return solve_weights(offers, calibration_set())
