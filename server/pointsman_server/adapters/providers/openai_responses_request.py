"""How a call is said to the Responses API. Nothing is stored there: every call brings the whole conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from pointsman_server.adapters.providers.openai_request import (
    EFFORT_OPTION,
    allows_strict,
    opaque_json,
    shape_effort,
    shape_schema,
    shape_tool,
    shape_tool_choice,
    steering_options,
    tool_result_text,
    with_options,
)
from pointsman_server.adapters.providers.parts import data_url, unsayable
from pointsman_server.domain.catalog import Dialect
from pointsman_server.domain.faults import FaultKind, ProviderFault
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
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import Capability, GenerationConfig, Tool

_OPTIONS = (EFFORT_OPTION,)


def shape_body(call: ProviderCall) -> dict[str, Any]:
    """The JSON body of the call. Raises `ProviderFault` INVALID_REQUEST for what cannot be said."""
    deployment, generation = call.deployment, call.generation
    steering = steering_options(deployment, _OPTIONS)
    instructions = list(takewhile(lambda message: message.role is Role.SYSTEM, call.messages))
    body: dict[str, Any] = {
        "model": deployment.model_name,
        "input": [item for message in call.messages[len(instructions) :] for item in _shape_message(message)],
        "stream": call.stream,
        "store": False,
        "max_output_tokens": call.max_output_tokens,
        **_shape_sampling(generation),
        **_shape_tools(generation),
        **_shape_effort(call, steering),
    }
    if instructions:
        body["instructions"] = "\n\n".join(_system_text(message) for message in instructions)
    if Capability.REASONING in deployment.model.capabilities:
        # Models that do not reason refuse to be asked for it.
        body["include"] = ["reasoning.encrypted_content"]
    if generation.response_schema is not None:
        body["text"] = {"format": {"type": "json_schema", "strict": False, **shape_schema(generation.response_schema)}}
    return with_options(body, deployment)


def _shape_sampling(generation: GenerationConfig) -> dict[str, Any]:
    if generation.seed is not None:
        raise _unknown_field("seed")
    if generation.stop_sequences:
        raise _unknown_field("stop_sequences")
    values = {"temperature": generation.temperature, "top_p": generation.top_p}
    return {name: value for name, value in values.items() if value is not None}


def _unknown_field(name: str) -> ProviderFault:
    return ProviderFault(FaultKind.INVALID_REQUEST, f"generation.{name}: the Responses API has no such field")


def _shape_tools(generation: GenerationConfig) -> dict[str, Any]:
    named = {"type": "function", "name": generation.tool_choice.name} if generation.tool_choice else {}
    choice = shape_tool_choice(generation, named)
    if not generation.tools:
        return choice
    return {"tools": [_shape_tool(tool) for tool in generation.tools], **choice}


def _shape_tool(tool: Tool) -> dict[str, Any]:
    # Left out, `strict` would be true, and a schema beyond it refused.
    return {"type": "function", "parameters": None, **shape_tool(tool), "strict": allows_strict(tool.parameters)}


def _shape_effort(call: ProviderCall, steering: Mapping[str, Any]) -> Mapping[str, Any]:
    effort = call.generation.reasoning_effort
    return shape_effort(call, steering, {"reasoning": {"effort": effort.value}} if effort else {})


def _system_text(message: Message) -> str:
    texts = []
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise unsayable(part, "a system message")
        texts.append(part.text)
    return "\n\n".join(texts)


def _shape_message(message: Message) -> Iterator[dict[str, Any]]:
    match message.role:
        case Role.SYSTEM:
            yield {"role": "system", "content": _system_text(message)}
        case Role.USER:
            yield {"role": "user", "content": [_user_block(part) for part in message.parts]}
        case Role.ASSISTANT:
            yield from _shape_assistant(message.parts)
        case Role.TOOL:
            yield from (_shape_tool_result(part) for part in message.parts)


def _user_block(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
        case _:
            raise unsayable(part, "a user message")


def _shape_assistant(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    for part in parts:
        match part:
            case TextPart():
                if part.text:
                    yield {"role": "assistant", "content": part.text}
            case ReasoningPart():
                yield from _own_reasoning(part)
            case ToolCallPart():
                yield _shape_tool_call(part)
            case OpaquePart():
                if part.dialect == Dialect.OPENAI_RESPONSES.value:
                    yield opaque_json(part)
            case _:
                raise unsayable(part, "an assistant message")


def _own_reasoning(part: ReasoningPart) -> Iterator[dict[str, Any]]:
    # Reasoning that is neither stored there nor encrypted here cannot be said again.
    if part.signature:
        summary = [{"type": "summary_text", "text": part.text}] if part.text else []
        yield {"type": "reasoning", "summary": summary, "encrypted_content": part.signature}


def _shape_tool_call(part: ToolCallPart) -> dict[str, Any]:
    arguments = part.arguments_json or "{}"
    return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": arguments}


def _shape_tool_result(part: Part) -> dict[str, Any]:
    if not isinstance(part, ToolResultPart):
        raise unsayable(part, "a tool message")
    output = tool_result_text(part.text, is_error=part.is_error)
    return {"type": "function_call_output", "call_id": part.tool_call_id, "output": output}
