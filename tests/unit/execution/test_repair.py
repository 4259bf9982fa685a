from __future__ import annotations

import pytest

from kit.catalog import request, user
from pointsman_server.domain.message import Message, Part, ReasoningPart, Role, TextPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import CompletionRequest, GenerationConfig
from pointsman_server.execution.repair import (
    BEGINNING_SHOWN_CHARACTERS,
    MOST_SHOWN_CHARACTERS,
    needs_check,
    repair_messages,
)

SCHEMA = GenerationConfig(response_schema={"type": "object"})


def asking(*messages: Message, generation: GenerationConfig = SCHEMA) -> CompletionRequest:
    return request(messages=messages or (user("Who?"),), generation=generation)


def reply(*parts: Part, reason: FinishReason = FinishReason.STOP) -> Reply:
    return Reply(parts, reason, "", Usage(), (), "", "")


class TestWhatIsChecked:
    @pytest.mark.parametrize("reason", FinishReason)
    def test_an_answer_that_the_model_gave_to_its_end(self, reason: FinishReason) -> None:
        whole = reason in (FinishReason.STOP, FinishReason.UNKNOWN)
        assert needs_check(asking(), reply(TextPart("{}"), reason=reason)) is whole

    @pytest.mark.parametrize("text", ["", "prose"])
    def test_whatever_it_says(self, text: str) -> None:
        assert needs_check(asking(), reply(ReasoningPart("hm"), TextPart(text)))
        assert needs_check(asking(), reply())

    def test_nothing_where_no_schema_is_asked_for(self) -> None:
        assert not needs_check(asking(generation=GenerationConfig()), reply(TextPart("{}")))

    def test_an_empty_schema_still_demands_json(self) -> None:
        assert needs_check(asking(generation=GenerationConfig(response_schema={})), reply(TextPart("x")))

    def test_no_call_of_a_tool(self) -> None:
        assert not needs_check(asking(), reply(TextPart("I look."), ToolCallPart("c", "search", "{}")))

    def test_nothing_that_the_caller_began(self) -> None:
        begun = Message(Role.ASSISTANT, (TextPart("{"),))
        assert not needs_check(asking(user("Who?"), begun), reply(TextPart('"a": 1}')))


class TestWhatIsAsked:
    def test_the_answer_and_what_is_wrong_with_it(self) -> None:
        system = Message(Role.SYSTEM, (TextPart("You are Lexi."),))
        wrong = reply(ReasoningPart("hm", signature="s"), TextPart('{"a": "x"}'))
        asked = repair_messages(asking(system, user("Who?")), wrong, ("/a: is text", "/b: is missing"))
        assert asked[:2] == (system, user("Who?"))
        assert asked[2] == Message(Role.ASSISTANT, (TextPart('{"a": "x"}'),))
        assert asked[3].role is Role.USER
        assert "- /a: is text\n- /b: is missing\n" in asked[3].text
        assert "shown" not in asked[3].text
        assert len(asked) == 4

    @pytest.mark.parametrize("text", ["", " \n"])
    def test_an_answer_without_text_is_not_shown(self, text: str) -> None:
        asked = repair_messages(asking(), reply(TextPart(text)), ("(root): empty",))
        assert [message.role for message in asked] == [Role.USER, Role.USER]

    @pytest.mark.parametrize("characters", [MOST_SHOWN_CHARACTERS, MOST_SHOWN_CHARACTERS + 1, 2_000_000])
    def test_of_a_long_answer_the_beginning_is_shown_and_that_it_is_one(self, characters: int) -> None:
        asked = repair_messages(asking(), reply(TextPart("x" * characters)), ("(root): no",))
        if characters <= MOST_SHOWN_CHARACTERS:
            assert len(asked[1].text) == characters
        else:
            assert asked[1].text == "x" * BEGINNING_SHOWN_CHARACTERS
            assert f"it had {characters} characters" in asked[2].text

    @pytest.mark.parametrize("violation", ["/{a}: {0}", "/%s: {violations}"])
    def test_what_looks_like_a_template_is_none(self, violation: str) -> None:
        assert f"- {violation}\n" in repair_messages(asking(), reply(TextPart("{0}")), (violation,))[-1].text
