"""Merging long pieces of text in linear time, with the same result as at once.

A byte-pair encoding is right exactly when every two neighbouring tokens are right: encoded alone, their bytes give
these two again. So a piece can be encoded in overlapping windows. Where two windows have the same token at the same
place, all pairs before it are right by the first window and all pairs after it by the second.
"""

from __future__ import annotations

from collections.abc import Callable

WINDOW_BYTES = 16_384
OVERLAP_BYTES = 512
"""Four times the longest token, so that windows meet at the first try in all but made-up texts."""


def count_piece(
    encode: Callable[[bytes], list[int]],
    token_bytes: Callable[[int], bytes],
    piece: bytes,
    window_bytes: int = WINDOW_BYTES,
    overlap_bytes: int = OVERLAP_BYTES,
) -> int:
    """Tokens of a piece that the encoding does not split before merging.

    Windows that do not meet are encoded as one, which is as right and only takes longer. The window must be larger
    than the overlap, and the overlap at least as large as the longest token.
    """
    total, start, size = 0, 0, window_bytes
    tokens = encode(piece[:size])
    while start + size < len(piece):
        kept, kept_bytes = _before_overlap(tokens, token_bytes, min(size, len(piece) - start), overlap_bytes)
        following_start = start + kept_bytes
        following = encode(piece[following_start : following_start + window_bytes])
        if kept and following[0] == tokens[kept]:
            total, start, size, tokens = total + kept, following_start, window_bytes, following
        else:
            size *= 2
            tokens = encode(piece[start : start + size])
    return total + len(tokens)


def _before_overlap(
    tokens: list[int], token_bytes: Callable[[int], bytes], size_bytes: int, overlap_bytes: int
) -> tuple[int, int]:
    """How many tokens, and bytes, come before the last `overlap_bytes`, which begin with a whole token."""
    kept, kept_bytes = len(tokens), size_bytes
    while kept and size_bytes - kept_bytes < overlap_bytes:
        kept -= 1
        kept_bytes -= len(token_bytes(tokens[kept]))
    return kept, kept_bytes
