"""Every fault does on the wire what its name says."""

from __future__ import annotations

import asyncio
import gzip
import json
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from pointsman_server.simulator.script import Behaviour, Dialect, Fault, Rule, Script
from pointsman_server.simulator.server import RunningSimulator

each_dialect = pytest.mark.parametrize("dialect", list(Dialect))
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
DONE = {Dialect.OPENAI_CHAT: b"data: [DONE]\n\n", Dialect.COHERE: b"data: [DONE]\n\n"}
LINE_END = {dialect: b"\r\n" if dialect is Dialect.GEMINI else b"\n" for dialect in Dialect}
STREAM_TYPE = "text/event-stream"
SHORT_WAIT_SECONDS = 0.15

STATUSES = {
    Fault.STATUS_400: 400,
    Fault.STATUS_400_CONTEXT: 400,
    Fault.STATUS_400_KEY: 400,
    Fault.STATUS_400_MODEL: 400,
    Fault.STATUS_401: 401,
    Fault.STATUS_403: 403,
    Fault.STATUS_404: 404,
    Fault.STATUS_413: 413,
    Fault.STATUS_429: 429,
    Fault.STATUS_429_QUOTA: 429,
    Fault.STATUS_500: 500,
    Fault.STATUS_503: 503,
    Fault.STATUS_504: 504,
    Fault.STATUS_529: 529,
}
WORDS = {
    # What a careful reader must find in the body to tell faults of equal status apart.
    Fault.STATUS_400_CONTEXT: {
        Dialect.ANTHROPIC: "prompt is too long",
        Dialect.GEMINI: "exceeds the maximum number of tokens",
        Dialect.OPENAI_CHAT: "context_length_exceeded",
        Dialect.OPENAI_RESPONSES: "context_length_exceeded",
        Dialect.COHERE: "TOO_MANY_TOKENS",
    },
    Fault.STATUS_429_QUOTA: {
        Dialect.ANTHROPIC: "credit balance",
        Dialect.GEMINI: "billing",
        Dialect.OPENAI_CHAT: "insufficient_quota",
        Dialect.OPENAI_RESPONSES: "insufficient_quota",
        Dialect.COHERE: "billing",
    },
}


def faulty(fault: Fault) -> str:
    return f"sim-fault-{fault.value}"


async def sound_parts(raw: Any, dialect: Dialect, stream: bool, **extra: Any) -> Any:
    return await raw.send(dialect, stream=stream, **extra)


def check_error_shape(dialect: Dialect, status: int, body: Any) -> None:
    match dialect:
        case Dialect.ANTHROPIC:
            assert body["type"] == "error"
            assert set(body["error"]) == {"type", "message"}
            assert body["request_id"].startswith("req_")
        case Dialect.GEMINI:
            assert body["error"]["code"] == status
            assert body["error"]["status"].isupper()
        case Dialect.OPENAI_CHAT | Dialect.OPENAI_RESPONSES:
            assert set(body["error"]) == {"message", "type", "param", "code"}
        case Dialect.COHERE:
            assert set(body) - {"error_type"} == {"id", "message"}


@each_dialect
@whole_and_streamed
@pytest.mark.parametrize("fault", STATUSES, ids=lambda fault: fault.value)
async def test_statuses(raw: Any, dialect: Dialect, stream: bool, fault: Fault) -> None:
    answer = await raw.send(dialect, model=faulty(fault), stream=stream)
    assert answer.status == STATUSES[fault]
    assert answer.headers["content-type"].startswith("application/json")
    check_error_shape(dialect, answer.status, answer.json)
    if fault in WORDS:
        assert WORDS[fault][dialect] in answer.body.decode()
    if fault in (Fault.STATUS_404, Fault.STATUS_400_MODEL) and dialect is not Dialect.ANTHROPIC:
        assert faulty(fault) in answer.body.decode()


@each_dialect
async def test_wait_of_429_is_said_the_dialects_way(raw: Any, dialect: Dialect) -> None:
    answer = await raw.send(dialect, model="sim-fault-429")
    if dialect is Dialect.GEMINI:
        assert "retry-after" not in answer.headers
        assert answer.json["error"]["details"][0]["retryDelay"] == "2s"
    else:
        assert answer.headers["retry-after"] == "2"


@each_dialect
@pytest.mark.parametrize(
    ("fault", "header"),
    [
        (Fault.STATUS_429_DAY, "86400"),
        (Fault.STATUS_429_NEGATIVE, "-5"),
        (Fault.STATUS_429_GARBAGE, "soon"),
        (Fault.STATUS_429_SILENT, None),
    ],
)
async def test_odd_waits(raw: Any, dialect: Dialect, fault: Fault, header: str | None) -> None:
    answer = await raw.send(dialect, model=faulty(fault))
    assert answer.status == 429
    assert answer.headers.get("retry-after") == header


async def test_waits_as_dates_and_milliseconds(raw: Any) -> None:
    ahead = await raw.send(Dialect.ANTHROPIC, model="sim-fault-429_date")
    sent = parsedate_to_datetime(ahead.headers["date"])
    assert 1 <= (parsedate_to_datetime(ahead.headers["retry-after"]) - sent).total_seconds() <= 4
    past = await raw.send(Dialect.ANTHROPIC, model="sim-fault-429_past_date")
    assert parsedate_to_datetime(past.headers["retry-after"]) < sent
    short = await raw.send(Dialect.ANTHROPIC, model="sim-fault-429_milliseconds")
    assert short.headers["retry-after-ms"] == "250"


@each_dialect
@whole_and_streamed
async def test_pages_and_redirects(raw: Any, dialect: Dialect, stream: bool) -> None:
    page = await raw.send(dialect, model="sim-fault-502", stream=stream)
    assert (page.status, page.headers["content-type"]) == (502, "text/html")
    redirect = await raw.send(dialect, model="sim-fault-302", stream=stream)
    assert redirect.status == 302
    assert redirect.headers["location"].startswith("http://169.254.169.254/")
    login = await raw.send(dialect, model="sim-fault-html_200", stream=stream)
    assert login.status == 200
    assert login.headers["content-type"].startswith("text/html")
    assert login.body.startswith(b"<!doctype html>")


@each_dialect
@whole_and_streamed
async def test_bodies_that_are_no_answer(raw: Any, dialect: Dialect, stream: bool) -> None:
    async def body(fault: Fault) -> bytes:
        answer = await raw.send(dialect, model=faulty(fault), stream=stream)
        assert answer.status == 200
        result: bytes = answer.body
        return result

    assert await body(Fault.EMPTY_200) == b""
    assert await body(Fault.JSON_NULL) == b"null"
    assert await body(Fault.JSON_ARRAY) == b"[]"
    assert await body(Fault.DEEP_JSON) == b"[" * 100_000
    truncated = await body(Fault.TRUNCATED_JSON)
    assert truncated.startswith(b"{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(truncated)
    first, end = json.JSONDecoder().raw_decode((await body(Fault.TWO_DOCUMENTS)).decode())
    assert isinstance(first, dict)
    assert (await body(Fault.TWO_DOCUMENTS))[end:].strip().startswith(b"{")
    with pytest.raises(UnicodeDecodeError):
        (await body(Fault.BAD_UTF8)).decode()
    error = json.loads(await body(Fault.ERROR_BODY_200))
    check_error_shape(dialect, 500, error)


@each_dialect
async def test_sound_answers_with_odd_wrapping(raw: Any, dialect: Dialect) -> None:
    spaced = await raw.send(dialect, model="sim-fault-leading_whitespace")
    assert spaced.body.startswith(b"\n   ")
    assert isinstance(spaced.json, dict)
    plain = await raw.send(dialect, model="sim-fault-wrong_content_type", stream=True)
    assert plain.headers["content-type"] == "text/plain"
    assert plain.body.startswith((b"data: ", b"event: "))


@each_dialect
@whole_and_streamed
async def test_gzip_lie(raw: Any, dialect: Dialect, stream: bool) -> None:
    answer = await raw.send(dialect, model="sim-fault-gzip_lie", stream=stream)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.body.startswith((b"data: ", b"event: ") if stream else b"{")
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(answer.body)


@each_dialect
@whole_and_streamed
async def test_untrue_lengths(raw: Any, dialect: Dialect, stream: bool) -> None:
    short = await raw.send(dialect, model="sim-fault-short_content_length", stream=stream)
    assert len(short.body) == int(short.headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(short.body)
    with pytest.raises(aiohttp.ClientPayloadError):
        await raw.send(dialect, model="sim-fault-long_content_length", stream=stream)


def emptiness(dialect: Dialect, body: Any) -> Any:
    match dialect:
        case Dialect.ANTHROPIC:
            return body["content"]
        case Dialect.GEMINI:
            return body.get("candidates", "absent")
        case Dialect.OPENAI_CHAT:
            return body["choices"]
        case Dialect.OPENAI_RESPONSES:
            return body["output"]
        case Dialect.COHERE:
            return body["message"]["content"]


async def test_empty_answers(raw: Any) -> None:
    async def empty(dialect: Dialect, fault: Fault) -> Any:
        return emptiness(dialect, (await raw.send(dialect, model=faulty(fault))).json)

    for dialect in Dialect:
        assert await empty(dialect, Fault.EMPTY_CHOICES) == []
    assert await empty(Dialect.ANTHROPIC, Fault.NULL_CONTENT) is None
    assert await empty(Dialect.COHERE, Fault.NULL_CONTENT) is None
    assert (await empty(Dialect.OPENAI_CHAT, Fault.NULL_CONTENT))[0]["message"]["content"] is None
    assert (await empty(Dialect.OPENAI_RESPONSES, Fault.NULL_CONTENT))[0]["content"] is None
    assert (await empty(Dialect.GEMINI, Fault.NULL_CONTENT))[0]["content"]["parts"] == [{"text": None}]
    (block,) = await empty(Dialect.ANTHROPIC, Fault.EMPTY_CONTENT_STOP)
    assert block == {"type": "text", "text": ""}
    (choice,) = await empty(Dialect.OPENAI_CHAT, Fault.EMPTY_CONTENT_STOP)
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")
    (candidate,) = await empty(Dialect.GEMINI, Fault.EMPTY_CONTENT_STOP)
    assert (candidate["content"]["parts"], candidate["finishReason"]) == ([{"text": ""}], "STOP")
    assert await empty(Dialect.GEMINI, Fault.BLOCKED_PROMPT) == "absent"
    assert (await empty(Dialect.OPENAI_CHAT, Fault.BLOCKED_PROMPT))[0]["finish_reason"] == "content_filter"


@each_dialect
@pytest.mark.parametrize("fault", [Fault.EMPTY_CHOICES, Fault.NULL_CONTENT, Fault.EMPTY_CONTENT_STOP])
async def test_empty_streams_end_as_they_should(raw: Any, dialect: Dialect, fault: Fault) -> None:
    sound = await raw.send(dialect, stream=True)
    empty = await raw.send(dialect, model=faulty(fault), stream=True)
    assert empty.status == 200
    assert b"simulated answer" not in empty.body
    assert 0 < empty.body.count(b"data: ") < sound.body.count(b"data: ")
    assert empty.body.endswith(DONE.get(dialect, b""))


def events(body: bytes) -> list[bytes]:
    """The data of all events, whatever their line ends."""
    return [line[6:] for line in body.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data: ")]


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
    assert not any(b'"finish_reason":"' in event or b"finishReason" in event or b"stop_reason" in event for event in cut[1:])


@each_dialect
@whole_and_streamed
@pytest.mark.parametrize("fault", [Fault.STREAM_RESET_MID, Fault.STREAM_CLOSE_MID], ids=lambda fault: fault.value)
async def test_connections_that_break(raw: Any, dialect: Dialect, stream: bool, fault: Fault) -> None:
    received = b""
    async with raw.open(dialect, model=faulty(fault), stream=stream) as response:
        assert response.status == 200
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)) as broken:
            while True:
                chunk = await response.content.readany()
                received += chunk
                assert chunk, "the body ended as if nothing had happened"
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
        while simulator.open_connections:
            await asyncio.sleep(0.005)


async def test_content_before_a_stall(raw: Any) -> None:
    async def received(fault: Fault) -> bytes:
        pieces = []
        async with raw.open(Dialect.ANTHROPIC, model=faulty(fault), stream=True) as response:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SHORT_WAIT_SECONDS):
                    while True:
                        pieces.append(await response.content.readany())
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
    assert len(odd[Fault.STREAM_SPLIT_BYTES]) == len(sound) + 3 * expected or is_same_shape(odd, sound)
    first = json.loads(events(odd[Fault.STREAM_EMPTY_CHOICES_FIRST])[0])
    assert (first.get("choices") == [] and first["id"] == "") == (dialect is Dialect.OPENAI_CHAT)


def is_same_shape(odd: dict[Fault, bytes], sound: bytes) -> bool:
    return len(events(odd[Fault.STREAM_SPLIT_BYTES])) == len(events(sound))


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
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    untested = [fault for fault in Fault if f"Fault.{fault.name}" not in text and f"sim-fault-{fault.value}" not in text]
    assert untested == []
