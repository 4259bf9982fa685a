"""From the contract's request to the domain's: checked first, then converted."""

from __future__ import annotations

from collections.abc import Iterator

from pointsman.v1 import completion_pb2 as pb
from pointsman.v1 import router_service_pb2
from pointsman_server.domain.errors import FieldProblem, InvalidRequest
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.request import (
    CacheControl,
    CacheMode,
    Capability,
    CompletionRequest,
    DataClass,
    Document,
    GenerationConfig,
    ReasoningEffort,
    RoutingConstraints,
    TemplateRef,
    Tier,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from pointsman_server.rpc.checks import (
    check_conflicts,
    check_conversation,
    check_documents,
    check_durations,
    check_generation,
)
from pointsman_server.rpc.rules import MAX_PROBLEMS, check_message
from pointsman_server.rpc.struct import struct_to_dict

RouterRequest = (
    router_service_pb2.RouteRequest | router_service_pb2.CompleteRequest | router_service_pb2.StreamCompleteRequest
)

_ROLES = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_CAPABILITIES = {
    pb.CAPABILITY_TOOLS: Capability.TOOLS,
    pb.CAPABILITY_VISION: Capability.VISION,
    pb.CAPABILITY_JSON_SCHEMA: Capability.JSON_SCHEMA,
    pb.CAPABILITY_REASONING: Capability.REASONING,
    pb.CAPABILITY_WEB_SEARCH: Capability.WEB_SEARCH,
    pb.CAPABILITY_STREAMING: Capability.STREAMING,
    pb.CAPABILITY_SEED: Capability.SEED,
    pb.CAPABILITY_SAMPLING: Capability.SAMPLING,
    pb.CAPABILITY_PREFILL: Capability.PREFILL,
}
_EFFORTS = {
    pb.REASONING_EFFORT_NONE: ReasoningEffort.NONE,
    pb.REASONING_EFFORT_LOW: ReasoningEffort.LOW,
    pb.REASONING_EFFORT_MEDIUM: ReasoningEffort.MEDIUM,
    pb.REASONING_EFFORT_HIGH: ReasoningEffort.HIGH,
}
_CACHE_MODES = {
    pb.CACHE_MODE_OFF: CacheMode.OFF,
    pb.CACHE_MODE_READ_WRITE: CacheMode.READ_WRITE,
    pb.CACHE_MODE_READ_ONLY: CacheMode.READ_ONLY,
    pb.CACHE_MODE_REFRESH: CacheMode.REFRESH,
}
_TOOL_CHOICES = {
    pb.TOOL_CHOICE_MODE_AUTO: ToolChoiceMode.AUTO,
    pb.TOOL_CHOICE_MODE_NONE: ToolChoiceMode.NONE,
    pb.TOOL_CHOICE_MODE_REQUIRED: ToolChoiceMode.REQUIRED,
    pb.TOOL_CHOICE_MODE_NAMED: ToolChoiceMode.NAMED,
}


def read_request(request: RouterRequest) -> CompletionRequest:
    """The request as the inner rooms take it.

    Raises `InvalidRequest` with every problem found.
    """
    problems = check_message(request)
    if problems:
        raise InvalidRequest(tuple(problems))
    spec = request.completion
    require_none(_check_across_fields(spec), conflicting=False)
    require_none(check_conflicts(spec), conflicting=True)
    return _convert(spec)


def _check_across_fields(spec: pb.CompletionSpec) -> Iterator[FieldProblem]:
    yield from check_conversation(spec)
    yield from check_documents(spec)
    if spec.HasField("generation"):
        yield from check_generation(spec.generation)
    yield from check_durations(spec)


def require_none(problems: Iterator[FieldProblem], *, conflicting: bool) -> None:
    """Raises `InvalidRequest` with the problems, if there are any."""
    found = tuple(problems)
    if found:
        raise InvalidRequest(found[:MAX_PROBLEMS], conflicting=conflicting)


def _convert(spec: pb.CompletionSpec) -> CompletionRequest:
    return CompletionRequest(
        messages=tuple(_message(message) for message in spec.messages),
        tier=Tier(spec.tier) if spec.tier else None,
        deployment=spec.deployment,
        generation=_generation(spec.generation) if spec.HasField("generation") else _DEFAULT_GENERATION,
        constraints=read_constraints(spec.constraints) if spec.HasField("constraints") else _NO_CONSTRAINTS,
        quality_bias=spec.quality_bias if spec.HasField("quality_bias") else None,
        labels=dict(spec.labels),
        end_user=spec.end_user,
        session_id=spec.session_id,
        documents=tuple(_document(document) for document in spec.documents),
        template=_template(spec.template) if spec.HasField("template") else None,
        cache=_cache(spec.cache) if spec.HasField("cache") else _USUAL_CACHE,
    )


_DEFAULT_GENERATION = GenerationConfig()
_NO_CONSTRAINTS = RoutingConstraints()
_USUAL_CACHE = CacheControl()


def _message(message: pb.Message) -> Message:
    return Message(_ROLES[message.role], tuple(_part(part) for part in message.parts))


def _part(part: pb.Part) -> Part:
    match part.WhichOneof("content"):
        case "text":
            return TextPart(part.text, part.signature)
        case "image":
            return ImagePart(part.image.data, part.image.media_type)
        case "tool_call":
            call = part.tool_call
            return ToolCallPart(call.id, call.name, call.arguments_json, part.signature)
        case "tool_result":
            result = part.tool_result
            return ToolResultPart(result.tool_call_id, result.text, result.is_error)
        case "reasoning":
            return ReasoningPart(part.reasoning.text, part.signature, part.reasoning.redacted)
        case _:
            return OpaquePart(part.opaque.dialect, part.opaque.kind, part.opaque.json)


def _generation(config: pb.GenerationConfig) -> GenerationConfig:
    return GenerationConfig(
        max_output_tokens=config.max_output_tokens if config.HasField("max_output_tokens") else None,
        temperature=config.temperature if config.HasField("temperature") else None,
        top_p=config.top_p if config.HasField("top_p") else None,
        seed=config.seed if config.HasField("seed") else None,
        stop_sequences=tuple(config.stop_sequences),
        response_schema=struct_to_dict(config.response_schema) if config.HasField("response_schema") else None,
        tools=tuple(Tool(tool.name, tool.description, struct_to_dict(tool.parameters)) for tool in config.tools),
        tool_choice=_tool_choice(config),
        reasoning_effort=_EFFORTS.get(config.reasoning_effort),
    )


def _tool_choice(config: pb.GenerationConfig) -> ToolChoice | None:
    mode = _TOOL_CHOICES.get(config.tool_choice.mode)
    return None if mode is None else ToolChoice(mode, config.tool_choice.name)


def read_constraints(constraints: pb.RoutingConstraints) -> RoutingConstraints:
    """The hard rules of a request, which were checked."""
    latency = constraints.max_first_token_latency
    return RoutingConstraints(
        required_capabilities=frozenset(_CAPABILITIES[value] for value in constraints.required_capabilities),
        min_context_tokens=constraints.min_context_tokens,
        max_cost_micro_usd=constraints.max_cost_micro_usd if constraints.HasField("max_cost_micro_usd") else None,
        max_first_token_seconds=(
            latency.ToNanoseconds() / 1e9 if constraints.HasField("max_first_token_latency") else None
        ),
        allowed_deployments=frozenset(constraints.allowed_deployments),
        denied_deployments=frozenset(constraints.denied_deployments),
        data_class=DataClass(constraints.data_class) if constraints.data_class else DataClass.PUBLIC,
        regions=frozenset(constraints.regions),
    )


def _document(document: pb.Document) -> Document:
    relevance = document.relevance if document.HasField("relevance") else None
    return Document(document.id, document.text, relevance, dict(document.metadata))


def _template(template: pb.TemplateRef) -> TemplateRef:
    return TemplateRef(template.name, template.version, struct_to_dict(template.variables))


def _cache(control: pb.CacheControl) -> CacheControl:
    return CacheControl(
        mode=_CACHE_MODES.get(control.mode),
        ttl_seconds=control.ttl.ToNanoseconds() / 1e9 if control.HasField("ttl") else None,
        min_similarity=control.min_similarity if control.HasField("min_similarity") else None,
    )
