"""From a request to what the decision sees of it."""

from __future__ import annotations

from pointsman_server.domain.facts import RequestFacts
from pointsman_server.domain.message import ImagePart
from pointsman_server.domain.plan import Complexity
from pointsman_server.domain.request import Capability, CompletionRequest, ReasoningEffort


def facts_of(request: CompletionRequest, complexity: Complexity) -> RequestFacts:
    """Everything of the request that a decision depends on; no text."""
    return RequestFacts(
        complexity=complexity,
        capabilities=request.constraints.required_capabilities | implied_capabilities(request),
        tier=request.tier,
        deployment=request.deployment,
        constraints=request.constraints,
        quality_bias=request.quality_bias,
        max_output_tokens=request.generation.max_output_tokens,
        labels=request.labels,
        template=f"{request.template.name}@{request.template.version}" if request.template else "",
    )


def implied_capabilities(request: CompletionRequest) -> frozenset[Capability]:
    """What the request needs without saying so: tools, vision, a schema, reasoning, sampling, a seed."""
    generation = request.generation
    implied: set[Capability] = set()
    if generation.tools:
        implied.add(Capability.TOOLS)
    if generation.response_schema is not None:
        implied.add(Capability.JSON_SCHEMA)
    if generation.reasoning_effort not in (None, ReasoningEffort.NONE):
        implied.add(Capability.REASONING)
    if generation.seed is not None:
        implied.add(Capability.SEED)
    if generation.temperature is not None or generation.top_p is not None:
        implied.add(Capability.SAMPLING)
    if any(isinstance(part, ImagePart) for message in request.messages for part in message.parts):
        implied.add(Capability.VISION)
    return frozenset(implied)
