"""What a caller asks for: the conversation, how to generate, and what the routing must respect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from pointsman_server.domain.message import Message


class Tier(IntEnum):
    """Bands of model strength. The order of the values is the order of strength."""

    LIGHT = 1
    STANDARD = 2
    ADVANCED = 3


class Capability(Enum):
    """What a model can do beyond plain text."""

    TOOLS = "tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    REASONING = "reasoning"
    WEB_SEARCH = "web_search"
    STREAMING = "streaming"
    SEED = "seed"
    SAMPLING = "sampling"
    PREFILL = "prefill"


class DataClass(IntEnum):
    """How sensitive the request's data is. A deployment approved for one class is approved for all below it."""

    PUBLIC = 1
    INTERNAL = 2
    CONFIDENTIAL = 3
    RESTRICTED = 4


class ReasoningEffort(Enum):
    """How long the model may think before it answers."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class ToolChoiceMode(Enum):
    """Whether the model may, must or must not call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is its JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`name` is set exactly when `mode` is NAMED."""

    mode: ToolChoiceMode
    name: str = ""


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How to generate. None means the provider's own default."""

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    response_schema: Mapping[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    reasoning_effort: ReasoningEffort | None = None


@dataclass(frozen=True, slots=True)
class RoutingConstraints:
    """Hard rules of one request; a deployment that breaks any of them is excluded."""

    required_capabilities: frozenset[Capability] = frozenset()
    min_context_tokens: int = 0
    max_cost_micro_usd: int | None = None
    max_first_token_seconds: float | None = None
    allowed_deployments: frozenset[str] = frozenset()
    denied_deployments: frozenset[str] = frozenset()
    data_class: DataClass = DataClass.PUBLIC
    regions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Document:
    """Material for the answer. `relevance` 0..1 is the caller's word, None when it said nothing."""

    id: str
    text: str
    relevance: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TemplateRef:
    """A prompt template of the policy, with values for its variables; version 0 is the current one."""

    name: str
    version: int = 0
    variables: Mapping[str, Any] = field(default_factory=dict)


class CacheMode(Enum):
    """How a request uses the cache."""

    OFF = "off"
    READ_WRITE = "read_write"
    READ_ONLY = "read_only"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class CacheControl:
    """What the request says of the cache; None leaves it to the policy."""

    mode: CacheMode | None = None
    ttl_seconds: float | None = None
    min_similarity: float | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingInput:
    """Texts to be turned into vectors; `dimensions` None means as long as the model makes them."""

    texts: tuple[str, ...]
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A validated request. `tier` None means: decide by complexity; `deployment` "" means: decide.

    `messages` may be empty only where a `template` will come before them.
    """

    messages: tuple[Message, ...]
    tier: Tier | None = None
    deployment: str = ""
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    constraints: RoutingConstraints = field(default_factory=RoutingConstraints)
    quality_bias: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    end_user: str = ""
    session_id: str = ""
    documents: tuple[Document, ...] = ()
    template: TemplateRef | None = None
    cache: CacheControl = field(default_factory=CacheControl)
