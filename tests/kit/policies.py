"""Random policies, requests, health and token counts, for properties of the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from kit.catalog import deployment, price, snapshot, user
from pointsman_server.domain.catalog import Deployment, Price, Snapshot
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason, Rejection, TokenEstimate
from pointsman_server.domain.request import (
    Capability,
    CompletionRequest,
    DataClass,
    GenerationConfig,
    ReasoningEffort,
    RoutingConstraints,
    Tier,
    Tool,
)

NAMES = ("alder", "birch", "cedar", "elm", "fir", "hazel")
REGIONS = ("eu", "us")

_prices: st.SearchStrategy[Price] = st.builds(
    price,
    st.integers(0, 20_000_000),
    st.integers(0, 60_000_000),
    per_request_micro_usd=st.sampled_from((0, 0, 5_000)),
)
_usually = st.sampled_from((True, True, True, False))
_some_regions = st.frozensets(st.sampled_from(REGIONS))


@dataclass(frozen=True)
class Asked:
    """Everything that a decision is made of."""

    request: CompletionRequest
    policy: Snapshot
    health: HealthView
    tokens: TokenEstimate


@st.composite
def _deployments(draw: st.DrawFn, name: str) -> Deployment:
    of = {
        "tier": draw(st.sampled_from(Tier)),
        "context_window_tokens": draw(st.sampled_from((110, 1_000, 100_000, 100_000))),
        "max_output_tokens": draw(st.sampled_from((8, 100, 4_000))),
        "capabilities": frozenset(one for one in Capability if draw(_usually)),
        "quality": draw(st.integers(0, 100)) / 100,
        "price": draw(_prices),
    }
    return deployment(
        name,
        of=of,
        by={"unusable_because": draw(st.sampled_from(("", "", "", "no key")))},
        approved_data_class=draw(st.sampled_from(DataClass)),
        regions=draw(_some_regions),
        expected_first_token_seconds=draw(st.sampled_from((0.3, 1.0, 4.0))),
    )


@st.composite
def policies(draw: st.DrawFn) -> Snapshot:
    """One to six deployments, some aliases, some chains."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    chains = st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)
    return snapshot(
        *(draw(_deployments(name)) for name in names),
        aliases=draw(st.dictionaries(st.sampled_from(("best", "cheap")), st.sampled_from(names))),
        tier_chains=draw(st.dictionaries(st.sampled_from(Tier), chains)),
        quality_bias=draw(st.sampled_from((0.0, 0.3, 1.0))),
        default_max_output_tokens=draw(st.sampled_from((16, 1_000))),
    )


def _constraints(names: list[str]) -> st.SearchStrategy[RoutingConstraints]:
    some: st.SearchStrategy[frozenset[str]] = st.just(frozenset()) | st.frozensets(st.sampled_from(names), max_size=2)
    return st.builds(
        RoutingConstraints,
        required_capabilities=st.frozensets(st.sampled_from(Capability), max_size=1),
        min_context_tokens=st.sampled_from((0, 0, 500)),
        max_cost_micro_usd=st.none() | st.integers(100, 50_000),
        max_first_token_seconds=st.none() | st.sampled_from((0.5, 2.0)),
        allowed_deployments=some,
        denied_deployments=some,
        data_class=st.sampled_from((DataClass.PUBLIC, DataClass.PUBLIC, DataClass.CONFIDENTIAL)),
        regions=st.just(frozenset()) | _some_regions,
    )


_generations = st.builds(
    GenerationConfig,
    max_output_tokens=st.none() | st.sampled_from((1, 20, 10_000)),
    seed=st.none() | st.just(7),
    temperature=st.none() | st.just(0.5),
    tools=st.sampled_from(((), (Tool("f", "", {}),))),
    response_schema=st.none() | st.just({"type": "object"}),
    reasoning_effort=st.none() | st.sampled_from(ReasoningEffort),
)


@st.composite
def questions(draw: st.DrawFn) -> Asked:
    """A policy and something asked of it; about half can be answered by somebody."""
    policy = draw(policies())
    names = [*policy.deployments, *policy.aliases]
    plain: dict[str, Any] = {"generation": GenerationConfig(), "constraints": RoutingConstraints()}
    asked = st.builds(
        CompletionRequest,
        messages=st.sampled_from((user("hello"), user("Prove that the algorithm must terminate. " * 9))).map(
            lambda message: (message,)
        ),
        tier=st.none() | st.none() | st.sampled_from(Tier),
        deployment=st.sampled_from(("", "", "", *names)),
        generation=st.just(plain["generation"]) | _generations,
        constraints=st.just(plain["constraints"]) | _constraints(names),
        quality_bias=st.none() | st.floats(0, 1),
    )
    tokens = draw(st.integers(1, 150) | st.integers(1, 2_000))
    return Asked(
        draw(asked), policy, draw(_healths(list(policy.deployments))), TokenEstimate(tokens, True, tokens * 5 // 4 + 16)
    )


@st.composite
def _healths(draw: st.DrawFn, names: list[str]) -> HealthView:
    ill = draw(st.frozensets(st.sampled_from(names), max_size=1))
    reason = draw(st.sampled_from((ExclusionReason.BREAKER_OPEN, ExclusionReason.COOLDOWN)))
    return HealthView(
        {name: Rejection(name, reason, "ill") for name in ill},
        dict.fromkeys(ill, 12.0),
        draw(st.dictionaries(st.sampled_from(names), st.floats(0.01, 5.0), max_size=2)),
    )
