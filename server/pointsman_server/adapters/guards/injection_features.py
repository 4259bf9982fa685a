"""The words of a text as numbers, for a linear model: all of a text in a few array operations.

A word's hash comes out of prefix sums of a polynomial, so words, their beginnings, pairs, and triples cost the same few
operations whatever there are. Scripts without spaces have every character as a word.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS = 18
BUCKETS = 1 << BITS
"""Weights of the model."""

LONGEST = 8_192
"""Characters that are hashed at once."""

_Words = NDArray[np.uint64]
_Numbers = NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15
_KINDS = 7
_BEGINNING = 5
_CODE_POINTS = 0x20000
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7A3))

_NONE: _Numbers = np.zeros((_KINDS, 0), dtype=np.int64)
_SHIFT = np.uint64(64 - BITS)
_HALF = np.uint64(32)


def _salt(number: int) -> int:
    return ((2 * number + 1) * 0xD1342543DE82EF95 + 0xAF251AF3B0F025B5) % (1 << 64) | 1


def _factors() -> _Words:
    """Of each kind the factors of a word, the next and the one after it: of whole words, then of their beginnings."""
    pair = _salt(1), _salt(2), 0
    rows = (
        ((_salt(0), 0, 0), pair, (pair[0] * _salt(3), pair[1] * _salt(3), _salt(4)), (_salt(5), 0, _salt(6))),
        ((_salt(7), 0, 0), (_salt(8), _salt(9), 0), (_salt(10), 0, _salt(11)), (0, 0, 0)),
    )
    return np.array([[[one % (1 << 64) for one in row] for row in half] for half in rows], dtype=np.uint64)


_FACTORS = _factors()
_LAST_SALT = np.uint64(_salt(12))


class _Powers(NamedTuple):
    up: _Words
    down: _Words


def _powers() -> _Powers:
    inverse = pow(_BASE, -1, 1 << 64)
    up, down, count = [1], [1], LONGEST + 2
    for _ in range(count - 1):
        up.append(up[-1] * _BASE % (1 << 64))
        down.append(down[-1] * inverse % (1 << 64))
    return _Powers(np.array(up, dtype=np.uint64), np.array(down, dtype=np.uint64))


_POWERS = _powers()
_ASCII = bytes(
    0 if not chr(code).isalnum() or code > 0x7F else ord("0") if chr(code).isdigit() else ord(chr(code).lower())
    for code in range(256)
)
"""What each byte is hashed as; 0 if it stands between words."""

_ALONE = np.uint32(1 << 31)


@cache
def _folding() -> NDArray[np.uint32]:
    """For each code point what it is hashed as (0 if it stands between words), with `_ALONE` if it is a word itself."""
    folded = np.zeros(_CODE_POINTS + 1, dtype=np.uint32)
    for low, high in _UNSPACED:
        folded[low : high + 1] = np.arange(low, high + 1) | int(_ALONE)
    for code in range(_CODE_POINTS):
        if not folded[code] and (base := _base_letter(chr(code))):
            folded[code] = base
    return folded


def _base_letter(one: str) -> int:
    if one.isdigit():
        return ord("0")
    if unicodedata.category(one)[0] not in "LMN":
        return 0
    lower = one.lower()
    if unicodedata.decomposition(lower[0]) and not unicodedata.decomposition(lower[0]).startswith("<"):
        lower = unicodedata.normalize("NFD", lower)
    return ord(lower[0])


def buckets(text: str) -> _Numbers:
    """Shape (kinds, words): for every word the buckets of what begins with it. At most `LONGEST` characters."""
    if text.isascii():
        codes = np.frombuffer(b"\0" + text.encode("ascii").translate(_ASCII) + b"\0", dtype=np.uint8)
        edges = _edges(codes)
    else:
        points = np.frombuffer(f"\0{text}\0".encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        folded = _folding().take(np.minimum(points, np.uint32(_CODE_POINTS)))
        codes = folded & ~_ALONE
        edges = _edges_between(codes, folded >= _ALONE)
    return _hashed(codes, edges) if edges.size else _NONE


def _edges(codes: NDArray[Any]) -> _Numbers:
    """Places before the first and at the last character of each word; shape (2, words)."""
    inside = codes != 0
    edges: _Numbers = (inside[1:] != inside[:-1]).nonzero()[0].reshape(-1, 2).T
    return edges


def _edges_between(codes: NDArray[Any], alone: NDArray[np.bool_]) -> _Numbers:
    """As `_edges`, where some characters are words themselves."""
    if not alone.any():
        return _edges(codes)
    inside = codes != 0
    may_be = alone[1:] | alone[:-1]
    starts = inside[1:] & (may_be | ~inside[:-1])
    ends = inside[:-1] & (may_be | ~inside[1:])
    return np.array([starts.nonzero()[0], ends.nonzero()[0]])


def _hashed(codes: NDArray[Any], edges: _Numbers) -> _Numbers:
    length, count = len(codes), edges.shape[1]
    sums = codes * _POWERS.up[:length]
    np.add.accumulate(sums, out=sums)
    places = np.empty((3, count), dtype=np.int64)
    places[:2] = edges
    np.minimum(edges[1], edges[0] + _BEGINNING, out=places[2])
    at = sums.take(places)
    # Whole words and their beginnings, each with two behind that are nothing.
    words = np.zeros((2, count + 2), dtype=np.uint64)
    np.multiply(at[1:] - at[0], _POWERS.down.take(edges[0]), out=words[:, :count])
    words ^= words >> _HALF
    in_threes: _Words = np.ndarray((2, 3, count), np.uint64, words, strides=(words.strides[0], 8, 8))
    found: _Words = np.matmul(_FACTORS, in_threes).reshape(-1, count)[:_KINDS]
    found ^= found >> _HALF
    found *= _LAST_SALT
    found >>= _SHIFT
    return found.view(np.int64)
