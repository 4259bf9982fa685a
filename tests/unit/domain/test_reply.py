from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.domain.message import OpaquePart, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import (
    Certainty,
    Citation,
    CitationFound,
    ContentDelta,
    Finished,
    FinishReason,
    Identified,
    OpaqueDelta,
    PartKey,
    ReasoningDelta,
    Reply,
    ReplyBuilder,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
    fold,
    merge_deltas,
)

texts = st.text(max_size=6)
counts = st.none() | st.integers(0, 1_000)


def delta_of(key: PartKey, kind: int) -> st.SearchStrategy[ContentDelta]:
    """A piece of the part with this key."""
    match kind:
        case 0:
            return st.builds(TextDelta, st.just(key), texts, texts)
        case 1:
            return st.builds(ReasoningDelta, st.just(key), texts, texts, st.booleans())
        case 2:
            return st.builds(ToolCallDelta, st.just(key), texts, texts, texts, texts)
        case _:
            return st.builds(OpaqueDelta, st.just(key), texts, texts, texts)


@st.composite
def event_lists(draw: st.DrawFn) -> list[ReplyEvent]:
    """Any sequence of events of which each part keeps to its kind, keys being numbers and names."""
    kinds: dict[PartKey, int] = draw(
        st.dictionaries(st.integers(0, 3) | st.sampled_from("abc"), st.integers(0, 3), min_size=1, max_size=4)
    )
    deltas = st.sampled_from(sorted(kinds, key=str)).flatmap(lambda key: delta_of(key, kinds[key]))
    others: st.SearchStrategy[ReplyEvent] = st.one_of(
        st.builds(CitationFound, st.builds(Citation, url=texts)),
        st.builds(UsageReport, st.builds(Usage, input_tokens=counts, output_tokens=counts)),
        st.builds(Identified, texts, texts),
        st.builds(Finished, st.sampled_from(FinishReason), texts),
    )
    return draw(st.lists(deltas | others, max_size=25))


class TestFold:
    def test_pieces_of_a_part_are_joined_in_order(self) -> None:
        events = [TextDelta(0, "Hel", "s1"), TextDelta(0, "lo", "s2"), TextDelta(1, "!")]
        assert fold(events).parts == (TextPart("Hello", "s1s2"), TextPart("!"))

    def test_parts_are_numbered_by_their_first_piece(self) -> None:
        builder = ReplyBuilder()
        for event in (TextDelta("late", "a"), ReasoningDelta(7, "b"), TextDelta("late", "c"), TextDelta(0, "d")):
            builder.add(event)
        assert [builder.index_of(key) for key in ("late", 7, 0)] == [0, 1, 2]
        assert builder.build().parts == (TextPart("ac"), ReasoningPart("b"), TextPart("d"))

    def test_interleaved_tool_calls_stay_apart(self) -> None:
        events = [
            ToolCallDelta(0, "id-a", "look", '{"x"'),
            ToolCallDelta(1, "id-b", "find", "{"),
            ToolCallDelta(0, arguments_json=": 1}", signature="s"),
            ToolCallDelta(1, "other", "name", "}"),
        ]
        assert fold(events).parts == (
            ToolCallPart("id-a", "look", '{"x": 1}', "s"),
            ToolCallPart("id-b", "find", "{}"),
        )

    def test_a_name_that_comes_late_counts(self) -> None:
        assert fold([ToolCallDelta(0), ToolCallDelta(0, "id", "name")]).parts == (ToolCallPart("id", "name", ""),)

    def test_redacted_reasoning_and_opaque_blocks(self) -> None:
        events: list[ReplyEvent] = [
            ReasoningDelta(0, "", "sealed", redacted=True),
            OpaqueDelta(1, "gemini_generate", "search", "{}"),
        ]
        assert fold(events).parts == (
            ReasoningPart("", "sealed", redacted=True),
            OpaquePart("gemini_generate", "search", "{}"),
        )

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (TextDelta(0, "a"), ReasoningDelta(0, "a")),
            (ReasoningDelta("x", "a"), TextDelta("x", "a")),
            (ToolCallDelta(0), TextDelta(0, "a")),
            (TextDelta(0, "a"), OpaqueDelta(0, "d", "k", "{}")),
        ],
    )
    def test_a_part_keeps_its_kind(self, first: ContentDelta, second: ContentDelta) -> None:
        builder = ReplyBuilder()
        builder.add(first)
        with pytest.raises(TypeError, match=type(first).__name__):
            builder.add(second)

    def test_the_last_usage_counts(self) -> None:
        assert fold([UsageReport(Usage(1, output_tokens=2)), UsageReport(Usage(3))]).usage == Usage(3)

    def test_the_first_names_count(self) -> None:
        reply = fold([Identified("", "m"), Identified("r", "other"), Identified("s", "")])
        assert (reply.response_id, reply.model) == ("r", "m")

    def test_a_citation_comes_once(self) -> None:
        first, second = Citation(url="a"), Citation(url="a", start_index=1, end_index=2)
        reply = fold([CitationFound(first), CitationFound(second), CitationFound(replace(first))])
        assert reply.citations == (first, second)

    def test_without_an_end_the_reason_is_unknown(self) -> None:
        reply = fold([TextDelta(0, "a")])
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.UNKNOWN, "")

    def test_the_end_keeps_the_providers_word(self) -> None:
        reply = fold([Finished(FinishReason.STOP, "end_turn")])
        assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.STOP, "end_turn")

    def test_the_text_is_that_of_text_parts_alone(self) -> None:
        reply = fold([ReasoningDelta(0, "hm"), TextDelta(1, "a"), ToolCallDelta(2, name="f"), TextDelta(3, "b")])
        assert reply.text == "ab"

    def test_content_is_what_makes_parts(self) -> None:
        builder = ReplyBuilder()
        for event in (Identified("r"), UsageReport(Usage()), Finished(FinishReason.STOP)):
            builder.add(event)
        assert not builder.has_content
        builder.add(TextDelta(0, ""))
        assert builder.has_content

    def test_nothing_folds_into_an_empty_answer(self) -> None:
        assert fold([]) == Reply((), FinishReason.UNKNOWN, "", Usage(), (), "", "")


class TestMerge:
    def test_neighbours_of_one_part_become_one(self) -> None:
        events = [TextDelta(0, "a", "1"), TextDelta(0, "b", "2"), TextDelta(1, "c"), TextDelta(0, "d")]
        assert merge_deltas(events) == [TextDelta(0, "ab", "12"), TextDelta(1, "c"), TextDelta(0, "d")]

    def test_what_stands_between_keeps_its_place(self) -> None:
        events: list[ReplyEvent] = [TextDelta(0, "a"), CitationFound(Citation(url="u")), TextDelta(0, "b")]
        assert merge_deltas(events) == events

    def test_tool_calls_and_blocks_are_left_alone(self) -> None:
        events: list[ReplyEvent] = [
            ToolCallDelta(0, "i"),
            ToolCallDelta(0, arguments_json="{"),
            OpaqueDelta(1, "", "", ""),
        ]
        assert merge_deltas(events) == events

    def test_text_and_reasoning_under_one_key_are_not_joined(self) -> None:
        events: list[ReplyEvent] = [TextDelta(0, "a"), ReasoningDelta(0, "b")]
        assert merge_deltas(events) == events

    @examples(150)
    @given(event_lists())
    def test_the_fold_is_unchanged(self, events: list[ReplyEvent]) -> None:
        assert fold(merge_deltas(events)) == fold(events)

    @examples(150)
    @given(event_lists(), st.data())
    def test_merging_batch_by_batch_folds_alike(self, events: list[ReplyEvent], data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(events)), max_size=4)))
        batches = [events[start:end] for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]
        assert fold(event for batch in batches for event in merge_deltas(batch)) == fold(events)

    @examples(150)
    @given(event_lists())
    def test_merging_twice_changes_nothing(self, events: list[ReplyEvent]) -> None:
        merged = merge_deltas(events)
        assert merge_deltas(merged) == merged
        assert len(merged) <= len(events)


class TestBuilderProperties:
    @examples(150)
    @given(event_lists())
    def test_indices_follow_the_order_of_first_pieces(self, events: list[ReplyEvent]) -> None:
        builder = ReplyBuilder()
        first_seen: list[PartKey] = []
        for event in events:
            builder.add(event)
            if isinstance(event, (TextDelta, ReasoningDelta, ToolCallDelta, OpaqueDelta)):
                if event.key not in first_seen:
                    first_seen.append(event.key)
                assert builder.index_of(event.key) == first_seen.index(event.key)
        assert len(builder.build().parts) == len(first_seen)

    @examples(150)
    @given(event_lists())
    def test_no_character_is_lost_or_moved(self, events: list[ReplyEvent]) -> None:
        reply = fold(events)
        for kind, part_kind in ((TextDelta, TextPart), (ReasoningDelta, ReasoningPart)):
            sent = _text_by_part(events, kind)
            assert [part.text for part in reply.parts if isinstance(part, part_kind)] == sent


def _text_by_part(events: Sequence[ReplyEvent], kind: type[TextDelta | ReasoningDelta]) -> list[str]:
    pieces: dict[PartKey, str] = {}
    for event in events:
        if isinstance(event, kind):
            pieces[event.key] = pieces.get(event.key, "") + event.text
    return list(pieces.values())


def test_the_last_word_on_certainty_counts() -> None:
    events: list[ReplyEvent] = [TextDelta(0, "a"), Certainty(0.9), Certainty(0.4), Finished(FinishReason.STOP)]
    assert fold(events).certainty == 0.4
    assert fold(events[:1]).certainty is None
