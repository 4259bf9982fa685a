"""The stream of an answer and the answer itself are the same for both OpenAI dialects."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.openai_calls import chunk, pieces, read_stream, sse, usage_chunk
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.domain.reply import Reply, fold

CHAT = OpenAiChat()
RESPONSES = OpenAiResponses()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.text("abc_", min_size=1, max_size=8)
counts = st.integers(0, 10_000)
sizes = st.integers(1, 9)


def call(index: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": arguments}}


calls = st.lists(st.tuples(names, texts), max_size=3).map(
    lambda said: [call(index, name, arguments) for index, (name, arguments) in enumerate(said)]
)
details = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "reasoning.text", "text": text, "signature": "s", "index": 0}, texts),
        st.builds(lambda data: {"type": "reasoning.encrypted", "data": data, "index": 0}, texts),
    ),
    max_size=3,
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | texts},
    optional={
        "reasoning_content": st.none() | texts,
        "reasoning": st.none() | texts,
        "refusal": st.none() | texts,
        "tool_calls": calls,
    },
)
finish_reasons = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "bored"])


def whole_chat(message: dict[str, Any], finish_reason: str, usage: dict[str, Any]) -> Reply:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return fold(CHAT.read_whole({"id": "a1", "model": "m1", "choices": [choice], "usage": usage}))


def chat_deltas(message: dict[str, Any], size: int, *, whole_calls: bool) -> list[dict[str, Any]]:
    """The deltas of a message: text in pieces, calls in pieces with an index or each in one without."""
    reasoning_name = "reasoning_content" if message.get("reasoning_content") else "reasoning"
    deltas: list[dict[str, Any]] = [
        {name: piece}
        for name in (reasoning_name, "content", "refusal")
        for piece in pieces(message.get(name) or "", size)
    ]
    for index, said in enumerate(message.get("tool_calls", [])):
        deltas += [{"tool_calls": [piece]} for piece in ([said] if whole_calls else call_pieces(index, said, size))]
    return deltas


def call_pieces(index: int, said: dict[str, Any], size: int) -> list[dict[str, Any]]:
    function = said["function"]
    first = {**said, "index": index, "function": {**function, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces(function["arguments"], size)]
    return [first, *rest]


@given(messages, finish_reasons, counts, counts, sizes, st.booleans(), st.booleans())
def test_chat(
    message: dict[str, Any], finish: str, tokens_in: int, tokens_out: int, size: int, whole_calls: bool, done: bool
) -> None:
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    deltas = chat_deltas(message, size, whole_calls=whole_calls)
    body = sse(*(chunk(**delta) for delta in deltas), chunk(finish), usage_chunk(**usage), done=done)
    assert read_stream(CHAT, body) == whole_chat(message, finish, usage)


@given(texts, details, sizes)
def test_chat_with_openrouters_reasoning_details(content: str, blocks: list[dict[str, Any]], size: int) -> None:
    deltas: list[dict[str, Any]] = []
    for block in blocks:
        opening = {name: value for name, value in block.items() if name not in ("text", "signature")}
        if "text" in block:
            deltas += [
                {"reasoning_details": [{**opening, "text": piece}]} for piece in pieces(block["text"], size) or [""]
            ]
            deltas.append({"reasoning_details": [{**opening, "signature": block["signature"]}]})
        else:
            deltas.append({"reasoning_details": [block]})
    deltas += [{"content": piece} for piece in pieces(content, size)]
    body = sse(*(chunk(**delta) for delta in deltas), chunk("stop"), usage_chunk())
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    message = {"content": content, "reasoning_details": blocks}
    assert read_stream(CHAT, body) == whole_chat(message, "stop", usage)


@given(st.lists(st.tuples(st.booleans(), texts), max_size=5), sizes)
def test_chat_with_mistrals_blocks(said: list[tuple[bool, str]], size: int) -> None:
    def block(thinks: bool, text: str) -> dict[str, Any]:
        if thinks:
            return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
        return {"type": "text", "text": text}

    deltas: list[dict[str, Any]] = [
        {"content": [block(True, piece)] if thinks else piece} for thinks, text in said for piece in pieces(text, size)
    ]
    body = sse(*(chunk(**delta) for delta in deltas), chunk("stop"), usage_chunk())
    message = {"content": [block(thinks, text) for thinks, text in said]}
    assert read_stream(CHAT, body) == whole_chat(message, "stop", {"prompt_tokens": 7, "completion_tokens": 2})


sections = st.lists(texts, max_size=3)
items = st.one_of(
    st.builds(
        lambda parts: {
            "type": "message",
            "content": [{"type": kind, kind.removeprefix("output_"): text} for kind, text in parts],
        },
        st.lists(st.tuples(st.sampled_from(["output_text", "refusal"]), texts), max_size=2),
    ),
    st.builds(
        lambda said, encrypted: {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": text} for text in said],
            "encrypted_content": encrypted,
        },
        sections,
        st.none() | names,
    ),
    st.builds(
        lambda name, arguments: {"type": "function_call", "call_id": name, "name": name, "arguments": arguments},
        names,
        texts,
    ),
    st.builds(lambda query: {"type": "web_search_call", "status": "completed", "action": {"query": query}}, texts),
)
ends = st.sampled_from([("completed", None), ("incomplete", "max_output_tokens"), ("incomplete", "content_filter")])


def response_events(index: int, item: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """The events of one item: its beginning, its growth, its end."""
    empty: dict[str, dict[str, Any]] = {
        "message": {"content": []},
        "reasoning": {"summary": []},
        "function_call": {"arguments": ""},
    }
    events = [item_event("output_item.added", index, item={**item, **empty.get(item["type"], {})})]
    for part_index, part in enumerate(item.get("content", [])):
        name = "refusal.delta" if part["type"] == "refusal" else "output_text.delta"
        text = part.get("refusal", part.get("text"))
        events += [item_event(name, index, content_index=part_index, delta=piece) for piece in pieces(text, size)]
    for section_index, section in enumerate(item.get("summary", [])):
        name, where = "reasoning_summary_text.delta", {"summary_index": section_index}
        events += [item_event(name, index, **where, delta=piece) for piece in pieces(section["text"], size)]
    for piece in pieces(item.get("arguments", ""), size):
        events.append(item_event("function_call_arguments.delta", index, delta=piece))
    return [*events, item_event("output_item.done", index, item=item)]


def item_event(kind: str, index: int, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": index, **fields}


@settings(max_examples=150)
@given(st.lists(items, max_size=4), ends, counts, sizes)
def test_responses(output: list[dict[str, Any]], end: tuple[str, str | None], tokens: int, size: int) -> None:
    status, why = end
    details_of_end = {"reason": why} if why else None
    usage = {"input_tokens": tokens, "output_tokens": tokens}
    response = {
        "id": "r1", "model": "m1", "status": status, "output": output, "usage": usage,
        "incomplete_details": details_of_end,
    }  # fmt: skip
    growth = [event for index, item in enumerate(output) for event in response_events(index, item, size)]
    created = {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
    body = sse(created, *growth, {"type": f"response.{status}", "response": response}, done=False, named=True)
    assert read_stream(RESPONSES, body) == fold(RESPONSES.read_whole(response))
