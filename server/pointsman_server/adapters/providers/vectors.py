"""Reads vectors from foreign JSON and refuses what nobody could compare."""

from __future__ import annotations

import binascii
import math
import sys
from array import array
from base64 import b64decode
from collections.abc import Sequence

from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.reply import Vector

_COMPONENT_BYTES = 4


def read_vectors(rows: Sequence[object], count: int, length: int) -> tuple[Vector, ...]:
    """The rows as vectors of this length. A row is a list of numbers, or single-precision numbers in base64.

    Raises `ProviderFault` MALFORMED_REPLY when there are not `count` of them, or one is of another length or holds
    anything but finite numbers.
    """
    if len(rows) != count:
        raise _malformed(f"the answer holds {len(rows)} vectors for {count} texts")
    return tuple(_read_vector(row, length) for row in rows)


def _read_vector(row: object, length: int) -> Vector:
    vector = _from_base64(row) if isinstance(row, str) else _from_list(row)
    if len(vector) != length:
        raise _malformed(f"a vector has {len(vector)} dimensions instead of {length}")
    # A sum of single-precision numbers stays far below what a double can hold, so it is finite if and only if all are.
    if not math.isfinite(sum(vector)):
        raise _malformed("a vector holds a number that is not finite")
    return vector


def _from_list(row: object) -> Vector:
    if not isinstance(row, list):
        raise _malformed("a vector is not a list of numbers")
    try:
        return array("f", row)
    except (TypeError, OverflowError) as error:
        raise _malformed("a vector is not a list of numbers") from error


def _from_base64(text: str) -> Vector:
    vector = array("f")
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("a vector is not base64") from error
    if len(data) % _COMPONENT_BYTES:
        raise _malformed("a vector ends in the middle of a number")
    vector.frombytes(data)
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def _malformed(detail: str) -> ProviderFault:
    return ProviderFault(FaultKind.MALFORMED_REPLY, detail)
