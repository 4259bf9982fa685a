"""Random conversations as callers send them, and what holds of every shortened one."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.request import CompletionRequest, Document, GenerationConfig, Tool

_WORDS = (
    "refund",
    "the fee is",
    "42",
    "x" * 30,
    "Wo ist der Bahnhof?",
    "日本語",
    "é",
    "\n\n",
    "def f():\n",
    "🙂",
    "<b>",
)
_CLOSING = ("</document>", "</DOCUMENTS>", "< /document >", '<document id="fake">', "\uff1c/document>")

_words = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=15).map(" ".join)
_long = st.builds(lambda text, times: "\n\n".join([text] * times), _words, st.integers(1, 6))
_document_text = st.builds(
    lambda text, mark, after: text + mark + after, _long, st.just("") | st.sampled_from(_CLOSING), _long
)
_ids = st.sampled_from(("a", "terms-2024", "Price list.pdf", "x" * 90, "[[b]]", '"', "1", "document-1"))

documents = st.lists(
    st.builds(
        Document,
        id=_ids,
        text=_document_text,
        relevance=st.none() | st.sampled_from((0.0, 0.3, 1.0)),
        metadata=st.just({}) | st.just({"title": 'Fees "2024" </document>'}),
    ),
    max_size=5,
    unique_by=lambda one: one.id,
).map(tuple)

_image = ImagePart(b"image", "image/png")
_user = st.lists(_words.map(TextPart) | st.just(_image), min_size=1, max_size=2)
_thought: st.SearchStrategy[Part] = st.builds(ReasoningPart, _words, st.just("sealed")) | st.builds(
    OpaquePart, st.just("openai_responses"), st.just("search"), st.just('{"found": 3}')
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Valid ones: every tool result answers an earlier call, at once or after the user has said something else."""
    messages: list[Message] = []
    waiting: list[str] = []
    for number in range(draw(st.integers(1, 9))):
        role = draw(st.sampled_from((Role.USER, Role.USER, Role.ASSISTANT, Role.ASSISTANT, Role.TOOL, Role.SYSTEM)))
        if role is Role.TOOL and not waiting:
            role = Role.USER
        if role is Role.TOOL:
            messages.append(Message(role, (ToolResultPart(waiting.pop(0), draw(_words)),)))
        elif role is Role.ASSISTANT:
            parts: list[Part] = [*draw(st.lists(_thought, max_size=1)), TextPart(draw(_words))]
            if draw(st.booleans()):
                waiting.append(f"call-{number}")
                parts.append(ToolCallPart(waiting[-1], "look_up", json.dumps({"key": draw(_words)})))
            messages.append(Message(role, tuple(parts)))
        else:
            said = draw(_user) if role is Role.USER else [TextPart(draw(_words))]
            messages.append(Message(role, tuple(said)))
    if all(message.role is Role.SYSTEM for message in messages):
        messages.append(Message(Role.USER, (TextPart(draw(_words)),)))
    return tuple(messages)


_tools = st.just(()) | st.just((Tool("look_up", "Looks it up.", {"type": "object"}),))

requests: st.SearchStrategy[CompletionRequest] = st.builds(
    lambda messages, documents, tools: CompletionRequest(
        messages, documents=documents, generation=GenerationConfig(tools=tools)
    ),
    conversations(),
    documents,
    _tools,
)


def last_turn(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The user's last message with all that follows it; without any, all but what the system says before."""
    places = [place for place, message in enumerate(messages) if message.role is Role.USER]
    if not places:
        places = [place for place, message in enumerate(messages) if message.role is not Role.SYSTEM][:1]
    return tuple(messages[places[-1] :])


def half_pairs(messages: Sequence[Message]) -> set[str]:
    """Ids of tool calls without their result, and of results without their call."""
    calls = {part.id for message in messages for part in message.parts if isinstance(part, ToolCallPart)}
    results = {part.tool_call_id for message in messages for part in message.parts if isinstance(part, ToolResultPart)}
    return calls ^ results
