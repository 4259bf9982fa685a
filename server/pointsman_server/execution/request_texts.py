"""Every text of a request, and the request with other texts in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

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
            text = _text_of(part)
            if text:
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


def _text_of(part: Part) -> str:
    match part:
        case TextPart(text=text) | ToolResultPart(text=text) | ReasoningPart(text=text):
            return text
        case ToolCallPart(arguments_json=arguments):
            return arguments
        case _:
            return ""


def _message(message: Message, change: Change) -> Message:
    return replace(message, parts=tuple(_part(part, change) for part in message.parts))


def _part(part: Part, change: Change) -> Part:
    match part:
        case TextPart() | ToolResultPart() | ReasoningPart():
            return replace(part, text=change(part.text))
        case ToolCallPart():
            return replace(part, arguments_json=change(part.arguments_json))
        case _:
            return part


def _document(document: Document, change: Change) -> Document:
    metadata = {name: change(value) for name, value in document.metadata.items()}
    return replace(document, text=change(document.text), metadata=metadata)
