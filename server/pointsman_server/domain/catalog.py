"""The compiled policy: providers, models, deployments, tiers and prices, as one immutable value.

Everything here was checked when the policy was compiled; nothing downstream checks it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from functools import cached_property

from pointsman_server.domain.cache import Caching
from pointsman_server.domain.calibration import Calibrated
from pointsman_server.domain.confidence_policy import ConfidencePolicy
from pointsman_server.domain.context import ContextPolicy
from pointsman_server.domain.governance import Governance
from pointsman_server.domain.knowledge import Knowledge
from pointsman_server.domain.reply import Usage
from pointsman_server.domain.request import Capability, DataClass, Tier
from pointsman_server.domain.resilience import Resilience
from pointsman_server.domain.safety import Safety
from pointsman_server.domain.template import Template
from pointsman_server.domain.tokenizer import Tokenizer
from pointsman_server.domain.trace_policy import TracePolicy

TOKENS_PER_PRICE_UNIT = 1_000_000


class Dialect(Enum):
    """A wire language that pointsman speaks to providers."""

    ANTHROPIC_MESSAGES = "anthropic_messages"
    GEMINI_GENERATE = "gemini_generate"
    OPENAI_CHAT = "openai_chat"
    OPENAI_RESPONSES = "openai_responses"
    COHERE_CHAT = "cohere_chat"
    LOCAL_KNOWLEDGE = "local_knowledge"
    """No wire at all: a knowledge base in this process answers, without a model."""

    @property
    def makes_vectors(self) -> bool:
        """Whether vectors can be asked for in this language; Anthropic makes none."""
        return self not in (Dialect.ANTHROPIC_MESSAGES, Dialect.LOCAL_KNOWLEDGE)

    # Members are unique. The hash of `Enum` is a step of Python, and these are looked up for every candidate.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Secret:
    """A key read from its reference. Its value is never shown: not in repr, not in an error, not in a log."""

    value: str = field(repr=False)
    reference: str


@dataclass(frozen=True, slots=True)
class Provider:
    """A vendor account. `unusable_because` is "" or why no call can be made (a missing key, by name).

    `knowledge` is what a provider of dialect LOCAL_KNOWLEDGE answers from, None for all others.
    """

    id: str
    dialect: Dialect
    base_url: str
    api_key: Secret | None = None
    unusable_because: str = ""
    simulated: bool = False
    knowledge: Knowledge | None = None

    @property
    def label(self) -> str:
        """What callers are told: where no model answers, the provider never goes by another name."""
        if self.dialect is Dialect.LOCAL_KNOWLEDGE:
            return "local"
        return "simulated" if self.simulated else self.id


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-USD for a million tokens, whole numbers."""

    input: int
    output: int
    cached_input: int
    cache_write_input: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs since `valid_from`.

    `steps` are (more than this many input tokens, rates), rising from 0; the last step that is passed prices the
    whole call, as the vendors do. `version` names the source, so that a booked cost can be traced to it.
    """

    version: str
    valid_from: date | None
    steps: tuple[tuple[int, Rates], ...]
    per_request_micro_usd: int = 0

    def tokens_cost_micro_usd(self, input_tokens: int, output_tokens: int) -> int:
        """The cost of so many uncached tokens, rounded up; what a decision needs, without the detour over `Usage`."""
        rates = self.rates_for(input_tokens)
        total = input_tokens * rates.input + output_tokens * rates.output
        return -(-total // TOKENS_PER_PRICE_UNIT) + self.per_request_micro_usd

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates that apply to a call with this much input."""
        rates = self.steps[0][1]
        for above_tokens, step_rates in self.steps[1:]:
            if input_tokens > above_tokens:
                rates = step_rates
        return rates

    def cost_micro_usd(self, usage: Usage) -> int:
        """The cost of this usage, rounded up to a whole micro-USD. Unknown counts cost nothing here."""
        counted_input = usage.input_tokens or 0
        rates = self.rates_for(counted_input)
        billed_input = counted_input if usage.billed_input_tokens is None else usage.billed_input_tokens
        billed_output = (usage.output_tokens or 0) if usage.billed_output_tokens is None else usage.billed_output_tokens
        cached = min(usage.cached_input_tokens, billed_input)
        written = min(usage.cache_write_input_tokens, billed_input - cached)
        total = (
            (billed_input - cached - written) * rates.input
            + cached * rates.cached_input
            + written * rates.cache_write_input
            + billed_output * rates.output
        )
        return -(-total // TOKENS_PER_PRICE_UNIT) + self.per_request_micro_usd


@dataclass(frozen=True, slots=True)
class EmbeddingTraits:
    """What a model that turns texts into vectors can take and gives.

    `dimensions` is the length of its vectors; with `variable_dimensions` it makes shorter ones when asked. A call takes
    at most so many texts, and so many tokens of all of them together (0 is no limit).
    """

    dimensions: int
    variable_dimensions: bool = False
    max_inputs_per_call: int = 96
    max_tokens_per_call: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """Named weights. `quality` 0..1 is the policy's prior of a good answer.

    `tokenizer` is None where the policy leaves it to the dialect, `calibrated` where no outcomes of its tier are known.
    A model with `embedding` makes vectors and nothing else: its tier and quality mean nothing, its window is for each
    text.
    """

    id: str
    tier: Tier
    context_window_tokens: int
    max_output_tokens: int
    capabilities: frozenset[Capability]
    quality: float
    price: Price
    tokenizer: Tokenizer | None = None
    calibrated: Calibrated | None = None
    embedding: EmbeddingTraits | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`first_token` runs from the start of the attempt, `idle` between two pieces of content.

    A stream that brings less than `least_tokens_per_second` is given up where it can go on elsewhere; 0 is never.
    """

    connect_seconds: float = 3.0
    first_token_seconds: float = 10.0
    idle_seconds: float = 15.0
    total_seconds: float = 120.0
    least_tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One place that serves a model; all routing state keys on its id."""

    id: str
    provider: Provider
    model: Model
    model_name: str
    """What the provider calls the model."""
    approved_data_class: DataClass = DataClass.PUBLIC
    regions: frozenset[str] = frozenset()
    timeouts: Timeouts = field(default_factory=Timeouts)
    expected_first_token_seconds: float = 1.0
    expected_tokens_per_second: float = 50.0
    reasoning_token_budgets: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    """Extra body fields of the dialect, from the policy only."""
    max_concurrent_calls: int = 0
    """Most attempts at once in this process; 0 is no limit."""

    @property
    def is_last_resort(self) -> bool:
        """Whether it answers without a model: for every tier, in every region, and after all others."""
        return self.provider.dialect is Dialect.LOCAL_KNOWLEDGE


class FreshFacts(Enum):
    """What to do with a request whose answer depends on what happened lately."""

    PREFER_SEARCH = "prefer_search"
    REQUIRE_SEARCH = "require_search"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """When a rule applies: all that is given must hold; a rule that gives nothing always applies.

    `labels` are the request's labels with their allowed values, of which "*" allows any.
    """

    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    tasks: frozenset[str] = frozenset()
    tiers: frozenset[Tier] = frozenset()
    needs_fresh_facts: bool | None = None
    least_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A rule of the policy. What the request itself states goes before `tier` and `quality_bias`.

    `tier` is what the request is taken to need; `prefer` comes before all others, in order; `only` and `deny` exclude.
    """

    name: str
    when: RuleCondition
    tier: Tier | None = None
    quality_bias: float | None = None
    prefer: tuple[str, ...] = ()
    only: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    require: frozenset[Capability] = frozenset()


@dataclass(frozen=True)  # without slots, so that what follows from the fields is worked out once
class Snapshot:
    """One version of the policy; a call sees exactly one. `version` is the hash of its content."""

    version: str
    source: str
    deployments: Mapping[str, Deployment]
    aliases: Mapping[str, str]
    tier_chains: Mapping[Tier, tuple[str, ...]]
    """Deployment ids of a tier: in listed order when the policy lists a chain, otherwise absent."""
    quality_bias: float = 0.0
    default_max_output_tokens: int = 4096
    rules: tuple[RoutingRule, ...] = ()
    fresh_facts: FreshFacts = FreshFacts.PREFER_SEARCH
    first_token_weight: float = 0.02
    """What a second until the first token is worth, as a share of what the strongest model would cost."""
    learn_from_feedback: bool = True
    second_look: bool = False
    """Whether the meaning of requests is looked at where their words leave the tier in doubt."""
    resilience: Resilience = field(default_factory=Resilience)
    context: ContextPolicy = field(default_factory=ContextPolicy)
    governance: Governance = field(default_factory=Governance)
    safety: Safety = field(default_factory=Safety)
    cost_weights: tuple[float, ...] = ()
    """What cost weighs against quality, at equal steps of `quality_bias` from 0 to 1; see `decision.dial`."""
    templates: Mapping[str, Template] = field(default_factory=dict)
    embedding_model: str = ""
    """The model that makes vectors for requests that name no deployment; "" is the cheapest."""
    caching: Caching = field(default_factory=Caching)
    confidence: ConfidencePolicy = field(default_factory=ConfidencePolicy)
    traces: TracePolicy = field(default_factory=TracePolicy)

    @cached_property
    def answering(self) -> Mapping[str, Deployment]:
        """The deployments whose models answer, by id; the others make vectors."""
        return {name: one for name, one in self.deployments.items() if one.model.embedding is None}

    @cached_property
    def strongest(self) -> Deployment:
        """The deployment of the best model, the measure of all costs; of equals the dearest, then by id."""
        return max(
            self.answering.values(),
            key=lambda one: (one.model.quality, one.model.price.tokens_cost_micro_usd(1_000, 500), one.id),
        )

    @cached_property
    def providers(self) -> Mapping[str, Provider]:
        """The providers of all deployments, by id."""
        return {deployment.provider.id: deployment.provider for deployment in self.deployments.values()}

    @cached_property
    def smallest_window_tokens(self) -> int:
        """The smallest context window of all deployments whose models answer."""
        return min(deployment.model.context_window_tokens for deployment in self.answering.values())

    def context_of(self, tenant: str) -> ContextPolicy:
        """How this tenant's inputs are made to fit."""
        return self.governance.of(tenant).context or self.context

    def safety_of(self, tenant: str) -> Safety:
        """What is done about this tenant's sensitive data and hostile texts."""
        return self.governance.of(tenant).safety or self.safety

    def traces_of(self, tenant: str) -> TracePolicy:
        """What is recorded of this tenant's calls."""
        return self.governance.of(tenant).traces or self.traces

    def resolve(self, name: str) -> Deployment | None:
        """The deployment with this id or alias."""
        return self.deployments.get(self.aliases.get(name, name))
