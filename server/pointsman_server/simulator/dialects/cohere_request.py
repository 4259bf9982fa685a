"""Reading a Cohere v2 chat request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman_server.simulator.ask import Ask, RejectedError, Tally, ToolDemand
from pointsman_server.simulator.behaviour import Dialect
from pointsman_server.simulator.dialects.openai_chat_request import read_calls, read_functions
from pointsman_server.simulator.dialects.reading import (
    OpenCalls,
    check_demand,
    check_range,
    need_list,
    need_object,
    need_one_of,
    need_text,
    read_limit,
    read_stops,
    read_stream,
    take_list,
    tally_text,
)

_ROLES = ("system", "user", "assistant", "tool")
_DEMANDS = {"REQUIRED": ToolDemand.REQUIRED, "NONE": ToolDemand.NONE}
_MAX_STOPS = 5


def read_chat_request(body: Mapping[str, Any]) -> Ask:
    """The request. Raises `RejectedError` where the provider would refuse it."""
    model = need_text(body.get("model"), "model")
    check_range(body, "temperature", 1)
    check_range(body, "p", 0.99)
    tally = Tally()
    _read_turns(body, tally)
    tools = read_functions(body, nested=True)
    demand = _read_demand(body)
    check_demand(demand, "", tools, "tool_choice")
    schema, wants_json = _read_form(body)
    thinking = body.get("thinking")
    thinks = bool(thinking) and need_object(thinking, "thinking").get("type") == "enabled"
    return Ask(
        dialect=Dialect.COHERE,
        model=model,
        stream=read_stream(body),
        turns=body["messages"],
        tally=tally,
        tools=tools,
        tool_demand=demand,
        max_tokens=read_limit(body, "max_tokens"),
        stop_sequences=read_stops(body.get("stop_sequences"), "stop_sequences", _MAX_STOPS),
        response_schema=schema,
        wants_json=wants_json,
        thinks=thinks,
        shows_thinking=thinks,
    )


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
        read_calls(take_list(turn.get("tool_calls"), f"{where}.tool_calls"), where, tally, calls)
        if role != "assistant" or turn.get("content") is not None:
            _tally_content(turn.get("content"), f"{where}.content", tally)


def _tally_content(content: Any, where: str, tally: Tally) -> None:
    if isinstance(content, str):
        tally.characters += len(content)
        return
    for index, part in enumerate(need_list(content, where)):
        inner = f"{where}[{index}]"
        match need_text(need_object(part, inner).get("type"), f"{inner}.type"):
            case "text" | "thinking" as kind:
                tally_text(tally, part.get(kind), f"{inner}.{kind}")
            case "image_url":
                need_text(need_object(part.get("image_url"), inner).get("url"), f"{inner}.image_url.url")
                tally.images += 1
            case "document":
                need_object(part.get("document"), f"{inner}.document")
            case kind:
                raise RejectedError(f"invalid request: unknown content type '{kind}'")


def _read_demand(body: Mapping[str, Any]) -> ToolDemand:
    choice = body.get("tool_choice")
    if choice is None:
        return ToolDemand.AUTO
    return _DEMANDS[need_one_of(choice, tuple(_DEMANDS), "tool_choice")]


def _read_form(body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    form = body.get("response_format")
    if form is None:
        return None, False
    kinds = ("text", "json_object")
    kind = need_one_of(need_object(form, "response_format").get("type"), kinds, "response_format.type")
    schema = form.get("json_schema") or form.get("schema")
    if schema is None:
        return None, kind == "json_object"
    if body.get("tools"):
        raise RejectedError("invalid request: response_format with a schema cannot be used together with tools")
    return need_object(schema, "response_format.json_schema"), True
