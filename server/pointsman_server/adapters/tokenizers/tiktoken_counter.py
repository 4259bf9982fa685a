"""Exact counts with tiktoken, whose vocabulary comes from an installed package and never from the network."""

from __future__ import annotations

import base64
import gzip
import threading
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import tiktoken

ENCODING = "o200k_base"

_PATTERN = "|".join(
    (
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    )
)
"""How o200k_base splits text before merging; part of the encoding's definition."""

PIECE_CHARS = 2_000
"""Longest run handed to tiktoken at once. Its merging is worse than linear on long runs without a break (a megabyte of
one letter takes seconds), so such runs are cut; a cut changes the count by a token or two."""


_LOADING = threading.Lock()


class TiktokenCounter:
    """Counts as OpenAI's o200k_base does. All counters of a process share one vocabulary."""

    @property
    def is_ready(self) -> bool:
        """See `TokenCounter.is_ready`."""
        return _load_encoding.cache_info().currsize > 0

    def warm_up(self) -> None:
        """Loads the vocabulary, which takes half a second and about 70 MB; most servers never need it."""
        _shared_encoding()

    def count(self, text: str) -> int:
        """Tokens of this text; runs of more than `PIECE_CHARS` without a break make a token or two more or less."""
        encoding = _shared_encoding()
        return sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text))


def _shared_encoding() -> tiktoken.Encoding:
    with _LOADING:
        return _load_encoding()


@cache
def _load_encoding() -> tiktoken.Encoding:
    return tiktoken.Encoding(
        name=ENCODING, pat_str=_PATTERN, mergeable_ranks=_load_ranks(), special_tokens={"<|endoftext|>": 199_999}
    )


def vocabulary_is_present() -> bool:
    """Whether the vocabulary is on this machine."""
    return _vocabulary_file().is_file()


def _vocabulary_file() -> Path:
    # Found without importing the package, which would load a large library that is not needed here.
    spec = find_spec("bpe_openai")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package bpe-openai, which carries the vocabulary, is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / f"{ENCODING}.tiktoken.gz"


def _load_ranks() -> dict[bytes, int]:
    lines = (line.split() for line in gzip.decompress(_vocabulary_file().read_bytes()).splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = _last_break(text, start, start + PIECE_CHARS)
        yield text[start:end]
        start = end
    yield text[start:]


def _last_break(text: str, start: int, end: int) -> int:
    # Before a space that follows a letter: the vocabulary's words carry their leading space, so the cut is exact there.
    for position in range(end - 1, start + PIECE_CHARS // 2, -1):
        if (
            text[position] == " "
            and not text[position - 1].isspace()
            and not text[position + 1 : position + 2].isspace()
        ):
            return position
    return end
