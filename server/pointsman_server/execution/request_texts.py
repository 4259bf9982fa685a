"""Every text of a request, and the request with other texts in their places."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pointsman_server.domain.injection import Source
from pointsman_server.domain.message import (
    Message,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.request import CompletionRequest, Document

Change = Callable[[str], str]


def texts_from_outside(request: CompletionRequest) -> Iterator[tuple[str, Source, str]]:
    """What people, tools and documents say, each with the path of its field and where it came from."""
    for index, message in enumerate(request.messages):
        for place, part in enumerate(message.parts):
            path = f"completion.messages[{index}].parts[{place}]"
            if isinstance(part, ToolResultPart):
                yield path, Source.TOOL_RESULT, part.text
            elif isinstance(part, TextPart) and message.role is Role.USER:
                yield path, Source.USER, part.text
    for index, document in enumerate(request.documents):
        yield f"completion.documents[{index}].text", Source.DOCUMENT, document.text


def every_text(request: CompletionRequest) -> Iterator[tuple[str, str]]:
    """All that a model may be shown, each with the path of its field; opaque blocks are their provider's own."""
    for index, message in enumerate(request.messages):
        for place, part in enumerate(message.parts):
            for text in texts_of(part):
                yield f"completion.messages[{index}].parts[{place}]", text
    for index, document in enumerate(request.documents):
        yield f"completion.documents[{index}].text", document.text
        for name, value in document.metadata.items():
            yield f"completion.documents[{index}].metadata[{name}]", value


def with_texts(request: CompletionRequest, change: Change) -> CompletionRequest:
    """The same request with every text changed."""
    return replace(
        request,
        messages=tuple(_message(message, change) for message in request.messages),
        documents=tuple(_document(document, change) for document in request.documents),
    )


def texts_of(part: Part) -> Iterator[str]:
    """What a model may be shown of this part."""
    match part:
        case TextPart(text=text) | ToolResultPart(text=text) | ReasoningPart(text=text):
            if text:
                yield text
        case ToolCallPart(arguments_json=arguments):
            yield from _leaves(_parsed(arguments))


def _parsed(arguments_json: str) -> Any:
    """The arguments of a tool; as one text where they are no JSON."""
    try:
        return json.loads(arguments_json)
    except ValueError:
        return arguments_json


def _leaves(value: Any) -> Iterator[str]:
    """All texts and numbers of a JSON value, each as its reader takes it: escapes would hide words from the guards."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _leaves(member)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield str(value)


def _with_leaves(value: Any, change: Change) -> Any:
    """The same JSON value with its texts changed; a number that is changed becomes a text."""
    if isinstance(value, dict):
        return {change(name): _with_leaves(member, change) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_leaves(item, change) for item in value]
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        said = str(value)
        changed = change(said)
        return value if changed == said else changed
    return value


def _arguments(arguments_json: str, change: Change) -> str:
    parsed = _parsed(arguments_json)
    changed = _with_leaves(parsed, change)
    if changed == parsed:
        return arguments_json
    return changed if parsed is arguments_json else json.dumps(changed, ensure_ascii=False)


def _message(message: Message, change: Change) -> Message:
    return replace(message, parts=tuple(_part(part, change) for part in message.parts))


def _part(part: Part, change: Change) -> Part:
    match part:
        case TextPart() | ToolResultPart() | ReasoningPart():
            return replace(part, text=change(part.text))
        case ToolCallPart():
            return replace(part, arguments_json=_arguments(part.arguments_json, change))
        case _:
            return part


def _document(document: Document, change: Change) -> Document:
    metadata = {name: change(value) for name, value in document.metadata.items()}
    return replace(document, text=change(document.text), metadata=metadata)
