from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import request, user
from kit.properties import examples
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.decision.tokens import (
    FRAMING_TOKENS_PER_MESSAGE,
    FRAMING_TOKENS_PER_TOOL,
    MOST_IMAGE_TOKENS,
    TYPICAL_IMAGE_TOKENS,
    estimate_tokens,
    framing_tokens,
    last_user_text,
    texts_of,
)
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.request import CompletionRequest, GenerationConfig, Tool

COUNTER = TiktokenCounter()
EVERY_PART = (
    TextPart("text"),
    ImagePart(b"data", "image/png"),
    ToolCallPart("call-id", "tool", '{"argument": 1}'),
    ToolResultPart("call-id", "result"),
    ReasoningPart("reasoning"),
    OpaquePart("dialect", "kind", "json"),
)
SCHEMA = {"type": "object", "description": "naïve"}


def everything() -> CompletionRequest:
    tool = Tool("name", "description", {"type": "object"})
    generation = GenerationConfig(tools=(tool, tool), response_schema=SCHEMA)
    return request(messages=(Message(Role.USER, EVERY_PART), user("more")), generation=generation)


class TestTexts:
    def test_everything_that_costs_input_tokens(self) -> None:
        assert list(texts_of(everything())) == [
            *("text", "tool", '{"argument": 1}', "result", "reasoning", "json", "more"),
            *(("name", "description", '{"type":"object"}') * 2),
            '{"type":"object","description":"naïve"}',
        ]

    def test_framing(self) -> None:
        framing = 2 * FRAMING_TOKENS_PER_MESSAGE + 2 * FRAMING_TOKENS_PER_TOOL
        assert framing_tokens(everything(), 0) == framing
        assert framing_tokens(everything(), 1_000) == framing + 1_000

    @pytest.mark.parametrize(
        ("messages", "text"),
        [
            ((user("first"), user("last")), "last"),
            ((user("first"), Message(Role.ASSISTANT, (ToolCallPart("i", "f", "{}"),))), "first"),
            ((), ""),
        ],
    )
    def test_what_is_being_asked(self, messages: tuple[Message, ...], text: str) -> None:
        assert last_user_text(messages) == text


class TestEstimate:
    def test_english_prose_is_estimated_closely(self) -> None:
        prose = "The quick brown fox jumps over the lazy dog while the river runs quietly to the sea. " * 20
        estimate = estimate_tokens(request(prose))
        assert not estimate.exact
        assert 0.9 <= estimate.tokens / COUNTER.count(prose) <= 1.25

    def test_an_image_counts_as_a_typical_one_and_at_most_as_the_largest(self) -> None:
        image = Message(Role.USER, (ImagePart(b"x" * 100_000, "image/png"),))
        estimate = estimate_tokens(request(messages=(image,)))
        assert estimate.tokens == TYPICAL_IMAGE_TOKENS + FRAMING_TOKENS_PER_MESSAGE + 1
        assert estimate.upper_bound == MOST_IMAGE_TOKENS + FRAMING_TOKENS_PER_MESSAGE + 1

    def test_a_lone_surrogate_is_no_obstacle(self) -> None:
        assert estimate_tokens(request("a\ud800b")).upper_bound >= 5

    @examples(200)
    @given(st.text(max_size=300))
    def test_the_bound_is_never_below_the_count(self, text: str) -> None:
        estimate = estimate_tokens(request(text))
        assert estimate.upper_bound >= COUNTER.count(text) + FRAMING_TOKENS_PER_MESSAGE
        assert estimate.upper_bound >= estimate.tokens

    @examples(60)
    @given(st.lists(st.text(max_size=40), max_size=4), st.text(max_size=40))
    def test_more_text_is_never_fewer_tokens(self, texts: list[str], more: str) -> None:
        def of(*all_texts: str) -> CompletionRequest:
            return request(messages=tuple(user(text) for text in all_texts))

        shorter, longer = estimate_tokens(of(*texts)), estimate_tokens(of(*texts, more))
        assert longer.tokens > shorter.tokens
        assert longer.upper_bound > shorter.upper_bound
