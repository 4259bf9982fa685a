"""The words of a text as numbers, for a linear model: all of a text in a few array operations.

A word's hash comes out of prefix sums of a polynomial, so words, their beginnings, pairs, and triples cost the same few
operations whatever there are. Scripts without spaces have every character as a word.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple

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

_salts = [
    np.uint64(((2 * number + 1) * 0xD1342543DE82EF95 + 0xAF251AF3B0F025B5) % (1 << 64) | 1) for number in range(16)
]
_NONE: _Numbers = np.zeros((_KINDS, 0), dtype=np.int64)
_SHIFT = np.uint64(64 - BITS)
_HALF = np.uint64(32)


class _Powers(NamedTuple):
    up: _Words
    down: _Words


class _Folding(NamedTuple):
    """For each code point what it is hashed as (0 if it stands between words), and whether it is a word itself."""

    folded: _Words
    alone: NDArray[np.bool_]


def _powers() -> _Powers:
    inverse = pow(_BASE, -1, 1 << 64)
    up, down, count = [1], [1], LONGEST + 2
    for _ in range(count - 1):
        up.append(up[-1] * _BASE % (1 << 64))
        down.append(down[-1] * inverse % (1 << 64))
    return _Powers(np.array(up, dtype=np.uint64), np.array(down, dtype=np.uint64))


_POWERS = _powers()
_ASCII = np.zeros(256, dtype=np.uint64)
for _code in range(128):
    if chr(_code).isalnum():
        _ASCII[_code] = ord("0") if chr(_code).isdigit() else ord(chr(_code).lower())


@cache
def _folding() -> _Folding:
    folded = np.zeros(_CODE_POINTS, dtype=np.uint64)
    alone = np.zeros(_CODE_POINTS, dtype=np.bool_)
    for low, high in _UNSPACED:
        folded[low : high + 1] = np.arange(low, high + 1)
        alone[low : high + 1] = True
    for code in range(_CODE_POINTS):
        if not folded[code] and (base := _base_letter(chr(code))):
            folded[code] = base
    return _Folding(folded, alone)


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
        codes = _ASCII.take(np.frombuffer(b"\0" + text.encode("ascii") + b"\0", dtype=np.uint8))
        starts, ends = _edges(codes)
    else:
        table = _folding()
        points = np.frombuffer(("\0" + text + "\0").encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        points = np.where(points < _CODE_POINTS, points, 0)
        codes = table.folded.take(points)
        starts, ends = _edges_between(codes, table.alone.take(points))
    if not len(starts):
        return _NONE
    return _combined(codes, starts, ends)


def _edges(codes: _Words) -> tuple[_Numbers, _Numbers]:
    inside = codes != 0
    edges = (inside[1:] != inside[:-1]).nonzero()[0]
    return edges[::2], edges[1::2]


def _edges_between(codes: _Words, alone: NDArray[np.bool_]) -> tuple[_Numbers, _Numbers]:
    inside = codes != 0
    starts = inside[1:] & (~inside[:-1] | alone[1:] | alone[:-1])
    ends = inside[:-1] & (~inside[1:] | alone[1:] | alone[:-1])
    return np.flatnonzero(starts), np.flatnonzero(ends)


def _combined(codes: _Words, starts: _Numbers, ends: _Numbers) -> _Numbers:
    """`starts` and `ends` are places before the first and at the last character of each word."""
    sums = np.cumsum(codes * _POWERS.up[: len(codes)], dtype=np.uint64)
    before, down = sums.take(starts), _POWERS.down.take(starts)
    count = len(starts)
    words, beginnings = np.zeros(count + 2, dtype=np.uint64), np.zeros(count + 2, dtype=np.uint64)
    words[:count] = (sums.take(ends) - before) * down
    beginnings[:count] = (sums.take(np.minimum(ends, starts + _BEGINNING)) - before) * down
    words ^= words >> _HALF
    beginnings ^= beginnings >> _HALF
    return _hashed(words, beginnings, count)


def _hashed(words: _Words, beginnings: _Words, count: int) -> _Numbers:
    first, second, third = words[:count], words[1 : count + 1], words[2 : count + 2]
    pair = first * _salts[1] + second * _salts[2]
    found = np.empty((_KINDS, count), dtype=np.uint64)
    found[0] = first * _salts[0]
    found[1] = pair
    found[2] = pair * _salts[3] + third * _salts[4]
    found[3] = first * _salts[5] + third * _salts[6]
    start, next_start = beginnings[:count], beginnings[1 : count + 1]
    found[4] = start * _salts[7]
    found[5] = start * _salts[8] + next_start * _salts[9]
    found[6] = start * _salts[10] + beginnings[2 : count + 2] * _salts[11]
    found ^= found >> _HALF
    found *= _salts[12]
    found >>= _SHIFT
    return found.view(np.int64)
