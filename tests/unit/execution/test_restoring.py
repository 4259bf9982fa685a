from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.guards import PlainScanner
from kit.properties import examples
from pointsman_server.domain.call import FailedOver, FailoverMode, Relay
from pointsman_server.domain.message import OpaquePart, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import (
    Citation,
    ContentDelta,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    Reply,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from pointsman_server.domain.safety import AnswerMode, Guarded
from pointsman_server.execution.restoring import HELD_BACK_CHARACTERS, AnswerRestorer, TextRestorer

ORIGINALS = {"[EMAIL_1]": "ann@x.org", "[EMAIL_12]": "bob@x.org", "[PERSON_1]": 'Dr "Who"\n'}
SCANNER = PlainScanner()


def restorer(answers: AnswerMode = AnswerMode.OFF, **changes: object) -> AnswerRestorer:
    return AnswerRestorer(replace(Guarded(originals=ORIGINALS, answers=answers), **changes), SCANNER)  # type: ignore[arg-type]


def reply(*parts: Part, citations: tuple[Citation, ...] = ()) -> Reply:
    return Reply(parts, FinishReason.STOP, "", Usage(), citations, "", "")


def told(one: AnswerRestorer, *pieces: str) -> list[str]:
    """What is told after each of these pieces of a text, and at the end."""
    relays = [one.relay(Relay(((0, TextDelta(0, piece)),))) for piece in pieces]
    return ["".join(_content(delta) for _, delta in relay.deltas) if relay else "" for relay in (*relays, one.rest())]


def _content(delta: ContentDelta) -> str:
    if isinstance(delta, ToolCallDelta):
        return delta.arguments_json
    return "" if isinstance(delta, OpaqueDelta) else delta.text


class TestWholeAnswers:
    def test_placeholders_are_what_they_stood_for(self) -> None:
        whole = restorer().whole(
            reply(ReasoningPart("[EMAIL_1]?"), TextPart("to [EMAIL_1], [EMAIL_12]; [EMAIL_2]", "sig"))
        )
        assert whole.parts == (ReasoningPart("ann@x.org?"), TextPart("to ann@x.org, bob@x.org; [EMAIL_2]", "sig"))

    def test_arguments_of_tools_stay_json(self) -> None:
        call = ToolCallPart("c", "mail", '{"to": "[PERSON_1]"}')
        (part,) = restorer().whole(reply(call)).parts
        assert isinstance(part, ToolCallPart)
        assert json.loads(part.arguments_json) == {"to": 'Dr "Who"\n'}

    def test_opaque_blocks_are_left_alone(self) -> None:
        block = OpaquePart("anthropic_messages", "server_tool", '{"q": "[EMAIL_1]"}')
        assert restorer().whole(reply(block)).parts == (block,)

    def test_citations_point_to_the_same_words(self) -> None:
        text = "[EMAIL_1] says yes. [EMAIL_12] says no."
        cited = Citation(document_id="d", quoted_text="[EMAIL_12]", start_index=20, end_index=len(text))
        nowhere = Citation(document_id="e")
        whole = restorer().whole(reply(TextPart(text), citations=(cited, nowhere)))
        shown = whole.citations[0]
        assert whole.text[shown.start_index : shown.end_index] == "bob@x.org says no."
        assert shown.quoted_text == "bob@x.org"
        assert whole.citations[1] == nowhere

    def test_a_citation_that_ends_in_a_placeholder_takes_it_whole(self) -> None:
        cited = Citation(start_index=0, end_index=5)
        inside = Citation(start_index=3, end_index=9)
        whole = restorer().whole(reply(TextPart("[EMAIL_1]!"), citations=(cited, inside)))
        assert [(one.start_index, one.end_index) for one in whole.citations] == [(0, 9), (0, 9)]


class TestStreams:
    def test_text_without_a_bracket_goes_out_at_once(self) -> None:
        assert told(restorer(), "Dear ", "Sir") == ["Dear ", "Sir", ""]

    def test_only_what_may_become_a_placeholder_waits(self) -> None:
        assert told(restorer(), "to [EM", "AIL_1", "2] and [x", "] [EMA") == [
            "to ",
            "",
            "bob@x.org and [x",
            "] ",
            "[EMA",
        ]

    def test_a_placeholder_that_another_one_begins_with_waits_for_no_more_than_its_bracket(self) -> None:
        assert told(restorer(), "[EMAIL_1", "]") == ["", "ann@x.org", ""]

    def test_the_rest_is_of_its_part(self) -> None:
        one = restorer()
        deltas: list[tuple[int, ContentDelta]] = [
            (0, ReasoningDelta("r", "so [EMAIL", signature="s")),
            (1, ToolCallDelta("t", id="c", name="mail", arguments_json='{"to": "[EMA')),
        ]
        assert one.relay(Relay(tuple(deltas))) == Relay(
            (
                (0, ReasoningDelta("r", "so ", signature="s")),
                (1, ToolCallDelta("t", id="c", name="mail", arguments_json='{"to": "')),
            )
        )
        assert one.rest() == Relay(((0, ReasoningDelta("r", "[EMAIL")), (1, ToolCallDelta("t", arguments_json="[EMA"))))

    def test_signatures_and_names_never_wait(self) -> None:
        one = restorer()
        assert one.relay(Relay(((0, TextDelta(0, "[", signature="s")),))) == Relay(
            ((0, TextDelta(0, "", signature="s")),)
        )
        assert one.relay(Relay(((1, ToolCallDelta(1, id="c", arguments_json="[")),))) is not None
        assert one.relay(Relay(((1, ToolCallDelta(1, arguments_json="E")),))) is None

    def test_whole_blocks_pass(self) -> None:
        block = Relay(((0, OpaqueDelta(0, "d", "k", "[EMAIL_1]")),))
        assert restorer().relay(block) == block


class TestFailovers:
    def test_one_that_starts_again_forgets_what_was_held(self) -> None:
        one = restorer()
        told(one, "to [EMAIL")
        again = FailedOver("a", "b", FailoverMode.RESTART, 0)
        one.relay(Relay(((0, TextDelta(0, "x [EMAIL")),)))
        assert one.moved(again) == again
        assert told(one, "_1] y") == ["_1] y", ""]

    def test_one_that_goes_on_keeps_what_the_caller_was_sent(self) -> None:
        one = restorer()
        one.relay(
            Relay(((0, ReasoningDelta(0, "hm")), (1, TextDelta(1, "[EMAIL_1] has [EMAIL")), (2, ToolCallDelta(2, "c"))))
        )
        moved = one.moved(FailedOver("a", "b", FailoverMode.CONTINUE, len("[EMAIL_1] has [EMAIL")))
        assert moved.characters_kept == len("ann@x.org has ")
        assert one.relay(Relay(((1, TextDelta(1, "_12]!")),))) == Relay(((1, TextDelta(1, "bob@x.org!")),))
        assert (
            one.whole(reply(ReasoningPart("hm"), TextPart("[EMAIL_1] has [EMAIL_12]!"))).text
            == "ann@x.org has bob@x.org!"
        )


class TestRedaction:
    def test_what_the_model_wrote_is_taken_out_and_counted(self) -> None:
        one = restorer(AnswerMode.MASK)
        assert one.whole(reply(TextPart("eve@x.org is not [EMAIL_1]"))).text == "[EMAIL] is not ann@x.org"
        assert one.redactions == Counter(EMAIL=1)

    def test_what_the_request_held_is_no_secret_to_the_caller(self) -> None:
        one = restorer(AnswerMode.MASK, originals={}, values=frozenset({"eve@x.org"}))
        assert one.whole(reply(TextPart("eve@x.org, 123-45-6789"))).text == "eve@x.org, [US_SSN]"

    def test_nor_what_the_policy_ignores(self) -> None:
        one = restorer(AnswerMode.MASK, ignored=frozenset({"EMAIL"}))
        assert one.whole(reply(TextPart("eve@x.org, 123-45-6789"))).text == "eve@x.org, [US_SSN]"

    def test_tools_are_called_with_what_the_model_wrote(self) -> None:
        call = ToolCallPart("c", "mail", '{"to": "eve@x.org"}')
        assert restorer(AnswerMode.MASK).whole(reply(call)).parts == (call,)

    def test_a_stream_is_never_further_behind_than_this(self) -> None:
        one, sent, came = restorer(AnswerMode.MASK), 0, 0
        for _ in range(100):
            relay = one.relay(Relay(((0, TextDelta(0, "word ")),)))
            came += 5
            sent += sum(len(_content(delta)) for _, delta in relay.deltas) if relay else 0
            assert came - sent <= HELD_BACK_CHARACTERS

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_what_comes_in_pieces_is_taken_out_as_well(self, size: int) -> None:
        text = "x " * 40 + "eve@x.org, " + "y " * 40 + "123-45-6789. [EMAIL_1]" + " z" * 50
        one = restorer(AnswerMode.MASK)
        assert "".join(told(one, *(text[at : at + size] for at in range(0, len(text), size)))) == (
            "x " * 40 + "[EMAIL], " + "y " * 40 + "[US_SSN]. ann@x.org" + " z" * 50
        )
        assert one.redactions == Counter(EMAIL=1, US_SSN=1)

    def test_of_what_is_longer_than_what_is_held_back_the_rest_is_taken_out(self) -> None:
        one = restorer(AnswerMode.MASK)
        shown = "".join(told(one, "to ", *("a" * 200 + "@x.org"), " and on"))
        assert shown.startswith("to aaa")
        assert shown.endswith("a[EMAIL] and on")


_WORDS = st.sampled_from(
    [*ORIGINALS, "[EMAIL_1", "[", "]", "eve@x.org", "123-45-6789", " ", "word ", ", ", "x" * 70, "\n"]
)
_TEXT = st.lists(_WORDS, max_size=25).map(" ".join)


@examples(300)
@given(text=_TEXT, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_pieces_make_the_same_text_as_the_whole(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    one, whole = restorer(), restorer().whole(reply(TextPart(text))).text
    assert "".join(told(one, *pieces)) == whole
    assert one.whole(reply(TextPart(text))).text == whole


@examples(300)
@given(text=_TEXT, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_no_piece_of_what_is_taken_out_is_ever_told(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    one = TextRestorer({}, SCANNER.scan)
    said = [one.feed(text[start:end]) for start, end in itertools.pairwise(places)]
    shown = "".join((*said, one.end()))
    assert shown == one.text
    assert "eve@x.org" not in shown
    assert "123-45-6789" not in shown
