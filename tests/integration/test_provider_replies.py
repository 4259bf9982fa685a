"""Providers that fail, lie or break off: each gets its end, a second provider takes over, and the server stays well."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.running import RichError, connected, one_deployment_each, router, running_service, spec
from kit.upstream import (
    HELLO,
    Script,
    chunk,
    json_script,
    raw_script,
    running_upstream,
    script_of_fault,
    sse_script,
)
from pointsman.v1 import answer_pb2
from pointsman.v1.router_service_pb2 import CompleteRequest, StreamCompleteRequest
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.resilience import Resilience, RetryPolicy

SECRET = "upstream-secret-5d2a"
"""Part of every provider's own words; callers must never see it."""

FAULTS_FILE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "security" / "provider_faults.jsonl"

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "ALL_ATTEMPTS_FAILED")
RATE_LIMITED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "PROVIDER_RATE_LIMITED")
QUOTA = (grpc.StatusCode.RESOURCE_EXHAUSTED, "PROVIDER_QUOTA")
TOO_LONG = (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_OVERFLOW")
NO_TIME = (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


def failure(status: int, code: str = "", **headers: str) -> Script:
    return json_script({"error": {"message": f"{SECRET} {code}", "type": "t", "code": code}}, status, **headers)


def without(**changes: Any) -> dict[str, Any]:
    return {**HELLO, **changes}


WHOLE: dict[str, tuple[Script, tuple[grpc.StatusCode, str]]] = {
    "54 reset": (Script(status=0, end="reset"), UNAVAILABLE),
    "54 closed at once": (Script(status=0), UNAVAILABLE),
    "54 silence": (Script(status=0, end="stall"), NO_TIME),
    "55 500": (failure(500), UNAVAILABLE),
    "55 502 page": (raw_script(f"<h1>{SECRET}</h1>".encode(), "text/html", 502), UNAVAILABLE),
    "55 503": (failure(503), UNAVAILABLE),
    "55 504": (failure(504), UNAVAILABLE),
    "55 529": (failure(529), UNAVAILABLE),
    "56 seconds": (failure(429, **{"retry-after": "2"}), RATE_LIMITED),
    "56 milliseconds": (failure(429, **{"retry-after-ms": "1500"}), RATE_LIMITED),
    "56 date": (failure(429, **{"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT"}), RATE_LIMITED),
    "56 past date": (failure(429, **{"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}), RATE_LIMITED),
    "56 a day": (failure(429, **{"retry-after": "86400"}), RATE_LIMITED),
    "56 negative": (failure(429, **{"retry-after": "-5"}), RATE_LIMITED),
    "56 garbage": (failure(429, **{"retry-after": "soon"}), RATE_LIMITED),
    "57 quota": (failure(429, "insufficient_quota"), QUOTA),
    "57 402": (failure(402), QUOTA),
    "58 400": (failure(400), (grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_INVALID_REQUEST")),
    "58 context": (failure(400, "context_length_exceeded"), TOO_LONG),
    "58 413": (failure(413), TOO_LONG),
    "58 404": (failure(404), (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_MODEL_MISSING")),
    "58 401": (failure(401), (grpc.StatusCode.INTERNAL, "PROVIDER_AUTH")),
    "58 403": (failure(403), (grpc.StatusCode.INTERNAL, "PROVIDER_AUTH")),
    "60 page": (raw_script(f"<!doctype html>{SECRET}".encode(), "text/html"), UNAVAILABLE),
    "60 empty": (raw_script(b""), UNAVAILABLE),
    "60 null": (raw_script(b"null"), UNAVAILABLE),
    "60 list": (raw_script(b"[]"), UNAVAILABLE),
    "60 two documents": (raw_script(json.dumps(HELLO).encode() * 2), UNAVAILABLE),
    "60 cut JSON": (raw_script(json.dumps(HELLO).encode()[:90]), UNAVAILABLE),
    "60 no gzip": (
        Script(200, {"content-type": "application/json", "content-encoding": "gzip"}, [(0, b"{}")]),
        UNAVAILABLE,
    ),
    "60 bad UTF-8": (raw_script(json.dumps(HELLO).encode().replace(b"Hello", b"H\xff\xfello")), UNAVAILABLE),
    "60 deep": (raw_script(b"[" * 100_000), UNAVAILABLE),
    "60 short": (Script(200, {"content-length": "5000"}, [(0, json.dumps(HELLO).encode())]), UNAVAILABLE),
    "61 error object": (json_script({"error": {"message": SECRET, "type": "server_error"}}), UNAVAILABLE),
    "62 no choices": (json_script(without(choices=[])), UNAVAILABLE),
    "62 null content": (
        json_script(without(choices=[{"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}])),
        UNAVAILABLE,
    ),
    "62 empty content": (
        json_script(without(choices=[{"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}])),
        UNAVAILABLE,
    ),
}

ENDS_THE_CALL = {"58 400"}
"""What another provider could not mend either."""

LARGER_WINDOW_ONLY = {"58 context", "58 413"}


def _patience(row: str) -> float:
    """The caller's deadline in seconds: short only where nothing but the deadline ends the call."""
    return 1.5 if row in ("54 silence", "stall_headers") else 20.0


async def complete(base_urls: dict[str, str], **call: Any) -> answer_pb2.CompleteResponse:
    async with running_service(one_deployment_each(base_urls)) as service, connected(service) as channel:
        return await router(channel).Complete(CompleteRequest(completion=spec()), **call)


@pytest.mark.parametrize("row", WHOLE)
async def test_a_lone_provider_that_fails_ends_in_its_status(row: str) -> None:
    script, expected = WHOLE[row]
    async with (
        running_upstream(script, json_script(HELLO)) as upstream,
        running_upstream(json_script(HELLO)) as other,
        running_service(asked_once({"first": upstream.base_url, "second": other.base_url})) as service,
        connected(service) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router(channel).Complete(CompleteRequest(completion=spec(deployment="first")), timeout=_patience(row))
        error = RichError(caught.value)
        assert (error.code, error.reason) == expected
        assert upstream.calls == 1
        assert SECRET not in error.everything()
        assert "first:" in error.details["ErrorInfo"].metadata["attempts"] or error.reason == "DEADLINE_EXCEEDED"
        if error.code is grpc.StatusCode.UNAVAILABLE or error.reason == "PROVIDER_RATE_LIMITED":
            assert error.details["RetryInfo"].retry_delay.ToMilliseconds() > 0
        answer = await router(channel).Complete(CompleteRequest(completion=spec()), timeout=5)
        assert answer.message.parts[0].text == "Hello world"


def asked_once(base_urls: Mapping[str, str]) -> Snapshot:
    """The policy, without second tries."""
    return replace(one_deployment_each(base_urls), resilience=Resilience(RetryPolicy(attempts_per_deployment=1)))


PASSING = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
"""What time may mend, unless the provider wants more of it than there is."""

TOO_LONG_A_REST = frozenset({"56 a day"})


@pytest.mark.parametrize(
    "row",
    sorted(
        row
        for row, (_, (code, reason)) in WHOLE.items()
        if code.name in PASSING and reason != "PROVIDER_QUOTA" and row not in TOO_LONG_A_REST
    ),
)
async def test_a_lone_provider_whose_fault_passes_is_asked_again(row: str) -> None:
    script, _ = WHOLE[row]
    async with running_upstream(script, json_script(HELLO)) as upstream:
        answer = await complete({"first": upstream.base_url}, timeout=10)
    assert [attempt.purpose for attempt in answer.attempts] == [
        answer_pb2.ATTEMPT_PURPOSE_FIRST,
        answer_pb2.ATTEMPT_PURPOSE_RETRY,
    ]
    assert answer.message.parts[0].text == "Hello world"
    assert "retried" in [warning.code for warning in answer.warnings]


@pytest.mark.parametrize("row", sorted(WHOLE.keys() - ENDS_THE_CALL - LARGER_WINDOW_ONLY))
async def test_another_provider_takes_over(row: str) -> None:
    script, _ = WHOLE[row]
    async with running_upstream(script) as broken, running_upstream(json_script(HELLO)) as sound:
        answer = await complete({"first": broken.base_url, "second": sound.base_url}, timeout=2 * _patience(row))
    assert [attempt.deployment for attempt in answer.attempts] == ["first", "second"]
    assert answer.attempts[0].outcome == answer_pb2.ATTEMPT_OUTCOME_FAILED
    assert answer.message.parts[0].text == "Hello world"
    assert "fallback" in [warning.code for warning in answer.warnings]
    assert answer.attempts[1].cost_micro_usd == 24
    assert answer.usage.cost_micro_usd == sum(attempt.cost_micro_usd for attempt in answer.attempts)


async def test_row_54_refused_connection_and_unknown_host() -> None:
    async with running_upstream(json_script(HELLO)) as sound:
        answer = await complete(
            {"first": "http://127.0.0.1:1/v1", "other": "https://nowhere.invalid/v1", "second": sound.base_url},
            timeout=5,
        )
    errors = [attempt.error for attempt in answer.attempts]
    assert errors == [answer_pb2.ATTEMPT_ERROR_CONNECTION] * 2 + [answer_pb2.ATTEMPT_ERROR_UNSPECIFIED]


@pytest.mark.parametrize("row", sorted(LARGER_WINDOW_ONLY))
async def test_row_58_too_long_goes_to_a_larger_window_only(row: str) -> None:
    script, _ = WHOLE[row]
    async with (
        running_upstream(script) as small,
        running_upstream(json_script(HELLO)) as same,
        running_service(one_deployment_each({"first": small.base_url, "second": same.base_url})) as service,
        connected(service) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router(channel).Complete(CompleteRequest(completion=spec()))
        assert RichError(caught.value).reason == "CONTEXT_OVERFLOW"
        assert same.calls == 0


async def test_row_59_a_redirect_is_not_followed() -> None:
    async with running_upstream(json_script(HELLO)) as target:
        redirect = Script(302, {"location": f"{target.base_url}/chat/completions"}, [(0, b"")])
        async with running_upstream(redirect) as upstream:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await complete({"first": upstream.base_url})
        assert RichError(caught.value).code is grpc.StatusCode.UNAVAILABLE
        assert target.calls == 0


USAGE: dict[str, tuple[object, int, str]] = {
    "missing": (None, 0, "usage_estimated"),
    "negative": ({"prompt_tokens": 9, "completion_tokens": -3}, 9, "usage_implausible"),
    "absurd": ({"prompt_tokens": 9, "completion_tokens": 10**12}, 9, "usage_implausible"),
    "nan": ({"prompt_tokens": 9, "completion_tokens": float("nan")}, 9, "usage_implausible"),
    "strings": ({"prompt_tokens": "9", "completion_tokens": "3"}, 9, ""),
}


@pytest.mark.parametrize("row", USAGE)
async def test_row_63_odd_usage_is_estimated_and_flagged(row: str) -> None:
    usage, input_tokens, code = USAGE[row]
    async with running_upstream(json_script(without(usage=usage))) as upstream:
        answer = await complete({"first": upstream.base_url})
    assert answer.usage.estimated == bool(code)
    assert answer.usage.input_tokens == (input_tokens or answer.decision.input_tokens)
    assert 0 < answer.usage.output_tokens < 10
    assert answer.usage.cost_micro_usd > 0
    assert [warning.code for warning in answer.warnings if warning.code.startswith("usage")] == ([code] if code else [])


async def test_row_64_another_model_answers() -> None:
    async with running_upstream(json_script(without(model="someone-else"))) as upstream:
        answer = await complete({"first": upstream.base_url})
    assert "model_mismatch" in [warning.code for warning in answer.warnings]
    assert answer.usage.cost_micro_usd == 9 * 1 + 3 * 2


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("content_filter", answer_pb2.FINISH_REASON_CONTENT_FILTER),
        ("length", answer_pb2.FINISH_REASON_LENGTH),
        ("something_new", answer_pb2.FINISH_REASON_UNKNOWN),
    ],
)
async def test_row_65_finish_reasons(raw: str, reason: int) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": raw}
    async with running_upstream(json_script(without(choices=[choice]))) as upstream:
        answer = await complete({"first": upstream.base_url})
    assert answer.finish_reason == reason


async def test_row_66_broken_arguments_are_passed_on() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    choice = {"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    async with running_upstream(json_script(without(choices=[choice]))) as upstream:
        answer = await complete({"first": upstream.base_url})
    assert answer.message.parts[0].tool_call.arguments_json == '{"a": '
    assert answer.finish_reason == answer_pb2.FINISH_REASON_TOOL_CALLS


class Streamed:
    """What a streaming caller saw."""

    def __init__(self) -> None:
        self.text = ""
        self.failovers: list[answer_pb2.Failover] = []
        self.completed: answer_pb2.CompleteResponse | None = None
        self.error: RichError | None = None


async def stream(
    base_urls: dict[str, str],
    timeouts: dict[str, float] | None = None,
    failover: answer_pb2.StreamFailover.ValueType = answer_pb2.STREAM_FAILOVER_UNSPECIFIED,
) -> Streamed:
    seen = Streamed()
    snapshot = one_deployment_each(base_urls, timeouts=timeouts or {})
    async with running_service(snapshot) as service, connected(service) as channel:
        events = router(channel).StreamComplete(StreamCompleteRequest(completion=spec(), failover=failover), timeout=20)
        try:
            async for event in events:
                match event.WhichOneof("event"):
                    case "delta":
                        seen.text += event.delta.text
                    case "failover":
                        seen.failovers.append(event.failover)
                        seen.text = seen.text[: event.failover.characters_kept]
                    case "completed":
                        seen.completed = event.completed
        except grpc.aio.AioRpcError as error:
            seen.error = RichError(error)
    return seen


ERROR_CHUNK = 'data: {"error": {"message": "x", "type": "server_error"}}\n\n'
BEFORE_FIRST: dict[str, Script] = {
    "67 error first": sse_script(ERROR_CHUNK, done=False),
    "68 nothing": sse_script(done=False),
    "68 only the end": sse_script(),
    "69 stall": sse_script(": wait\n\n", end="stall", done=False),
    "69 pings": Script(200, {"content-type": "text/event-stream"}, [(0.2, b": ping\n\n")] * 30),
    "73 endless line": Script(200, {"content-type": "text/event-stream"}, [(0, b"data: " + b"x" * 10_000_000)]),
}


@pytest.mark.parametrize("row", BEFORE_FIRST)
async def test_before_the_first_token_another_provider_takes_over_unseen(row: str) -> None:
    sound = sse_script(chunk("Hello"), chunk(" world"), chunk(finish="stop"))
    async with running_upstream(BEFORE_FIRST[row]) as broken, running_upstream(sound) as other:
        patience = {"first_token_seconds": 2.0} if row.startswith("69") else {}
        seen = await stream({"first": broken.base_url, "second": other.base_url}, patience)
    assert seen.error is None
    assert seen.completed is not None
    assert seen.text == seen.completed.message.parts[0].text == "Hello world"
    assert seen.failovers == []


HALF = (chunk("Hello"), chunk(" wo"))
MIDWAY: dict[str, Script] = {
    "68 error": sse_script(*HALF, ERROR_CHUNK, done=False),
    "68 reset": sse_script(*HALF, end="reset", done=False),
    "68 end without finish": sse_script(*HALF, done=False),
    "68 bad JSON": sse_script(*HALF, "data: {oops\n\n", done=False),
    "69 stall": sse_script(*HALF, end="stall", done=False),
    "69 pings": Script(
        200,
        {"content-type": "text/event-stream"},
        [*sse_script(*HALF, done=False).pieces, *[(0.1, b": ping\n\n")] * 40],
    ),
}


@pytest.mark.parametrize("row", MIDWAY)
async def test_a_broken_stream_is_never_ok(row: str) -> None:
    sound = sse_script(chunk("Hello world"), chunk(finish="stop"))
    async with running_upstream(MIDWAY[row]) as broken, running_upstream(sound) as other:
        seen = await stream({"first": broken.base_url, "second": other.base_url}, {"idle_seconds": 0.8})
        assert other.calls == 0
    assert seen.completed is None
    assert seen.text == "Hello wo"
    assert seen.error is not None
    assert (seen.error.code, seen.error.reason) == (grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED")
    assert int(seen.error.details["ErrorInfo"].metadata["outputTokens"]) > 0


@pytest.mark.parametrize("row", MIDWAY)
async def test_a_broken_stream_starts_again_when_the_caller_chose_so(row: str) -> None:
    sound = sse_script(chunk("Good "), chunk("day"), chunk(finish="stop"))
    async with running_upstream(MIDWAY[row]) as broken, running_upstream(sound) as other:
        seen = await stream(
            {"first": broken.base_url, "second": other.base_url},
            {"idle_seconds": 0.8},
            answer_pb2.STREAM_FAILOVER_RESTART,
        )
    assert seen.error is None
    assert seen.completed is not None
    assert seen.text == seen.completed.message.parts[0].text == "Good day"
    assert [(f.from_deployment, f.to_deployment, f.characters_kept) for f in seen.failovers] == [("first", "second", 0)]


WELL: dict[str, Script] = {
    "70 no DONE": sse_script(chunk("Hello"), chunk(" world"), chunk(finish="stop"), done=False),
    "70 after DONE": sse_script(chunk("Hello world"), chunk(finish="stop"), "data: [DONE]\n\n", chunk("!"), done=False),
    "70 CRLF, comments, BOM": Script(
        200,
        {"content-type": "text/event-stream"},
        [
            (0, b"\xef\xbb\xbf"),
            *(
                (0.0, piece.replace(b"\n", b"\r\n") + b": x\r\n")
                for _, piece in sse_script(chunk("Hello world"), chunk(finish="stop")).pieces
            ),
        ],
    ),
    "70 empty choices first": sse_script({"choices": []}, chunk("Hello world"), chunk(finish="stop")),
    "70 500 pings": sse_script(": ping\n\n" * 500, chunk("Hello world"), chunk(finish="stop")),
    "71 split anywhere": Script(
        200,
        {"content-type": "text/event-stream"},
        [
            (0.001, bytes([byte]))
            for _, piece in sse_script(chunk("Hello world"), chunk(finish="stop")).pieces
            for byte in piece
        ],
    ),
    "74 JSON": json_script(HELLO),
    "74 gzip": Script(
        200,
        {"content-type": "text/event-stream", "content-encoding": "gzip"},
        [(0, gzip.compress(b"".join(p for _, p in sse_script(chunk("Hello world"), chunk(finish="stop")).pieces)))],
    ),
}


@pytest.mark.parametrize("row", WELL)
async def test_odd_but_whole_streams_are_answers(row: str) -> None:
    async with running_upstream(WELL[row]) as upstream:
        seen = await stream({"first": upstream.base_url})
    assert seen.error is None
    assert seen.completed is not None
    assert seen.text == seen.completed.message.parts[0].text == "Hello world"


async def test_row_71_characters_split_over_pieces_stay_whole() -> None:
    text = "שלום 🌍👩‍🚀 naïve"
    body = b"".join(p for _, p in sse_script(json.dumps(0) and chunk(text), chunk(finish="stop")).pieces)
    raw = body.decode("unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16").encode()
    pieces = [(0.0, raw[at : at + 3]) for at in range(0, len(raw), 3)]
    async with running_upstream(Script(200, {"content-type": "text/event-stream"}, pieces)) as upstream:
        seen = await stream({"first": upstream.base_url})
    assert seen.text == text


async def test_row_74_a_stream_where_one_answer_was_asked_for() -> None:
    async with running_upstream(sse_script(chunk("Hello"), chunk(" world"), chunk(finish="stop"))) as upstream:
        answer = await complete({"first": upstream.base_url})
    assert answer.message.parts[0].text == "Hello world"


async def test_a_cancelled_call_closes_the_providers_connection() -> None:
    script = sse_script(chunk("Hello"), end="stall", done=False)
    async with (
        running_upstream(script) as upstream,
        running_service(one_deployment_each({"first": upstream.base_url})) as service,
        connected(service) as channel,
    ):
        events = router(channel).StreamComplete(StreamCompleteRequest(completion=spec()))
        async for event in events:
            if event.WhichOneof("event") == "delta":
                break
        assert upstream.open_connections == 1
        events.cancel()
        for _ in range(20):
            await asyncio.sleep(0.01)
            if upstream.open_connections == 0:
                break
        assert upstream.open_connections == 0


@pytest.mark.skipif(not FAULTS_FILE.exists(), reason="absent: ../shared/data/security/provider_faults.jsonl")
def test_every_scripted_fault_is_known() -> None:
    names = {json.loads(line)["name"] for line in FAULTS_FILE.read_text(encoding="utf-8").splitlines()}
    assert names <= set(SCRIPTED), names - set(SCRIPTED)


def _scripted() -> dict[str, dict[str, Any]]:
    if not FAULTS_FILE.exists():
        return {}
    rows = (json.loads(line) for line in FAULTS_FILE.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row for row in rows}


SCRIPTED = _scripted()
SHORT: dict[str, dict[str, float]] = {
    "stream_stall_before_first": {"first_token_seconds": 1.0},
    "stream_stall_mid": {"idle_seconds": 0.8},
}


@pytest.mark.parametrize("name", SCRIPTED)
async def test_scripted_faults(name: str) -> None:
    row = SCRIPTED[name]
    expect = row["expect"]
    async with running_upstream(script_of_fault(row)) as upstream:
        if row["stream"]:
            seen = await stream({"first": upstream.base_url}, SHORT.get(name, {}))
            text = seen.text if seen.error is None else None
            error = seen.error
            if seen.completed is not None:
                assert seen.text == "".join(part.text for part in seen.completed.message.parts)
        else:
            try:
                answer = await complete({"first": upstream.base_url}, timeout=_patience(name))
                text, error = "".join(part.text for part in answer.message.parts), None
            except grpc.aio.AioRpcError as caught:
                text, error = None, RichError(caught)
    code = expect.get("grpc_if_chain_exhausted")
    if expect.get("partial_text_delivered"):
        code = "ABORTED"  # the contract's code once part of the answer was sent
    if expect["error_class"] == "stream_failed_before_first_token" and name.startswith("stream_stall"):
        code = "DEADLINE_EXCEEDED"  # a lone provider that stays silent is a timeout
    assert (error.code.name if error else None) == code
    if "text" in expect:
        assert text == expect["text"]
