"""What is a vector, and what is not."""

from __future__ import annotations

from array import array
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.providers.vectors import read_vectors
from pointsman_server.domain.faults import FaultKind, ProviderFault

SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def refused(rows: list[object], count: int = 1, length: int = 2) -> str:
    with pytest.raises(ProviderFault) as caught:
        read_vectors(rows, count, length)
    assert caught.value.kind is FaultKind.MALFORMED_REPLY
    return caught.value.detail


@given(st.lists(st.lists(SINGLE, min_size=3, max_size=3), min_size=1, max_size=5))
def test_lists_and_base64_say_the_same(rows: list[list[float]]) -> None:
    as_base64 = [b64encode(array("f", row).tobytes()).decode() for row in rows]
    vectors = read_vectors(rows, len(rows), 3)
    assert [list(vector) for vector in vectors] == rows
    assert read_vectors(as_base64, len(rows), 3) == vectors


def test_whole_numbers_are_numbers() -> None:
    assert list(read_vectors([[1, 0]], 1, 2)[0]) == [1.0, 0.0]


def test_there_is_one_for_each_text() -> None:
    assert refused([[1, 2]], count=2) == "the answer holds 1 vectors for 2 texts"
    assert refused([], count=1) == "the answer holds 0 vectors for 1 texts"


@pytest.mark.parametrize("row", [[1], [1, 2, 3], [], b64encode(array("f", [1]).tobytes()).decode()])
def test_all_have_the_length_that_was_expected(row: object) -> None:
    assert "dimensions instead of 2" in refused([row])


@pytest.mark.parametrize(
    "row",
    [[1, float("nan")], [float("inf"), 1], [-float("inf"), float("inf")], [1e300, 0], ["1", 2], [None, 1], [[1], 2]],
)
def test_all_numbers_are_finite(row: object) -> None:
    assert refused([row]) in ("a vector holds a number that is not finite", "a vector is not a list of numbers")


@pytest.mark.parametrize("row", [None, 7, {"values": [1, 2]}, True])
def test_what_is_no_list_is_no_vector(row: object) -> None:
    assert refused([row]) == "a vector is not a list of numbers"


def test_base64_must_be_whole() -> None:
    assert refused(["not base64!"]) == "a vector is not base64"
    assert refused([b64encode(b"\0\0\0\0\0").decode()]) == "a vector ends in the middle of a number"
