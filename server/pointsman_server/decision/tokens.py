"""How many tokens a request has: an estimate with proven bounds, a sample, and what other vendors make of a count.

All figures are tokens of o200k_base; `tokens_for` turns them into those of a deployment's own model. A byte-level
tokenizer never makes more tokens than there are bytes, and never fewer than its longest token allows. Counting exactly
is worth its time only where these bounds leave something open; the execution rooms do that and pass the count in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import orjson

from pointsman_server.decision.documents import names_of, render_all, shown_whole
from pointsman_server.domain.catalog import Deployment, Dialect
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
from pointsman_server.domain.request import CompletionRequest, Document
from pointsman_server.domain.tokenizer import CORRECTIONS, Correction, Tokenizer

FRAMING_TOKENS_PER_REQUEST = 3
FRAMING_TOKENS_PER_MESSAGE = 4
"""Role and separators in the vendors' chat formats: what OpenAI's models report, to the token or two."""

FRAMING_TOKENS_PER_TOOL = 12

TYPICAL_IMAGE_TOKENS = 1_100
MOST_IMAGE_TOKENS = 5_000
"""An image of about a megapixel, and the most a vendor documents for one image."""

ASCII_BYTES_PER_TOKEN = 4.0
OTHER_BYTES_PER_TOKEN = 4.0

LONGEST_TOKEN_BYTES = 128
"""No token of o200k_base or cl100k_base has more bytes."""

SAMPLE_SLICES = 64
SAMPLE_BYTES = SAMPLE_SLICES * LONGEST_TOKEN_BYTES

DEFAULT_TOKENIZERS: Mapping[Dialect, Tokenizer] = {
    Dialect.ANTHROPIC_MESSAGES: Tokenizer.CLAUDE,
    Dialect.GEMINI_GENERATE: Tokenizer.GEMINI,
    Dialect.OPENAI_RESPONSES: Tokenizer.O200K,
    Dialect.OPENAI_CHAT: Tokenizer.OTHER,
    Dialect.COHERE_CHAT: Tokenizer.COHERE,
    Dialect.LOCAL_KNOWLEDGE: Tokenizer.O200K,
}
"""What a model counts with when the policy does not say. Every vendor's models speak `openai_chat`."""

_GOLDEN_SHARE = 0.618_033_988_75


class Size(NamedTuple):
    """A request before anything is counted.

    A count would be from `lowest` to `highest`, whatever the text. Both take images as typical ones, as counts do;
    the upper bound of the estimate takes them as the largest.
    """

    estimate: TokenEstimate
    lowest: int
    highest: int
    text_bytes: int


class Sample(NamedTuple):
    """Slices from all over the texts: these have about 1/`scale` of all tokens of the texts."""

    slices: tuple[str, ...]
    scale: float


def correction_of(deployment: Deployment) -> Correction:
    """How this deployment's model counts, compared with o200k_base."""
    return CORRECTIONS[deployment.model.tokenizer or DEFAULT_TOKENIZERS[deployment.provider.dialect]]


def tokens_for(deployment: Deployment, estimate: TokenEstimate) -> TokenEstimate:
    """The same input in tokens of this deployment's model; exact for o200k_base only.

    The bound of an estimate is the bytes and holds for all byte-level tokenizers; that of a count is widened by what
    was measured of this one.
    """
    correction = correction_of(deployment)
    if correction.most == 1.0:
        return estimate
    tokens = round(estimate.tokens * correction.factor)
    most = int(estimate.upper_bound * correction.most) + 1 if estimate.exact else estimate.upper_bound
    return TokenEstimate(tokens, exact=False, upper_bound=max(tokens, most))


def core_of(estimate: TokenEstimate) -> TokenEstimate:
    """What remains of an input without all that may be left out of it."""
    spare = estimate.document_tokens + estimate.history_tokens
    if not spare:
        return estimate
    return TokenEstimate(estimate.tokens - spare, estimate.exact, estimate.upper_bound - spare)


def texts_of(request: CompletionRequest) -> Iterator[str]:
    """Every text that costs input tokens; documents, tools and schemas included."""
    yield from texts_of_messages(request.messages)
    if request.documents:
        # As if they were cited, which adds the most to them.
        yield render_all(shown_whole(request.documents, names_of(request.documents)), cites=True)
    for tool in request.generation.tools:
        yield tool.name
        yield tool.description
        yield orjson.dumps(tool.parameters).decode()
    if request.generation.response_schema is not None:
        yield orjson.dumps(request.generation.response_schema).decode()


def texts_of_messages(messages: Sequence[Message]) -> Iterator[str]:
    """Every text of these messages."""
    for message in messages:
        for part in message.parts:
            yield from _texts_of_part(part)


def framing_tokens(request: CompletionRequest, tokens_per_image: int) -> int:
    """Tokens that are not text: message framing, tool framing, images. Documents come in a message of their own."""
    return (
        FRAMING_TOKENS_PER_REQUEST
        + FRAMING_TOKENS_PER_MESSAGE * bool(request.documents)
        + FRAMING_TOKENS_PER_TOOL * len(request.generation.tools)
        + framing_tokens_of_messages(request.messages, tokens_per_image)
    )


def framing_tokens_of_messages(messages: Sequence[Message], tokens_per_image: int) -> int:
    """The same of messages alone."""
    images = sum(isinstance(part, ImagePart) for message in messages for part in message.parts)
    return FRAMING_TOKENS_PER_MESSAGE * len(messages) + tokens_per_image * images


def counted_tokens(request: CompletionRequest, count: Callable[[str], int]) -> int:
    """The tokens of a request, images taken as typical ones."""
    return sum(map(count, texts_of(request))) + framing_tokens(request, TYPICAL_IMAGE_TOKENS)


def counted_tokens_of_messages(messages: Sequence[Message], count: Callable[[str], int]) -> int:
    """What these messages add to the tokens of a request."""
    return sum(map(count, texts_of_messages(messages))) + framing_tokens_of_messages(messages, TYPICAL_IMAGE_TOKENS)


def counted_tokens_of_documents(documents: tuple[Document, ...], count: Callable[[str], int]) -> int:
    """What these documents add to the tokens of a request."""
    return counted_tokens(CompletionRequest((), documents=documents), count) - FRAMING_TOKENS_PER_REQUEST


def estimate_tokens(request: CompletionRequest) -> TokenEstimate:
    """The estimate (off by about -10 to +20 % on prose) and the upper bound, in time linear in the text."""
    return measure(request).estimate


def measure(request: CompletionRequest) -> Size:
    """The request's size by its bytes, in time linear in the text."""
    estimated = 0.0
    lowest = text_bytes = 0
    for text in texts_of(request):
        size_bytes = bytes_of(text)
        # A character beyond ASCII has two bytes to four, which is one to three more than it has characters.
        other_bytes = min(size_bytes, (size_bytes - len(text)) * 1.6)
        estimated += (size_bytes - other_bytes) / ASCII_BYTES_PER_TOKEN + other_bytes / OTHER_BYTES_PER_TOKEN
        lowest += -(-size_bytes // LONGEST_TOKEN_BYTES)
        text_bytes += size_bytes
    framing = framing_tokens(request, TYPICAL_IMAGE_TOKENS)
    estimate = TokenEstimate(
        tokens=max(lowest, int(estimated)) + framing,
        exact=False,
        upper_bound=text_bytes + framing_tokens(request, MOST_IMAGE_TOKENS),
    )
    return Size(estimate, lowest + framing, text_bytes + framing, text_bytes)


def bytes_of(text: str) -> int:
    """The text's length in UTF-8, which is the most tokens that a byte-level tokenizer can make of it."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def sample_of(texts: Sequence[str], text_bytes: int) -> Sample:
    """About `SAMPLE_BYTES` of texts that have `text_bytes` and more than those.

    The slices lie in equal parts of the text, in each at another place, so that nothing periodic is always met at
    the same point. The same texts give the same sample.
    """
    text = "".join(texts)
    chars = max(1, SAMPLE_BYTES * len(text) // (text_bytes * SAMPLE_SLICES))
    part = len(text) / SAMPLE_SLICES
    starts = (int(part * index + (part - chars) * (index * _GOLDEN_SHARE % 1)) for index in range(SAMPLE_SLICES))
    return Sample(tuple(text[start : start + chars] for start in starts), part / chars)


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
