"""What is answered: the content of a reply, made from the request and the behaviour, free of any dialect's words.

Streamed and whole answers are written from the same `Answer`, and an answer depends on nothing but the request and
the behaviour; so both have the same content and the same usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from pointsman_server.simulator.ask import (
    CHARACTERS_PER_TOKEN,
    Ask,
    OfferedTool,
    RejectedError,
    ToolDemand,
    count_tokens,
)
from pointsman_server.simulator.behaviour import (
    Behaviour,
    Count,
    Fault,
    Finish,
    ScriptedCitation,
    ScriptedToolCall,
    UsageOverride,
)
from pointsman_server.simulator.schema_instance import SchemaError, make_instance

_FILLER = " This sentence only lengthens the simulated answer."
SIMULATED_REASONING = "This is simulated reasoning: the request was counted, not understood."
_NAN_MARK = "@@NaN@@"
_SCRIPTED_TOOL_NAME = "simulated_tool"


class Hollow(Enum):
    """How an answer is empty."""

    NOT = "not"
    NO_CHOICES = "no_choices"
    NULL_CONTENT = "null_content"
    EMPTY_TEXT = "empty_text"
    BLOCKED_PROMPT = "blocked_prompt"


_HOLLOW_BY_FAULT = {
    Fault.EMPTY_CHOICES: Hollow.NO_CHOICES,
    Fault.NULL_CONTENT: Hollow.NULL_CONTENT,
    Fault.EMPTY_CONTENT_STOP: Hollow.EMPTY_TEXT,
    Fault.BLOCKED_PROMPT: Hollow.BLOCKED_PROMPT,
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `key` is 32 hexadecimal digits for the dialect to make its id of."""

    key: str
    name: str
    arguments_json: str

    @property
    def tokens(self) -> int:
        """Tokens of name and arguments."""
        return count_tokens(len(self.name) + len(self.arguments_json))

    @property
    def arguments(self) -> Any:
        """The arguments as JSON value; text that is not JSON stays text."""
        try:
            return orjson.loads(self.arguments_json)
        except orjson.JSONDecodeError:
            return self.arguments_json


@dataclass(frozen=True, slots=True)
class Citation:
    """A source; the indices are code points of the text."""

    url: str
    title: str
    document_id: str
    quoted_text: str
    start_index: int
    end_index: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Token counts to report: `input` with cached tokens, `output` with reasoning. Overrides may be anything."""

    input: Count
    cached: Count
    cache_write: Count
    output: Count
    reasoning: Count
    missing: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """All of a reply. `generated_tokens` is what was really made, for pacing; `counts` is what is reported."""

    ask: Ask
    model: str
    text: str
    refusal: str
    reasoning: str
    shows_reasoning: bool
    tool_calls: tuple[ToolCall, ...]
    citations: tuple[Citation, ...]
    finish: Finish | str
    stop_sequence: str | None
    counts: Counts
    generated_tokens: int
    hollow: Hollow


def pieces(text: str) -> list[str]:
    """The text in tokens."""
    return [text[start : start + CHARACTERS_PER_TOKEN] for start in range(0, len(text), CHARACTERS_PER_TOKEN)]


def add_counts(*counts: Count) -> int | None:
    """The sum, None unless all are whole numbers."""
    total = 0
    for count in counts:
        if not isinstance(count, int):
            return None
        total += count
    return total


def subtract_counts(total: Count, *parts: Count) -> Count:
    """What remains of the total; the total itself where that makes no sense."""
    remainder: Count = total
    for part in parts:
        if not isinstance(remainder, int) or not isinstance(part, int):
            return total
        remainder -= part
    return remainder if isinstance(remainder, int) and remainder >= 0 else total


def write_nan(body: bytes) -> bytes:
    """The body with bare `NaN`, which is not JSON but is sent by some servers, for counts that are not a number."""
    return body.replace(b'"' + _NAN_MARK.encode() + b'"', b"NaN")


def make_answer(ask: Ask, behaviour: Behaviour) -> Answer:
    """The reply to this request under this behaviour. Raises `RejectedError` when a schema cannot be read."""
    hollow = _HOLLOW_BY_FAULT.get(behaviour.fault, Hollow.NOT) if behaviour.fault else Hollow.NOT
    calls = () if hollow is not Hollow.NOT else _tool_calls(ask, behaviour)
    reasoning = _reasoning(ask, behaviour, hollow)
    reasoning_tokens = count_tokens(len(reasoning))
    limit = None if ask.max_tokens is None else max(0, ask.max_tokens - reasoning_tokens)
    text, end, stop_sequence = _cut(_text(ask, behaviour, hollow, calls), limit, ask.stop_sequences)
    finish = _finish(behaviour, hollow, Finish.TOOL_CALLS if calls and end is Finish.STOP else end)
    generated = reasoning_tokens + count_tokens(len(text)) + sum(call.tokens for call in calls)
    is_refusal = finish is Finish.REFUSAL
    return Answer(
        ask=ask,
        model=behaviour.reported_model or ask.model,
        text="" if is_refusal else text,
        refusal=text if is_refusal else "",
        reasoning=reasoning,
        shows_reasoning=bool(reasoning) and (ask.shows_thinking or behaviour.reasoning_text is not None),
        tool_calls=calls,
        citations=() if is_refusal or not text else tuple(_place(citation, text) for citation in behaviour.citations),
        finish=finish,
        stop_sequence=stop_sequence,
        counts=_counts(behaviour.usage, ask.input_tokens, generated, reasoning_tokens),
        generated_tokens=generated,
        hollow=hollow,
    )


def _text(ask: Ask, behaviour: Behaviour, hollow: Hollow, calls: tuple[ToolCall, ...]) -> str:
    if hollow is not Hollow.NOT:
        return ""
    if behaviour.reply_text is not None:
        return behaviour.reply_text
    if behaviour.output_tokens is not None:
        return _lengthen(_describe(ask), behaviour.output_tokens * CHARACTERS_PER_TOKEN)
    if calls:
        return ""
    if ask.response_schema is not None:
        return orjson.dumps(_instance(ask.response_schema, "the response format")).decode()
    if ask.wants_json:
        return orjson.dumps({"simulated": True, "messages": ask.tally.messages}).decode()
    return _describe(ask)


def _instance(schema: Mapping[str, Any], where: str) -> Any:
    try:
        return make_instance(schema)
    except SchemaError as error:
        raise RejectedError(f"Invalid schema for {where}: {error}", code="invalid_function_parameters") from error


def _describe(ask: Ask) -> str:
    """Counts only: an answer that repeated the prompt would carry it into places where it must not be."""
    tally = ask.tally
    described = [_counted(tally.messages, "message"), _counted(tally.characters, "character")]
    if tally.images:
        described.append(_counted(tally.images, "image"))
    if tally.tool_results:
        described.append(_counted(tally.tool_results, "tool result"))
    if ask.tools:
        described.append(_counted(len(ask.tools), "tool") + " on offer")
    return (
        "This is a simulated answer: no language model was asked. "
        f"The request held {', '.join(described[:-1])} and {described[-1]}."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _lengthen(text: str, characters: int) -> str:
    missing = characters - len(text)
    return (text + _FILLER * (missing // len(_FILLER) + 1))[:characters] if missing > 0 else text[:characters]


def _tool_calls(ask: Ask, behaviour: Behaviour) -> tuple[ToolCall, ...]:
    wanted = behaviour.tool_calls
    if not wanted and behaviour.reply_text is None and ask.tools:
        if ask.tool_demand is ToolDemand.REQUIRED:
            wanted = (ScriptedToolCall(),)
        elif ask.tool_demand is ToolDemand.NAMED:
            wanted = (ScriptedToolCall(ask.tool_name),)
    if not wanted:
        return ()
    offered = {tool.name: tool for tool in ask.tools}
    first = ask.tools[0] if ask.tools else OfferedTool(_SCRIPTED_TOOL_NAME, {})
    return tuple(_tool_call(ask, call, offered, first, number) for number, call in enumerate(wanted))


def _tool_call(
    ask: Ask, wanted: ScriptedToolCall, offered: Mapping[str, OfferedTool], first: OfferedTool, number: int
) -> ToolCall:
    name = wanted.name or first.name
    arguments = wanted.arguments
    if arguments is None:
        tool = offered.get(name)
        instance = _instance(tool.schema, f"function '{name}'") if tool else {}
        arguments = instance if isinstance(instance, dict) else {}
    as_json = arguments if isinstance(arguments, str) else orjson.dumps(dict(arguments)).decode()
    return ToolCall(ask.digest(f"tool call {number}").hex()[:32], name, as_json)


def _reasoning(ask: Ask, behaviour: Behaviour, hollow: Hollow) -> str:
    if hollow is not Hollow.NOT:
        return ""
    text = behaviour.reasoning_text
    if text is None:
        text = SIMULATED_REASONING if ask.thinks else ""
    return text if ask.max_tokens is None else text[: ask.max_tokens * CHARACTERS_PER_TOKEN]


def _cut(text: str, limit_tokens: int | None, stop_sequences: tuple[str, ...]) -> tuple[str, Finish, str | None]:
    """The text up to the first stop sequence or the token limit, whichever a model would meet first."""
    end = len(text) if limit_tokens is None else limit_tokens * CHARACTERS_PER_TOKEN
    found = [(text.find(stop), stop) for stop in stop_sequences if stop]
    met = min(((at, stop) for at, stop in found if at >= 0 and at + len(stop) <= end), default=None)
    if met is not None:
        return text[: met[0]], Finish.STOP_SEQUENCE, met[1]
    if len(text) > end:
        return text[:end], Finish.LENGTH, None
    return text, Finish.STOP, None


def _finish(behaviour: Behaviour, hollow: Hollow, finish: Finish) -> Finish | str:
    if behaviour.finish_reason is None:
        return Finish.CONTENT_FILTER if hollow is Hollow.BLOCKED_PROMPT else finish
    try:
        return Finish(behaviour.finish_reason)
    except ValueError:
        return behaviour.finish_reason


def _place(citation: ScriptedCitation, text: str) -> Citation:
    start, end = citation.start_index, citation.end_index
    if start < 0 or end < 0:
        found = text.find(citation.quoted_text) if citation.quoted_text else -1
        start, end = (found, found + len(citation.quoted_text)) if found >= 0 else (0, len(text))
    quoted = citation.quoted_text or text[start:end]
    return Citation(citation.url, citation.title, citation.document_id, quoted, start, end)


def _counts(override: UsageOverride, input_tokens: int, output_tokens: int, reasoning_tokens: int) -> Counts:
    def pick(given: Count, counted: int) -> Count:
        if given is None:
            return counted
        return given if given == given else _NAN_MARK

    return Counts(
        input=pick(override.input_tokens, input_tokens),
        cached=pick(override.cached_input_tokens, 0),
        cache_write=pick(override.cache_write_input_tokens, 0),
        output=pick(override.output_tokens, output_tokens),
        reasoning=pick(override.reasoning_tokens, reasoning_tokens),
        missing=override.missing,
    )
