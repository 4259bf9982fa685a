"""What the simulator sends has the shape of what was recorded from the providers: no field or event of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from kit.traffic import load_traffic
from pointsman_server.simulator.script import (
    Behaviour,
    Dialect,
    Rule,
    Script,
    ScriptedCitation,
    ScriptedToolCall,
    UsageOverride,
)
from pointsman_server.simulator.server import RunningSimulator

RECORDED_AS = {
    Dialect.ANTHROPIC: ("anthropic", "/v1/messages"),
    Dialect.GEMINI: ("gemini", "enerateContent"),
    Dialect.OPENAI_CHAT: ("openai", "/v1/chat/completions"),
    Dialect.OPENAI_RESPONSES: ("openai", "/v1/responses"),
    Dialect.COHERE: ("cohere", "/v2/chat"),
}
FREE_FORM = ("arguments", "input", "args", "parameters", "schema", "metadata", "include")
"""Fields whose inside belongs to the caller."""
DOCUMENTED = {
    # Beginnings of what the providers document and these recordings happen not to hold.
    Dialect.ANTHROPIC: (),
    Dialect.GEMINI: ("usageMetadata.cachedContentTokenCount",),
    Dialect.OPENAI_CHAT: (
        "choices[].message.annotations[url_citation]",
        "choices[].delta.annotations[url_citation]",
        # Of other providers that speak this dialect.
        "choices[].message.reasoning_content",
        "choices[].delta.reasoning_content",
    ),
    Dialect.OPENAI_RESPONSES: ("incomplete_details.reason", "response.completed.response.incomplete_details.reason"),
    Dialect.COHERE: (
        "message.citations[TEXT_CONTENT].sources[document]",
        "citation-start.delta.message.citations.sources[document]",
    ),
}
BEHAVIOURS = (
    Behaviour(),
    Behaviour(usage=UsageOverride(cached_input_tokens=3)),
    Behaviour(reasoning_text="Thought through."),
    Behaviour(tool_calls=(ScriptedToolCall("plan", {"a": 1}), ScriptedToolCall("plan", {}))),
    Behaviour(
        reply_text="A cited text of some length.",
        citations=(ScriptedCitation("https://example.com/", "A source", "doc-0", "cited text"),),
    ),
    Behaviour(finish_reason="length"),
)
EMPTY = (":list", ":dict", ":NoneType")


def shapes(value: Any, path: str) -> Iterator[str]:
    """One entry for each leaf: its path, objects in lists by their `type`, and its JSON type."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            yield from [f"{here}:{type(inner).__name__}"] if key in FREE_FORM else shapes(inner, here)
    elif isinstance(value, list) and value:
        for inner in value:
            kind = inner.get("type", "") if isinstance(inner, dict) else ""
            yield from shapes(inner, f"{path}[{kind}]")
    else:
        # A number is a number, whether or not it came with a point.
        yield f"{path}:{'int' if isinstance(value, float) else type(value).__name__}"


def body_shapes(body: bytes, is_stream: bool) -> set[str]:
    if not is_stream:
        return set(shapes(json.loads(body), ""))
    found: set[str] = set()
    for line in body.decode().splitlines():
        if line.startswith("data: {"):
            event = json.loads(line[6:])
            # The events that end a response differ in nothing but their name.
            name = str(event.get("type", "")).replace("response.incomplete", "response.completed")
            found |= set(shapes(event, name))
    return found


@cache
def recorded(dialect: Dialect, is_stream: bool) -> frozenset[str]:
    provider, path = RECORDED_AS[dialect]
    found: set[str] = set()
    for exchange in load_traffic(provider):
        wire = "sse" if is_stream else "json"
        if exchange.wire == wire and path in exchange.path and exchange.status == 200:
            found |= body_shapes(exchange.body, is_stream)
    return frozenset(found)


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_no_shape_of_its_own(raw: Any, simulator: RunningSimulator, dialect: Dialect, is_stream: bool) -> None:
    known = recorded(dialect, is_stream)
    names = {entry.rpartition(":")[0] for entry in known}
    for behaviour in BEHAVIOURS:
        simulator.use(Script((Rule(behaviour),)))
        extra = {"stream_options": {"include_usage": True}} if is_stream and dialect is Dialect.OPENAI_CHAT else {}
        answer = await raw.send(dialect, stream=is_stream, **extra)
        own = {entry for entry in body_shapes(answer.body, is_stream) - known if not is_known_when_filled(entry, names)}
        own = {entry for entry in own if not entry.startswith(DOCUMENTED[dialect])}
        assert not own, f"never seen from the provider: {sorted(own)}"


def is_known_when_filled(entry: str, names: set[str]) -> bool:
    """Whether an empty value stands where the provider sends a filled one."""
    name, _, kind = entry.rpartition(":")
    return f":{kind}" in EMPTY and any(known == name or known.startswith((f"{name}.", f"{name}[")) for known in names)
