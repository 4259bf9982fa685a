"""What a client and a call can be told, as typed keyword arguments, and the requests that follow from it."""

from __future__ import annotations

import difflib
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypedDict

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage

from pointsman.v1.answer_pb2 import StreamFailover
from pointsman.v1.completion_pb2 import (
    CacheControl,
    CacheMode,
    Capability,
    CompletionSpec,
    DataClass,
    Document,
    GenerationConfig,
    Message,
    ReasoningEffort,
    RoutingConstraints,
    TemplateRef,
    Tier,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from pointsman.v1.embedding_service_pb2 import EmbedRequest
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest
from pointsman_client._retrying import RetryPolicy
from pointsman_client.messages import struct, system, user

Prompt = str | Message | Sequence[Message] | CompletionSpec
"""What is asked: a text, one message, a conversation, or the contract's whole request."""

TierName = Literal["light", "standard", "advanced"]
ToolChoiceName = Literal["auto", "none", "required"]
ReasoningEffortName = Literal["none", "low", "medium", "high"]
CapabilityName = Literal["tools", "vision", "json_schema", "reasoning", "web_search", "streaming", "seed"]
DataClassName = Literal["public", "internal", "confidential", "restricted"]
CacheModeName = Literal["off", "read_write", "read_only", "refresh"]
FailoverName = Literal["terminate", "continue", "restart"]

MetadataItems = Iterable[tuple[str, str | bytes]]


class ClientOptions(TypedDict, total=False):
    """How a client is made.

    `api_key` is sent as `authorization: Bearer …`, never in plaintext off this machine. Targets off this machine are
    called over TLS, with the system's roots unless `credentials` say otherwise (`tls_from_files` makes them);
    `insecure=True` takes it away. `timeout_seconds` (60) and
    `stream_timeout_seconds` (300) are the deadlines of calls that name none. `retry` says how often and how patiently
    failed calls are repeated. `metadata` is asked for more metadata at every attempt, for keys that change.
    `channel_options` are gRPC's own and win over the client's.
    """

    api_key: str | None
    insecure: bool
    credentials: grpc.ChannelCredentials | None
    timeout_seconds: float
    stream_timeout_seconds: float
    retry: RetryPolicy
    metadata: Callable[[], MetadataItems]
    channel_options: Sequence[tuple[str, int | str]]


class CallOptions(TypedDict, total=False):
    """How one call is made: its deadline, more metadata, and the W3C trace context it belongs to."""

    timeout_seconds: float
    metadata: MetadataItems
    traceparent: str


class RouteOptions(CallOptions, total=False):
    """What is asked beside the prompt. Every option is the field of that name in the contract's `CompletionSpec`,
    its `GenerationConfig` or its `RoutingConstraints`, where limits and defaults stand; what is left out is left to
    the policy. Enums are given by name or as the generated values. `system` is put before the messages.
    """

    system: str
    tier: TierName | Tier.ValueType
    deployment: str
    quality_bias: float
    max_output_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop_sequences: Sequence[str]
    response_schema: Mapping[str, Any]
    tools: Sequence[Tool]
    tool_choice: ToolChoiceName | ToolChoice
    reasoning_effort: ReasoningEffortName | ReasoningEffort.ValueType
    required_capabilities: Sequence[CapabilityName | Capability.ValueType]
    min_context_tokens: int
    max_cost_micro_usd: int
    max_first_token_latency_seconds: float
    allowed_deployments: Sequence[str]
    denied_deployments: Sequence[str]
    data_class: DataClassName | DataClass.ValueType
    regions: Sequence[str]
    template: TemplateRef
    documents: Sequence[Document]
    cache: CacheModeName | CacheControl
    labels: Mapping[str, str]
    end_user: str
    session_id: str
    request_id: str


class CompletionOptions(RouteOptions, total=False):
    """The same for an answer; `decision_id` names a decision that `route` gave for the same prompt and options."""

    decision_id: str


class StreamOptions(CompletionOptions, total=False):
    """The same for a stream; `failover` says what happens when a provider fails in the middle of its answer."""

    failover: FailoverName | StreamFailover.ValueType


class EmbedOptions(CallOptions, total=False):
    """What is asked beside the texts. Every option is the field of that name in the contract's `EmbedRequest` or its
    `RoutingConstraints`; what is left out is left to the policy.
    """

    deployment: str
    dimensions: int
    max_cost_micro_usd: int
    allowed_deployments: Sequence[str]
    denied_deployments: Sequence[str]
    data_class: DataClassName | DataClass.ValueType
    regions: Sequence[str]
    labels: Mapping[str, str]
    end_user: str
    request_id: str


def completion_from(prompt: Prompt, options: Mapping[str, Any]) -> CompletionSpec:
    """The contract's request; a request id is made when there is none, so that a repeat can be told from a new call.

    Raises TypeError or ValueError that names the option at fault.
    """
    spec = _start(prompt)
    _merge(options, spec, _FIELDS)
    if "system" in options:
        spec.messages.insert(0, system(options["system"]))
    spec.request_id = spec.request_id or str(uuid.uuid4())
    return spec


def embed_from(texts: str | Sequence[str], options: Mapping[str, Any]) -> EmbedRequest:
    """The contract's request for vectors; a request id is made when there is none. Raises TypeError or ValueError."""
    inputs = [texts] if isinstance(texts, str) else list(texts)
    wrong = next((one for one in inputs if not isinstance(one, str)), None)
    if wrong is not None:
        raise TypeError(f"the texts must be str, not {_kind(wrong)}")
    request = EmbedRequest(inputs=inputs)
    _merge(options, request, _EMBED_FIELDS)
    request.request_id = request.request_id or str(uuid.uuid4())
    return request


def decision_id_from(options: CompletionOptions) -> str:
    """The decision to follow, "" to decide anew; raises TypeError when it is no text."""
    decision_id: object = options.get("decision_id", "")
    if not isinstance(decision_id, str):
        raise TypeError(f"option 'decision_id' cannot be this {_kind(decision_id)}: give the decision's id")
    return decision_id


def feedback_from(request_id: str, score: float, label: str) -> RecordFeedbackRequest:
    """The verdict as it is sent; raises TypeError or ValueError for what cannot be one."""
    if not 0 <= score <= 1:
        raise ValueError("score must be between 0 (useless) and 1 (perfect)")
    return RecordFeedbackRequest(request_id=request_id, score=score, label=label)


def failover_from(options: StreamOptions) -> StreamFailover.ValueType:
    """The stream's failover; unspecified when the option is left out."""
    value: StreamFailover.ValueType = _enum(StreamFailover, "STREAM_FAILOVER_")(options.get("failover", 0))
    return value


def timeout_from(options: CallOptions, default_seconds: float) -> float:
    """The call's deadline in seconds; raises ValueError unless it is a positive, finite number."""
    return checked_timeout(options.get("timeout_seconds", default_seconds))


def checked_timeout(seconds: float) -> float:
    """The same number; raises ValueError unless it is positive and finite."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("timeout_seconds must be a positive number: every call has a deadline")
    return float(seconds)


def metadata_from(options: CallOptions) -> tuple[tuple[str, str | bytes], ...]:
    """The call's own metadata."""
    metadata = tuple(options.get("metadata", ()))
    if "traceparent" in options:
        metadata += (("traceparent", options["traceparent"]),)
    return metadata


def refuse_unknown(options: Mapping[str, Any], known: type) -> None:
    """Raises TypeError for an option that is not among the known ones, and names the one that was meant."""
    for name in options:
        if name not in known.__annotations__:
            near = difflib.get_close_matches(name, known.__annotations__, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"there is no option {name!r}{hint}")


def _merge(options: Mapping[str, Any], request: CompletionSpec | EmbedRequest, fields: Mapping[str, _Field]) -> None:
    for name, value in options.items():
        field = fields.get(name)
        if field is not None:
            field.merge_into(request, name, value)


def _start(prompt: Prompt) -> CompletionSpec:
    spec = CompletionSpec()
    match prompt:
        case CompletionSpec():
            spec.CopyFrom(prompt)
        case str():
            spec.messages.append(user(prompt))
        case Message():
            spec.messages.append(prompt)
        case _:
            _extend(spec, prompt)
    return spec


def _extend(spec: CompletionSpec, messages: Sequence[Message]) -> None:
    if not isinstance(messages, Sequence):
        forms = "a str, a Message, a list of them or a CompletionSpec"
        raise TypeError(f"the prompt must be {forms}, not {_kind(messages)}")
    for index, message in enumerate(messages):
        if not isinstance(message, Message):
            remedy = "user(), system() and the like make one"
            raise TypeError(f"messages[{index}] must be a Message, not {_kind(message)}; {remedy}")
        spec.messages.append(message)


def _kind(value: object) -> str:
    return type(value).__name__


class _Field(NamedTuple):
    """Where an option goes: into `group` of the request ("" is the request itself), there into `field`."""

    group: str
    field: str
    convert: Callable[[Any], Any] = lambda value: value

    def merge_into(self, spec: CompletionSpec | EmbedRequest, option: str, value: Any) -> None:
        if value is None:
            raise TypeError(f"option {option!r} cannot be None: leave it out")
        try:
            part = _GROUPS.get(self.group, type(spec))(**{self.field: self.convert(value)})
        except TypeError as error:
            raise TypeError(f"option {option!r} cannot be this {_kind(value)}: {error}") from error
        except ValueError as error:
            raise ValueError(f"option {option!r}: {error}") from error
        target: ProtoMessage = getattr(spec, self.group) if self.group else spec
        target.MergeFrom(part)


_GROUPS: Mapping[str, Callable[..., ProtoMessage]] = {
    "generation": GenerationConfig,
    "constraints": RoutingConstraints,
}


class _Enum(Protocol):
    def Value(self, name: str) -> Any: ...
    def keys(self) -> list[str]: ...


def _enum(enum: _Enum, prefix: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return enum.Value(prefix + value.upper())
        except ValueError:
            names = ", ".join(name.removeprefix(prefix).lower() for name in enum.keys()[1:])
            raise ValueError(f"{value!r} is none of {names}") from None

    return convert


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [convert(value) for value in _sequence(values)]


def _sequence(values: Any) -> Any:
    if isinstance(values, str):
        raise TypeError("a list of strings is needed, not one string")
    return values


def _tool_choice(value: Any) -> Any:
    return ToolChoice(mode=_enum(ToolChoiceMode, "TOOL_CHOICE_MODE_")(value)) if isinstance(value, str) else value


def _cache(value: Any) -> Any:
    return CacheControl(mode=_enum(CacheMode, "CACHE_MODE_")(value)) if isinstance(value, str) else value


def _duration(seconds: float) -> Duration:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError("a number of seconds is needed, 0 or more")
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


_FIELDS: Mapping[str, _Field] = {
    "tier": _Field("", "tier", _enum(Tier, "TIER_")),
    "deployment": _Field("", "deployment"),
    "quality_bias": _Field("", "quality_bias"),
    "max_output_tokens": _Field("generation", "max_output_tokens"),
    "temperature": _Field("generation", "temperature"),
    "top_p": _Field("generation", "top_p"),
    "seed": _Field("generation", "seed"),
    "stop_sequences": _Field("generation", "stop_sequences", _sequence),
    "response_schema": _Field("generation", "response_schema", struct),
    "tools": _Field("generation", "tools"),
    "tool_choice": _Field("generation", "tool_choice", _tool_choice),
    "reasoning_effort": _Field("generation", "reasoning_effort", _enum(ReasoningEffort, "REASONING_EFFORT_")),
    "required_capabilities": _Field("constraints", "required_capabilities", _each(_enum(Capability, "CAPABILITY_"))),
    "min_context_tokens": _Field("constraints", "min_context_tokens"),
    "max_cost_micro_usd": _Field("constraints", "max_cost_micro_usd"),
    "max_first_token_latency_seconds": _Field("constraints", "max_first_token_latency", _duration),
    "allowed_deployments": _Field("constraints", "allowed_deployments", _sequence),
    "denied_deployments": _Field("constraints", "denied_deployments", _sequence),
    "data_class": _Field("constraints", "data_class", _enum(DataClass, "DATA_CLASS_")),
    "regions": _Field("constraints", "regions", _sequence),
    "template": _Field("", "template"),
    "documents": _Field("", "documents"),
    "cache": _Field("", "cache", _cache),
    "labels": _Field("", "labels"),
    "end_user": _Field("", "end_user"),
    "session_id": _Field("", "session_id"),
    "request_id": _Field("", "request_id"),
}
_EMBED_FIELDS: Mapping[str, _Field] = {**_FIELDS, "dimensions": _Field("", "dimensions")}
