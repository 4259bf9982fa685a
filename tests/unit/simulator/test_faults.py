"""Every fault of a status or a body does on the wire what its name says."""

from __future__ import annotations

import gzip
import json
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from pointsman_server.simulator.script import Dialect, Fault
from pointsman_server.simulator.server import RunningSimulator
from unit.simulator.wire_client import raw_request, speak_http

each_dialect = pytest.mark.parametrize("dialect", list(Dialect))
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
DONE = {Dialect.OPENAI_CHAT: b"data: [DONE]\n\n", Dialect.COHERE: b"data: [DONE]\n\n"}

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
async def test_untrue_lengths(raw: Any, simulator: RunningSimulator, dialect: Dialect, stream: bool) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await raw.send(dialect, model="sim-fault-long_content_length", stream=stream)
    # Clients choke on what follows the announced length in different ways; a socket shows what was sent.
    path, body = raw_request(dialect, "sim-fault-short_content_length", stream, {})
    head, _, sent = (await speak_http(simulator.base_url, path, body)).partition(b"\r\n\r\n")
    announced = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert announced == len(sent) // 2
    assert isinstance(json.loads(sent), dict)
    with pytest.raises(json.JSONDecodeError):
        json.loads(sent[:announced])


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
