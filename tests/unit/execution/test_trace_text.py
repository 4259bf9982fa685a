"""Masked prompts and answers: what is readable in them and what never is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import call, request, snapshot, user
from kit.guards import PlainScanner, guards
from pointsman_server.domain.call import Call
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import Document
from pointsman_server.domain.safety import InjectionMode, InjectionPolicy, Safety, SensitiveMode, SensitivePolicy
from pointsman_server.execution import trace_text
from pointsman_server.execution.guarding import ON_LOOP_CHARACTERS
from pointsman_server.execution.trace_text import Shown, TooMuchToMaskError, TraceMasker

PLENTY = 100_000
WORDS = ["ann@x.org", "123-45-6789", "Dr Who", "DR WHO", "word", "[EMAIL_1]", "\n"]


def reply(*parts: Part) -> Reply:
    return Reply(parts, FinishReason.STOP, "stop", Usage(), (), "id", "m-1")


def said(*messages: Message | str, **fields: Any) -> Call:
    turns = tuple(user(one) if isinstance(one, str) else one for one in messages)
    return call(snapshot(), request=request(messages=turns, **fields))


def shown(asked: Call, *answer: Part, most: int = PLENTY, scanner: PlainScanner | None = None) -> Shown:
    told = reply(*answer) if answer else None
    return asyncio.run(TraceMasker(scanner or PlainScanner()).shown(asked, told, most))


def guarded(asked: Call, mode: SensitiveMode) -> Call:
    safety = Safety(SensitivePolicy(mode), InjectionPolicy(InjectionMode.OFF))
    policy = snapshot(safety=safety)
    return asyncio.run(guards().guard(call(policy, request=asked.request)))


def test_a_conversation_is_told_turn_by_turn() -> None:
    asked = said(
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (TextPart("Look."), ImagePart(b"...", "image/png"))),
        Message(
            Role.ASSISTANT,
            (
                ReasoningPart("Hm."),
                ReasoningPart("", signature="sealed", redacted=True),
                ToolCallPart("c", "weather", '{"city": "Paris", "days": 2}'),
                OpaquePart("d", "k", '{"sealed": 1}'),
            ),
        ),
        Message(Role.TOOL, (ToolResultPart("c", "Rain."),)),
        documents=(Document("d", "A text.", metadata={"title": "A title"}),),
    )
    assert shown(asked).prompt.splitlines() == [
        "system: Be brief.",
        "user: Look.",
        "user: (an image)",
        "assistant thinks: Hm.",
        "assistant calls: weather",
        "assistant calls with: city",
        "assistant calls with: Paris",
        "assistant calls with: days",
        "assistant calls with: 2",
        "assistant: (a block that only its provider can read)",
        "tool answers: Rain.",
        "document 1: A title",
        "document 1: A text.",
    ]


def test_an_answer_is_told_as_it_is() -> None:
    assert shown(said("?"), TextPart("Rain.")).answer == "Rain."
    call_of_tool = ToolCallPart("c", "weather", '{"city": "Paris"}')
    assert shown(said("?"), ReasoningPart("Hm."), call_of_tool).answer == (
        "thinks: Hm.\ncalls: weather\ncalls with: city\ncalls with: Paris"
    )
    assert shown(said("?")).answer == ""


@pytest.mark.parametrize("mode", [SensitiveMode.OFF, SensitiveMode.DETECT, SensitiveMode.MASK])
def test_the_same_value_is_masked_alike_in_prompt_and_answer(mode: SensitiveMode) -> None:
    asked = guarded(said("I am ann@x.org, not bob@x.org"), mode)
    assert shown(asked, TextPart("Dear ann@x.org and new@y.org")) == (
        "user: I am [EMAIL_1], not [EMAIL_2]",
        "Dear [EMAIL_1] and [EMAIL_3]",
    )


@pytest.mark.parametrize("mode", [SensitiveMode.OFF, SensitiveMode.DETECT, SensitiveMode.MASK])
def test_what_was_found_once_is_masked_where_nobody_would_find_it(mode: SensitiveMode) -> None:
    # In quotes the scanner sees an address as a longer one; in capitals it sees none.
    asked = guarded(said("I am ann@x.org", "It is xann@x.orgx, or ANN@X.ORG"), mode)
    told = shown(asked, TextPart("So you are ANN@X.ORG."))
    assert "ann@x.org" not in f"{told}".lower()


def test_names_of_tools_and_arguments_are_masked_too() -> None:
    tool = ToolCallPart("c", "mail_ann@x.org", '{"bob@x.org": "to\\nDr Who"}')
    told = shown(said(Message(Role.ASSISTANT, (tool,))), tool)
    for value in ("ann@x.org", "bob@x.org", "Dr Who"):
        assert value not in f"{told}"


def test_a_placeholder_of_the_caller_s_own_stays() -> None:
    assert shown(said("What is [EMAIL_1]? ann@x.org")).prompt == "user: What is [EMAIL_1]? [EMAIL_2]"


def test_kinds_that_the_policy_ignores_are_masked_all_the_same() -> None:
    safety = Safety(SensitivePolicy(SensitiveMode.MASK, ignored=frozenset({"EMAIL"})))
    asked = asyncio.run(guards().guard(call(snapshot(safety=safety), request=request("I am ann@x.org"))))
    assert shown(asked).prompt == "user: I am [EMAIL_1]"


class TestLength:
    def test_of_long_texts_the_middle_is_left_out(self) -> None:
        told = shown(said("b" * 50 + "m" * 500 + "e" * 50), TextPart("short"), most=100)
        assert told.answer == "short"
        begin, note, end = told.prompt.splitlines()
        assert (begin, end) == ("user: " + "b" * 44, "e" * 50)
        assert note == "(… 506 characters left out …)"

    def test_nothing_is_cut_before_it_is_masked(self) -> None:
        told = shown(said("x" * 40 + " Dr Whoever" + "y" * 200), most=100)
        assert "Who" not in told.prompt
        assert "[PERSON_1]" in told.prompt or "[PERS" in told.prompt

    @pytest.mark.parametrize("most", [100, 101])
    def test_what_fits_is_whole(self, most: int) -> None:
        text = "x" * (most - len("user: "))
        assert shown(said(text), most=most).prompt == f"user: {text}"

    def test_large_texts_are_masked_in_a_thread(self) -> None:
        told = shown(said("word " * (ON_LOOP_CHARACTERS // 5), "ann@x.org"), most=100)
        assert told.prompt.endswith("[EMAIL_1]")

    def test_of_too_long_a_call_nothing_is_kept(self) -> None:
        asked = said("x" * trace_text.MOST_CHARACTERS)
        assert shown(asked, most=10).prompt
        with pytest.raises(TooMuchToMaskError):
            shown(asked, TextPart("y"))

    def test_of_a_call_that_is_full_of_secrets_nothing_is_kept(self) -> None:
        many = [f"a{number}@x.org" for number in range(trace_text.MOST_VALUES + 1)]
        assert "a1@x.org" not in shown(said(" ".join(many[1:]))).prompt
        with pytest.raises(TooMuchToMaskError):
            shown(said(" ".join(many)))


def test_a_scanner_that_fails_leaves_nothing() -> None:
    with pytest.raises(RuntimeError):
        shown(said("fine", "broken"), scanner=PlainScanner(fails_at="broken"))


def test_what_a_database_cannot_hold_is_left_out() -> None:
    told = shown(said("a\0b"), TextPart("c\ud800d"), scanner=PlainScanner(fails_at="never"))
    assert told == ("user: a\ufffdb", "c?d")


@given(
    st.lists(st.sampled_from(["ann@x.org", "123-45-6789", "Dr Who", "DR WHO", "word", "[EMAIL_1]", "\n"]), max_size=9)
)
def test_no_value_that_was_found_is_anywhere(words: list[str]) -> None:
    text = " ".join(words)
    found = {text[one.start : one.end] for one in PlainScanner().scan(text)}
    told = shown(said(text), TextPart("-".join(words)))
    assert not any(value.lower() in f"{told.prompt}{told.answer}".lower() for value in found)
