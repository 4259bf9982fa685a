from __future__ import annotations

from hypothesis import given

from kit.catalog import user
from kit.conversations import conversations, half_pairs, last_turn
from kit.properties import examples
from pointsman_server.decision.history import groups_of, place_of_ask
from pointsman_server.domain.message import Message, Role, TextPart, ToolCallPart, ToolResultPart

SYSTEM = Message(Role.SYSTEM, (TextPart("Be brief."),))
SAID = Message(Role.ASSISTANT, (TextPart("Yes."),))


def calls(*names: str) -> Message:
    return Message(Role.ASSISTANT, tuple(ToolCallPart(name, "f", "{}") for name in names))


def answers(name: str) -> Message:
    return Message(Role.TOOL, (ToolResultPart(name, "42"),))


def test_a_turn_is_from_the_user_to_the_user() -> None:
    messages = (SYSTEM, user("1"), SAID, user("2"), calls("a"), answers("a"), SAID, SYSTEM, user("3"))
    assert groups_of(messages) == [(1, 2), (3, 4, 5, 6)]


def test_what_stands_before_the_first_user_is_a_turn_too() -> None:
    assert groups_of((SAID, user("1"), user("2"))) == [(0,), (1,)]


def test_turns_that_share_a_tool_belong_together() -> None:
    messages = (user("1"), calls("a", "b"), user("2"), answers("a"), calls("c"), user("3"), answers("c"), answers("b"))
    assert groups_of((*messages, user("4"), SAID, user("5"))) == [tuple(range(8)), (8, 9)]


def test_a_turn_that_the_last_one_answers_cannot_go() -> None:
    messages = (user("1"), SAID, user("2"), calls("a"), user("3"), SAID, user("4"), answers("a"))
    assert groups_of(messages) == [(0, 1)]


def test_a_call_that_nobody_answers_holds_nothing() -> None:
    assert groups_of((user("1"), calls("a"), user("2"))) == [(0, 1)]


def test_without_a_user_the_last_turn_is_all() -> None:
    assert place_of_ask((SYSTEM, SAID)) == 1
    assert groups_of((SYSTEM, SAID)) == []
    assert place_of_ask((SYSTEM,)) == 1


@examples(100)
@given(conversations())
def test_whatever_goes_from_the_front_leaves_no_half_pair(messages: tuple[Message, ...]) -> None:
    groups = groups_of(messages)
    places = [place for group in groups for place in group]
    assert places == sorted(set(places))
    for count in range(len(groups) + 1):
        gone = {place for group in groups[:count] for place in group}
        rest = [message for place, message in enumerate(messages) if place not in gone]
        assert half_pairs(rest) <= half_pairs(messages)
        assert last_turn(rest) == last_turn(messages)
