from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import request
from kit.properties import examples
from pointsman_server.domain.message import Message, Role, ToolCallPart
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.execution.request_texts import every_text, with_texts


def calling(arguments_json: str) -> CompletionRequest:
    return request(messages=(Message(Role.ASSISTANT, (ToolCallPart("c", "f", arguments_json),)),))


def arguments_of(asked: CompletionRequest) -> str:
    (part,) = asked.messages[0].parts
    assert isinstance(part, ToolCallPart)
    return part.arguments_json


def upper(asked: CompletionRequest) -> str:
    return arguments_of(with_texts(asked, str.upper))


def test_arguments_are_read_as_the_tool_reads_them() -> None:
    asked = calling('{"a\\u00e9": ["x\\ny", 12, true, null, 0.5], "b": {"c": "z"}}')
    assert [text for _, text in every_text(asked)] == ["a\u00e9", "x\ny", "12", "0.5", "b", "c", "z"]
    assert json.loads(upper(asked)) == {"A\u00c9": ["X\nY", 12, True, None, 0.5], "B": {"C": "Z"}}


def test_a_number_that_is_changed_becomes_a_text() -> None:
    hidden = with_texts(
        calling('{"card": 4539148803436467}'), lambda text: text.replace("4539148803436467", "[CARD_1]")
    )
    assert json.loads(arguments_of(hidden)) == {"card": "[CARD_1]"}


@pytest.mark.parametrize("arguments", ['{"a":   "B"}', "", "{not json", "[1, 2]", '"T"', "null", "NaN"])
def test_what_is_not_changed_stays_as_it_was(arguments: str) -> None:
    assert arguments_of(with_texts(calling(arguments), lambda text: text)) == arguments


def test_what_is_no_json_is_a_text_like_any_other() -> None:
    assert upper(calling("{oh no")) == "{OH NO"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@examples(200)
@given(value=_VALUES)
def test_changing_nothing_changes_nothing(value: object) -> None:
    written = json.dumps(value)
    assert arguments_of(with_texts(calling(written), lambda text: text)) == written
