from __future__ import annotations

from typing import Any

import pytest

from kit.catalog import judged, request, user
from pointsman_server.decision.facts import facts_of, implied_capabilities
from pointsman_server.domain.message import ImagePart, Message, Role, TextPart
from pointsman_server.domain.request import (
    Capability,
    CompletionRequest,
    GenerationConfig,
    ReasoningEffort,
    RoutingConstraints,
    Tier,
    Tool,
)

TOOL = Tool("f", "", {})
IMAGE = Message(Role.USER, (TextPart("what is it?"), ImagePart(b"", "image/png")))


def generates(**generation: Any) -> CompletionRequest:
    return request(generation=GenerationConfig(**generation))


@pytest.mark.parametrize(
    ("asked", "implied"),
    [
        (request(), set()),
        (generates(tools=(TOOL,)), {Capability.TOOLS}),
        (generates(response_schema={}), {Capability.JSON_SCHEMA}),
        (generates(reasoning_effort=ReasoningEffort.LOW), {Capability.REASONING}),
        (generates(reasoning_effort=ReasoningEffort.NONE), set()),
        (generates(seed=0), {Capability.SEED}),
        (generates(temperature=0.0), {Capability.SAMPLING}),
        (generates(top_p=0.5), {Capability.SAMPLING}),
        (generates(max_output_tokens=5, stop_sequences=("x",)), set()),
        (request(messages=(user("a"), IMAGE, user("b"))), {Capability.VISION}),
        (generates(tools=(TOOL,), seed=1), {Capability.TOOLS, Capability.SEED}),
    ],
)
def test_what_a_request_needs_without_saying_so(asked: CompletionRequest, implied: set[Capability]) -> None:
    assert implied_capabilities(asked) == implied


def test_everything_a_decision_depends_on_is_taken_over() -> None:
    limits = RoutingConstraints(required_capabilities=frozenset({Capability.WEB_SEARCH}), min_context_tokens=9)
    asked = request(
        "canary",
        tier=Tier.LIGHT,
        deployment="one",
        generation=GenerationConfig(max_output_tokens=7, seed=1),
        constraints=limits,
        quality_bias=0.25,
        labels={"agent": "research"},
        session_id="canary-session",
        end_user="canary-user",
    )
    facts = facts_of(asked, judged(Tier.ADVANCED))
    assert facts.complexity == judged(Tier.ADVANCED)
    assert facts.capabilities == {Capability.WEB_SEARCH, Capability.SEED}
    assert (facts.tier, facts.deployment, facts.constraints) == (Tier.LIGHT, "one", limits)
    assert (facts.quality_bias, facts.max_output_tokens, facts.labels) == (0.25, 7, {"agent": "research"})
    assert "canary" not in repr(facts)
