from __future__ import annotations

import random
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public as published  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.adapters.tokenizers import tiktoken_counter
from pointsman_server.adapters.tokenizers.tiktoken_counter import (
    LONG_RUN_CHARS,
    TiktokenCounter,
    vocabulary_is_present,
)
from pointsman_server.domain.tokenizer import Tokenizer

EXACT = {Tokenizer.O200K: published.o200k_base, Tokenizer.CL100K: published.cl100k_base}
COUNTERS = {tokenizer: TiktokenCounter(tokenizer) for tokenizer in EXACT}
COUNTER = COUNTERS[Tokenizer.O200K]
LONG_CHARS = 3 * LONG_RUN_CHARS


@cache
def tiktokens_own(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """The encoding as tiktoken defines it; only the vocabulary comes from where ours does."""
    original = published.load_tiktoken_bpe
    published.load_tiktoken_bpe = lambda url, **_: tiktoken_counter._load_ranks(Path(url).stem)
    try:
        return tiktoken.Encoding(**EXACT[tokenizer]())
    finally:
        published.load_tiktoken_bpe = original


def counted_by_tiktoken(text: str, tokenizer: Tokenizer = Tokenizer.O200K) -> int:
    return len(tiktokens_own(tokenizer).encode_ordinary(text))


@cache
def _another() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the package's own loading
        import bpe_openai  # type: ignore[import-untyped]

        return bpe_openai.get_encoding("o200k_base")


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

RUNS = (
    "a",
    "ab",
    " ",
    "\n",
    "\t \n",
    "=",
    "!?",
    "\n/",
    "日",
    "日本語の",
    "👩‍👩‍👧🏽",
    "e\u0301\u0300",
    "Aa",
    "12",
    "aB3/+",
    "x ",
)
"""What long texts of one kind are made of."""


@pytest.mark.parametrize("tokenizer", EXACT)
@pytest.mark.parametrize("text", SAMPLES)
def test_it_counts_as_tiktoken_does(text: str, tokenizer: Tokenizer) -> None:
    assert COUNTERS[tokenizer].count(text) == counted_by_tiktoken(text, tokenizer)


@pytest.mark.parametrize("tokenizer", EXACT)
@examples(200)
@given(st.text(max_size=200) | st.text("aA1 '\n.é日\u017fs\t/", max_size=60))
def test_it_counts_any_text_as_tiktoken_does(tokenizer: Tokenizer, text: str) -> None:
    assert COUNTERS[tokenizer].count(text) == counted_by_tiktoken(text, tokenizer)


@examples(100)
@given(st.text(max_size=200))
def test_another_implementation_of_the_encoding_agrees(text: str) -> None:
    assert COUNTER.count(text) == len(_another().encode_ordinary(text))


@examples(100)
@given(st.text(max_size=200))
def test_it_never_counts_more_tokens_than_bytes(text: str) -> None:
    assert COUNTER.count(text) <= len(text.encode())


@pytest.mark.parametrize("text", ["a\ud800b", "a\ud800" + "b" * LONG_CHARS])
def test_a_lone_surrogate_is_no_obstacle(text: str) -> None:
    assert COUNTER.count(text) == counted_by_tiktoken(text)


@pytest.mark.parametrize("tokenizer", EXACT)
@pytest.mark.parametrize("run", RUNS)
def test_long_runs_are_counted_as_tiktoken_does(run: str, tokenizer: Tokenizer) -> None:
    text = run * (10 * LONG_RUN_CHARS // len(run))
    assert COUNTERS[tokenizer].count(text) == counted_by_tiktoken(text, tokenizer)


@pytest.mark.parametrize(
    "alphabet", ["abcdefghijklmnopqrstuvwxyz", "0123456789abcdef", "日本語テキスト自然言語", "=-_ \n"]
)
def test_long_noise_is_counted_as_tiktoken_does(alphabet: str) -> None:
    text = "".join(random.Random(7).choices(alphabet, k=20 * LONG_RUN_CHARS))
    assert COUNTER.count(text) == counted_by_tiktoken(text)


@examples(60)
@given(
    st.lists(
        st.tuples(st.sampled_from(RUNS), st.sampled_from([1, 2, 50, LONG_CHARS])) | st.text("a \n.é'", max_size=9),
        max_size=6,
    )
)
def test_whatever_surrounds_long_runs_is_counted_as_tiktoken_does(parts: list[tuple[str, int] | str]) -> None:
    text = "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts)
    assert COUNTER.count(text) == counted_by_tiktoken(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", ["a", " ", "=", "日本語の", "👩‍👩‍👧🏽", "e\u0301\u0300", "Some words, and 12 of them; ", "aB3/+"]
)
def test_twice_the_text_takes_about_twice_the_time(run: str) -> None:
    def seconds(size_bytes: int) -> float:
        text = run * (size_bytes // len(run.encode()))
        best = float("inf")
        for _ in range(3):
            started_at = time.thread_time()
            COUNTER.count(text)
            best = min(best, time.thread_time() - started_at)
        return best

    seconds(50_000)
    assert seconds(800_000) <= 3 * seconds(400_000)


def test_all_counters_share_what_was_loaded_once() -> None:
    TiktokenCounter().warm_up()
    assert TiktokenCounter().is_ready


def test_only_openais_tokenizers_are_here() -> None:
    with pytest.raises(KeyError):
        TiktokenCounter(Tokenizer.CLAUDE)


@pytest.mark.parametrize("tokenizer", EXACT)
def test_the_vocabularies_are_installed(tokenizer: Tokenizer) -> None:
    assert vocabulary_is_present(tokenizer)


def test_a_missing_vocabulary_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktoken_counter, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="bpe-openai"):
        vocabulary_is_present()


def test_an_incomplete_package_has_no_vocabulary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(tiktoken_counter, "find_spec", lambda name: Spec)
    assert not vocabulary_is_present()
