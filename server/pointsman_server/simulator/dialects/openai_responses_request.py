"""Reading an OpenAI Responses request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman_server.simulator.ask import Ask, RejectedError, Tally
from pointsman_server.simulator.behaviour import Dialect
from pointsman_server.simulator.dialects.openai_chat_request import check_strict, read_demand, read_functions
from pointsman_server.simulator.dialects.reading import (
    OpenCalls,
    check_range,
    need_list,
    need_object,
    need_one_of,
    need_text,
    read_limit,
    read_stream,
    take_list,
    tally_text,
)

_ROLES = ("system", "developer", "user", "assistant")
_MIN_OUTPUT_TOKENS = 16
_FOREIGN_FIELDS = ("messages", "max_tokens", "max_completion_tokens", "stop", "response_format")


def read_responses_request(body: Mapping[str, Any]) -> Ask:
    """The request. Raises `RejectedError` where the provider would refuse it."""
    model = need_text(body.get("model"), "model")
    for name in _FOREIGN_FIELDS:
        if name in body:
            raise RejectedError(f"Unsupported parameter: '{name}'.", param=name, code="unsupported_parameter")
    check_range(body, "temperature", 2)
    check_range(body, "top_p", 1)
    tally = Tally()
    if body.get("instructions") is not None:
        tally_text(tally, body["instructions"], "instructions")
    _read_input(body, tally)
    tools = read_functions(body, nested=False)
    demand, tool_name = read_demand(body, tools, nested=False)
    schema, wants_json = _read_form(body)
    take_list(body.get("include"), "include")
    reasoning = need_object(body.get("reasoning") or {}, "reasoning")
    return Ask(
        dialect=Dialect.OPENAI_RESPONSES,
        model=model,
        stream=read_stream(body),
        turns=(body.get("instructions"), body["input"]),
        tally=tally,
        tools=tools,
        tool_demand=demand,
        tool_name=tool_name,
        max_tokens=read_limit(body, "max_output_tokens", smallest=_MIN_OUTPUT_TOKENS),
        response_schema=schema,
        wants_json=wants_json,
        thinks=bool(reasoning) and reasoning.get("effort") != "none",
        shows_thinking=reasoning.get("summary") is not None,
        body=body,
    )


def _read_input(body: Mapping[str, Any], tally: Tally) -> None:
    given = body.get("input")
    if isinstance(given, str):
        tally.messages += 1
        tally_text(tally, need_text(given, "input"), "input")
        return
    # The calls may stand in a response that the provider keeps.
    calls = None if body.get("previous_response_id") else OpenCalls()
    for index, item in enumerate(need_list(given, "input")):
        _read_item(need_object(item, f"input[{index}]"), f"input[{index}]", tally, calls)


def _read_item(item: Mapping[str, Any], where: str, tally: Tally, calls: OpenCalls | None) -> None:
    match item.get("type", "message"):
        case "message":
            role = need_one_of(item.get("role"), _ROLES, f"{where}.role")
            tally.messages += 1
            _tally_content(item.get("content"), f"{where}.content", role, tally)
        case "function_call":
            need_text(item.get("name"), f"{where}.name")
            tally_text(tally, item.get("arguments"), f"{where}.arguments")
            call_id = need_text(item.get("call_id"), f"{where}.call_id")
            if calls is not None:
                calls.open(call_id)
        case "function_call_output":
            if calls is not None:
                calls.close(item.get("call_id"), f"{where}.call_id")
            tally.tool_results += 1
            _tally_content(item.get("output"), f"{where}.output", "tool", tally)
        case "reasoning":
            if not isinstance(item.get("summary"), list):
                raise RejectedError(f"Missing required parameter: '{where}.summary'.", param=f"{where}.summary")
        case _:
            # Calls of server tools: many kinds, and none that the answer depends on.
            pass


def _tally_content(content: Any, where: str, role: str, tally: Tally) -> None:
    if isinstance(content, str):
        tally.characters += len(content)
        return
    for index, part in enumerate(need_list(content, where)):
        inner = f"{where}[{index}]"
        kind = need_text(need_object(part, inner).get("type"), f"{inner}.type")
        if role == "assistant":
            need_one_of(kind, ("output_text", "refusal"), f"{inner}.type")
        else:
            need_one_of(kind, ("input_text", "input_image", "input_file"), f"{inner}.type")
        if kind == "input_image":
            tally.images += 1
        elif kind != "input_file":
            tally_text(tally, part.get("refusal" if kind == "refusal" else "text"), f"{inner}.text")


def _read_form(body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    text = need_object(body.get("text") or {}, "text")
    form = text.get("format")
    if form is None:
        return None, False
    kinds = ("text", "json_object", "json_schema")
    kind = need_one_of(need_object(form, "text.format").get("type"), kinds, "text.format.type")
    if kind != "json_schema":
        return None, kind == "json_object"
    need_text(form.get("name"), "text.format.name")
    schema = need_object(form.get("schema"), "text.format.schema")
    if form.get("strict"):
        check_strict(schema, "text.format")
    return schema, True
