from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.catalog import deployment, request, user
from kit.properties import examples
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
)
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import (
    Capability,
    GenerationConfig,
    ReasoningEffort,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from pointsman_server.execution.continuation import (
    CONTINUATION_PROMPT,
    HOLD_BACK_CHARACTERS,
    LEAST_OUTPUT_TOKENS,
    LEAST_REPETITION,
    Seam,
    continuation_messages,
    may_continue,
    open_seam,
    remaining_output_tokens,
    says_nothing,
    takes_prefill,
)

TOOL = Tool("search", "", {})
PREFILLING = deployment("prefilling")
INSTRUCTED = deployment("instructed", of={"capabilities": frozenset({Capability.STREAMING})})


def reply(*parts: Part | str) -> Reply:
    whole = tuple(TextPart(part) if isinstance(part, str) else part for part in parts)
    return Reply(whole, FinishReason.UNKNOWN, "", Usage(), (), "", "")


def generating(**settings: object) -> GenerationConfig:
    return GenerationConfig(**settings)  # type: ignore[arg-type]


class TestWhetherItMay:
    def test_prose(self) -> None:
        assert may_continue(request(), reply("Once upon"))
        assert may_continue(request(), reply(ReasoningPart("I wonder"), "Once", " upon"))

    @pytest.mark.parametrize(
        "so_far",
        [
            pytest.param(reply(), id="nothing"),
            pytest.param(reply(""), id="no text"),
            pytest.param(reply(" \n\t\u00a0"), id="white space"),
            pytest.param(reply(ReasoningPart("I wonder")), id="reasoning alone"),
            pytest.param(reply("I look it up.", ToolCallPart("c1", "search", '{"q": 1}')), id="after a tool call"),
            pytest.param(reply("I look it up.", ToolCallPart("", "", '{"q')), id="after a part of a tool call"),
            pytest.param(reply(ToolCallPart("c1", "search", "{}"), "Well"), id="text after a tool call"),
            pytest.param(reply(ReasoningPart("hm", signature="s"), "Once"), id="signed reasoning"),
            pytest.param(reply(ReasoningPart("", signature="s", redacted=True), "Once"), id="redacted reasoning"),
            pytest.param(reply(ReasoningPart("", redacted=True), "Once"), id="redacted, not signed yet"),
            pytest.param(reply(TextPart("Once", signature="s")), id="signed text"),
            pytest.param(reply(OpaquePart("anthropic_messages", "server_tool_use", "{}"), "Once"), id="opaque block"),
        ],
    )
    def test_not_where_more_than_prose_was_sent_or_nothing(self, so_far: Reply) -> None:
        assert not may_continue(request(), so_far)

    @pytest.mark.parametrize(
        ("generation", "allowed"),
        [
            (generating(response_schema={"type": "object"}), False),
            (generating(response_schema={}), False),
            (generating(tools=(TOOL,)), False),
            (generating(tools=(TOOL,), tool_choice=ToolChoice(ToolChoiceMode.AUTO)), False),
            (generating(tools=(TOOL,), tool_choice=ToolChoice(ToolChoiceMode.REQUIRED)), False),
            (generating(tools=(TOOL,), tool_choice=ToolChoice(ToolChoiceMode.NAMED, "search")), False),
            (generating(tools=(TOOL,), tool_choice=ToolChoice(ToolChoiceMode.NONE)), True),
            (generating(tool_choice=ToolChoice(ToolChoiceMode.NONE)), True),
            (generating(reasoning_effort=ReasoningEffort.HIGH, temperature=0.5), True),
        ],
    )
    def test_not_where_json_is_due_or_a_tool_may_be_called(self, generation: GenerationConfig, allowed: bool) -> None:
        assert may_continue(request(generation=generation), reply("Once upon")) is allowed

    @pytest.mark.parametrize(
        ("so_far", "nothing"),
        [
            (reply(), True),
            (reply(" \n"), True),
            (reply(ReasoningPart("hm", signature="s"), ReasoningPart("", "s", redacted=True), ""), True),
            (reply(" ", "a"), False),
            (reply(ToolCallPart("", "", "")), False),
            (reply(OpaquePart("d", "k", "{}")), False),
        ],
    )
    def test_what_says_nothing_need_not_be_kept(self, so_far: Reply, nothing: bool) -> None:
        assert says_nothing(so_far) is nothing


class TestHowItIsAsked:
    def test_a_model_that_takes_a_prefill_gets_the_beginning_of_its_turn(self) -> None:
        asked = continuation_messages(request("A story"), reply("Once upon"), PREFILLING)
        assert asked == (user("A story"), Message(Role.ASSISTANT, (TextPart("Once upon"),)))

    def test_any_other_ends_with_a_message_of_the_user(self) -> None:
        asked = continuation_messages(request("A story"), reply("Once upon"), INSTRUCTED, "Weiter, bitte.")
        assert asked == (
            user("A story"),
            Message(Role.ASSISTANT, (TextPart("Once upon"),)),
            user("Weiter, bitte."),
        )

    @pytest.mark.parametrize("effort", [ReasoningEffort.LOW, ReasoningEffort.HIGH])
    def test_no_prefill_for_a_model_that_is_to_reason(self, effort: ReasoningEffort) -> None:
        reasoning = request(generation=GenerationConfig(reasoning_effort=effort))
        assert not takes_prefill(reasoning, PREFILLING)
        assert continuation_messages(reasoning, reply("Once"), PREFILLING)[-1] == user(CONTINUATION_PROMPT)

    @pytest.mark.parametrize("effort", [None, ReasoningEffort.NONE])
    def test_a_prefill_for_one_that_is_not(self, effort: ReasoningEffort | None) -> None:
        assert takes_prefill(request(generation=GenerationConfig(reasoning_effort=effort)), PREFILLING)

    @pytest.mark.parametrize("one", [PREFILLING, INSTRUCTED])
    def test_the_system_prompt_is_the_callers_alone(self, one: Deployment) -> None:
        system = Message(Role.SYSTEM, (TextPart("You are Lexi."),))
        asked = continuation_messages(request(messages=(system, user("Hi"))), reply("Hello"), one)
        assert [message for message in asked if message.role is Role.SYSTEM] == [system]

    def test_a_prefill_never_ends_in_white_space(self) -> None:
        asked = continuation_messages(request(), reply("Once upon \n\n\u00a0"), PREFILLING)
        assert asked[-1].text == "Once upon"

    def test_as_a_past_turn_the_text_is_whole(self) -> None:
        asked = continuation_messages(request(), reply("Once upon \n"), INSTRUCTED)
        assert asked[-2].text == "Once upon \n"

    def test_reasoning_is_not_told_to_another_model(self) -> None:
        asked = continuation_messages(request(), reply(ReasoningPart("hm"), "Once"), PREFILLING)
        assert asked[-1].parts == (TextPart("Once"),)

    def test_a_turn_that_the_caller_began_goes_on(self) -> None:
        begun = Message(Role.ASSISTANT, (TextPart("The story begins:\n"),))
        asked = continuation_messages(request(messages=(user("Hi"), begun)), reply("Once upon "), PREFILLING)
        assert asked == (user("Hi"), Message(Role.ASSISTANT, (TextPart("The story begins:\nOnce upon"),)))

    def test_what_the_caller_signed_stays_apart(self) -> None:
        signed = Message(Role.ASSISTANT, (TextPart("Begun.", signature="s"),))
        asked = continuation_messages(request(messages=(user("Hi"), signed)), reply("Once"), PREFILLING)
        assert asked[-1].parts == (TextPart("Begun.", signature="s"), TextPart("Once"))

    def test_other_parts_of_the_conversation_stay(self) -> None:
        pictured = Message(Role.USER, (ImagePart(b"1", "image/png"), TextPart("What is it?")))
        asked = continuation_messages(request(messages=(pictured,)), reply("A"), INSTRUCTED)
        assert asked[0] is pictured

    @pytest.mark.parametrize(
        ("most", "written", "left"),
        [(1_000, 0, 1_000), (1_000, 400, 600), (1_000, 990, LEAST_OUTPUT_TOKENS), (10, 500, LEAST_OUTPUT_TOKENS)],
    )
    def test_the_output_limit_is_shared(self, most: int, written: int, left: int) -> None:
        assert remaining_output_tokens(most, written) == left


def relayed(seam: Seam, pieces: Iterable[str]) -> str:
    return "".join(map(seam.feed, pieces)) + seam.flush()


def instructed(text: str, came: str) -> str:
    return relayed(Seam(text, prefilled=False), [came])


def cut(text: str, places: Iterable[int]) -> list[str]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(ends)]


WORDS = (
    "tale{}",
    "größe{}",
    "сказка{}",
    "कहानी{}",
    "قصة{}",
    "이야기{}",
    "物語{}",
    "e\u0301{}",
    "👨‍👩‍👧{}",
    "🇫🇷{}",
    "\ud800{}",
    "x_{}",
)
BLANKS = (" ", "  ", "\n", "\n\n", "\u00a0", " \n ")
PLACES = st.lists(st.integers(0, 10_000), max_size=30)
LEADS = st.sampled_from(["", "…", "...", "....", " ", "\n", "\n\n", "… ", " ...\n", "…\u00a0"])
ANY_TEXT = st.text(st.characters(), max_size=80)
TIGHT_TEXT = st.text(st.sampled_from("abc .…\n"), max_size=60)


@st.composite
def prose(draw: st.DrawFn) -> str:
    """A text in many scripts that never says the same word twice."""
    count = draw(st.integers(2, 30))
    pieces = []
    for number in range(count):
        pieces.append(draw(st.sampled_from(WORDS)).format(100 + number))
        pieces.append(draw(st.sampled_from(("", ",", ".", " -", ")"))) + draw(st.sampled_from(BLANKS)))
    return "".join(pieces)


def repeats_itself(text: str) -> bool:
    """Whether it ends, by more than a third of itself, with its own beginning: nobody can tell what that means."""
    core = text.rstrip()
    return any(core.endswith(core[:length]) for length in range(len(core) // 3 + 1, len(core)))


def size(text: str) -> int:
    return sum(2 if ord(character) >= 0x2E80 else 1 for character in text if character.isalnum())


class TestAfterAPrefill:
    @examples(100)
    @given(ANY_TEXT | TIGHT_TEXT | prose(), st.integers(0, 10_000), PLACES)
    @example("a \n\nb", 2, [1])
    @example("haha haha haha", 5, [])
    def test_what_goes_on_exactly_goes_through_exactly(self, whole: str, place: int, places: list[int]) -> None:
        text = whole[: place % (len(whole) + 1)]
        came = whole[len(text.rstrip()) :]
        assert text + relayed(Seam(text, prefilled=True), cut(came, places)) == whole

    @pytest.mark.parametrize(
        ("text", "came", "whole"),
        [
            ("one ", "two", "one two"),
            ("one ", " two", "one two"),
            ("one", " two", "one two"),
            ("one", "two", "onetwo"),
            ("one\n\n", "\n\ntwo", "one\n\ntwo"),
            ("one\n\n", "\ntwo", "one\n\ntwo"),
            ("one \n", "\ntwo", "one \ntwo"),
            ("one\n  ", "\ntwo", "one\n  two"),
            ("one ", "\n\ntwo", "one \n\ntwo"),
            ("one ", "", "one "),
            ("one\n", "\n", "one\n"),
            ("one\n\n\n", "\n", "one\n\n\n"),
            (
                "one two three four five",
                "one two three four five six",
                "one two three four fiveone two three four five six",
            ),
        ],
    )
    def test_only_the_white_space_left_off_is_not_sent_twice(self, text: str, came: str, whole: str) -> None:
        assert text + relayed(Seam(text, prefilled=True), came) == whole

    def test_nothing_is_held_back(self) -> None:
        seam = Seam("Once upon", prefilled=True)
        assert [seam.feed(piece) for piece in ("", "…", " a", " time")] == ["", "…", " a", " time"]
        assert seam.flush() == ""

    def test_all_white_space_of_a_long_blank(self) -> None:
        blank = "\n" * 1_000
        assert relayed(Seam("a" + blank, prefilled=True), blank + "b") == "b"
        assert relayed(Seam("a" + blank, prefilled=True), "\t" * 2_000 + "b") == "\t" * 2_000 + "b"


class TestAfterAnInstruction:
    @examples(100)
    @given(prose(), st.integers(0, 10_000), PLACES)
    def test_what_goes_on_exactly_goes_through_exactly(self, whole: str, place: int, places: list[int]) -> None:
        text = whole[: place % (len(whole) + 1)]
        assert text + relayed(Seam(text, prefilled=False), cut(whole[len(text) :], places)) == whole

    @examples(100)
    @given(prose(), st.integers(0, 10_000), st.integers(0, 10_000), LEADS, PLACES)
    def test_repeating_the_last_characters(
        self, whole: str, place: int, back: int, lead: str, places: list[int]
    ) -> None:
        text = whole[: place % (len(whole) + 1)]
        tail = text[back % (len(text) + 1) :]
        if size(tail) < LEAST_REPETITION:
            tail, lead = "", ""
        came = lead + tail + whole[len(text) :]
        assert text + relayed(Seam(text, prefilled=False), cut(came, places)) == whole

    @examples(100)
    @example("이야기100  이야기101 tale102 ", 13, "", [])
    @given(prose(), st.integers(0, 10_000), LEADS, PLACES)
    def test_repeating_all(self, whole: str, place: int, lead: str, places: list[int]) -> None:
        text = whole[: place % (len(whole) + 1)]
        if size(text) < LEAST_REPETITION or repeats_itself(text):
            return
        came = cut(lead + whole, places)
        assert text + relayed(Seam(text, prefilled=False), came) == whole

    @examples(100)
    @given(TIGHT_TEXT | ANY_TEXT, TIGHT_TEXT | ANY_TEXT, PLACES)
    @example("abcabcabc abc", "abc abcabc", [])
    @example("bc aabbccaabbccaabbcc", "aabbccaabbccaabbccd", [3, 9])
    def test_the_pieces_do_not_matter(self, text: str, came: str, places: list[int]) -> None:
        whole = instructed(text, came)
        assert relayed(Seam(text, prefilled=False), cut(came, places)) == whole
        assert relayed(Seam(text, prefilled=False), came) == whole

    @examples(100)
    @given(TIGHT_TEXT, TIGHT_TEXT, TIGHT_TEXT, st.integers(0, 60))
    def test_nothing_goes_but_what_repeats(self, text: str, more: str, tail: str, back: int) -> None:
        text += tail
        came = tail[min(back, len(tail)) :] + more
        left = instructed(text, came)
        assert came.endswith(left)
        gone = came[: len(came) - len(left)]
        if gone:
            repeated = gone.lstrip(" .…\n").rstrip()
            assert text.rstrip().endswith(repeated)
            assert size(repeated) >= 4

    @examples(100)
    @given(TIGHT_TEXT, TIGHT_TEXT, PLACES)
    def test_what_is_held_back_was_sent_before(self, text: str, came: str, places: list[int]) -> None:
        seam = Seam(text, prefilled=False)
        for piece in cut(came, places):
            seam.feed(piece)
            held = copy(seam).flush()
            assert len(held) <= len(text) + 32
            assert held.lstrip(" .…\n") in text

    SENTENCE = "The quick brown fox jumps over the lazy d"

    @pytest.mark.parametrize(
        ("text", "came", "left"),
        [
            pytest.param(SENTENCE, "og.", "og.", id="goes on within a word"),
            pytest.param(SENTENCE, "jumps over the lazy dog.", "og.", id="repeats some words"),
            pytest.param(SENTENCE, "…jumps over the lazy dog.", "og.", id="with an ellipsis"),
            pytest.param(SENTENCE, "... jumps over the lazy dog.", "og.", id="with dots"),
            pytest.param(SENTENCE, "\n\njumps over the lazy dog.", "og.", id="on a new line"),
            pytest.param(SENTENCE, f"{SENTENCE}og.", "og.", id="repeats all"),
            pytest.param(SENTENCE, SENTENCE, "", id="repeats all and stops"),
            pytest.param(SENTENCE, "dog.", "dog.", id="too little of the word"),
            pytest.param(SENTENCE, "… and more", "… and more", id="an ellipsis of its own"),
            pytest.param(SENTENCE, "...", "...", id="an ellipsis alone"),
            pytest.param(
                SENTENCE, "." * 40 + " jumps over the lazy dog.", "." * 40 + " jumps over the lazy dog.", id="dots"
            ),
            pytest.param(SENTENCE, ". jumps over the lazy dog.", ". jumps over the lazy dog.", id="a full stop"),
            pytest.param(SENTENCE, " \n ", " \n ", id="white space alone"),
            pytest.param(SENTENCE, "Jumps over the lazy dog.", "Jumps over the lazy dog.", id="not word for word"),
            pytest.param(SENTENCE, "brown fox jumps over a cat", "brown fox jumps over a cat", id="a false start"),
            pytest.param(SENTENCE, "brown fox jumps", "brown fox jumps", id="a false start at the end"),
            pytest.param("It is the", " the same", " the same", id="the the"),
            pytest.param("It is the", "the same", "the same", id="the the without a blank"),
            pytest.param("Row, row, row ", "row your boat", "row your boat", id="row row row"),
            pytest.param("We saw the weath", "weather change", "er change", id="a cut word begun again"),
            pytest.param("We saw the weath", "the weather change", "er change", id="two words begun again"),
            pytest.param("We saw the weather", "weather change", "weather change", id="a whole word again"),
            pytest.param("We saw the weath ", "weather", "weather", id="the word was not cut"),
            pytest.param("pole", "pole pole", "pole pole", id="a word that repeats itself"),
            pytest.param("ha haha", "hahaha", "hahaha", id="laughter"),
            pytest.param("self.load", "loader = 1", "er = 1", id="an identifier"),
            pytest.param("my_load", "loader = 1", "loader = 1", id="the end of an identifier"),
            pytest.param("reload", "loader = 1", "loader = 1", id="the end of a word"),
            pytest.param("ผลลัพธ์", "ผลลัพธ์ดี", "ผลลัพธ์ดี", id="Thai words have no seams"),
            pytest.param("昨日の天気", "天気予報", "天気予報", id="two East Asian characters"),
            pytest.param(
                "昨日の天気はとても良かった", "天気はとても良かったです", "です", id="ten East Asian characters"
            ),
            pytest.param("<td></td><td></td>", "<td></td><td></td></tr>", "<td></td><td></td></tr>", id="markup"),
            pytest.param("|---|---|---|", "---|---|\n| a |", "---|---|\n| a |", id="a table's rule"),
            pytest.param(
                "0, 0, 0, 0, 0, 0, 0, 0, 0,", " 0, 0, 0, 0, 0, 0, 0, 0, 1", " 0, 0, 0, 0, 0, 0, 0, 0, 1", id="zeros"
            ),
            pytest.param(
                "null, null, null, null, null, ", "null, null, null, null]", "null, null, null, null]", id="nulls"
            ),
            pytest.param(
                "- nothing to report today\n- nothing to report today\n",
                "- nothing to report today\n- rain",
                "- nothing to report today\n- rain",
                id="lines that repeat themselves",
            ),
            pytest.param(
                "    if a:\n        return None\n",
                "    if b:\n        return None\n",
                "    if b:\n        return None\n",
                id="code that looks alike",
            ),
            pytest.param(
                "def area(width, height):\n    return width * hei",
                "    return width * height\n",
                "ght\n",
                id="a line of code",
            ),
            pytest.param(
                "One sentence to repeat.\n\n", "One sentence to repeat.\n\nTwo.", "Two.", id="the blank came too"
            ),
            pytest.param("One sentence to repeat.\n\n", "One sentence to repeat. Two.", " Two.", id="another blank"),
            pytest.param(
                "One sentence to repeat. ", "One sentence to repeat.\n\nTwo.", "\n\nTwo.", id="a larger blank"
            ),
            pytest.param("One sentence to repeat.\n\n", "One sentence to repeat.\n", "", id="half of the blank"),
            pytest.param("One sentence to repeat.", "One sentence to repeat. Two.", " Two.", id="the blank is new"),
            pytest.param("Then,  ", "  she left", "  she left", id="blanks at the joint are the model's"),
            pytest.param(
                "A picture of a family: 👨‍👩", "A picture of a family: 👨‍👩‍👧 here", "‍👧 here", id="within a cluster"
            ),
            pytest.param(
                "She sat in the little cafe", "She sat in the little cafe\u0301.", "\u0301.", id="a mark is due"
            ),
            pytest.param(
                "Half of a pair comes: \ud83d", "Half of a pair comes: \ud83d\ude00", "\ude00", id="surrogates"
            ),
            pytest.param("", "Once", "Once", id="no text"),
        ],
    )
    def test_cases(self, text: str, came: str, left: str) -> None:
        assert instructed(text, came) == left
        assert relayed(Seam(text, prefilled=False), came) == left

    def test_it_waits_only_while_it_must(self) -> None:
        seam = Seam(self.SENTENCE, prefilled=False)
        pieces = ["…", "jumps", " over", " the lazy ", "dog", ".", "…"]
        assert [seam.feed(piece) for piece in pieces] == ["", "", "", "", "og", ".", "…"]
        seam = Seam(self.SENTENCE, prefilled=False)
        assert [seam.feed(piece) for piece in ["\n", "jumps", " up", " the"]] == ["", "", "\njumps up", " the"]

    def test_a_flush_before_anything_came_changes_nothing(self) -> None:
        seam = Seam(self.SENTENCE, prefilled=False)
        assert (seam.flush(), seam.feed("jumps over the lazy dog"), seam.flush()) == ("", "og", "")

    def test_after_a_flush_all_goes_through(self) -> None:
        seam = Seam(self.SENTENCE, prefilled=False)
        assert (seam.feed("jumps"), seam.flush(), seam.feed("jumps over")) == ("", "jumps", "jumps over")

    def test_what_stands_further_back_than_it_looks_is_not_found(self) -> None:
        text = "".join(f"word{number} " for number in range(HOLD_BACK_CHARACTERS // 6))
        assert len(text) > HOLD_BACK_CHARACTERS
        assert instructed(text, text) == text
        assert instructed(text, text[-HOLD_BACK_CHARACTERS:] + "end") == "end"


class TestItsTime:
    @pytest.mark.parametrize(
        ("text", "came"),
        [
            ("a" * 200_000, "a" * 60_000),
            ("ab" * 100_000, "ab" * 30_000 + "b"),
            ("a" * 65_000 + "b", "a" * 60_000),
            ("x " * 60_000, "y" * 60_000),
            (" " * 60_000, " " * 60_000),
        ],
    )
    def test_character_by_character(self, text: str, came: str) -> None:
        started_at = time.process_time()
        assert came.endswith(relayed(Seam(text, prefilled=False), came))
        assert time.process_time() - started_at < 2

    def test_in_one_piece(self) -> None:
        text = "ab" * 500_000
        started_at = time.process_time()
        assert instructed(text, text + "c") == text + "c"
        assert time.process_time() - started_at < 1


class TestTheSeamOfARequest:
    def test_it_knows_the_way(self) -> None:
        so_far = reply(ReasoningPart("hm"), "One sentence to repeat. ")
        assert open_seam(request(), so_far, PREFILLING).feed(" Two") == "Two"
        assert open_seam(request(), so_far, INSTRUCTED).feed("One sentence to repeat. Two") == "Two"

    def test_a_turn_that_the_caller_began_may_be_repeated_as_well(self) -> None:
        begun = Message(Role.ASSISTANT, (TextPart("The story of the fox begins: "),))
        asked = request(messages=(user("Hi"), begun))
        came: Sequence[str] = ["The story of the fox", " begins: Once upon a", " time"]
        assert relayed(open_seam(asked, reply("Once upon"), INSTRUCTED), came) == " a time"
