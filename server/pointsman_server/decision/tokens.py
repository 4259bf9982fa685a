"""How many tokens a request has: a quick estimate with a proven upper bound, no tokenizer needed.

A byte-level tokenizer never makes more tokens than there are bytes, so the byte count plus the framing is an upper
bound for every model here. Counting exactly is worth its time only near a window's edge or for money; that is done
by the execution rooms, which pass the count in.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.request import CompletionRequest

FRAMING_TOKENS_PER_MESSAGE = 4
"""Role and separators of one message in the vendors' chat formats (OpenAI documents 3 to 4)."""

FRAMING_TOKENS_PER_TOOL = 12

TYPICAL_IMAGE_TOKENS = 1_100
MOST_IMAGE_TOKENS = 5_000
"""An image of about a megapixel, and the most a vendor documents for one image."""

ASCII_BYTES_PER_TOKEN = 4.0
OTHER_BYTES_PER_TOKEN = 3.0


def texts_of(request: CompletionRequest) -> Iterator[str]:
    """Every text that costs input tokens, tools and schemas included."""
    for message in request.messages:
        for part in message.parts:
            yield from _texts_of_part(part)
    for tool in request.generation.tools:
        yield tool.name
        yield tool.description
        yield orjson.dumps(tool.parameters).decode()
    if request.generation.response_schema is not None:
        yield orjson.dumps(request.generation.response_schema).decode()


def framing_tokens(request: CompletionRequest, tokens_per_image: int) -> int:
    """Tokens that are not text: message framing, tool framing, images."""
    images = sum(isinstance(part, ImagePart) for message in request.messages for part in message.parts)
    return (
        FRAMING_TOKENS_PER_MESSAGE * len(request.messages)
        + FRAMING_TOKENS_PER_TOOL * len(request.generation.tools)
        + tokens_per_image * images
    )


def estimate_tokens(request: CompletionRequest) -> TokenEstimate:
    """The estimate (off by about -10 to +20 % on prose) and the upper bound, in time linear in the text."""
    estimated = 0.0
    most = 0
    for text in texts_of(request):
        if text.isascii():
            estimated += len(text) / ASCII_BYTES_PER_TOKEN
            most += len(text)
        else:
            size_bytes = len(text.encode("utf-8", "surrogatepass"))
            estimated += size_bytes / OTHER_BYTES_PER_TOKEN
            most += size_bytes
    return TokenEstimate(
        tokens=int(estimated) + framing_tokens(request, TYPICAL_IMAGE_TOKENS) + 1,
        exact=False,
        upper_bound=most + framing_tokens(request, MOST_IMAGE_TOKENS) + 1,
    )


def _texts_of_part(part: Part) -> Iterator[str]:
    match part:
        case TextPart(text=text) | ReasoningPart(text=text) | ToolResultPart(text=text) | OpaquePart(json=text):
            yield text
        case ToolCallPart(name=name, arguments_json=arguments):
            yield name
            yield arguments
        case ImagePart():
            pass


def last_user_text(messages: tuple[Message, ...]) -> str:
    """The text of the last message that has any: what is being asked now."""
    return next((message.text for message in reversed(messages) if message.text), "")
