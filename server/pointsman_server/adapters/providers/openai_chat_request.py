"""How a call is said to the chat completions API and to the many servers that imitate it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from pointsman_server.adapters.providers.openai_request import (
    EFFORT_OPTION,
    opaque_json,
    option_fault,
    shape_effort,
    shape_schema,
    shape_tool,
    shape_tool_choice,
    steering_options,
    tool_result_text,
    with_options,
)
from pointsman_server.adapters.providers.parts import content_of, text_block, unsayable, user_block
from pointsman_server.domain.catalog import Dialect
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
from pointsman_server.domain.request import GenerationConfig

REASONING_DETAILS = "reasoning_details"
"""OpenRouter's name for the model's reasoning with its signatures, as a field and as the kind of an opaque part."""

_MAX_TOKENS_OPTION = "x_max_tokens_field"
_SEED_OPTION = "x_seed_field"
_REASONING_OPTION = "x_reasoning_field"
_OPTIONS = (EFFORT_OPTION, _MAX_TOKENS_OPTION, _SEED_OPTION, _REASONING_OPTION)

_MAX_TOKENS_BY_HOST: Mapping[str, str] = {"api.openai.com": "max_completion_tokens"}
_SEED_BY_HOST: Mapping[str, str] = {"api.mistral.ai": "random_seed"}
_HOSTS_WITHOUT_STREAM_OPTIONS = frozenset({"api.mistral.ai"})
"""They always send usage and refuse fields that they do not know."""


class _ReasoningField(Enum):
    NOWHERE = ""
    REASONING_CONTENT = "reasoning_content"
    REASONING = "reasoning"
    DETAILS = REASONING_DETAILS
    CONTENT = "content"


def shape_body(call: ProviderCall) -> dict[str, Any]:
    """The JSON body of the call. Raises `ProviderFault` INVALID_REQUEST for what cannot be said."""
    deployment, generation = call.deployment, call.generation
    steering = steering_options(deployment, _OPTIONS)
    host = urlsplit(deployment.provider.base_url).hostname or ""
    reasoning_field = _reasoning_field(steering)
    body: dict[str, Any] = {
        "model": deployment.model_name,
        "messages": [said for message in call.messages for said in _shape_message(message, reasoning_field)],
        "stream": call.stream,
        _field_name(steering, _MAX_TOKENS_OPTION, _MAX_TOKENS_BY_HOST.get(host, "max_tokens")): call.max_output_tokens,
        **_shape_sampling(generation, _field_name(steering, _SEED_OPTION, _SEED_BY_HOST.get(host, "seed"))),
        **_shape_tools(generation),
        **_shape_effort(call, steering),
    }
    if call.stream and host not in _HOSTS_WITHOUT_STREAM_OPTIONS:
        body["stream_options"] = {"include_usage": True}
    if generation.response_schema is not None:
        schema = shape_schema(generation.response_schema)
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return with_options(body, deployment)


def _field_name(steering: Mapping[str, Any], option: str, usual: str) -> str:
    name = steering.get(option, usual)
    if not isinstance(name, str) or not name:
        raise option_fault(option, "must be the name of a body field")
    return name


def _reasoning_field(steering: Mapping[str, Any]) -> _ReasoningField:
    value = steering.get(_REASONING_OPTION, "")
    try:
        return _ReasoningField(value)
    except ValueError:
        known = ", ".join(field.value for field in _ReasoningField if field.value)
        raise option_fault(_REASONING_OPTION, f"must be one of {known}") from None


def _shape_sampling(generation: GenerationConfig, seed_field: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        seed_field: generation.seed,
        "stop": list(generation.stop_sequences) or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _shape_tools(generation: GenerationConfig) -> dict[str, Any]:
    named = {"type": "function", "function": {"name": generation.tool_choice.name}} if generation.tool_choice else {}
    choice = shape_tool_choice(generation, named)
    if not generation.tools:
        return choice
    return {"tools": [{"type": "function", "function": shape_tool(tool)} for tool in generation.tools], **choice}


def _shape_effort(call: ProviderCall, steering: Mapping[str, Any]) -> Mapping[str, Any]:
    effort = call.generation.reasoning_effort
    return shape_effort(call, steering, {"reasoning_effort": effort.value} if effort else {})


def _shape_message(message: Message, reasoning_field: _ReasoningField) -> Iterator[dict[str, Any]]:
    match message.role:
        case Role.SYSTEM:
            texts = [text_block(part, "a system message")["text"] for part in message.parts]
            yield {"role": "system", "content": "\n\n".join(texts)}
        case Role.USER:
            yield {"role": "user", "content": content_of([user_block(part) for part in message.parts])}
        case Role.ASSISTANT:
            yield from _shape_assistant(message.parts, reasoning_field)
        case Role.TOOL:
            yield from (_shape_tool_result(part) for part in message.parts)


def _shape_assistant(parts: Sequence[Part], reasoning_field: _ReasoningField) -> Iterator[dict[str, Any]]:
    texts: list[str] = []
    blocks: list[Any] = []
    calls: list[dict[str, Any]] = []
    details: list[Any] = []
    for part in parts:
        match part:
            case TextPart():
                texts.append(part.text)
            case ToolCallPart():
                calls.append(_shape_tool_call(part))
            case OpaquePart():
                (details if part.kind == REASONING_DETAILS else blocks).extend(_own_json(part))
            case ReasoningPart():
                continue
            case _:
                raise unsayable(part, "an assistant message")
    text = "".join(texts)
    if not (text or blocks or calls):
        return  # a turn of foreign reasoning alone; an empty one would be refused
    # Empty text beside tool calls is understood everywhere, null and a missing field are not.
    shaped: dict[str, Any] = {"role": "assistant", "content": text}
    if blocks:
        shaped["content"] = [*_text_blocks(text), *blocks]
    if calls:
        shaped["tool_calls"] = calls
    _add_reasoning(shaped, reasoning_field, _own_reasoning(parts), details)
    yield shaped


def _text_blocks(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _own_json(part: OpaquePart) -> list[Any]:
    if part.dialect != Dialect.OPENAI_CHAT.value:
        return []
    held = opaque_json(part)
    return held if isinstance(held, list) else [held]


def _own_reasoning(parts: Sequence[Part]) -> str:
    # Nothing is signed here, so a signature or a redaction tells another dialect's reasoning.
    own = (part for part in parts if isinstance(part, ReasoningPart) and not part.signature and not part.redacted)
    return "\n\n".join(part.text for part in own if part.text)


def _add_reasoning(shaped: dict[str, Any], field: _ReasoningField, text: str, details: list[Any]) -> None:
    if field is _ReasoningField.DETAILS and details:
        shaped[REASONING_DETAILS] = details
    elif field is _ReasoningField.CONTENT and text:
        content = shaped["content"]
        said = _text_blocks(content) if isinstance(content, str) else content
        shaped["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}, *said]
    elif field in (_ReasoningField.REASONING, _ReasoningField.REASONING_CONTENT) and text:
        shaped[field.value] = text


def _shape_tool_call(part: ToolCallPart) -> dict[str, Any]:
    function = {"name": part.name, "arguments": part.arguments_json or "{}"}
    return {"id": part.id, "type": "function", "function": function}


def _shape_tool_result(part: Part) -> dict[str, Any]:
    if not isinstance(part, ToolResultPart):
        raise unsayable(part, "a tool message")
    content = tool_result_text(part.text, is_error=part.is_error)
    return {"role": "tool", "tool_call_id": part.tool_call_id, "content": content}
