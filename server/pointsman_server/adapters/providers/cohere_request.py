"""How a call is said to Cohere's chat API, version 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pointsman_server.adapters.providers.json_reading import read_object
from pointsman_server.adapters.providers.parts import content_of, text_block, unsayable, user_block
from pointsman_server.domain.catalog import Dialect
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import (
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import Capability, GenerationConfig, ReasoningEffort, Tool, ToolChoiceMode

_LOWEST_P, _HIGHEST_P = 0.01, 0.99
"""The bounds the API documents for `p`."""

_THINKING_BUDGETS_TOKENS: Mapping[ReasoningEffort, int] = {
    ReasoningEffort.LOW: 1_024,
    ReasoningEffort.MEDIUM: 4_096,
    ReasoningEffort.HIGH: 16_384,
}


def shape_body(call: ProviderCall) -> dict[str, Any]:
    """The JSON body of the call. `top_p` is moved into the bounds the API accepts (0.01 to 0.99).

    Raises `ProviderFault` INVALID_REQUEST for what cannot be said.
    """
    generation = call.generation
    body: dict[str, Any] = {
        "model": call.deployment.model_name,
        "messages": list(_shape_messages(call.messages)),
        "stream": call.stream,
        "max_tokens": call.max_output_tokens,
        **_shape_sampling(generation),
        **_shape_tools(generation),
        **_shape_thinking(call),
    }
    if generation.response_schema is not None:
        body["response_format"] = {"type": "json_object", "json_schema": generation.response_schema}
    return {**body, **call.deployment.options}


def _shape_messages(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    # A system turn that is not the first one is refused, so all of them go into one.
    system = [part for message in messages if message.role is Role.SYSTEM for part in message.parts]
    if system:
        yield {"role": "system", "content": content_of([text_block(part, "a system message") for part in system])}
    for message in messages:
        match message.role:
            case Role.SYSTEM:
                continue
            case Role.USER:
                yield {"role": "user", "content": content_of([user_block(part) for part in message.parts])}
            case Role.ASSISTANT:
                yield from _shape_assistant(message)
            case Role.TOOL:
                yield from (_shape_tool_result(part) for part in message.parts)


def _shape_assistant(message: Message) -> Iterator[dict[str, Any]]:
    shaped: dict[str, Any] = {"role": "assistant"}
    content = [block for part in message.parts if (block := _assistant_block(part)) is not None]
    if content:
        shaped["content"] = content_of(content)
    calls = [_shape_tool_call(part) for part in message.parts if isinstance(part, ToolCallPart)]
    if calls:
        shaped["tool_calls"] = calls
        plan = [part.text for part in message.parts if isinstance(part, ReasoningPart) and _is_own_reasoning(part)]
        if plan:
            shaped["tool_plan"] = "\n\n".join(plan)
    if len(shaped) > 1:
        yield shaped


def _assistant_block(part: Part) -> dict[str, Any] | None:
    match part:
        case ReasoningPart() | ToolCallPart() | TextPart(text=""):
            return None
        case OpaquePart():
            return _own_block(part)
        case _:
            return text_block(part, "an assistant message")


def _own_block(part: OpaquePart) -> dict[str, Any] | None:
    if part.dialect != Dialect.COHERE_CHAT.value:
        return None
    try:
        return read_object(part.json.encode(), "an opaque part")
    except ProviderFault as error:
        raise ProviderFault(FaultKind.INVALID_REQUEST, f"messages: {error.detail}") from error


def _is_own_reasoning(part: ReasoningPart) -> bool:
    # Cohere signs nothing, so a signature or a redaction tells another vendor's reasoning.
    return bool(part.text) and not part.signature and not part.redacted


def _shape_tool_call(part: ToolCallPart) -> dict[str, Any]:
    function = {"name": part.name, "arguments": part.arguments_json or "{}"}
    return {"id": part.id, "type": "function", "function": function}


def _shape_tool_result(part: Part) -> dict[str, Any]:
    if not isinstance(part, ToolResultPart):
        raise unsayable(part, "a tool message")
    content: str | list[dict[str, Any]] = part.text
    if part.is_error:
        content = [{"type": "document", "document": {"data": {"error": part.text}}}]
    return {"role": "tool", "tool_call_id": part.tool_call_id, "content": content}


def _shape_sampling(generation: GenerationConfig) -> dict[str, Any]:
    p = generation.top_p
    values: dict[str, Any] = {
        "temperature": generation.temperature,
        "p": None if p is None else min(max(p, _LOWEST_P), _HIGHEST_P),
        "seed": generation.seed,
        "stop_sequences": list(generation.stop_sequences) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _shape_tools(generation: GenerationConfig) -> dict[str, Any]:
    tools, choice = generation.tools, generation.tool_choice
    mode = ToolChoiceMode.AUTO if choice is None else choice.mode
    if choice is not None and mode is ToolChoiceMode.NAMED:
        # There is no choice by name; requiring a call while offering nothing else comes to the same.
        tools = tuple(tool for tool in tools if tool.name == choice.name)
    forced = mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED)
    if not tools:
        if forced:
            raise ProviderFault(FaultKind.INVALID_REQUEST, "tool_choice: the tool it asks for is not in tools")
        return {}
    shaped: dict[str, Any] = {"tools": [_shape_tool(tool) for tool in tools]}
    if mode is not ToolChoiceMode.AUTO:
        shaped["tool_choice"] = "REQUIRED" if forced else "NONE"
    return shaped


def _shape_tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.parameters}}


def _shape_thinking(call: ProviderCall) -> dict[str, Any]:
    effort, deployment = call.generation.reasoning_effort, call.deployment
    if effort is None:
        return {}
    if effort is ReasoningEffort.NONE:
        # A model that cannot think refuses the switch that would turn it off.
        can_think = Capability.REASONING in deployment.model.capabilities
        return {"thinking": {"type": "disabled"}} if can_think else {}
    budget = deployment.reasoning_token_budgets.get(effort.value, _THINKING_BUDGETS_TOKENS[effort])
    # Thinking is part of the output limit, and the answer needs its share of that.
    return {"thinking": {"type": "enabled", "token_budget": max(1, min(budget, call.max_output_tokens // 2))}}
