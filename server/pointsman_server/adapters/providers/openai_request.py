"""What the two OpenAI dialects share in saying a call: options, schemas, images and efforts.

`Deployment.options` speaks last. Its fields are merged into the body: an object is merged into the object that is
already there, null takes a field out, anything else replaces it. Options whose names begin with `x_` are not sent;
they tell the dialect what the provider wants:

- `x_reasoning_effort` (both dialects): object of effort names (none, low, medium, high) to the body fields that ask
  for this effort, for providers with a switch of their own: `{none: {thinking: {type: disabled}}}`. Efforts that
  are not listed are asked for as OpenAI has it.
- `x_max_tokens_field` (chat): the name of the field that limits the output; `max_completion_tokens` on
  api.openai.com, otherwise `max_tokens`.
- `x_seed_field` (chat): the name of the field for the seed; `random_seed` on api.mistral.ai, otherwise `seed`.
- `x_reasoning_field` (chat): where the model wants its own reasoning back: `reasoning_content`, `reasoning`,
  `reasoning_details` (OpenRouter) or `content` (Mistral's thinking parts). Without it, reasoning is not sent back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import Capability, GenerationConfig, ReasoningEffort, Tool, ToolChoiceMode

SCHEMA_NAME = "response"
"""The API wants a name for the schema of an answer; it is of no consequence."""

EFFORT_OPTION = "x_reasoning_effort"

_STRICT_KEYWORDS = frozenset({
    "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "definitions", "description", "enum",
    "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maximum", "minItems", "minimum",
    "multipleOf", "pattern", "properties", "required", "title", "type",
})  # fmt: skip
_STRICT_FORMATS = frozenset({
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid",
})  # fmt: skip
_SAYS_A_TYPE = ("type", "anyOf", "enum", "const", "$ref")


def steering_options(deployment: Deployment, known: Iterable[str]) -> dict[str, Any]:
    """The `x_` options of a deployment. Raises `ProviderFault` UNSUPPORTED for one that is not in `known`."""
    steering = {name: value for name, value in deployment.options.items() if name.startswith("x_")}
    for name in steering:
        if name not in known:
            raise option_fault(name, f"is not known here; known are {', '.join(sorted(known))}")
    return steering


def option_fault(name: str, problem: str) -> ProviderFault:
    """A fault of the policy, which another deployment need not share."""
    return ProviderFault(FaultKind.UNSUPPORTED, f"deployment option {name} {problem}")


def with_options(body: Mapping[str, Any], deployment: Deployment) -> dict[str, Any]:
    """The body with the deployment's fields merged in; see above for the rules."""
    merged = dict(body)
    for name, value in deployment.options.items():
        held = merged.get(name)
        if name.startswith("x_"):
            continue
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(held, Mapping):
            merged[name] = {**held, **value}
        else:
            merged[name] = value
    return merged


def shape_effort(call: ProviderCall, steering: Mapping[str, Any], asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that ask for the call's effort: the policy's own for this effort, otherwise `asked`."""
    effort = call.generation.reasoning_effort
    if effort is None:
        return {}
    by_effort = steering.get(EFFORT_OPTION, {})
    if not isinstance(by_effort, Mapping):
        raise option_fault(EFFORT_OPTION, "must be an object of effort names to body fields")
    fields = by_effort.get(effort.value)
    if isinstance(fields, Mapping):
        return fields
    if fields is not None:
        raise option_fault(f"{EFFORT_OPTION}.{effort.value}", "must be an object of body fields")
    # A model that cannot think refuses the switch that would turn it off.
    can_think = Capability.REASONING in call.deployment.model.capabilities
    return asked if can_think or effort is not ReasoningEffort.NONE else {}


def shape_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Name, schema, and `strict` when the schema is one that the API enforces to the letter."""
    shaped: dict[str, Any] = {"name": SCHEMA_NAME, "schema": schema}
    return {**shaped, "strict": True} if allows_strict(schema) else shaped


def shape_tool(tool: Tool) -> dict[str, Any]:
    """Name, and description and parameters where there are any."""
    shaped: dict[str, Any] = {"name": tool.name}
    if tool.description:
        shaped["description"] = tool.description
    if tool.parameters:
        shaped["parameters"] = tool.parameters
    return shaped


def shape_tool_choice(generation: GenerationConfig, named: Mapping[str, Any]) -> dict[str, Any]:
    """The `tool_choice` field, or nothing where there is nothing to choose. `named` is how a tool is named."""
    choice = generation.tool_choice
    if choice is None:
        return {}
    if not generation.tools:
        if choice.mode in (ToolChoiceMode.AUTO, ToolChoiceMode.NONE):
            return {}
        raise ProviderFault(FaultKind.INVALID_REQUEST, "generation.tool_choice: it asks for a tool, but tools is empty")
    return {"tool_choice": named if choice.mode is ToolChoiceMode.NAMED else choice.mode.value}


def tool_result_text(text: str, *, is_error: bool) -> str:
    """The result as the model sees it; these dialects have no flag for an error, so it is said in words."""
    return orjson.dumps({"error": text}).decode() if is_error else text


def opaque_json(part: OpaquePart) -> Any:
    """What the opaque part holds. Raises `ProviderFault` INVALID_REQUEST when a caller broke it."""
    try:
        return orjson.loads(part.json)
    except orjson.JSONDecodeError as error:
        raise ProviderFault(FaultKind.INVALID_REQUEST, "messages: an opaque part is not valid JSON") from error


def allows_strict(schema: Mapping[str, Any]) -> bool:
    """Whether OpenAI's strict mode takes the schema.

    It wants an object at the root, every object closed and all its properties required, and knows a part of
    JSON Schema only. A schema beyond that is sent without `strict` instead of being refused.
    """
    if schema.get("type") != "object" or "anyOf" in schema:
        return False
    pending: list[object] = [schema]
    while pending:
        node = pending.pop()
        if not isinstance(node, Mapping) or not _is_strict_node(node):
            return False
        for name in ("properties", "$defs", "definitions"):
            held = node.get(name, {})
            pending += held.values() if isinstance(held, Mapping) else [held]
        options = node.get("anyOf", [])
        pending += options if isinstance(options, (list, tuple)) else [options]
        if "items" in node:
            pending.append(node["items"])
    return True


def _is_strict_node(node: Mapping[str, Any]) -> bool:
    if not (node.keys() <= _STRICT_KEYWORDS and any(name in node for name in _SAYS_A_TYPE)):
        return False
    if "$ref" in node and len(node) > 1:
        return False
    if node.get("format", "date") not in _STRICT_FORMATS:
        return False
    return not _is_object(node) or _is_closed_object(node)


def _is_object(node: Mapping[str, Any]) -> bool:
    kind = node.get("type")
    return kind == "object" or "properties" in node or (isinstance(kind, (list, tuple)) and "object" in kind)


def _is_closed_object(node: Mapping[str, Any]) -> bool:
    properties, required = node.get("properties", {}), node.get("required", ())
    if not isinstance(properties, Mapping) or not isinstance(required, (list, tuple)):
        return False
    return node.get("additionalProperties") is False and sorted(map(str, required)) == sorted(properties)
