"""A stream that brings more than it may is cut where it passes its limit, and never told further than that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import deployment, price
from kit.properties import examples
from kit.scripted import CharacterCounter
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
    fold,
)
from pointsman_server.domain.tokenizer import Tokenizer
from pointsman_server.execution.allowance import (
    MARGIN_TOKENS,
    OTHER_TOKENIZERS_MARGIN,
    Allowance,
    Cap,
    Limit,
    limit_of,
)
from pointsman_server.execution.settle import count_output_tokens

EXACT = deployment("exact")
CLAUDE = deployment("claude", of={"tokenizer": Tokenizer.CLAUDE})
O200K = TiktokenCounter()
PROSE = "The quick brown fox, who had read Proust in 1987, jumps over the lazy dog. "


def text(said: str, key: int = 0) -> list[ReplyEvent]:
    return [TextDelta(key, said)]


def let_through(
    batches: Iterable[Sequence[ReplyEvent]],
    tokens: int,
    *,
    of: Deployment = EXACT,
    counter: TokenCounter | None = None,
) -> tuple[list[ReplyEvent], Allowance]:
    allowance = Allowance(Limit(tokens, Cap.OUTPUT_TOKENS), of, counter or CharacterCounter())
    told: list[ReplyEvent] = []

    async def go() -> None:
        for batch in batches:
            told.extend(await allowance.take(batch))
            if allowance.is_used_up:
                return

    asyncio.run(go())
    return told, allowance


class TestLimit:
    def test_a_model_that_counts_as_we_do_gets_a_few_tokens_more_than_its_limit(self) -> None:
        assert limit_of(EXACT, 900, 100, None) == Limit(900 + MARGIN_TOKENS, Cap.OUTPUT_TOKENS)

    def test_another_gets_what_our_count_of_it_may_be_off(self) -> None:
        most = 900 + MARGIN_TOKENS + int(900 * OTHER_TOKENIZERS_MARGIN)
        assert limit_of(CLAUDE, 900, 100, None) == Limit(most, Cap.OUTPUT_TOKENS)

    def test_a_cost_cap_has_no_margin(self) -> None:
        """Input costs 1 and output 2 micro-USD for a token."""
        assert limit_of(EXACT, 900, 100, 1_900) == Limit(900, Cap.COST)

    def test_the_lower_of_both_counts(self) -> None:
        assert limit_of(EXACT, 900, 100, 100_000).cap is Cap.OUTPUT_TOKENS

    def test_what_is_spent_already_leaves_nothing(self) -> None:
        assert limit_of(EXACT, 900, 100, -5) == Limit(0, Cap.COST)

    def test_a_model_that_costs_nothing_is_not_cut_for_its_cost(self) -> None:
        free = deployment("free", of={"price": price(0, 0)})
        assert limit_of(free, 900, 100, 0).cap is Cap.OUTPUT_TOKENS


class TestNothingIsCountedBeforeItCouldMatter:
    @pytest.mark.parametrize("said", ["a" * 100, "\N{HAIR SPACE}" * 33])
    def test_as_many_bytes_as_tokens_need_no_count(self, said: str) -> None:
        counter = CharacterCounter(is_ready=False)
        told, allowance = let_through([text(said)], 100, counter=counter)
        assert (told, allowance.is_used_up) == (text(said), False)
        assert (counter.counted, counter.warmed_in) == ([], [])

    def test_one_byte_more_does(self) -> None:
        counter = CharacterCounter(is_ready=False)
        let_through([text("\N{HAIR SPACE}" * 34)], 100, counter=counter)
        assert counter.counted
        assert counter.warmed_in

    def test_counts_come_as_often_as_the_bytes_since_could_be_too_many(self) -> None:
        """Prose of 4.7 bytes to a token, a word at a time: each count leaves about four fifths of what was left."""
        counted: list[str] = []

        class Recording(TiktokenCounter):
            def count(self, text: str) -> int:
                counted.append(text)
                return super().count(text)

        words = [text(f"{word} ") for word in (PROSE * 300).split()]
        _, allowance = let_through(words, 5_000, counter=Recording())
        assert not allowance.is_used_up or len(words) > 4_000
        assert len(counted) < 100
        assert sum(map(len, counted)) < 12 * 300 * len(PROSE)

    def test_a_long_answer_is_counted_off_the_event_loop(self) -> None:
        told, allowance = let_through([text("a" * 40_000)], 30_000)
        assert fold(told).text == "a" * 30_000
        assert (allowance.is_used_up, allowance.seen_tokens) == (True, 40_000)


class TestTheCut:
    def test_all_that_is_allowed_goes_through(self) -> None:
        told, allowance = let_through([text("abcde"), text("fghij")], 10)
        assert (fold(told).text, allowance.is_used_up) == ("abcdefghij", False)

    def test_the_piece_that_passes_the_limit_is_cut(self) -> None:
        told, allowance = let_through([text("abcde"), text("fghij"), text("klm")], 7)
        assert (fold(told).text, allowance.is_used_up, allowance.seen_tokens) == ("abcdefg", True, 10)

    def test_what_would_be_left_empty_is_left_out(self) -> None:
        told, _ = let_through([text("abcde"), text("fghij", 1)], 5)
        assert told == text("abcde")

    def test_reasoning_and_tool_calls_count(self) -> None:
        batches: list[list[ReplyEvent]] = [
            [ReasoningDelta("r", "hmm")],
            [ToolCallDelta("t", "id", "find", '{"a": 1}')],
        ]
        told, _ = let_through(batches, 10)
        assert told == [ReasoningDelta("r", "hmm"), ToolCallDelta("t", "id", "find", '{"a')]

    def test_a_tool_whose_name_does_not_fit_is_not_called(self) -> None:
        told, _ = let_through([[ToolCallDelta("t", "id", "find", "{}", "sig")]], 3)
        assert told == []

    def test_a_signature_is_for_the_whole(self) -> None:
        told, _ = let_through([[ReasoningDelta("r", "hmmm", "signed")]], 3)
        assert told == [ReasoningDelta("r", "hmm")]

    def test_what_only_the_provider_can_read_is_not_counted(self) -> None:
        sealed: list[ReplyEvent] = [
            OpaqueDelta("o", "d", "k", "{" * 90),
            ReasoningDelta("r", "x" * 90, redacted=True),
            TextDelta(0, "abc"),
        ]
        told, _ = let_through([sealed], 3)
        assert told == sealed

    def test_of_what_follows_only_the_counts_are_kept(self) -> None:
        rest: list[ReplyEvent] = [
            OpaqueDelta("o", "d", "k", "{}"),
            TextDelta(0, "!"),
            CitationFound(Citation(url="https://a.test")),
            UsageReport(Usage(1, output_tokens=9)),
            Finished(FinishReason.STOP),
        ]
        told, _ = let_through([[TextDelta(0, "abcde"), *rest]], 3)
        assert told == [TextDelta(0, "abc"), UsageReport(Usage(1, output_tokens=9))]

    def test_counts_are_those_of_the_models_own_tokenizer(self) -> None:
        told, allowance = let_through([text("a" * 200)], 145, of=CLAUDE)
        assert (len(fold(told).text), allowance.seen_tokens) == (100, 290)

    def test_nothing_is_allowed(self) -> None:
        told, allowance = let_through([[UsageReport(Usage(5))], text("a")], 0)
        assert (told, allowance.is_used_up) == ([UsageReport(Usage(5))], True)


class TestCountingInBlocks:
    @pytest.mark.parametrize(
        "said", [PROSE * 400, "東京は日本の首都です。" * 900, "=" * 20_000, " " * 20_000, "ab12" * 4_000]
    )
    @pytest.mark.parametrize("step", [3, 1_000, 100_000])
    def test_is_what_counting_all_at_once_gives_or_a_few_more(self, said: str, step: int) -> None:
        pieces = [text(said[at : at + step]) for at in range(0, len(said), step)]
        exactly = O200K.count(said)
        told, allowance = let_through(pieces, exactly // 2, counter=O200K)
        assert allowance.is_used_up
        shown = O200K.count(fold(told).text)
        assert exactly // 2 - exactly // 200 - 4 <= shown <= exactly // 2

    def test_prose_is_counted_to_the_token(self) -> None:
        said = PROSE * 400
        exactly = O200K.count(said)
        for step in (7, 5_000, len(said)):
            pieces = [text(said[at : at + step]) for at in range(0, len(said), step)]
            told, allowance = let_through(pieces, exactly, counter=O200K)
            assert (allowance.is_used_up, fold(told).text) == (False, said)
            _, allowance = let_through([*pieces, text("More.")], exactly, counter=O200K)
            assert allowance.is_used_up

    def test_parts_that_come_side_by_side_are_counted_each_by_itself(self) -> None:
        """Piece by piece in turn; as one text that would be other, and many more, tokens."""
        both = [
            [ToolCallDelta(key, arguments_json=PROSE[at : at + 2])] for at in range(0, len(PROSE), 2) for key in "ab"
        ]
        exactly = 2 * O200K.count(PROSE)
        assert let_through(both, exactly, counter=O200K)[1].is_used_up is False
        assert let_through([*both, text("!")], exactly, counter=O200K)[1].is_used_up


_words = st.sampled_from(["a", " word", "\n\n", "東京", "{}", "0123", " " * 5, "\N{THUMBS UP SIGN}", PROSE])
_texts = st.lists(_words, max_size=12).map("".join)
_events: st.SearchStrategy[ReplyEvent] = st.one_of(
    st.builds(TextDelta, st.sampled_from([0, 1]), _texts),
    st.builds(ReasoningDelta, st.just("r"), _texts),
    st.builds(ToolCallDelta, st.sampled_from("tu"), st.just("id"), st.just("find"), _texts),
    st.just(OpaqueDelta("o", "d", "k", "{}")),
    st.just(UsageReport(Usage(3, output_tokens=2))),
)


@given(st.lists(st.lists(_events, max_size=4), max_size=8), st.integers(0, 120), st.sampled_from([EXACT, CLAUDE]))
@examples(150)
def test_whatever_comes_no_more_than_allowed_is_told(
    batches: list[list[ReplyEvent]], tokens: int, of: Deployment
) -> None:
    told, allowance = let_through(batches, tokens, of=of, counter=O200K)
    sent = [event for batch in batches for event in batch]
    factor = 1.0 if of is EXACT else 1.45
    shown = _counted(told)
    assert shown * factor <= tokens
    if not allowance.is_used_up:
        assert told == sent
    else:
        assert _counted(sent) * factor > tokens
        assert _visible(sent).startswith(_visible(told))


def _counted(events: Sequence[ReplyEvent]) -> int:
    """Of parts that are whole again; the names of tools stand in front of their arguments as often as they came."""
    texts: dict[Any, str] = {}
    for event in events:
        if isinstance(event, (TextDelta, ReasoningDelta)):
            texts[event.key] = texts.get(event.key, "") + event.text
        elif isinstance(event, ToolCallDelta):
            texts[event.key] = texts.get(event.key, "") + event.name + event.arguments_json
    return sum(map(O200K.count, texts.values()))


def _visible(events: Sequence[ReplyEvent]) -> str:
    said = ""
    for event in events:
        if isinstance(event, (TextDelta, ReasoningDelta)):
            said += event.text
        elif isinstance(event, ToolCallDelta):
            said += event.name + event.arguments_json
    return said


def test_the_margin_takes_up_how_vendors_and_settlement_count() -> None:
    """What settlement counts of a told answer, a name and its arguments apart, is within the margin."""
    told, _ = let_through([[ToolCallDelta("t", "id", "find", '{"a": ' * 50)]], 60, counter=O200K)
    assert count_output_tokens(fold(told), O200K) <= 60 + MARGIN_TOKENS
