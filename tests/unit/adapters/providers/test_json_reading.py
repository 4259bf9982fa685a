from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.providers.json_reading import (
    MAX_PLAUSIBLE_TOKENS,
    CountReader,
    as_list,
    as_object,
    as_text,
    read_object,
)
from pointsman_server.domain.faults import FaultKind, ProviderFault

DEEP = 100_000


class TestReadObject:
    @pytest.mark.parametrize(
        ("body", "value"),
        [
            (b"{}", {}),
            (b' {"a": [1, "\xc3\xa9"]} \n', {"a": [1, "é"]}),
            (rb'{"a": "\u00e9\ud83c\udf89"}', {"a": "é🎉"}),
            (b'{"a": 1, "a": 2}', {"a": 2}),
            (b'{"a": Infinity, "b": -Infinity}', {"a": math.inf, "b": -math.inf}),
            (b'{"a": "NaN"}', {"a": "NaN"}),
        ],
    )
    def test_objects(self, body: bytes, value: dict[str, Any]) -> None:
        assert read_object(body, "it") == value

    def test_bare_nan(self) -> None:
        assert math.isnan(read_object(b'{"a": NaN}', "it")["a"])

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"   ",
            b"null",
            b"[]",
            b"[{}]",
            b"true",
            b"7",
            b'"{}"',
            b"NaN",
            b"<html></html>",
            b"{}{}",
            b"{}\n{}",
            b'{"a": 1',
            b'{"a": 1}\x00',
            b"{'a': 1}",
            b'{"a": "\xff"}',
            b'{"a": NaN, "b": "\xff"}',
            b'{"a": "\x1f"}',
            rb'{"a": "\ud83c"}',
            b"NaN NaN",
            b"[" * DEEP,
            b"[" * DEEP + b"NaN",
            b'{"a":' * DEEP + b"NaN" + b"}" * DEEP,
            b'{"a": NaN, "b": ' + b"9" * 5_000 + b"}",
            b"\xef\xbb\xbfNaN",
            '{"a": 1}'.encode("utf-16"),
        ],
        ids=lambda body: repr(body[:24]),
    )
    def test_anything_else_is_malformed(self, body: bytes) -> None:
        with pytest.raises(ProviderFault) as caught:
            read_object(body, "the answer")
        assert caught.value.kind is FaultKind.MALFORMED_REPLY
        assert caught.value.detail.startswith("the answer is not ")

    @given(st.binary(max_size=60))
    def test_never_fails_otherwise(self, body: bytes) -> None:
        with suppress(ProviderFault):
            assert isinstance(read_object(body, "it"), dict)


@pytest.mark.parametrize("value", [None, 0, 1.5, True, "text", [1], {"a": 1}])
def test_wrong_types_read_as_empty(value: Any) -> None:
    assert as_object(value) == (value if isinstance(value, dict) else {})
    assert as_list(value) == (value if isinstance(value, list) else [])
    assert as_text(value) == (value if isinstance(value, str) else "")


class TestCounts:
    @pytest.mark.parametrize(
        ("value", "count"),
        [
            (0, 0),
            (7, 7),
            (7.0, 7),
            (7.9, 7),
            ("7", 7),
            (" 7 ", 7),
            ("7.0", 7),
            (MAX_PLAUSIBLE_TOKENS, MAX_PLAUSIBLE_TOKENS),
        ],
    )
    def test_plausible(self, value: Any, count: int) -> None:
        counts = CountReader()
        assert (counts.read(value), counts.implausible) == (count, False)

    @pytest.mark.parametrize("value", [None, True, False])
    def test_absent(self, value: Any) -> None:
        counts = CountReader()
        assert (counts.read(value), counts.read_or_zero(value), counts.implausible) == (None, 0, False)

    @pytest.mark.parametrize(
        "value",
        [
            -1, -0.5, MAX_PLAUSIBLE_TOKENS + 1, 10**12, 10**400, -(10**400), math.nan, math.inf, -math.inf,
            "-1", "nan", "1e999", "", "many", "1,000", "0x10", [], [7], {}, {"n": 7},
        ],
        ids=lambda value: repr(value)[:12],
    )  # fmt: skip
    def test_impossible(self, value: Any) -> None:
        counts = CountReader()
        assert (counts.read(value), counts.implausible) == (None, True)

    def test_one_impossible_count_is_remembered(self) -> None:
        counts = CountReader()
        assert [counts.read(5), counts.read_or_zero(-5), counts.read(6)] == [5, 0, 6]
        assert counts.implausible

    def test_count_in_a_whole_number_beyond_floats(self) -> None:
        usage = read_object(b'{"n": ' + b"9" * 400 + b', "other": NaN}', "it")
        assert CountReader().read(usage["n"]) is None
