from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import deployment, request, user
from kit.properties import examples
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.decision.tokens import (
    DEFAULT_TOKENIZERS,
    FRAMING_TOKENS_PER_MESSAGE,
    FRAMING_TOKENS_PER_REQUEST,
    FRAMING_TOKENS_PER_TOOL,
    MOST_IMAGE_TOKENS,
    SAMPLE_BYTES,
    SAMPLE_SLICES,
    TYPICAL_IMAGE_TOKENS,
    correction_of,
    estimate_tokens,
    framing_tokens,
    last_user_text,
    measure,
    sample_of,
    texts_of,
    tokens_for,
)
from pointsman_server.domain.catalog import Dialect
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
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.request import CompletionRequest, GenerationConfig, Tool
from pointsman_server.domain.tokenizer import CORRECTIONS, Tokenizer
from pointsman_server.execution.prepare import SAMPLE_MARGIN

COUNTER = TiktokenCounter()
EVERY_PART = (
    TextPart("text"),
    ImagePart(b"data", "image/png"),
    ToolCallPart("call-id", "tool", '{"argument": 1}'),
    ToolResultPart("call-id", "result"),
    ReasoningPart("reasoning"),
    OpaquePart("dialect", "kind", "json"),
)
FRAMING = FRAMING_TOKENS_PER_REQUEST + FRAMING_TOKENS_PER_MESSAGE
"""Of a request with one message."""

ANY_TEXT = st.text(max_size=300) | st.text("aA1 =\n.é日👩", max_size=300) | st.integers(0, 3_000).map(" ".__mul__)
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
        framing = FRAMING_TOKENS_PER_REQUEST + 2 * FRAMING_TOKENS_PER_MESSAGE + 2 * FRAMING_TOKENS_PER_TOOL
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
        assert estimate.tokens == TYPICAL_IMAGE_TOKENS + FRAMING
        assert estimate.upper_bound == MOST_IMAGE_TOKENS + FRAMING

    def test_a_lone_surrogate_is_no_obstacle(self) -> None:
        assert estimate_tokens(request("a\ud800b")).upper_bound >= 5

    @pytest.mark.parametrize(
        "text", ["Привет, как дела? ", "自然语言处理是一个方向。", "Wie geht\u2019s? ", "naïve café "]
    )
    def test_other_languages_are_estimated_within_a_factor_of_two(self, text: str) -> None:
        counted = COUNTER.count(text * 20)
        assert 0.5 <= (estimate_tokens(request(text * 20)).tokens - FRAMING) / counted <= 2

    @examples(300)
    @given(ANY_TEXT)
    def test_a_count_is_never_outside_the_bounds(self, text: str) -> None:
        size = measure(request(text))
        counted = COUNTER.count(text) + FRAMING
        assert size.lowest <= counted <= size.highest <= size.estimate.upper_bound
        assert size.lowest <= size.estimate.tokens <= size.highest

    @pytest.mark.parametrize("tokenizer", [Tokenizer.O200K, Tokenizer.CL100K])
    def test_the_longest_token_makes_the_lower_bound_tight(self, tokenizer: Tokenizer) -> None:
        counter = TiktokenCounter(tokenizer)
        for text in (" " * 1_280, "=" * 1_280, "a" * 1_280):
            assert measure(request(text)).lowest <= counter.count(text) + FRAMING

    @examples(60)
    @given(st.lists(st.text(max_size=40), max_size=4), st.text(max_size=40))
    def test_more_text_is_never_fewer_tokens(self, texts: list[str], more: str) -> None:
        def of(*all_texts: str) -> CompletionRequest:
            return request(messages=tuple(user(text) for text in all_texts))

        shorter, longer = estimate_tokens(of(*texts)), estimate_tokens(of(*texts, more))
        assert longer.tokens > shorter.tokens
        assert longer.upper_bound > shorter.upper_bound


class TestSample:
    @examples(60)
    @given(st.text(min_size=1, max_size=50), st.integers(1, 400), st.booleans())
    def test_it_is_spread_over_the_whole_text_and_of_the_right_size(self, text: str, times: int, mixed: bool) -> None:
        texts = (text * times, "日本語" * 9_000 if mixed else "a word " * 9_000)
        whole = "".join(texts)
        size_bytes = len(whole.encode())
        sample = sample_of(texts, size_bytes)
        assert len(sample.slices) == SAMPLE_SLICES
        assert all(part in whole for part in sample.slices)
        chars = sum(map(len, sample.slices))
        assert sample.scale * chars == pytest.approx(len(whole))
        assert chars * size_bytes / len(whole) <= SAMPLE_BYTES

    def test_slices_do_not_overlap_and_come_from_every_part(self) -> None:
        text = "".join(chr(0x4E00 + index) for index in range(20_000))
        starts = [text.index(part[0]) for part in sample_of((text,), 60_000).slices]
        assert [start * SAMPLE_SLICES // len(text) for start in starts] == list(range(SAMPLE_SLICES))

    @pytest.mark.parametrize("period", [7, 100, 625, 6_250])
    def test_a_periodic_text_is_not_always_met_at_the_same_point(self, period: int) -> None:
        text = ("x" * (period // 2) + " word" * period)[:period] * (400_000 // period)
        sample = sample_of((text,), len(text))
        estimated = sum(map(COUNTER.count, sample.slices)) * sample.scale
        assert estimated == pytest.approx(COUNTER.count(text), rel=0.15)

    @pytest.mark.parametrize("seed", range(12))
    def test_mixtures_are_estimated_within_the_margin(self, seed: int) -> None:
        text = mixture(random.Random(seed))
        sample = sample_of((text,), len(text.encode()))
        estimated = sum(map(COUNTER.count, sample.slices)) * sample.scale
        assert estimated == pytest.approx(COUNTER.count(text), rel=SAMPLE_MARGIN)


@cache
def ingredients() -> tuple[str, ...]:
    root = Path(__file__).parents[3]
    return (
        "".join(path.read_text() for path in sorted((root / "docs").glob("*.md"))),
        "".join(path.read_text() for path in sorted((root / "server").rglob("*.py"))),
        "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9FA5), k=60_000))),
        "".join(random.Random(2).choices("0123456789abcdef", k=60_000)),
        "Счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 600,
        "\n" * 60_000,
    )


def mixture(dice: random.Random) -> str:
    """Blocks of 2,000 to 40,000 characters of very different texts."""
    text = ""
    while len(text) < 200_000:
        source, size = dice.choice(ingredients()), dice.randrange(2_000, 40_000)
        start = dice.randrange(max(1, len(source) - size))
        text += source[start : start + size]
    return text


class TestOtherTokenizers:
    def test_every_tokenizer_has_a_correction_and_every_dialect_a_tokenizer(self) -> None:
        assert set(CORRECTIONS) == set(Tokenizer)
        assert set(DEFAULT_TOKENIZERS) == set(Dialect)
        assert all(correction.factor <= correction.most for correction in CORRECTIONS.values())

    def test_what_the_policy_says_goes_before_what_the_dialect_says(self) -> None:
        claude = deployment("d", by={"dialect": Dialect.ANTHROPIC_MESSAGES}, of={"tokenizer": None})
        older = deployment("d", by={"dialect": Dialect.ANTHROPIC_MESSAGES}, of={"tokenizer": Tokenizer.CLAUDE_4})
        assert correction_of(claude) == CORRECTIONS[Tokenizer.CLAUDE]
        assert correction_of(older) == CORRECTIONS[Tokenizer.CLAUDE_4]

    @pytest.mark.parametrize("exact", [True, False])
    def test_a_model_that_counts_as_we_do_is_left_alone(self, exact: bool) -> None:
        estimate = TokenEstimate(1_000, exact=exact, upper_bound=1_200)
        assert tokens_for(deployment("d", of={"tokenizer": Tokenizer.O200K}), estimate) is estimate

    def test_a_count_is_corrected_and_its_bound_widened(self) -> None:
        factor, most = CORRECTIONS[Tokenizer.CLAUDE]
        corrected = tokens_for(deployment("d", of={"tokenizer": Tokenizer.CLAUDE}), TokenEstimate(1_000, True, 1_016))
        assert corrected.tokens == round(1_000 * factor)
        assert corrected.upper_bound == int(1_016 * most) + 1
        assert not corrected.exact

    def test_the_bytes_bound_an_estimate_for_every_tokenizer(self) -> None:
        claude = deployment("d", of={"tokenizer": Tokenizer.CLAUDE})
        assert tokens_for(claude, TokenEstimate(1_000, False, 4_000)) == TokenEstimate(1_450, False, 4_000)
        assert tokens_for(claude, TokenEstimate(10, False, 12)) == TokenEstimate(14, False, 14)
