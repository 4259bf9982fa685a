"""Exact counts with tiktoken, whose vocabularies come from an installed package and never from the network."""

from __future__ import annotations

import base64
import gzip
import threading
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import regex  # type: ignore[import-untyped]
import tiktoken

from pointsman_server.adapters.tokenizers.long_pieces import count_piece
from pointsman_server.domain.tokenizer import Tokenizer

LONG_RUN_CHARS = 2_048
"""Runs of one kind of character that are shorter are merged fast enough by tiktoken, whose time grows faster than the
length of such a run."""


class _Definition(NamedTuple):
    """What defines an encoding beside its vocabulary: its name, how text is split before merging, the end of text."""

    name: str
    pattern: str
    end_of_text: int


_DEFINITIONS: Mapping[Tokenizer, _Definition] = {
    Tokenizer.O200K: _Definition(
        "o200k_base",
        "|".join(
            (
                r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
                r"""\p{N}{1,3}""",
                r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
                r"""\s*[\r\n]+""",
                r"""\s+(?!\S)""",
                r"""\s+""",
            )
        ),
        199_999,
    ),
    Tokenizer.CL100K: _Definition(
        "cl100k_base",
        "|".join(
            (
                r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)""",
                r"""[^\r\n\p{L}\p{N}]?\p{L}+""",
                r"""\p{N}{1,3}""",
                r""" ?[^\s\p{L}\p{N}]+[\r\n]*""",
                r"""\s*[\r\n]+""",
                r"""\s+(?!\S)""",
                r"""\s+""",
            )
        ),
        100_257,
    ),
}

_ONE_KIND = regex.compile(r"[\p{L}\p{M}]++|[^\s\p{L}\p{N}]++|[\s/]++")
"""Only such runs make long pieces in either encoding."""

_LOADING = threading.Lock()


class TiktokenCounter:
    """Counts as OpenAI's o200k_base or cl100k_base does. All counters of a process share the vocabularies.

    Raises `KeyError` for a tokenizer that is not OpenAI's.
    """

    def __init__(self, tokenizer: Tokenizer = Tokenizer.O200K) -> None:
        self._definition = _DEFINITIONS[tokenizer]

    @property
    def is_ready(self) -> bool:
        """See `TokenCounter.is_ready`."""
        return self._definition.name in _LOADED

    def warm_up(self) -> None:
        """Loads the vocabulary, which takes half a second and about 60 MB; most servers never need it."""
        _encoding(self._definition)

    def count(self, text: str) -> int:
        """Tokens of this text, exactly, in time linear in its length. Lone surrogates count as U+FFFD."""
        encoding = _encoding(self._definition)
        if not _may_have_long_pieces(text):
            return len(encoding.encode_ordinary(text))
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return sum(_count_piece(encoding, match.group()) for match in _splitter(self._definition).finditer(text))


def _may_have_long_pieces(text: str) -> bool:
    # A run of twice the length covers one of these stretches from end to end.
    last = len(text) - LONG_RUN_CHARS
    return any(_ONE_KIND.fullmatch(text, at, at + LONG_RUN_CHARS) for at in range(0, last + 1, LONG_RUN_CHARS))


def _count_piece(encoding: tiktoken.Encoding, piece: str) -> int:
    return count_piece(encoding._encode_single_piece, encoding.decode_single_token_bytes, piece.encode())


def vocabulary_is_present(tokenizer: Tokenizer = Tokenizer.O200K) -> bool:
    """Whether the vocabulary is on this machine."""
    return _vocabulary_file(_DEFINITIONS[tokenizer].name).is_file()


_LOADED: dict[str, tiktoken.Encoding] = {}


def _encoding(definition: _Definition) -> tiktoken.Encoding:
    with _LOADING:
        if definition.name not in _LOADED:
            _LOADED[definition.name] = tiktoken.Encoding(
                name=definition.name,
                pat_str=definition.pattern,
                mergeable_ranks=_load_ranks(definition.name),
                special_tokens={"<|endoftext|>": definition.end_of_text},
            )
        return _LOADED[definition.name]


@cache
def _splitter(definition: _Definition) -> regex.Pattern[str]:
    return regex.compile(definition.pattern)


def _vocabulary_file(encoding_name: str) -> Path:
    # Found without importing the package, which would load a large library that is not needed here.
    spec = find_spec("bpe_openai")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package bpe-openai, which carries the vocabulary, is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / f"{encoding_name}.tiktoken.gz"


def _load_ranks(encoding_name: str) -> dict[bytes, int]:
    lines = gzip.decompress(_vocabulary_file(encoding_name).read_bytes()).splitlines()
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}
