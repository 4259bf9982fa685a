"""Shapes a call into the body of Gemini's generateContent and streamGenerateContent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.adapters.providers.gemini_turns import refused, shape_contents, shape_system
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import (
    Capability,
    GenerationConfig,
    ReasoningEffort,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

_LEVELS: Mapping[ReasoningEffort, str] = {
    ReasoningEffort.NONE: "MINIMAL",
    ReasoningEffort.LOW: "LOW",
    ReasoningEffort.MEDIUM: "MEDIUM",
    ReasoningEffort.HIGH: "HIGH",
}

DEFAULT_BUDGETS_TOKENS: Mapping[ReasoningEffort, int] = {
    ReasoningEffort.NONE: 0,
    ReasoningEffort.LOW: 1_024,
    ReasoningEffort.MEDIUM: 8_192,
    ReasoningEffort.HIGH: 24_576,
}
"""Thinking budgets of models that know no levels, unless the policy names others: the vendor's own equivalents."""

_MODELS_WITHOUT_LEVELS = "gemini-2"

_MODES: Mapping[ToolChoiceMode, str] = {
    ToolChoiceMode.AUTO: "AUTO",
    ToolChoiceMode.NONE: "NONE",
    ToolChoiceMode.REQUIRED: "ANY",
    ToolChoiceMode.NAMED: "ANY",
}


def shape_call(call: ProviderCall) -> Outgoing:
    """The call in this dialect; INVALID_REQUEST, naming the field, for what it cannot say."""
    body: dict[str, Any] = {
        "contents": shape_contents(call.messages),
        "generationConfig": _shape_generation(call),
        **_shape_tools(call.generation),
    }
    system = shape_system(call.messages)
    if system is not None:
        body["systemInstruction"] = system
    return Outgoing(_path(call), _merge(body, call.deployment.options), {})


def _path(call: ProviderCall) -> str:
    name = call.deployment.model_name
    resource = name if "/" in name else f"models/{name}"
    method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
    return f"/{resource}:{method}"


def _shape_generation(call: ProviderCall) -> dict[str, Any]:
    asked = call.generation
    values: dict[str, Any] = {
        "maxOutputTokens": call.max_output_tokens,
        "temperature": asked.temperature,
        "topP": asked.top_p,
        "seed": asked.seed,
        "stopSequences": list(asked.stop_sequences) or None,
        "thinkingConfig": _shape_thinking(call),
    }
    if asked.response_schema is not None:
        values["responseMimeType"] = "application/json"
        values["responseJsonSchema"] = asked.response_schema
    return {name: value for name, value in values.items() if value is not None}


def _shape_thinking(call: ProviderCall) -> dict[str, Any] | None:
    effort, deployment = call.generation.reasoning_effort, call.deployment
    if effort is None:
        return None
    thinks = effort is not ReasoningEffort.NONE
    if not thinks and Capability.REASONING not in deployment.model.capabilities:
        # A model that cannot think refuses to be told not to.
        return None
    budget = deployment.reasoning_token_budgets.get(effort.value)
    if budget is None and _MODELS_WITHOUT_LEVELS in deployment.model_name:
        budget = DEFAULT_BUDGETS_TOKENS[effort]
    if budget is None:
        return {"includeThoughts": thinks, "thinkingLevel": _LEVELS[effort]}
    # Thinking is part of the output limit, and the answer needs its share of that.
    return {"includeThoughts": thinks, "thinkingBudget": min(budget, call.max_output_tokens // 2)}


def _shape_tools(generation: GenerationConfig) -> dict[str, Any]:
    choice = generation.tool_choice
    if not generation.tools:
        if choice is not None and _MODES[choice.mode] == "ANY":
            raise refused("generation.tool_choice: there are no tools to choose from; add generation.tools")
        return {}
    shaped: dict[str, Any] = {"tools": [{"functionDeclarations": [_shape_tool(tool) for tool in generation.tools]}]}
    if choice is not None:
        shaped["toolConfig"] = {"functionCallingConfig": _shape_choice(choice)}
    return shaped


def _shape_tool(tool: Tool) -> dict[str, Any]:
    shaped: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters:
        shaped["parametersJsonSchema"] = tool.parameters
    return shaped


def _shape_choice(choice: ToolChoice) -> dict[str, Any]:
    shaped: dict[str, Any] = {"mode": _MODES[choice.mode]}
    if choice.mode is ToolChoiceMode.NAMED:
        shaped["allowedFunctionNames"] = [choice.name]
    return shaped


def _merge(body: dict[str, Any], options: Mapping[str, object]) -> dict[str, Any]:
    """The policy's word is the last, field by field: objects are merged, lists (tools) joined, the rest replaced."""
    merged = dict(body)
    for name, value in options.items():
        ours = merged.get(name)
        if isinstance(value, Mapping):
            merged[name] = _merge(ours if isinstance(ours, dict) else {}, value)
        elif isinstance(ours, list) and isinstance(value, (list, tuple)):
            merged[name] = [*ours, *value]
        else:
            merged[name] = value
    return merged
