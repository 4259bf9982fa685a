from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.programs import load_program
from kit.properties import examples
from pointsman_server.domain.plan import TaskType

composing: Any = load_program("training/compose.py")

MATERIAL = [
    {"kind": "email", "lang": "en", "text": "<<1 2 3>>"},
    {"kind": "email", "lang": "de", "text": "<<4 5 6>>"},
    {"kind": "log", "lang": "en", "text": "<<7 8 9>>"},
]
"""What surrounds has no letters, what asks has nothing else: so each can be told from the other."""

AROUND = composing.Surroundings(
    MATERIAL,
    {
        "prefix": [{"lang": "en", "text": "#1"}],
        "suffix": [{"lang": "en", "text": "#2"}, {"lang": "de", "text": "#3"}],
        "lead_in": [{"lang": "en", "text": "#4"}],
        "frame": [{"lang": "en", "text": "[{ask}]"}, {"lang": "de", "text": "[{material}|{ask}]"}],
    },
)
asks = st.text("abcDEF gh", min_size=1, max_size=200).map(str.strip).filter(bool)
seeds = st.integers(0, 10_000)


def labelled(ask: str, **changes: Any) -> Any:
    fields = {"tier": 1, "mark": "M", "task": "writing", "language": "en", "kind": "", "source": "test"}
    return composing.Labelled(**{"ask": ask, **fields, **changes})


def compose(one: Any, seed: int, *, plain: bool = False) -> Any:
    return composing.compose(one, AROUND, random.Random(seed), plain=plain)


def letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


@examples(200)
@given(asks, seeds, st.sampled_from(("", "email", "log", "unheard of")), st.sampled_from(("en", "de", "fr")))
def test_the_ask_stands_where_it_says_and_nowhere_else(ask: str, seed: int, kind: str, language: str) -> None:
    made = compose(labelled(ask, kind=kind, language=language), seed)
    assert letters(made.text[: made.start]) == letters(made.text[made.end :]) == ""
    lost = len(letters(ask)) - len(letters(made.text[made.start : made.end]))
    assert abs(lost) <= max(1, 2 * len(ask) // 40)  # slips of the pen


@examples(100)
@given(asks, seeds, st.sampled_from(("", "email")))
def test_what_is_plain_is_left_as_it_was_written(ask: str, seed: int, kind: str) -> None:
    made = compose(labelled(ask, kind=kind), seed, plain=True)
    assert made.text[made.start : made.end] == ask
    assert kind or made.text == ask


@examples(100)
@given(asks, seeds, st.booleans())
def test_what_was_written_around_an_ask_stays_there(ask: str, seed: int, plain: bool) -> None:
    made = compose(labelled(ask, before="1: ", after=" :2"), seed, plain=plain)
    assert made.text[: made.start].endswith("1: ")
    assert made.text[made.end :].startswith(" :2")


@examples(100)
@given(asks, seeds, st.booleans())
def test_material_of_its_kind_is_there_as_a_whole(ask: str, seed: int, plain: bool) -> None:
    made = compose(labelled(ask, kind="email"), seed, plain=plain)
    assert "<<1 2 3>>" in made.text or "<<4 5 6>>" in made.text


@examples(50)
@given(asks, seeds)
def test_the_same_seed_gives_the_same_request(ask: str, seed: int) -> None:
    assert compose(labelled(ask, kind="log"), seed) == compose(labelled(ask, kind="log"), seed)


def test_long_material_is_cut_to_a_piece_of_it() -> None:
    long = {"kind": "report", "lang": "en", "text": " ".join(str(number) for number in range(400))}
    around = composing.Surroundings([long], AROUND.wrappers)
    made = [composing.compose(labelled("ask", kind="report"), around, random.Random(seed)) for seed in range(60)]
    whole = [long["text"] in one.text for one in made]
    assert any(whole)
    assert not all(whole)


def test_a_part_keeps_some_surroundings_of_every_place() -> None:
    part = AROUND.part(lambda number: number % 2 == 0)
    assert [one["text"] for one in part.material] == ["<<1 2 3>>", "<<7 8 9>>"]
    assert {place: len(kept) for place, kept in part.wrappers.items()} == {
        "prefix": 1,
        "suffix": 1,
        "lead_in": 1,
        "frame": 1,
    }


def test_labelled_asks_are_read_from_a_folder(tmp_path: Path) -> None:
    line = {"ask": "Hi", "mark": "S1", "task": "chat", "lang": "en"}
    whole = {**line, "mark": "C3", "before": "b", "after": "a"}
    (tmp_path / "some.jsonl").write_text(f"{json.dumps(line)}\n\n{json.dumps(whole)}\n")
    (tmp_path / "material.jsonl").write_text('{"kind": "log", "lang": "en", "text": "12:00 up"}\n')
    (tmp_path / "wrappers.jsonl").write_text('{"where": "prefix", "lang": "en", "text": "Please"}\n')
    prose = tmp_path / "page.md"
    prose.write_text("A line of prose.\n" * 100)
    first, second = composing.read_labelled(tmp_path)
    around = composing.read_surroundings(tmp_path, [prose])
    assert (first.tier, first.source, first.before) == (0, "some", "")
    assert (second.tier, second.before, second.after) == (2, "b", "a")
    assert [one["kind"] for one in around.material] == ["log", "article"]
    assert list(around.wrappers) == ["prefix"]


@pytest.fixture(scope="module")
def shipped() -> list[Any]:
    return list(composing.read_labelled())


class TestShippedAsks:
    def test_their_marks_and_tasks_are_known(self, shipped: list[Any]) -> None:
        assert {one.task for one in shipped} <= {task.value for task in TaskType}
        assert {one.mark for one in shipped} <= {"M", *(f"{letter}{n}" for letter in "SC" for n in range(1, 11))}

    def test_every_tier_and_task_has_examples(self, shipped: list[Any]) -> None:
        assert {one.tier for one in shipped} == {0, 1, 2}
        assert {one.task for one in shipped} == {task.value for task in TaskType}

    def test_none_has_both_surroundings_of_its_own_and_material(self, shipped: list[Any]) -> None:
        """The material would take their place."""
        assert not [one.ask for one in shipped if one.kind and (one.before or one.after)]

    def test_none_has_two_tiers(self, shipped: list[Any]) -> None:
        tiers: dict[str, set[int]] = {}
        for one in shipped:
            tiers.setdefault(f"{one.before}|{one.ask}|{one.after}|{one.kind}".lower(), set()).add(one.tier)
        assert [ask for ask, found in tiers.items() if len(found) > 1] == []
