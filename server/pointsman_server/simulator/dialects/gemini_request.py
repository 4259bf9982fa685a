"""Reading a Gemini generateContent request. Field names come in camelCase or snake_case, as protobuf JSON allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman_server.simulator.ask import Ask, OfferedTool, RejectedError, Tally, ToolDemand
from pointsman_server.simulator.behaviour import Dialect
from pointsman_server.simulator.dialects.reading import (
    check_demand,
    check_range,
    need_list,
    need_object,
    need_one_of,
    need_text,
    offer_tool,
    read_limit,
    read_stops,
    take_list,
    tally_text,
)

_DEMANDS = {
    "AUTO": ToolDemand.AUTO,
    "VALIDATED": ToolDemand.AUTO,
    "MODE_UNSPECIFIED": ToolDemand.AUTO,
    "NONE": ToolDemand.NONE,
    "ANY": ToolDemand.REQUIRED,
}
_MAX_STOPS = 5


def read_generate_request(body: Mapping[str, Any], model: str, stream: bool) -> Ask:
    """The request. Raises `RejectedError` where the provider would refuse it."""
    body = camel(body)
    config = camel(need_object(body.get("generationConfig") or {}, "generation_config"))
    check_range(config, "temperature", 2)
    check_range(config, "topP", 1)
    tally = Tally()
    if body.get("systemInstruction") is not None:
        instruction = need_object(body["systemInstruction"], "system_instruction")
        _read_parts(instruction, "system_instruction", tally)
    _read_turns(body, tally)
    tools = _read_tools(body)
    demand, tool_name = _read_demand(body, tools)
    thinking = camel(need_object(config.get("thinkingConfig") or {}, "generation_config.thinking_config"))
    wants_json = config.get("responseMimeType") == "application/json"
    return Ask(
        dialect=Dialect.GEMINI,
        model=need_text(model, "model").removeprefix("models/"),
        stream=stream,
        turns=(body.get("systemInstruction"), body["contents"]),
        tally=tally,
        tools=tools,
        tool_demand=demand,
        tool_name=tool_name,
        max_tokens=read_limit(config, "maxOutputTokens"),
        stop_sequences=read_stops(config.get("stopSequences"), "generation_config.stop_sequences", _MAX_STOPS),
        response_schema=_read_schema(config, wants_json),
        wants_json=wants_json,
        thinks=bool(thinking) and thinking.get("thinkingBudget") != 0,
        shows_thinking=bool(thinking.get("includeThoughts")),
    )


def camel(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields under their camelCase names."""
    if not any("_" in name for name in fields):
        return fields
    return {_camel_name(name): value for name, value in fields.items()}


def _camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _read_turns(body: Mapping[str, Any], tally: Tally) -> None:
    waiting, before = 0, ""
    mismatch = RejectedError(
        "Please ensure that the number of function response parts is equal to the number of function call parts of "
        "the function call turn."
    )
    for index, turn in enumerate(need_list(body.get("contents"), "contents")):
        where = f"contents[{index}]"
        role = need_one_of(need_object(turn, where).get("role", "user"), ("user", "model", "function"), f"{where}.role")
        tally.messages += 1
        calls, results = _read_parts(turn, where, tally)
        if results > waiting or (role == "model" and before != "model" and waiting):
            raise mismatch
        before = role
        if calls and role != "model":
            raise RejectedError(f"{where}: function calls belong to the model")
        # Neighbours of the same role count as one turn.
        waiting += calls - results
    if waiting:
        raise mismatch


def _read_parts(turn: Mapping[str, Any], where: str, tally: Tally) -> tuple[int, int]:
    calls = results = 0
    parts = turn.get("parts")
    for index, given in enumerate([parts] if isinstance(parts, dict) else need_list(parts, f"{where}.parts")):
        inner = f"{where}.parts[{index}]"
        part = camel(need_object(given, inner))
        if "text" in part:
            tally_text(tally, part["text"], f"{inner}.text")
        elif "functionCall" in part:
            need_text(need_object(part["functionCall"], inner).get("name"), f"{inner}.function_call.name")
            calls += 1
        elif "functionResponse" in part:
            _tally_response(need_object(part["functionResponse"], inner), f"{inner}.function_response", tally)
            results += 1
        elif "inlineData" in part or "fileData" in part:
            tally.images += 1
        elif not part:
            raise RejectedError(f"{inner}.data: required oneof field 'data' must have one initialized field")
    return calls, results


def _tally_response(response: Mapping[str, Any], where: str, tally: Tally) -> None:
    need_text(response.get("name"), f"{where}.name")
    need_object(response.get("response"), f"{where}.response")
    tally.tool_results += 1
    tally.characters += sum(len(value) for value in response["response"].values() if isinstance(value, str))


def _read_tools(body: Mapping[str, Any]) -> tuple[OfferedTool, ...]:
    tools = []
    for index, given in enumerate(take_list(body.get("tools"), "tools")):
        where = f"tools[{index}]"
        declarations = camel(need_object(given, where)).get("functionDeclarations")
        for number, declaration in enumerate(take_list(declarations, f"{where}.function_declarations")):
            inner = f"{where}.function_declarations[{number}]"
            definition = camel(need_object(declaration, inner))
            key = "parametersJsonSchema" if "parametersJsonSchema" in definition else "parameters"
            tools.append(offer_tool(definition, key, inner))
    return tuple(tools)


def _read_demand(body: Mapping[str, Any], tools: tuple[OfferedTool, ...]) -> tuple[ToolDemand, str]:
    config = camel(need_object(body.get("toolConfig") or {}, "tool_config"))
    calling = camel(need_object(config.get("functionCallingConfig") or {}, "tool_config.function_calling_config"))
    mode = str(calling.get("mode") or "AUTO").upper()
    demand = _DEMANDS[need_one_of(mode, tuple(_DEMANDS), "tool_config.function_calling_config.mode")]
    allowed = take_list(calling.get("allowedFunctionNames"), "allowed_function_names")
    if allowed and demand is not ToolDemand.REQUIRED and mode != "VALIDATED":
        raise RejectedError("Allowed function names should be set only when function calling mode is ANY.")
    if demand is ToolDemand.REQUIRED and allowed:
        check_demand(ToolDemand.NAMED, str(allowed[0]), tools, "tool_config.function_calling_config")
        return ToolDemand.NAMED, str(allowed[0])
    check_demand(demand, "", tools, "tool_config.function_calling_config")
    return demand, ""


def _read_schema(config: Mapping[str, Any], wants_json: bool) -> Mapping[str, Any] | None:
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    if schema is None:
        return None
    if not wants_json:
        raise RejectedError("Response schema can only be set when response mime type is application/json.")
    return need_object(schema, "generation_config.response_schema")
