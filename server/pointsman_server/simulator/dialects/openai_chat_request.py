"""Reading an OpenAI chat completions request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman_server.simulator.ask import Ask, OfferedTool, RejectedError, Tally, ToolDemand
from pointsman_server.simulator.behaviour import Dialect
from pointsman_server.simulator.dialects.reading import (
    OpenCalls,
    check_demand,
    check_range,
    need_list,
    need_object,
    need_one_of,
    need_text,
    offer_tool,
    read_limit,
    read_stops,
    read_stream,
    take_list,
    tally_text,
)

_ROLES = ("system", "developer", "user", "assistant", "tool")
_DEMANDS = {"auto": ToolDemand.AUTO, "required": ToolDemand.REQUIRED, "none": ToolDemand.NONE}
_MAX_STOPS = 4
_NO_REASONING = (None, "none")


def read_chat_request(body: Mapping[str, Any]) -> Ask:
    """The request. Raises `RejectedError` where the provider would refuse it."""
    model = need_text(body.get("model"), "model")
    check_range(body, "temperature", 2)
    check_range(body, "top_p", 1)
    tally = Tally()
    _read_turns(body, tally)
    tools = read_functions(body, nested=True)
    demand, tool_name = read_demand(body, tools, nested=True)
    stream = read_stream(body)
    need_object(body.get("stream_options") or {}, "stream_options")
    if body.get("stream_options") is not None and not stream:
        raise RejectedError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    schema, wants_json = _read_form(body)
    return Ask(
        dialect=Dialect.OPENAI_CHAT,
        model=model,
        stream=stream,
        turns=body["messages"],
        tally=tally,
        tools=tools,
        tool_demand=demand,
        tool_name=tool_name,
        max_tokens=_read_limit(body),
        stop_sequences=read_stops(body.get("stop"), "stop", _MAX_STOPS),
        response_schema=schema,
        wants_json=wants_json,
        thinks=body.get("reasoning_effort") not in _NO_REASONING,
        body=body,
    )


def _read_limit(body: Mapping[str, Any]) -> int | None:
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise RejectedError(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            param="max_tokens",
            code="invalid_parameter_combination",
        )
    limit = read_limit(body, "max_completion_tokens")
    return read_limit(body, "max_tokens") if limit is None else limit


def _read_turns(body: Mapping[str, Any], tally: Tally) -> None:
    calls = OpenCalls()
    for index, turn in enumerate(need_list(body.get("messages"), "messages")):
        where = f"messages[{index}]"
        role = need_one_of(need_object(turn, where).get("role"), _ROLES, f"{where}.role")
        tally.messages += 1
        if role == "tool":
            calls.close(turn.get("tool_call_id"), f"{where}.tool_call_id")
            tally.tool_results += 1
        else:
            calls.check_none(where)
        tool_calls = turn.get("tool_calls")
        if tool_calls is not None:
            read_calls(need_list(tool_calls, f"{where}.tool_calls"), where, tally, calls)
        if turn.get("content") is not None:
            _tally_content(turn["content"], f"{where}.content", tally)
        elif role != "assistant":
            raise RejectedError(
                f"Invalid value for 'content': expected a string, got null ({where}).", param=f"{where}.content"
            )
    calls.check_none("messages")


def read_calls(tool_calls: list[Any], where: str, tally: Tally, calls: OpenCalls) -> None:
    """The calls that the assistant's turn at `where` makes."""
    for index, call in enumerate(tool_calls):
        inner = f"{where}.tool_calls[{index}]"
        function = need_object(need_object(call, inner).get("function"), f"{inner}.function")
        need_text(function.get("name"), f"{inner}.function.name")
        tally_text(tally, function.get("arguments"), f"{inner}.function.arguments")
        calls.open(need_text(call.get("id"), f"{inner}.id"))


def _tally_content(content: Any, where: str, tally: Tally) -> None:
    if isinstance(content, str):
        tally.characters += len(content)
        return
    for index, part in enumerate(need_list(content, where)):
        inner = f"{where}[{index}]"
        match need_text(need_object(part, inner).get("type"), f"{inner}.type"):
            case "text" | "refusal" as kind:
                tally_text(tally, part.get(kind), f"{inner}.{kind}")
            case "image_url":
                image = need_object(part.get("image_url"), f"{inner}.image_url")
                need_text(image.get("url"), f"{inner}.image_url.url")
                tally.images += 1
            case "input_audio" | "file":
                pass
            case kind:
                raise RejectedError(f"Invalid value: '{kind}'.", param=f"{inner}.type", code="invalid_value")


def read_functions(body: Mapping[str, Any], *, nested: bool) -> tuple[OfferedTool, ...]:
    """The functions on offer: under `function` in chat, flat in Responses. Server tools are left out."""
    tools = []
    for index, tool in enumerate(take_list(body.get("tools"), "tools")):
        where = f"tools[{index}]"
        kind = need_text(need_object(tool, where).get("type"), f"{where}.type")
        if kind == "function":
            definition = need_object(tool.get("function"), f"{where}.function") if nested else tool
            tools.append(offer_tool(definition, "parameters", where))
    return tuple(tools)


def read_demand(body: Mapping[str, Any], tools: tuple[OfferedTool, ...], *, nested: bool) -> tuple[ToolDemand, str]:
    """What `tool_choice` demands, and of which tool."""
    choice = body.get("tool_choice")
    if choice is None:
        return ToolDemand.AUTO, ""
    if nested and not body.get("tools"):
        raise RejectedError("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if isinstance(choice, dict) and choice.get("type") != "function" and not nested:
        return _read_other_demand(choice)
    if isinstance(choice, str):
        demand, name = _DEMANDS[need_one_of(choice, tuple(_DEMANDS), "tool_choice")], ""
    else:
        demand = ToolDemand.NAMED
        need_one_of(need_object(choice, "tool_choice").get("type"), ("function",), "tool_choice.type")
        named = need_object(choice.get("function"), "tool_choice.function") if nested else choice
        name = need_text(named.get("name"), "tool_choice.name")
    check_demand(demand, name, tools, "tool_choice")
    return demand, name


def _read_other_demand(choice: Mapping[str, Any]) -> tuple[ToolDemand, str]:
    """What Responses allows besides naming a function: a choice among some tools, or a tool of the provider's own."""
    tools = [need_object(tool, "tool_choice.tools") for tool in take_list(choice.get("tools"), "tool_choice.tools")]
    allowed = [tool.get("name") for tool in tools if tool.get("type") == "function"]
    if choice.get("mode") == "required" and allowed:
        return ToolDemand.NAMED, need_text(allowed[0], "tool_choice.tools")
    return ToolDemand.AUTO, ""


def _read_form(body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    form = body.get("response_format")
    if form is None:
        return None, False
    kinds = ("text", "json_object", "json_schema")
    kind = need_one_of(need_object(form, "response_format").get("type"), kinds, "response_format.type")
    if kind != "json_schema":
        return None, kind == "json_object"
    given = need_object(form.get("json_schema"), "response_format.json_schema")
    need_text(given.get("name"), "response_format.json_schema.name")
    schema = need_object(given.get("schema"), "response_format.json_schema.schema")
    if given.get("strict"):
        check_strict(schema, "response_format")
    return schema, True


def check_strict(schema: Mapping[str, Any], where: str) -> None:
    """A strict schema is an object that closes itself and requires all of its properties."""
    properties = need_object(schema.get("properties") or {}, f"{where}.properties")
    required = [str(name) for name in take_list(schema.get("required"), f"{where}.required")]
    if schema.get("additionalProperties") is not False or set(required) != set(properties):
        raise RejectedError(
            f"Invalid schema for {where}: with strict, 'additionalProperties' must be false and 'required' must "
            "name every key in properties.",
            param=where,
            code="invalid_json_schema",
        )
