from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pointsman_server.adapters.providers.sse import MAX_LINE_BYTES, SseEvent, SseReader
from pointsman_server.domain.faults import FaultKind, ProviderFault

BOM = b"\xef\xbb\xbf"


def read(*pieces: bytes) -> list[SseEvent]:
    reader = SseReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [*events, *reader.flush()]


def datas(*pieces: bytes) -> list[bytes]:
    return [event.data for event in read(*pieces)]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"data: a\n\n", [("", b"a")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data:  a \n\n", [("", b" a ")]),
        (b"data:\n\n", [("", b"")]),
        (b"event: tick\ndata: a\n\n", [("tick", b"a")]),
        (b"data: a\nevent: tick\n\n", [("tick", b"a")]),
        (b"event:tick\ndata: a\n\ndata: b\n\n", [("tick", b"a"), ("", b"b")]),
        (b"event: lost\n\ndata: a\n\n", [("", b"a")]),
        (b"data: a\ndata: b\ndata:\n\n", [("", b"a\nb\n")]),
        (b": a comment\n\n:\n\ndata: a\n\n", [("", b"a")]),
        (b": a comment\ndata: a\n: another\n\n", [("", b"a")]),
        (b"id: 7\nretry: 3000\ndata: a\n\n", [("", b"a")]),
        (b"id: 7\n\nretry: 3000\n\n", []),
        (b"database: no\ndata: a\neventual: no\n\n", [("", b"a")]),
        (b" data: no\n\ndata: a\n\n", [("", b"a")]),
        (b"nonsense without a colon\ndata: a\n\n", [("", b"a")]),
        (b"data: a:b: c\n\n", [("", b"a:b: c")]),
        (b"data: a\x00b\n\n", [("", b"a\x00b")]),
        (b"event: \xff\ndata: \xff\n\n", [("\ufffd", b"\xff")]),
        (b"data: a", [("", b"a")]),
        (b"data: a\n", [("", b"a")]),
        (b"data: a\n\ndata: b", [("", b"a"), ("", b"b")]),
        (BOM + b"data: a\n\n", [("", b"a")]),
        (BOM, []),
        (b"data: " + BOM + b"a\n\n" + BOM + b"data: b\n\n", [("", BOM + b"a")]),
        (BOM + BOM + b"data: a\n\ndata: b\n\n", [("", b"b")]),
    ],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_reading(body: bytes, events: list[tuple[str, bytes]], line_end: bytes) -> None:
    assert read(body.replace(b"\n", line_end)) == [SseEvent(*event) for event in events]


def test_data_lines_are_joined_by_lf_whatever_their_line_ends() -> None:
    assert datas(b"data: a\r\ndata: b\rdata: c\n\r\n") == [b"a\nb\nc"]


MIXED = BOM + (
    b"event: start\r\ndata: \xc3\xa9\xf0\x9f\x8e\x89\r\n\r\n"
    b": ping\r\rdata: one\rdata: two\r\r"
    b"id: 1\nretry: 5\ndata: three\n\n"
    b"data: four\r\n\ndata: five\n\r\ndata: six\r\r\ndata: seven"
)
MIXED_DATA = [b"\xc3\xa9\xf0\x9f\x8e\x89", b"one\ntwo", b"three", b"four", b"five", b"six", b"seven"]


def test_mixed_line_ends_in_one_piece() -> None:
    assert datas(MIXED) == MIXED_DATA


@pytest.mark.parametrize("place", range(len(MIXED) + 1))
def test_split_at_every_byte(place: int) -> None:
    assert read(MIXED[:place], MIXED[place:]) == read(MIXED)
    assert read(MIXED[:place], b"", MIXED[place:]) == read(MIXED)


def test_one_byte_at_a_time() -> None:
    assert read(*(MIXED[i : i + 1] for i in range(len(MIXED)))) == read(MIXED)


def test_event_is_given_as_soon_as_it_is_complete() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [SseEvent("", b"a")]
    assert reader.feed(b"data: b\r\n\r\n") == [SseEvent("", b"b")]
    assert reader.flush() == []


def cut_randomly(body: bytes, seed: int) -> Iterable[bytes]:
    dice, start = random.Random(seed), 0
    while start < len(body):
        size = dice.randint(1, 5)
        yield body[start : start + size]
        start += size


tokens = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"event: ",
        b"id: 1",
        b"retry: 1",
        b": c",
        b"x",
        b"\xc3\xa9",
        BOM,
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
    ]
)


@given(st.lists(tokens, max_size=40).map(b"".join), st.integers())
@example(b"data: x\r", 0)
@example(b"\r\ndata: x\r\r\n", 0)
@settings(deadline=None)
def test_any_cutting_gives_the_events_of_the_whole(body: bytes, seed: int) -> None:
    assert read(*cut_randomly(body, seed)) == read(body)


@given(st.lists(tokens, max_size=40).map(b"".join))
def test_line_ends_of_any_kind_mean_the_same(body: bytes) -> None:
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert read(body) == read(lines) == read(lines.replace(b"\n", b"\r\n"))


class TestLimit:
    @pytest.mark.parametrize("prefix", [b"data: ", b"event: ", b": ", b"", b"data: a\n\ndata: "])
    @pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n\r\n"])
    @pytest.mark.parametrize("piece", [2_000_000, 40_000])
    def test_line_over_the_limit_is_no_answer(self, prefix: bytes, tail: bytes, piece: int) -> None:
        body = prefix + b"x" * (MAX_LINE_BYTES + 1) + tail
        with pytest.raises(ProviderFault) as caught:
            read(*(body[i : i + piece] for i in range(0, len(body), piece)))
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    def test_line_just_within_the_limit_is_read(self) -> None:
        body = b"data: " + b"x" * (MAX_LINE_BYTES - 6)
        assert [len(data) for data in datas(body, b"\n\n")] == [MAX_LINE_BYTES - 6]

    @pytest.mark.parametrize("line", [b"data: " + b"x" * 1_000 + b"\n", b"data:\n"])
    def test_event_that_never_ends_is_no_answer(self, line: bytes) -> None:
        piece = line * 1_000
        with pytest.raises(ProviderFault) as caught:
            read(*(piece for _ in range(2 * MAX_LINE_BYTES // 1_000)))
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    def test_many_short_events_have_no_limit(self) -> None:
        body = (b"data: " + b"x" * 1_000 + b"\n\n") * 1_500
        assert len(read(body)) == 1_500
        assert len(read(*(body[i : i + 500] for i in range(0, len(body), 500)))) == 1_500

    def test_reached_in_tiny_chunks_in_linear_time(self) -> None:
        whole = self._seconds_until_refused(b"x" * 1_000)
        tiny = self._seconds_until_refused(b"xx")
        assert whole < 0.5
        assert tiny < 3.0, "half a million feeds; anything quadratic would take minutes"

    @staticmethod
    def _seconds_until_refused(piece: bytes) -> float:
        reader, start = SseReader(), time.process_time()
        for _ in range(MAX_LINE_BYTES // len(piece)):
            reader.feed(piece)
        with pytest.raises(ProviderFault):
            reader.feed(piece)
        return time.process_time() - start

    def test_stream_of_tiny_chunks_costs_little_more_than_one_chunk_each(self) -> None:
        body = b"data: {}\n\n" * 20_000
        start = time.process_time()
        assert len(read(*(body[i : i + 2] for i in range(0, len(body), 2)))) == 20_000
        assert time.process_time() - start < 2.0
