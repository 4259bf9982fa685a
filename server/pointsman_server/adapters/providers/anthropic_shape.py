"""Shapes a call into the body of Anthropic's Messages API; the SDK's types prove what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pointsman_server.adapters.providers.anthropic_models import ClaudeTraits, ThinkingOff, traits_of
from pointsman_server.adapters.providers.anthropic_turns import refused, shape_system, shape_turns
from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import GenerationConfig, ReasoningEffort, Tool, ToolChoice, ToolChoiceMode

if TYPE_CHECKING:
    from anthropic.types import ThinkingConfigParam, ToolChoiceParam, ToolParam
    from anthropic.types.message_create_params import MessageCreateParamsBase

PATH = "/v1/messages"

SAMPLING_API_VERSION = "2023-06-01"
"""The last API version that knows temperature, top_p and top_k; later ones refuse them on every model."""

MIN_BUDGET_TOKENS = 1024
"""The vendor's lower limit of a thinking budget."""

DEFAULT_BUDGETS_TOKENS: Mapping[ReasoningEffort, int] = {
    ReasoningEffort.LOW: 1024,
    ReasoningEffort.MEDIUM: 4096,
    ReasoningEffort.HIGH: 16384,
}
"""Thinking budgets of models that take one, unless the policy names others."""

_EFFORTS: Mapping[ReasoningEffort, Literal["low", "medium", "high"]] = {
    ReasoningEffort.LOW: "low",
    ReasoningEffort.MEDIUM: "medium",
    ReasoningEffort.HIGH: "high",
}
_SAMPLING_FIELDS = frozenset({"temperature", "top_p", "top_k"})
_FORCING = frozenset({ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED})
_LEAST_THINKING_TOP_P = 0.95


def shape_call(call: ProviderCall) -> Outgoing:
    """The call in this dialect; INVALID_REQUEST, naming the field, for what it cannot say."""
    traits = traits_of(call.deployment.model_name)
    generation = call.generation
    if generation.seed is not None:
        raise refused("generation.seed: Anthropic has no seed; leave it unset")
    params: MessageCreateParamsBase = {
        "model": call.deployment.model_name,
        "max_tokens": call.max_output_tokens,
        "messages": shape_turns(call.messages),
    }
    system = shape_system(call.messages)
    if system:
        params["system"] = system
    if generation.stop_sequences:
        params["stop_sequences"] = list(generation.stop_sequences)
    if generation.response_schema is not None:
        schema = close_objects(generation.response_schema)
        params["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    _add_tools(params, generation, traits)
    _add_thinking(params, call, traits)
    body: dict[str, Any] = {**params, **_sampling(generation, traits)}
    if call.stream:
        body["stream"] = True
    _merge_options(body, call.deployment.options)
    return Outgoing(PATH, body, _version_header(body))


def close_objects(schema: Mapping[str, Any]) -> dict[str, object]:
    """The schema with `additionalProperties: false` wherever an object does not say: the vendor demands it said."""
    closed: dict[str, object] = {name: _close_within(name, value) for name, value in schema.items()}
    if schema.get("type") == "object" or "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def _close_within(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        if name in ("properties", "$defs", "definitions"):
            return {key: close_objects(inner) if isinstance(inner, Mapping) else inner for key, inner in value.items()}
        return close_objects(value) if name in ("items", "additionalProperties") else value
    if name in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
        return [close_objects(inner) if isinstance(inner, Mapping) else inner for inner in value]
    return value


def _add_tools(params: MessageCreateParamsBase, generation: GenerationConfig, traits: ClaudeTraits) -> None:
    choice = generation.tool_choice
    if choice is not None and choice.mode in _FORCING:
        _check_forcing(generation, traits)
    if not generation.tools:
        return
    params["tools"] = [_tool(tool) for tool in generation.tools]
    if choice is not None:
        params["tool_choice"] = _tool_choice(choice)


def _check_forcing(generation: GenerationConfig, traits: ClaudeTraits) -> None:
    if not generation.tools:
        raise refused("generation.tool_choice: there are no tools to choose from; add generation.tools")
    if not traits.forced_tools:
        raise refused("generation.tool_choice: this model cannot be made to call a tool; choose AUTO or NONE")
    if traits.thinking_budget and generation.reasoning_effort not in (None, ReasoningEffort.NONE):
        raise refused(
            "generation.tool_choice: this model cannot be made to call a tool while it reasons; "
            "choose AUTO or NONE, or leave generation.reasoning_effort unset"
        )


def _tool(tool: Tool) -> ToolParam:
    shaped: ToolParam = {"name": tool.name, "input_schema": {"type": "object", **tool.parameters}}
    if tool.description:
        shaped["description"] = tool.description
    return shaped


def _tool_choice(choice: ToolChoice) -> ToolChoiceParam:
    match choice.mode:
        case ToolChoiceMode.AUTO:
            return {"type": "auto"}
        case ToolChoiceMode.NONE:
            return {"type": "none"}
        case ToolChoiceMode.REQUIRED:
            return {"type": "any"}
        case ToolChoiceMode.NAMED:
            # Naming a tool means one call of it everywhere else; this vendor would allow several.
            return {"type": "tool", "name": choice.name, "disable_parallel_tool_use": True}


def _add_thinking(params: MessageCreateParamsBase, call: ProviderCall, traits: ClaudeTraits) -> None:
    effort = call.generation.reasoning_effort
    if effort is None:
        return
    if effort is ReasoningEffort.NONE:
        off = _thinking_off(traits)
        if off is not None:
            params["thinking"] = off
        return
    budget_tokens = _budget_tokens(call, traits, effort)
    if budget_tokens is not None:
        params["thinking"] = {"type": "enabled", "budget_tokens": budget_tokens}
        return
    # Newer models keep their thinking to themselves unless asked for it.
    params["thinking"] = {"type": "adaptive", "display": "summarized"}
    params["output_config"] = {**params.get("output_config", {}), "effort": _EFFORTS[effort]}


def _thinking_off(traits: ClaudeTraits) -> ThinkingConfigParam | None:
    match traits.thinking_off:
        case ThinkingOff.UNSAID:
            return None
        case ThinkingOff.DISABLED:
            return {"type": "disabled"}
        case ThinkingOff.BETWEEN_TOOLS:
            return {"type": "between_tools"}
        case ThinkingOff.IMPOSSIBLE:
            raise refused("generation.reasoning_effort: this model always reasons; ask for LOW or leave it unset")


def _budget_tokens(call: ProviderCall, traits: ClaudeTraits, effort: ReasoningEffort) -> int | None:
    """The thinking budget, None for a model that chooses its own depth. It leaves half of the output to the answer."""
    wanted = call.deployment.reasoning_token_budgets.get(effort.value)
    if not traits.thinking_budget or (wanted is None and traits.adaptive_thinking):
        return None
    if wanted is None:
        wanted = DEFAULT_BUDGETS_TOKENS[effort]
    if call.max_output_tokens <= MIN_BUDGET_TOKENS:
        raise refused(
            f"generation.max_output_tokens: reasoning needs more than {MIN_BUDGET_TOKENS} output tokens on this model; "
            "allow more or leave generation.reasoning_effort unset"
        )
    return max(MIN_BUDGET_TOKENS, min(wanted, call.max_output_tokens // 2))


def _sampling(generation: GenerationConfig, traits: ClaudeTraits) -> dict[str, float]:
    asked = {"temperature": generation.temperature, "top_p": generation.top_p}
    sampling = {name: value for name, value in asked.items() if value is not None}
    if not sampling:
        return sampling
    if not traits.sampling:
        raise refused(f"generation.{next(iter(sampling))}: this model takes no sampling parameters; leave it unset")
    if len(sampling) > 1 and not traits.both_samplings:
        raise refused("generation.top_p: this model takes temperature or top_p, not both; leave one unset")
    if sampling.get("temperature", 0) > 1:
        raise refused("generation.temperature: Anthropic takes 0 to 1")
    if generation.reasoning_effort not in (None, ReasoningEffort.NONE):
        _check_thinking_sampling(sampling)
    return sampling


def _check_thinking_sampling(sampling: Mapping[str, float]) -> None:
    if sampling.get("temperature", 1) != 1:
        raise refused("generation.temperature: this model takes none but 1 while it reasons; leave it unset")
    if sampling.get("top_p", 1) < _LEAST_THINKING_TOP_P:
        raise refused(f"generation.top_p: this model takes {_LEAST_THINKING_TOP_P} to 1 while it reasons")


def _merge_options(body: dict[str, Any], options: Mapping[str, object]) -> None:
    """The policy's word is the last, but it must not undo what the caller asked for in the same field.

    Tools are added to the caller's (server tools such as web search), settings of `output_config` join his; any other
    field replaces ours.
    """
    for name, value in options.items():
        ours = body.get(name)
        if name == "tools" and isinstance(ours, list) and isinstance(value, (list, tuple)):
            body[name] = [*ours, *value]
        elif name == "output_config" and isinstance(ours, dict) and isinstance(value, Mapping):
            body[name] = {**ours, **value}
        else:
            body[name] = value


def _version_header(body: Mapping[str, Any]) -> dict[str, str]:
    return {} if _SAMPLING_FIELDS.isdisjoint(body) else {"anthropic-version": SAMPLING_API_VERSION}
