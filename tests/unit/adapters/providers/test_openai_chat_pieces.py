from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.providers.openai_chat_pieces import ReasoningDetails, ToolCalls, details_text
from pointsman_server.domain.message import Part, ToolCallPart
from pointsman_server.domain.reply import ToolCallDelta, fold


def piece(
    arguments: Any = None, *, index: Any = None, id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    said = {"index": index, "id": id, "function": {key: value for key, value in function.items() if value is not None}}
    return {key: value for key, value in said.items() if value is not None}


def put_together(*said: dict[str, Any]) -> list[Part]:
    calls = ToolCalls()
    return list(fold(delta for one in said if (delta := calls.read_piece(one)) is not None).parts)


OSLO = ToolCallPart("c1", "weather", '{"city": "Oslo"}')
ROME = ToolCallPart("c2", "weather", '{"city": "Rome"}')


class TestPieces:
    def test_as_openai_streams_parallel_calls(self) -> None:
        assert put_together(
            piece("", index=0, id="c1", name="weather"),
            piece('{"city"', index=0),
            piece("", index=1, id="c2", name="weather"),
            piece('{"city": "Rome"}', index=1),
            piece(': "Oslo"}', index=0),
        ) == [OSLO, ROME]

    def test_whole_calls_without_index(self) -> None:
        said = [piece(call.arguments_json, id=call.id, name=call.name) for call in (OSLO, ROME)]
        assert put_together(*said) == [OSLO, ROME]

    def test_whole_calls_with_the_same_index(self) -> None:
        said = [piece(call.arguments_json, index=0, id=call.id, name=call.name) for call in (OSLO, ROME)]
        assert put_together(*said) == [OSLO, ROME]

    def test_whole_calls_with_neither_index_nor_id(self) -> None:
        assert put_together(piece("{}", name="clock"), piece("{}", name="weather")) == [
            ToolCallPart("", "clock", "{}"),
            ToolCallPart("", "weather", "{}"),
        ]

    def test_pieces_without_index_go_on_with_the_last_call(self) -> None:
        assert put_together(piece("", id="c1", name="weather"), piece('{"city": '), piece('"Oslo"}')) == [OSLO]

    def test_pieces_without_index_are_told_apart_by_their_ids(self) -> None:
        said = [
            piece('{"city": ', id="c1", name="weather"),
            piece('{"city": ', id="c2", name="weather"),
            piece('"Oslo"}', id="c1"),
            piece('"Rome"}', id="c2"),
        ]
        assert put_together(*said) == [OSLO, ROME]

    def test_id_and_name_that_are_repeated_are_told_once(self) -> None:
        calls = ToolCalls()
        first = calls.read_piece(piece('{"city": ', index=0, id="c1", name="weather"))
        second = calls.read_piece(piece('"Oslo"}', index=0, id="c1", name="weather"))
        assert first == ToolCallDelta("call0", "c1", "weather", '{"city": ')
        assert second == ToolCallDelta("call0", "", "", '"Oslo"}')

    def test_new_ids_without_a_name_begin_no_new_call(self) -> None:
        said = [piece('{"city": ', index=0, id="c1", name="weather"), piece('"Oslo"}', index=0, id="x9")]
        assert put_together(*said) == [OSLO]

    def test_id_that_comes_late(self) -> None:
        assert put_together(piece('{"city": ', index=0, name="weather"), piece('"Oslo"}', index=0, id="c1")) == [OSLO]

    @pytest.mark.parametrize(
        "empty", [{}, {"index": 0}, {"function": None}, {"index": 0, "function": {"arguments": ""}}]
    )
    def test_piece_that_says_nothing(self, empty: dict[str, Any]) -> None:
        calls = ToolCalls()
        assert calls.read_piece(empty) is None
        assert calls.read_whole(empty) is None
        assert len(calls) == 0

    def test_empty_piece_of_a_known_call(self) -> None:
        calls = ToolCalls()
        calls.read_piece(piece("", index=0, id="c1", name="weather"))
        assert calls.read_piece(piece("", index=0)) is None
        assert calls.read_piece(piece("", index=0, id="c1", name="weather")) is None

    @pytest.mark.parametrize(
        ("arguments", "passed_on"),
        [('{"a": 1', '{"a": 1'), ("", ""), (None, ""), ({"a": 1}, '{"a":1}'), ([], "[]")],
    )
    def test_arguments_pass_on_as_received(self, arguments: Any, passed_on: str) -> None:
        assert put_together(piece(arguments, index=0, id="c1", name="f")) == [ToolCallPart("c1", "f", passed_on)]

    def test_custom_tool(self) -> None:
        custom = {"id": "c1", "type": "custom", "custom": {"name": "math", "input": "4 + 4"}}
        assert put_together(custom) == [ToolCallPart("c1", "math", "4 + 4")]


def test_calls_of_a_whole_answer_are_never_mixed_up() -> None:
    calls = ToolCalls()
    said = [piece("{}", index=0, name="clock"), piece("{}", index=0, name="clock"), piece("{}", id="a", name="clock")]
    deltas = [calls.read_whole(one) for one in said]
    assert [delta.key for delta in deltas if delta is not None] == ["call0", "call1", "call2"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), st.integers(1, 9))
def test_any_cutting_of_indexed_calls_gives_the_calls(arguments: list[str], size: int) -> None:
    said = []
    for index, text in enumerate(arguments):
        said.append(piece("", index=index, id=f"c{index}", name="f"))
        said += [piece(text[start : start + size], index=index) for start in range(0, len(text), size)]
    assert put_together(*said) == [ToolCallPart(f"c{index}", "f", text) for index, text in enumerate(arguments)]


def merged(*blocks: dict[str, Any]) -> Any:
    details = ReasoningDetails()
    for block in blocks:
        details.add(block)
    return json.loads(details.json())


class TestReasoningDetails:
    def test_none(self) -> None:
        assert ReasoningDetails().json() == ""

    def test_texts_and_the_signature_behind_them(self) -> None:
        kind = {"type": "reasoning.text", "index": 0}
        assert merged(
            {**kind, "text": "The user", "format": "f"},
            {**kind, "text": " asks"},
            {**kind, "signature": "s", "id": None},
        ) == [{**kind, "text": "The user asks", "signature": "s", "format": "f"}]

    def test_summary_and_encrypted_blocks_stay_apart(self) -> None:
        summary = {"type": "reasoning.summary", "summary": "Greets.", "index": 0}
        encrypted = {"type": "reasoning.encrypted", "data": "gAAA", "index": 0}
        assert merged(summary, encrypted, encrypted) == [summary, encrypted, encrypted]

    def test_blocks_of_other_indices_stay_apart(self) -> None:
        first, second = ({"type": "reasoning.text", "text": "Hm.", "index": index} for index in (0, 1))
        assert merged(first, second) == [first, second]

    def test_signed_blocks_stay_apart(self) -> None:
        first, second = ({"type": "reasoning.text", "text": text, "signature": text} for text in "ab")
        assert merged(first, second) == [first, second]

    def test_the_blocks_that_are_added_are_not_changed(self) -> None:
        block = {"type": "reasoning.text", "text": "a", "index": 0}
        merged(block, block)
        assert block == {"type": "reasoning.text", "text": "a", "index": 0}

    def test_readable_text(self) -> None:
        assert details_text([{"text": "a"}, {"summary": "b"}, {"data": "gAAA"}, {"text": None}]) == "ab"
