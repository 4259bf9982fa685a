"""Every fault of a stream or a connection does on the wire what its name says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pointsman_server.simulator.script import Behaviour, Dialect, Fault, Rule, Script
from pointsman_server.simulator.server import RunningSimulator
from unit.simulator.wire_client import events

each_dialect = pytest.mark.parametrize("dialect", list(Dialect))
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
DONE = {Dialect.OPENAI_CHAT: b"data: [DONE]\n\n", Dialect.COHERE: b"data: [DONE]\n\n"}
LINE_END = {dialect: b"\r\n" if dialect is Dialect.GEMINI else b"\n" for dialect in Dialect}
STREAM_TYPE = "text/event-stream"
SHORT_WAIT_SECONDS = 0.15


def faulty(fault: Fault) -> str:
    return f"sim-fault-{fault.value}"


@each_dialect
async def test_streams_with_an_error(raw: Any, dialect: Dialect) -> None:
    first = await raw.send(dialect, model="sim-fault-stream_error_first", stream=True)
    assert (first.status, first.headers["content-type"].split(";")[0]) == (200, STREAM_TYPE)
    assert "overloaded" in events(first.body)[0].decode().lower()
    mid = await raw.send(dialect, model="sim-fault-stream_error_mid", stream=True)
    sound = await raw.send(dialect, stream=True)
    sent = events(mid.body)
    said_error = sent[-2] if sent[-1] == b"[DONE]" else sent[-1]
    assert "overloaded" in said_error.decode().lower()
    assert 2 < len(sent) < len(events(sound.body))


@each_dialect
async def test_stream_that_ends_properly_without_finish(raw: Any, dialect: Dialect) -> None:
    sound = events((await raw.send(dialect, stream=True)).body)
    cut = events((await raw.send(dialect, model="sim-fault-stream_eof_without_finish", stream=True)).body)
    assert 2 <= len(cut) < len(sound) - 1
    assert all(isinstance(json.loads(event), dict) for event in cut)
    marks = (b'"finish_reason":"', b"finishReason", b"stop_reason")
    assert not any(mark in event for event in cut[1:] for mark in marks)


@each_dialect
@whole_and_streamed
@pytest.mark.parametrize("fault", [Fault.STREAM_RESET_MID, Fault.STREAM_CLOSE_MID], ids=lambda fault: fault.value)
async def test_connections_that_break(raw: Any, dialect: Dialect, stream: bool, fault: Fault) -> None:
    async with raw.open(dialect, model=faulty(fault), stream=stream) as response:
        assert response.status == 200
        received = await response.content.readany()
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)) as broken:
            await response.read()
    assert received
    reset = "reset" in str(broken.value).lower() or isinstance(broken.value.__cause__, ConnectionResetError)
    assert reset == (fault is Fault.STREAM_RESET_MID)


@each_dialect
async def test_reset_before_any_byte(raw: Any, dialect: Dialect) -> None:
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await raw.send(dialect, model="sim-fault-reset_on_accept")


@each_dialect
async def test_broken_json_in_the_middle(raw: Any, dialect: Dialect) -> None:
    sent = events((await raw.send(dialect, model="sim-fault-stream_bad_json_mid", stream=True)).body)
    broken = [index for index, event in enumerate(sent) if event != b"[DONE]" and not is_json(event)]
    assert len(broken) == 1
    assert 0 < broken[0] < len(sent) - 1


def is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


async def test_ten_megabyte_line(raw: Any) -> None:
    answer = await raw.send(Dialect.OPENAI_CHAT, model="sim-fault-ten_megabyte_line", stream=True)
    line, _, rest = answer.body.partition(b"\n")
    assert len(line) > 10_000_000
    assert rest.strip() == b""


@each_dialect
@whole_and_streamed
async def test_silence_lasts_until_the_caller_leaves(
    raw: Any, simulator: RunningSimulator, dialect: Dialect, stream: bool
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT_WAIT_SECONDS):
            await raw.send(dialect, model="sim-fault-stall_headers", stream=stream)
    for fault in (Fault.STALL_BEFORE_FIRST_TOKEN, Fault.STALL_MID_STREAM):
        async with raw.open(dialect, model=faulty(fault), stream=stream) as response:
            assert response.status == 200
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT_WAIT_SECONDS):
                    await response.read()
            assert simulator.open_connections == 1
    await left_alone(simulator)


async def left_alone(simulator: RunningSimulator) -> None:
    async with asyncio.timeout(2):
        while simulator.open_connections:  # noqa: ASYNC110 - nothing tells but the count itself
            await asyncio.sleep(0.005)


async def collect(response: aiohttp.ClientResponse, pieces: list[bytes]) -> None:
    while True:
        pieces.append(await response.content.readany())


async def test_content_before_a_stall(raw: Any) -> None:
    async def received(fault: Fault) -> bytes:
        pieces: list[bytes] = []
        async with raw.open(Dialect.ANTHROPIC, model=faulty(fault), stream=True) as response:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(collect(response, pieces), SHORT_WAIT_SECONDS)
        return b"".join(pieces)

    before = await received(Fault.STALL_BEFORE_FIRST_TOKEN)
    assert b"message_start" in before
    assert b"text_delta" not in before
    mid = await received(Fault.STALL_MID_STREAM)
    assert b"text_delta" in mid
    assert b"message_stop" not in mid


@each_dialect
async def test_pings_only(raw: Any, simulator: RunningSimulator, dialect: Dialect) -> None:
    simulator.use(Script((Rule(Behaviour(fault=Fault.PINGS_ONLY, ping_interval_seconds=0.01)),)))
    received = b""
    async with raw.open(dialect, stream=True) as response:
        async with asyncio.timeout(5):
            while received.count(b"ping") + received.count(b"keepalive") < 6:
                received += await response.content.readany()
    assert b"simulated" not in received


@each_dialect
async def test_swapped_framing(raw: Any, dialect: Dialect) -> None:
    whole = await raw.send(dialect, model="sim-fault-json_instead_of_stream", stream=True)
    assert whole.headers["content-type"].startswith("application/json")
    assert isinstance(whole.json, dict)
    streamed = await raw.send(dialect, model="sim-fault-stream_instead_of_json")
    assert streamed.headers["content-type"].startswith(STREAM_TYPE)
    assert len(events(streamed.body)) > 3


ODD_BUT_LEGAL = (
    Fault.STREAM_OTHER_LINE_ENDS,
    Fault.STREAM_COMMENTS,
    Fault.STREAM_BOM,
    Fault.STREAM_DATA_AFTER_DONE,
    Fault.STREAM_NO_DONE,
    Fault.STREAM_EMPTY_CHOICES_FIRST,
    Fault.STREAM_MANY_PINGS,
    Fault.STREAM_SPLIT_BYTES,
)


@each_dialect
async def test_odd_but_legal_streams(raw: Any, dialect: Dialect) -> None:
    sound = (await raw.send(dialect, stream=True)).body
    end = LINE_END[dialect]
    odd = {fault: (await raw.send(dialect, model=faulty(fault), stream=True)).body for fault in ODD_BUT_LEGAL}
    expected = len(events(sound))
    assert len(events(odd[Fault.STREAM_COMMENTS])) == expected
    assert odd[Fault.STREAM_COMMENTS].count(b": SIMULATED") == expected
    assert odd[Fault.STREAM_BOM].startswith(b"\xef\xbb\xbf")
    assert (b"\r\n" in odd[Fault.STREAM_OTHER_LINE_ENDS]) == (end == b"\n")
    assert b"LATE" in events(odd[Fault.STREAM_DATA_AFTER_DONE])[-1]
    assert b"[DONE]" not in odd[Fault.STREAM_NO_DONE]
    assert len(events(odd[Fault.STREAM_NO_DONE])) == expected - (1 if dialect in DONE else 0)
    pings = odd[Fault.STREAM_MANY_PINGS].count(b"ping") + odd[Fault.STREAM_MANY_PINGS].count(b'"keepalive"')
    assert pings >= 500
    assert len(events(odd[Fault.STREAM_SPLIT_BYTES])) == expected
    first = json.loads(events(odd[Fault.STREAM_EMPTY_CHOICES_FIRST])[0])
    assert (first.get("choices") == [] and first["id"] == "") == (dialect is Dialect.OPENAI_CHAT)


async def test_split_bytes_cut_characters(raw: Any, simulator: RunningSimulator) -> None:
    text = "東京 🚆 Zürich"
    simulator.use(Script((Rule(Behaviour(reply_text=text, fault=Fault.STREAM_SPLIT_BYTES)),)))
    sizes = []
    async with raw.open(Dialect.OPENAI_CHAT, stream=True) as response:
        async for chunk, _ in response.content.iter_chunks():
            sizes.append(len(chunk))
    assert max(sizes) <= 3
    sent = events((await raw.send(Dialect.OPENAI_CHAT, stream=True)).body)
    assert "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in sent[:-1]) == text


def test_every_fault_is_tested() -> None:
    """A new fault needs a test; this names it when it is forgotten."""
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*faults.py"))
    names = {fault: (f"Fault.{fault.name}", f"sim-fault-{fault.value}") for fault in Fault}
    untested = [fault for fault in Fault if not any(name in text for name in names[fault])]
    assert untested == []
