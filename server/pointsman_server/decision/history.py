"""Which messages of a conversation may be left out, and which only together."""

from __future__ import annotations

from collections.abc import Sequence

from pointsman_server.domain.message import Message, Role, ToolCallPart, ToolResultPart

Group = tuple[int, ...]
"""Places of messages that are kept or left out together."""


def place_of_ask(messages: Sequence[Message]) -> int:
    """Where the last turn begins: the user's last message, else the first that is no system message."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role is Role.USER:
            return place
    return next((place for place, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages))


def groups_of(messages: Sequence[Message]) -> list[Group]:
    """What comes before the last turn, oldest first, without system messages.

    A group is one turn, from a message of the user up to the next one; or several, where a tool that one of them calls
    is answered in another. Turns from which a tool is answered in the last turn are in no group: they cannot go.
    """
    end = place_of_ask(messages)
    turns = _turns(messages[:end])
    answered = _answered_at(messages)
    groups: list[Group] = []
    while turns:
        group = turns.pop(0)
        reach = _reach(messages, group, answered)
        while turns and turns[0][0] <= reach:
            group = (*group, *turns.pop(0))
            reach = max(reach, _reach(messages, group, answered))
        if reach >= end:
            break
        groups.append(group)
    return groups


def _turns(messages: Sequence[Message]) -> list[Group]:
    turns: list[list[int]] = []
    for place, message in enumerate(messages):
        if message.role is Role.SYSTEM:
            continue
        if message.role is Role.USER or not turns:
            turns.append([])
        turns[-1].append(place)
    return [tuple(turn) for turn in turns]


def _answered_at(messages: Sequence[Message]) -> dict[str, int]:
    return {
        part.tool_call_id: place
        for place, message in enumerate(messages)
        for part in message.parts
        if isinstance(part, ToolResultPart)
    }


def _reach(messages: Sequence[Message], group: Group, answered: dict[str, int]) -> int:
    """The last place in which a tool call of these messages is answered; -1 without any."""
    calls = (part.id for place in group for part in messages[place].parts if isinstance(part, ToolCallPart))
    return max((answered.get(call, -1) for call in calls), default=-1)
