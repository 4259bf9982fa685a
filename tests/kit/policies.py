"""Random policies and circumstances, for properties of the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hypothesis import strategies as st

from kit.catalog import deployment, judged, price, snapshot
from pointsman_server.domain.catalog import Deployment, FreshFacts, Price, RoutingRule, RuleCondition, Snapshot
from pointsman_server.domain.experience import Experience, Verdicts
from pointsman_server.domain.facts import Circumstances, RequestFacts
from pointsman_server.domain.health import HealthView, Observed
from pointsman_server.domain.plan import Complexity, ExclusionReason, Rejection, TaskType, TokenEstimate
from pointsman_server.domain.request import Capability, DataClass, RoutingConstraints, Tier
from pointsman_server.domain.tokenizer import Tokenizer

T = TypeVar("T")

NAMES = ("alder", "birch", "cedar", "elm", "fir", "hazel")
REGIONS = ("eu", "us")
LABELS: Mapping[str, tuple[str, ...]] = {"agent": ("research", "chat"), "feature": ("search",)}


@dataclass(frozen=True)
class Asked:
    """Everything that a decision is made of."""

    under: Circumstances
    policy: Snapshot

    def facts(self, **changes: Any) -> Asked:
        """The same with other facts."""
        return replace(self, under=replace(self.under, facts=replace(self.under.facts, **changes)))

    def constraints(self, **changes: Any) -> Asked:
        """The same with other constraints."""
        return self.facts(constraints=replace(self.under.facts.constraints, **changes))

    def deployment(self, one: Deployment) -> Asked:
        """The same with this deployment in the place of its namesake."""
        return replace(self, policy=replace(self.policy, deployments={**self.policy.deployments, one.id: one}))


def _seldom(usually: T, strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Three times in four the usual value, so that most questions have several answers."""
    return st.integers(0, 3).flatmap(lambda dice: strategy if dice == 3 else st.just(usually))


# Every strategy is made once: to make them anew for each example takes longer than to draw from them.
_names = st.sampled_from(NAMES)
_name_sets = _seldom(frozenset[str](), st.frozensets(_names, max_size=3))
_fine = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
_tiers = st.sampled_from(Tier)
_flags = st.integers(0, 2 ** len(Capability) - 1)
_few_capabilities = _seldom(frozenset[Capability](), st.frozensets(st.sampled_from(Capability), max_size=1))
_some_regions = st.sampled_from([frozenset(), frozenset({"eu"}), frozenset({"us"}), frozenset(REGIONS)])
_known_labels = st.fixed_dictionaries(
    {}, optional={label: st.sampled_from((*values, "other")) for label, values in LABELS.items()}
)
_wanted_labels = st.fixed_dictionaries(
    {},
    optional={
        label: st.sampled_from([frozenset({value}) for value in (*values, "*")]) for label, values in LABELS.items()
    },
)


def _capabilities(one: int, other: int) -> frozenset[Capability]:
    """Each with three chances in four."""
    return frozenset(capability for bit, capability in enumerate(Capability) if (one | other) >> bit & 1)


_prices: st.SearchStrategy[Price] = st.builds(
    price,
    st.integers(0, 20_000_000),
    st.integers(0, 60_000_000),
    per_request_micro_usd=st.sampled_from((0, 0, 5_000)),
)
_models: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "tier": _tiers,
        "context_window_tokens": st.sampled_from((110, 1_000, 2_500, 100_000, 100_000)),
        "max_output_tokens": st.sampled_from((8, 100, 4_000)),
        "capabilities": st.builds(_capabilities, _flags, _flags),
        "quality": st.integers(0, 100).map(lambda percent: percent / 100),
        "price": _prices,
        "tokenizer": st.sampled_from((Tokenizer.O200K, Tokenizer.OTHER)),
    }
)
_deployments: st.SearchStrategy[Deployment] = st.builds(
    deployment,
    _names,
    of=_models,
    by=_seldom("", st.sampled_from(("", "no key"))).map(lambda because: {"unusable_because": because}),
    approved_data_class=st.sampled_from(DataClass),
    regions=_some_regions,
    expected_first_token_seconds=st.sampled_from((0.3, 1.0, 4.0)),
)
_conditions: st.SearchStrategy[RuleCondition] = st.just(RuleCondition()) | st.builds(
    RuleCondition,
    labels=st.just({}) | _wanted_labels,
    tasks=st.just(frozenset()) | st.frozensets(st.sampled_from([task.value for task in TaskType]), min_size=1),
    tiers=st.just(frozenset()) | st.frozensets(_tiers, min_size=1),
    needs_fresh_facts=st.sampled_from((None, None, True, False)),
    least_input_tokens=st.sampled_from((0, 0, 120)),
)
_rules: st.SearchStrategy[RoutingRule] = st.builds(
    RoutingRule,
    name=st.sampled_from(("first", "second", "third")),
    when=_conditions,
    tier=st.none() | _tiers,
    quality_bias=st.none() | _fine,
    prefer=st.just(()) | st.lists(_names, max_size=2, unique=True).map(tuple),
    only=_name_sets,
    deny=_name_sets,
    require=_few_capabilities,
)


_deployment_lists = [
    st.lists(_deployments, min_size=least, max_size=most, unique_by=lambda one: one.id)
    for least, most in ((1, 1), (2, 3), (4, len(NAMES)))
]


def _falling(weights: list[float]) -> tuple[float, ...]:
    return tuple(sorted(weights, reverse=True))


def _policy(
    deployments: list[Deployment],
    aliases: Mapping[str, str],
    chain: tuple[Tier, list[str]],
    rules: list[RoutingRule],
    **fields: Any,
) -> Snapshot:
    """A policy names nothing that is not there."""
    names = {one.id for one in deployments}
    links = tuple(name for name in chain[1] if name in names)
    return snapshot(
        *deployments,
        aliases={alias: name for alias, name in aliases.items() if name in names},
        tier_chains={chain[0]: links} if links else {},
        rules=tuple(
            replace(
                rule,
                prefer=tuple(name for name in rule.prefer if name in names),
                only=rule.only & names,
                deny=rule.deny & names,
            )
            for rule in rules
        ),
        **fields,
    )


policies: st.SearchStrategy[Snapshot] = st.builds(
    _policy,
    st.integers(0, 5).flatmap(lambda dice: _deployment_lists[min(dice, 2)]),
    st.fixed_dictionaries({}, optional={"best": _names, "cheap": _names}),
    st.tuples(_tiers, st.lists(_names, max_size=4, unique=True)),
    st.lists(_rules, max_size=3, unique_by=lambda rule: rule.name),
    quality_bias=st.sampled_from((0.0, 0.3, 1.0)),
    default_max_output_tokens=st.sampled_from((16, 1_000)),
    fresh_facts=st.sampled_from(FreshFacts),
    first_token_weight=st.sampled_from((0.0, 0.02, 1.0)),
    cost_weights=st.just(()) | st.lists(st.floats(0.001, 0.999), min_size=2, max_size=4).map(_falling),
)
"""One to six deployments, some aliases, a chain and rules."""

_names_and_aliases = _seldom(frozenset[str](), st.frozensets(st.sampled_from((*NAMES, "best")), max_size=3))
_constraints: st.SearchStrategy[RoutingConstraints] = st.builds(
    RoutingConstraints,
    required_capabilities=st.just(frozenset()),  # the facts name all capabilities, whether required or implied
    min_context_tokens=st.sampled_from((0, 0, 500)),
    max_cost_micro_usd=st.none() | st.integers(100, 50_000),
    max_first_token_seconds=st.none() | st.sampled_from((0.5, 2.0)),
    allowed_deployments=_names_and_aliases,
    denied_deployments=_names_and_aliases,
    data_class=st.sampled_from((DataClass.PUBLIC, DataClass.PUBLIC, DataClass.CONFIDENTIAL)),
    regions=_some_regions,
)
_complexities: st.SearchStrategy[Complexity] = st.builds(
    judged,
    _tiers,
    score=_fine,
    task=st.sampled_from(TaskType),
    needs_fresh_facts=st.booleans(),
    difficulty=_fine.map(lambda share: 10.0 * share - 5.0),
    discrimination=_fine.map(lambda share: 3.0 * share),
)
_facts: st.SearchStrategy[RequestFacts] = st.builds(
    RequestFacts,
    complexity=_complexities,
    capabilities=_few_capabilities,
    tier=_seldom(None, _tiers),
    deployment=_seldom("", st.sampled_from((*NAMES, "best"))),
    constraints=_seldom(RoutingConstraints(), _constraints),
    quality_bias=st.none() | _fine,
    max_output_tokens=st.none() | st.sampled_from((1, 20, 10_000)),
    labels=_known_labels,
)
_observed: st.SearchStrategy[Observed] = st.builds(
    lambda answers, p50, failures: Observed(answers, p50, p50 * 2, answers + failures, failures),
    st.floats(0, 1_000),
    st.floats(0.01, 5.0),
    st.floats(0, 100),
)


def _health(ill: str, reason: ExclusionReason, observed: Mapping[str, Observed]) -> HealthView:
    if not ill:
        return HealthView(observed=observed)
    return HealthView({ill: Rejection(ill, reason, "ill")}, {ill: 12.0}, observed)


_healths: st.SearchStrategy[HealthView] = st.builds(
    _health,
    _seldom("", _names),
    st.sampled_from((ExclusionReason.BREAKER_OPEN, ExclusionReason.COOLDOWN)),
    st.dictionaries(_names, _observed, max_size=2),
)
_verdicts = st.builds(lambda mean, weight: Verdicts(mean * weight, weight), _fine, st.floats(0, 400))
_experiences: st.SearchStrategy[Experience] = st.dictionaries(_names.map("{}-model".format), _verdicts, max_size=2).map(
    Experience
)


def _question(
    policy: Snapshot, facts: RequestFacts, tokens: int, health: HealthView, experience: Experience, session: str
) -> Asked:
    """Only what is there can be pinned, so that most questions have an answer."""
    if policy.resolve(facts.deployment) is None:
        facts = replace(facts, deployment="")
    estimate = TokenEstimate(tokens, True, tokens * 5 // 4 + 16)
    return Asked(Circumstances(facts, estimate, health, experience, session), policy)


questions: st.SearchStrategy[Asked] = st.builds(
    _question,
    policies,
    _facts,
    st.integers(1, 150) | st.integers(1, 2_000),
    _healths,
    _experiences,
    st.just("") | _names,
)
"""A policy and something asked under it; most can be answered by somebody, half by several."""


def _with_spare(asked: Asked, documents: int, history: int) -> Asked:
    """The same with more input, which may be left out."""
    tokens = asked.under.tokens
    longer = TokenEstimate(
        tokens.tokens + documents + history, True, tokens.upper_bound + documents + history, documents, history
    )
    return replace(asked, under=replace(asked.under, tokens=longer))


spacious_questions: st.SearchStrategy[Asked] = st.builds(
    _with_spare, questions, st.integers(0, 3_000), st.just(0) | st.integers(0, 3_000)
)
"""Questions with documents or earlier turns that may be left out of them."""
