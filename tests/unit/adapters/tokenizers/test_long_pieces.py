from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.adapters.tokenizers import tiktoken_counter
from pointsman_server.adapters.tokenizers.long_pieces import count_piece
from pointsman_server.domain.tokenizer import Tokenizer

WINDOW_BYTES = 160
OVERLAP_BYTES = 130

REPEATED = st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 150)).map(lambda pair: pair[0] * pair[1])
LETTERS = st.text("abcdest", min_size=1, max_size=700).map(str.encode)
ANY_PIECE = st.binary(min_size=1, max_size=700) | REPEATED | LETTERS | st.text(min_size=1, max_size=300).map(str.encode)


def encoding(tokenizer: Tokenizer = Tokenizer.O200K):  # type: ignore[no-untyped-def]  # tiktoken's class
    return tiktoken_counter._encoding(tiktoken_counter._DEFINITIONS[tokenizer])


@pytest.mark.parametrize("tokenizer", [Tokenizer.O200K, Tokenizer.CL100K])
@examples(300)
@given(ANY_PIECE)
def test_windows_count_what_merging_at_once_counts(tokenizer: Tokenizer, piece: bytes) -> None:
    own = encoding(tokenizer)
    counted = count_piece(own._encode_single_piece, own.decode_single_token_bytes, piece, WINDOW_BYTES, OVERLAP_BYTES)
    assert counted == len(own._encode_single_piece(piece))


def test_no_window_is_larger_than_asked_for_where_windows_meet() -> None:
    own = encoding()
    sizes: list[int] = []

    def encode(piece: bytes) -> list[int]:
        sizes.append(len(piece))
        return list(own._encode_single_piece(piece))

    count_piece(encode, own.decode_single_token_bytes, b"thequickbrownfox" * 100, WINDOW_BYTES, OVERLAP_BYTES)
    assert max(sizes) == WINDOW_BYTES
    assert sum(sizes) < 16 * 100 * WINDOW_BYTES / (WINDOW_BYTES - OVERLAP_BYTES - 16) + 2 * WINDOW_BYTES


def test_windows_that_do_not_meet_are_merged_at_once() -> None:
    """A made-up encoding whose tokens depend on how much it is given: bytes, unless it sees the whole."""

    def encode(piece: bytes) -> list[int]:
        return list(piece) if len(piece) == 1_000 else [len(piece) % 251 + 1, *piece[1:]]

    assert count_piece(encode, lambda token: b"x", b"\x00" * 1_000, 100, 20) == 1_000
