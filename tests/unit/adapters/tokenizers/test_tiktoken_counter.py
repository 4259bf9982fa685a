from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.adapters.tokenizers import tiktoken_counter
from pointsman_server.adapters.tokenizers.tiktoken_counter import (
    ENCODING,
    PIECE_CHARS,
    TiktokenCounter,
    vocabulary_is_present,
)

COUNTER = TiktokenCounter()


def _another() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the package's own loading
        import bpe_openai  # type: ignore[import-untyped]

        return bpe_openai.get_encoding(ENCODING)


ANOTHER = _another()
"""An implementation of the same encoding that shares only the vocabulary with ours."""


def counted_by_another(text: str) -> int:
    return len(ANOTHER.encode_ordinary(text))


SAMPLES = (
    "",
    "Hello world",
    "It's what they'd've said, isn't it?",
    "1234567 and 89",
    "  two\n\n\n  lines\t\r\n end   ",
    "naïve café; 日本語のテキスト; שלום; Привет",
    "👩‍🚀🏳️‍🌈👍🏽",
    "def f(x): return {'a': [1, 2.5e-3]}  # comment\n",
    "<|endoftext|>",
    "\x00\x1b[31m\u202e\ufeff",
)


@pytest.mark.parametrize("text", SAMPLES)
def test_it_counts_as_another_implementation_does(text: str) -> None:
    assert COUNTER.count(text) == counted_by_another(text)


@examples(200)
@given(st.text(max_size=200) | st.text("aA1 '\n.é日", max_size=60))
def test_it_counts_any_text_as_another_implementation_does(text: str) -> None:
    assert COUNTER.count(text) == counted_by_another(text)


@examples(100)
@given(st.text(max_size=200))
def test_it_never_counts_more_tokens_than_bytes(text: str) -> None:
    assert COUNTER.count(text) <= len(text.encode())


def test_a_lone_surrogate_is_no_obstacle() -> None:
    assert COUNTER.count("a\ud800b") >= 2


@pytest.mark.parametrize("words", ["word ", "Some words, and numbers 12345; ", "日本 "])
def test_long_texts_with_breaks_are_counted_exactly(words: str) -> None:
    text = words * (3 * PIECE_CHARS // len(words))
    assert COUNTER.count(text) == counted_by_another(text)


@examples(40)
@given(st.lists(st.text("ab1 .\n", min_size=1, max_size=9), min_size=1, max_size=9), st.integers(1, 7))
def test_long_texts_are_off_by_two_tokens_for_each_cut_at_most(words: list[str], times: int) -> None:
    text = " ".join(words) * (times * PIECE_CHARS // 8)
    cuts = len(text) // (PIECE_CHARS // 2)
    assert abs(COUNTER.count(text) - counted_by_another(text)) <= 2 * cuts


@pytest.mark.parametrize("character", ["a", " ", "\n", "=", "日", "👩"])
def test_long_runs_without_a_break_are_cut(character: str) -> None:
    text = character * (5 * PIECE_CHARS)
    assert abs(COUNTER.count(text) - counted_by_another(text)) <= 2 * 4


def test_all_counters_share_what_was_loaded_once() -> None:
    TiktokenCounter().warm_up()
    assert TiktokenCounter().is_ready


def test_the_vocabulary_is_installed() -> None:
    assert vocabulary_is_present()


def test_a_missing_vocabulary_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktoken_counter, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="bpe-openai"):
        vocabulary_is_present()


def test_an_incomplete_package_has_no_vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(tiktoken_counter, "find_spec", lambda name: Spec)
    assert not vocabulary_is_present()
