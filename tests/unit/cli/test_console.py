from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.cli.console import as_shown, count, make_table, open_console, seconds, usd, without_controls


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    shown = without_controls(text)
    assert {character for character in shown if unicodedata.category(character) == "Cc"} <= {"\n", "\t"}


@given(st.text(st.characters(exclude_categories=["Cc"])))
def test_other_text_stays_as_it_is(text: str) -> None:
    assert without_controls(text) == text


def test_controls_are_written_out() -> None:
    assert without_controls("a\x1b[31mb\x07\x9b\r\n\tc") == "a\\x1b[31mb\\x07\\x9b\\x0d\n\tc"


@given(st.integers(0, 10**15))
def test_dollars_keep_every_millionth(micro_usd: int) -> None:
    shown = usd(micro_usd)
    assert shown.startswith("$")
    assert int(shown[1:].replace(",", "").replace(".", "")) == micro_usd


@pytest.mark.parametrize(
    ("micro_usd", "shown"), [(0, "$0.000000"), (971, "$0.000971"), (1_234_567_890, "$1,234.567890")]
)
def test_dollars(micro_usd: int, shown: str) -> None:
    assert usd(micro_usd) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0 µs"), (0.000338, "338 µs"), (0.0042, "4.2 ms"), (0.3, "300 ms"), (1.25, "1.2 s"), (61.0, "61.0 s")],
)
def test_durations(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_counts() -> None:
    assert [count(number, "token") for number in (0, 1, 12_345)] == ["0 tokens", "1 token", "12,345 tokens"]


def test_what_is_piped_is_plain_and_unbroken(capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table(("name", "detail"))
    table.add_row(as_shown("[bold]x"), as_shown("word " * 60))
    open_console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("[bold]x  word word")
    assert "\x1b" not in "".join(lines)
