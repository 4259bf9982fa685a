"""Reading an Anthropic Messages request."""

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

_DEMANDS = {"auto": ToolDemand.AUTO, "any": ToolDemand.REQUIRED, "tool": ToolDemand.NAMED, "none": ToolDemand.NONE}
_ROLES = ("user", "assistant", "system")
"""A system message may come later; the first one is a field of its own."""
_MIN_THINKING_TOKENS = 1024
_NO_LIMIT = 1_000_000


def read_messages_request(body: Mapping[str, Any]) -> Ask:
    """The request. Raises `RejectedError` where the provider would refuse it."""
    model = need_text(body.get("model"), "model")
    max_tokens = read_limit(body, "max_tokens")
    if max_tokens is None:
        raise RejectedError("max_tokens: Field required")
    check_range(body, "temperature", 1)
    check_range(body, "top_p", 1)
    tally = Tally()
    if body.get("system"):
        _tally_content(body["system"], "system", tally, OpenCalls())
    _read_turns(body, tally)
    tools = _read_tools(body)
    demand, tool_name = _read_demand(body, tools)
    thinks = _read_thinking(body, max_tokens, demand)
    return Ask(
        dialect=Dialect.ANTHROPIC,
        model=model,
        stream=read_stream(body),
        turns=(body.get("system"), body["messages"]),
        tally=tally,
        tools=tools,
        tool_demand=demand,
        tool_name=tool_name,
        max_tokens=max_tokens,
        stop_sequences=_read_stops(body),
        response_schema=_read_schema(body),
        thinks=thinks,
        shows_thinking=thinks,
    )


def _read_turns(body: Mapping[str, Any], tally: Tally) -> None:
    calls = OpenCalls()
    before = where = ""
    for index, turn in enumerate(need_list(body.get("messages"), "messages")):
        # Neighbours of the same role count as one turn, so calls must be answered where the role changes.
        role = need_one_of(need_object(turn, f"messages.{index}").get("role"), _ROLES, f"messages.{index}.role")
        if index == 0 and role != "user":
            raise RejectedError('messages: first message must use the "user" role')
        if before == "user" and role == "assistant":
            calls.check_none(where)
        where = f"messages.{index}"
        tally.messages += 1
        _tally_content(turn.get("content"), f"{where}.content", tally, calls)
        before = role
    if before != "assistant":
        calls.check_none(where)


def _tally_content(content: Any, where: str, tally: Tally, calls: OpenCalls) -> None:
    if isinstance(content, str):
        tally_text(tally, need_text(content, where), where)
        return
    for index, block in enumerate(need_list(content, where)):
        _tally_block(need_object(block, f"{where}.{index}"), f"{where}.{index}", tally, calls)


def _tally_block(block: Mapping[str, Any], where: str, tally: Tally, calls: OpenCalls) -> None:
    match need_text(block.get("type"), f"{where}.type"):
        case "text":
            if block.get("text") == "":
                raise RejectedError("messages: text content blocks must be non-empty")
            tally_text(tally, block.get("text"), f"{where}.text")
        case "image":
            source = need_object(block.get("source"), f"{where}.source")
            need_one_of(source.get("type"), ("base64", "url", "file"), f"{where}.source.type")
            tally.images += 1
        case "tool_use":
            need_object(block.get("input"), f"{where}.input")
            need_text(block.get("name"), f"{where}.name")
            calls.open(need_text(block.get("id"), f"{where}.id"))
        case "tool_result":
            calls.close(block.get("tool_use_id"), f"{where}.tool_use_id")
            tally.tool_results += 1
            if block.get("content"):
                _tally_content(block["content"], f"{where}.content", tally, calls)
        case "thinking":
            need_text(block.get("signature"), f"{where}.signature")
            tally_text(tally, block.get("thinking"), f"{where}.thinking")
        case "redacted_thinking":
            need_text(block.get("data"), f"{where}.data")
        case _:
            # Blocks of server tools and documents: many, and none that the answer depends on.
            pass


def _read_tools(body: Mapping[str, Any]) -> tuple[OfferedTool, ...]:
    tools = []
    for index, tool in enumerate(take_list(body.get("tools"), "tools")):
        where = f"tools.{index}"
        if need_object(tool, where).get("type") in (None, "custom"):
            need_object(tool.get("input_schema"), f"{where}.input_schema")
            tools.append(offer_tool(tool, "input_schema", where))
    return tuple(tools)


def _read_demand(body: Mapping[str, Any], tools: tuple[OfferedTool, ...]) -> tuple[ToolDemand, str]:
    choice = body.get("tool_choice")
    if choice is None:
        return ToolDemand.AUTO, ""
    demand = _DEMANDS[need_one_of(need_object(choice, "tool_choice").get("type"), tuple(_DEMANDS), "tool_choice.type")]
    name = need_text(choice.get("name"), "tool_choice.name") if demand is ToolDemand.NAMED else ""
    check_demand(demand, name, tools, "tool_choice")
    return demand, name


def _read_thinking(body: Mapping[str, Any], max_tokens: int, demand: ToolDemand) -> bool:
    thinking = body.get("thinking")
    if thinking is None:
        return False
    kinds = ("enabled", "adaptive", "disabled")
    kind = need_one_of(need_object(thinking, "thinking").get("type"), kinds, "thinking.type")
    if kind == "enabled":
        budget = read_limit(thinking, "budget_tokens", smallest=_MIN_THINKING_TOKENS)
        if budget is None:
            raise RejectedError("thinking.enabled.budget_tokens: Field required")
        if budget >= max_tokens:
            raise RejectedError("`max_tokens` must be greater than `thinking.budget_tokens`.")
        if body.get("temperature") not in (None, 1):
            raise RejectedError("`temperature` may only be set to 1 when thinking is enabled.")
        if demand in (ToolDemand.REQUIRED, ToolDemand.NAMED):
            raise RejectedError("Thinking may not be enabled when tool_choice forces tool use.")
    return kind != "disabled"


def _read_stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stops = read_stops(body.get("stop_sequences"), "stop_sequences", _NO_LIMIT)
    if any(not stop.strip() for stop in stops):
        raise RejectedError("stop_sequences: each stop sequence must contain non-whitespace")
    return stops


def _read_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    output = need_object(body.get("output_config") or {}, "output_config")
    form = output.get("format") or body.get("output_format")
    if form is None:
        return None
    need_one_of(need_object(form, "output_config.format").get("type"), ("json_schema",), "output_config.format.type")
    return need_object(form.get("schema"), "output_config.format.schema")
