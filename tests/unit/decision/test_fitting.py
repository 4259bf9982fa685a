from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import user
from kit.conversations import half_pairs, last_turn, requests
from kit.properties import examples
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.decision.documents import GAP
from pointsman_server.decision.fitting import Fitted, LeftOut, divide, fit, fit_whole, with_messages
from pointsman_server.decision.tokens import counted_tokens
from pointsman_server.domain.context import Trim
from pointsman_server.domain.message import Message, Part, Role, TextPart, ToolCallPart, ToolResultPart
from pointsman_server.domain.request import CompletionRequest, Document

COUNT = TiktokenCounter().count
SYSTEM = Message(Role.SYSTEM, (TextPart("Be brief."),))
ASK = user("What does a refund cost?")


def said(text: str, *parts: Part) -> Message:
    return Message(Role.ASSISTANT, (TextPart(text), *parts))


def of_words(words: int, word: str = "word") -> str:
    return f"{word} " * words


def asked(*before: Message, documents: tuple[Document, ...] = (), after: tuple[Message, ...] = ()) -> CompletionRequest:
    return CompletionRequest((SYSTEM, *before, ASK, *after), documents=documents)


def fitted(request: CompletionRequest, room: int, trim: Trim = Trim.ALL, **options: Any) -> Fitted:
    return fit(request, trim, room, COUNT, **{"cites": True, **options})


def tokens(request: CompletionRequest) -> int:
    return counted_tokens(request, COUNT)


PLAIN = asked()


class TestWhole:
    def test_without_documents_nothing_is_touched(self) -> None:
        request = asked(user("Hello"), said("Hi"))
        assert fit_whole(request, cites=True) == Fitted(request.messages)

    def test_documents_come_right_before_the_last_turn(self) -> None:
        request = asked(user("Hello"), said("Hi"), documents=(Document("fees", "A refund costs 5 EUR."),))
        whole = fit_whole(request, cites=True)
        assert (*whole.messages[:3], *whole.messages[4:]) == request.messages
        material = whole.messages[3]
        assert (material.role, len(material.parts)) == (Role.USER, 1)
        assert '<document id="fees">\nA refund costs 5 EUR.\n</document>' in material.text
        assert "[[fees]]" in material.text
        assert whole.shown == {"fees": "fees"}
        assert not whole.left_out

    def test_the_turn_may_have_gone_on_with_tools(self) -> None:
        called = said("Wait", ToolCallPart("1", "look_up", "{}"))
        result = Message(Role.TOOL, (ToolResultPart("1", "5 EUR"),))
        request = asked(documents=(Document("fees", "Free."),), after=(called, result))
        assert [message.role for message in fit_whole(request, cites=True).messages] == [
            Role.SYSTEM,
            Role.USER,
            Role.USER,
            Role.ASSISTANT,
            Role.TOOL,
        ]

    def test_without_citations_nobody_is_asked_for_marks(self) -> None:
        request = asked(documents=(Document("fees", "Free."),))
        assert "[[" not in fit_whole(request, cites=False).messages[1].text

    @pytest.mark.parametrize(
        ("relevances", "order"),
        [((0.1, 0.9, 0.5), "bca"), ((None, None, None), "cab"), ((0.0, None, 1.0), "cab"), ((0.5, 0.5, 0.5), "abc")],
    )
    def test_the_most_relevant_comes_first(self, relevances: tuple[float | None, ...], order: str) -> None:
        texts = ("The refund policy.", "Opening hours on weekdays.", "A refund has a cost: what it does cost is 5 EUR.")
        given = zip("abc", texts, relevances, strict=True)
        request = asked(documents=tuple(Document(name, text, relevance) for name, text, relevance in given))
        shown = re.findall('<document id="(.)">', fit_whole(request, cites=False).messages[1].text)
        assert "".join(shown) == order


class TestDocuments:
    DOCUMENTS = (
        Document("terms", of_words(400), 0.2),
        Document("fees", of_words(300, "fee"), 0.9),
        Document("note", of_words(20, "note"), 0.1),
    )

    def test_what_fits_is_left_alone(self) -> None:
        request = asked(documents=self.DOCUMENTS)
        assert fitted(request, tokens(request)) == fit_whole(request, cites=True)

    def test_the_least_relevant_goes_first(self) -> None:
        request = asked(documents=self.DOCUMENTS)
        found = fitted(request, tokens(request) - 1)
        assert found.left_out in (LeftOut(documents=("note",)), LeftOut(cut=("terms",)))
        assert found.tokens is not None
        assert found.tokens < tokens(request)

    def test_the_first_that_does_not_fit_is_cut_and_smaller_ones_follow(self) -> None:
        request = asked(documents=(*self.DOCUMENTS[:2], Document("long", of_words(900), 0.15)))
        found = fitted(request, tokens(asked(documents=self.DOCUMENTS[:2])) - 100)
        assert found.left_out == LeftOut(cut=("terms",), documents=("long",))
        assert set(found.shown.values()) == {"terms", "fees"}

    def test_a_document_is_cut_to_the_passages_that_matter(self) -> None:
        fillers = [f"Paragraph {number} is about something else. " * 8 for number in range(20)]
        text = "\n\n".join((*fillers[:10], "A refund does cost 5 EUR, whatever you bought. " * 6, *fillers[10:]))
        request = asked(documents=(Document("terms", text),))
        found = fitted(request, tokens(request) // 4)
        shown = found.messages[1].text
        assert found.left_out == LeftOut(cut=("terms",))
        assert "A refund does cost 5 EUR" in shown
        assert shown.count(GAP.strip()) >= 2
        assert "Paragraph 19" not in shown

    def test_where_nothing_speaks_for_a_passage_it_is_the_beginning(self) -> None:
        text = "\n\n".join(f"{number} " + of_words(60) for number in range(20))
        request = asked(documents=(Document("terms", text),))
        shown = fitted(request, tokens(request) // 3).messages[1].text
        assert "0 word" in shown
        assert shown.index(GAP.strip()) > shown.index("3 word")
        assert "19 word" not in shown

    def test_too_little_room_leaves_all_out(self) -> None:
        request = asked(documents=self.DOCUMENTS)
        found = fitted(request, tokens(asked()) + 30)
        assert found.messages == asked().messages
        assert found.left_out == LeftOut(documents=("terms", "fees", "note"))
        assert not found.shown

    def test_a_core_that_is_too_long_stays_whole(self) -> None:
        request = asked(user("Hello"), said("Hi"), documents=self.DOCUMENTS)
        assert fitted(request, 1).messages == asked().messages

    def test_they_stay_where_the_policy_says_so(self) -> None:
        request = asked(user("Hello"), said("Hi"), documents=self.DOCUMENTS)
        assert fitted(request, 1, Trim.NEVER).messages == fit_whole(request, cites=True).messages

    def test_a_text_without_borders_is_cut_all_the_same(self) -> None:
        request = asked(documents=(Document("data", "0123456789" * 2_000),))
        found = fitted(request, 2_000)
        assert found.left_out == LeftOut(cut=("data",))
        assert found.tokens is not None
        assert 1_000 < found.tokens <= 2_000


class TestTokensOfParts:
    """The tokens of a text need not be those of its parts together."""

    REQUEST = asked(documents=tuple(Document(f"d{number}", of_words(60), 1 - number / 10) for number in range(6)))

    @pytest.mark.parametrize(("share", "least"), [(0.1, 2), (0.3, 1)])
    def test_what_is_more_together_is_cut_further(self, share: float, least: int) -> None:
        def count(text: str) -> int:
            return round(len(text) * (1 + share * ("<documents>" in text)))

        room = counted_tokens(self.REQUEST, count) // 2
        found = fit(self.REQUEST, Trim.DOCUMENTS, room, count, cites=True)
        assert found.tokens == counted_tokens(with_messages(self.REQUEST, found), count) <= room
        assert len(found.shown) >= least

    def test_at_worst_nothing_is_left(self) -> None:
        def count(text: str) -> int:
            return len(text) + 100_000 * ("<documents>" in text and "word" in text)

        room = counted_tokens(asked(), count) + 2_000
        found = fit(self.REQUEST, Trim.DOCUMENTS, room, count, cites=True)
        assert found.messages == asked().messages


class TestHistory:
    def test_the_oldest_turns_go_first(self) -> None:
        turns = [message for number in range(5) for message in (user(f"{number} " * 50), said(f"{number}! " * 50))]
        request = asked(*turns)
        found = fitted(request, tokens(asked(*turns[4:])))
        assert found.messages == (SYSTEM, *turns[4:], ASK)
        assert found.left_out == LeftOut(turns=2, messages=4)

    def test_it_stays_unless_the_policy_says_otherwise(self) -> None:
        request = asked(user(of_words(500)), said("Hi"), documents=(Document("a", "A"),))
        found = fitted(request, 100, Trim.DOCUMENTS)
        assert found.messages == replace_documents(request).messages
        assert found.left_out == LeftOut(documents=("a",))

    def test_a_tool_pair_goes_as_one(self) -> None:
        called = said("Wait", ToolCallPart("1", "look_up", "{}"))
        result = Message(Role.TOOL, (ToolResultPart("1", of_words(50)),))
        before = (user("One"), called, user("Two, meanwhile"), result, said("Done"), user("Three"), said("Yes"))
        found = fitted(asked(*before), tokens(asked(*before)) - 1)
        assert found.messages == (SYSTEM, *before[5:], ASK)
        assert found.left_out == LeftOut(turns=2, messages=5)

    def test_a_call_that_the_last_turn_answers_stays(self) -> None:
        called = said("Wait", ToolCallPart("1", "look_up", "{}"))
        result = Message(Role.TOOL, (ToolResultPart("1", "5 EUR"),))
        request = CompletionRequest((user("Old"), said("Yes"), user("One"), called, user("Two"), result))
        assert fitted(request, 1).messages == request.messages[2:]

    def test_both_get_half_of_the_room_and_what_the_other_leaves(self) -> None:
        turns = [message for _ in range(10) for message in (user(of_words(40)), said(of_words(40)))]
        documents = tuple(Document(f"d{number}", of_words(80), 1 - number / 10) for number in range(10))
        request = asked(*turns, documents=documents)
        found = fitted(request, tokens(asked()) + 1_000)
        history = len(found.messages) - 3
        assert 400 <= history * 44 <= 500
        assert 4 <= len(found.shown) <= 6
        few = fitted(asked(*turns[:2], documents=documents), tokens(asked()) + 1_000)
        assert few.left_out.messages == 0
        assert len(few.shown) > len(found.shown)


def replace_documents(request: CompletionRequest) -> CompletionRequest:
    return CompletionRequest(request.messages)


class TestDivide:
    def test_nothing_may_go_where_there_is_nothing_or_the_policy_forbids_it(self) -> None:
        request = asked(user("Hello"), said("Hi"), documents=(Document("a", "A"),))
        assert divide(request, Trim.NEVER).core is request
        assert divide(PLAIN, Trim.ALL).core is PLAIN

    def test_the_core_is_what_may_not_go(self) -> None:
        request = asked(user("Hello"), said("Hi"), documents=(Document("a", "A"),))
        assert divide(request, Trim.ALL).core.messages == (SYSTEM, ASK)
        assert divide(request, Trim.DOCUMENTS).core.messages == request.messages
        assert divide(request, Trim.DOCUMENTS).core.documents == ()


_rooms = st.floats(0, 1.1)


@examples(100)
@given(requests, st.sampled_from(Trim), _rooms, st.booleans())
def test_every_shortened_request_fits_and_has_lost_nothing_it_may_not_lose(
    request: CompletionRequest, trim: Trim, share: float, cites: bool
) -> None:
    core = counted_tokens(divide(request, trim).core, COUNT)
    room = round(core + share * (tokens(request) - core))
    found = fit(request, trim, room, COUNT, cites=cites)
    sent = with_messages(request, found)
    assert tokens(sent) <= max(room, core)
    assert found.tokens in (None, tokens(sent))
    given = [message for message in found.messages if message in request.messages]
    material = [message for message in found.messages if message not in request.messages]
    assert last_turn(given) == last_turn(request.messages)
    assert [m for m in given if m.role is Role.SYSTEM] == [m for m in request.messages if m.role is Role.SYSTEM]
    assert half_pairs(given) <= half_pairs(request.messages)
    assert len(material) <= 1
    if trim is not Trim.ALL:
        assert given == list(request.messages)
    if trim is Trim.NEVER:
        assert not found.left_out
    for message in material:
        names = re.findall('<document id="(.*?)"', message.text)
        assert len(names) == len(found.shown) == message.text.lower().count("</document>")
        assert message.text.endswith("</documents>")
    assert {*found.shown.values(), *found.left_out.documents} == {one.id for one in request.documents}
    assert {*found.left_out.cut} <= {*found.shown.values()}


@examples(40)
@given(requests, st.sampled_from((Trim.DOCUMENTS, Trim.ALL)), st.floats(0, 1))
def test_what_is_kept_of_a_history_is_its_end(request: CompletionRequest, trim: Trim, share: float) -> None:
    found = fitted(request, round(tokens(request) * share), trim)
    kept = [id(message) for message in found.messages if message.role is not Role.SYSTEM]
    mine = [id(message) for message in request.messages if message.role is not Role.SYSTEM]
    kept = [one for one in kept if one in mine]
    assert kept == mine[len(mine) - len(kept) :]
