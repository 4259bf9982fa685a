"""Folding pieces gives back the message they were cut from, wherever the cuts are."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.v1.answer_pb2 import Delta, Failover, ToolCallDelta
from pointsman.v1.completion_pb2 import ROLE_ASSISTANT, Message, Opaque, Part, Reasoning, ToolCall
from pointsman_client import assistant, tool_call
from pointsman_client._folding import Folder
from pointsman_client.testing._script import deltas_of

texts = st.text(max_size=40)
parts = st.one_of(
    st.builds(lambda text, seal: Part(text=text, signature=seal), texts, texts),
    st.builds(
        lambda text, redacted, seal: Part(reasoning=Reasoning(text=text, redacted=redacted), signature=seal),
        texts,
        st.booleans(),
        texts,
    ),
    st.builds(
        lambda name, arguments, seal: Part(
            tool_call=ToolCall(id="c" + name, name=name, arguments_json=arguments), signature=seal
        ),
        texts,
        texts,
        texts,
    ),
    st.builds(lambda json: Part(opaque=Opaque(dialect="d", kind="k", json=json)), texts),
)
messages = st.lists(parts, max_size=5).map(lambda chosen: Message(role=ROLE_ASSISTANT, parts=chosen))


def cut_up(message: Message, draw: random.Random) -> Iterator[Delta]:
    """The message in pieces cut at random places, as a server may cut it."""
    for index, part in enumerate(message.parts):
        for number, (body, seal) in enumerate(zip(*pieces_of(part, draw), strict=True)):
            delta = Delta(part_index=index, signature=seal)
            match part.WhichOneof("content"):
                case "text":
                    delta.text = body
                case "reasoning":
                    delta.reasoning.CopyFrom(Reasoning(text=body, redacted=part.reasoning.redacted and number == 0))
                case "tool_call":
                    named = part.tool_call if number == 0 else ToolCall()
                    delta.tool_call.CopyFrom(ToolCallDelta(id=named.id, name=named.name, arguments_json=body))
                case _:
                    delta.opaque.CopyFrom(part.opaque)
            yield delta


def pieces_of(part: Part, draw: random.Random) -> tuple[list[str], list[str]]:
    count = 1 if part.HasField("opaque") else draw.randint(1, 4)
    body = part.text or part.reasoning.text or part.tool_call.arguments_json
    return cut(body, count, draw), cut(part.signature, count, draw)


def cut(text: str, count: int, draw: random.Random) -> list[str]:
    places = [0, *sorted(draw.randint(0, len(text)) for _ in range(count - 1)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(places)]


def fold(*steps: Delta | Failover) -> Message:
    folder = Folder()
    for step in steps:
        if isinstance(step, Delta):
            folder.add(step)
        else:
            folder.cut(step)
    return folder.message()


@given(messages, st.randoms(use_true_random=False))
def test_the_fold_is_the_message(message: Message, draw: random.Random) -> None:
    assert fold(*cut_up(message, draw)) == message


@given(messages)
def test_the_doubles_own_pieces_fold_too(message: Message) -> None:
    assert fold(*deltas_of(message)) == message


@given(messages, messages, st.randoms(use_true_random=False))
def test_a_restart_leaves_nothing_behind(first: Message, second: Message, draw: random.Random) -> None:
    assert fold(*cut_up(first, draw), Failover(characters_kept=0), *cut_up(second, draw)) == second


@given(st.lists(texts, max_size=4), st.data())
def test_a_cut_keeps_so_many_characters(pieces: list[str], data: st.DataObject) -> None:
    whole = "".join(pieces)
    kept = data.draw(st.integers(0, len(whole)))
    folded = fold(*deltas_of(assistant(*pieces)), Failover(characters_kept=kept))
    assert "".join(part.text for part in folded.parts) == whole[:kept]


def test_a_cut_drops_what_follows_it() -> None:
    message = assistant("Let me see.", tool_call("c1", "weather", {}))
    assert fold(*deltas_of(message), Failover(characters_kept=11)) == assistant("Let me see.")


def test_a_shortened_part_loses_its_seal() -> None:
    message = Message(role=ROLE_ASSISTANT, parts=[Part(text="abcdef", signature="seal")])
    assert fold(*deltas_of(message), Failover(characters_kept=6)) == message
    assert fold(*deltas_of(message), Failover(characters_kept=3)) == assistant("abc")


def test_pieces_of_different_parts_may_mix() -> None:
    mixed = [Delta(text="a", part_index=1), Delta(text="x", part_index=0), Delta(text="b", part_index=1)]
    assert fold(*mixed) == assistant("x", "ab")


def test_a_seal_may_come_before_or_after_its_part() -> None:
    alone = [Delta(signature="se"), Delta(text="a"), Delta(signature="al")]
    assert fold(*alone) == Message(role=ROLE_ASSISTANT, parts=[Part(text="a", signature="seal")])


def test_a_part_does_not_change_its_kind() -> None:
    with pytest.raises(ValueError, match="part 0 began as text and goes on as reasoning"):
        fold(Delta(text="a"), Delta(reasoning=Reasoning(text="b")))


def test_a_seal_without_a_part_is_a_part_without_content() -> None:
    assert fold(Delta(signature="seal")) == Message(role=ROLE_ASSISTANT, parts=[Part(signature="seal")])


def test_a_cut_passes_over_what_has_no_text() -> None:
    thinking = [Delta(reasoning=Reasoning(text="Hm")), Delta(text="Well then", part_index=1)]
    kept = fold(*thinking, Failover(characters_kept=4))
    assert kept == Message(role=ROLE_ASSISTANT, parts=[Part(reasoning=Reasoning(text="Hm")), Part(text="Well")])
