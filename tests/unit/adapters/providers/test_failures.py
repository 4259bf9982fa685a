from __future__ import annotations

import os
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.providers.failures import (
    MAX_RETRY_AFTER_SECONDS,
    ErrorWords,
    failure_from_status,
    failure_in_answer,
    parse_retry_after,
)
from pointsman_server.domain.faults import FaultKind

NOW = 1_800_000_000.0

SAID_BY_STATUS = {
    400: FaultKind.INVALID_REQUEST,
    401: FaultKind.AUTH,
    402: FaultKind.QUOTA,
    403: FaultKind.AUTH,
    404: FaultKind.MODEL_MISSING,
    405: FaultKind.INVALID_REQUEST,
    408: FaultKind.TIMEOUT,
    409: FaultKind.UNAVAILABLE,
    413: FaultKind.REQUEST_TOO_LARGE,
    415: FaultKind.INVALID_REQUEST,
    422: FaultKind.INVALID_REQUEST,
    425: FaultKind.UNAVAILABLE,
    429: FaultKind.RATE_LIMITED,
    498: FaultKind.AUTH,
    499: FaultKind.UNAVAILABLE,
    500: FaultKind.UNAVAILABLE,
    501: FaultKind.UNAVAILABLE,
    502: FaultKind.UNAVAILABLE,
    503: FaultKind.OVERLOADED,
    504: FaultKind.UNAVAILABLE,
    520: FaultKind.UNAVAILABLE,
    529: FaultKind.OVERLOADED,
    599: FaultKind.UNAVAILABLE,
    100: FaultKind.UNKNOWN,
    201: FaultKind.UNKNOWN,
    204: FaultKind.UNKNOWN,
    304: FaultKind.UNKNOWN,
    600: FaultKind.UNKNOWN,
    999: FaultKind.UNKNOWN,
}

QUOTA_WORDS = [
    ErrorWords(type="insufficient_quota"),
    ErrorWords(code="insufficient_quota", message="You exceeded your current quota"),
    ErrorWords(message="Your credit balance is too low"),
    ErrorWords(code="enforced_spend_limit_reached", message="Spend limit reached"),
    ErrorWords(message="You have hit your monthly spending limit"),
    ErrorWords(code="billing_hard_limit_reached"),
    ErrorWords(message="limited to 1000 API calls / month"),
    ErrorWords(type="RESOURCE_EXHAUSTED", message="Your prepayment credits are depleted."),
]

CONTEXT_WORDS = [
    ErrorWords(code="context_length_exceeded"),
    ErrorWords(message="This model's maximum context length is 8192 tokens"),
    ErrorWords(type="invalid_request_error", message="prompt is too long: 214000 tokens > 200000 maximum"),
    ErrorWords(type="INVALID_ARGUMENT", message="The input token count (1200000) exceeds the maximum number of tokens"),
    ErrorWords(type="TOO_MANY_TOKENS"),
    ErrorWords(message="too many tokens: total number of tokens"),
    ErrorWords(message="Input is too long for requested model."),
    ErrorWords(message="exceeds the context window"),
    ErrorWords(code="string_above_max_length"),
]


@pytest.mark.parametrize(("status", "kind"), SAID_BY_STATUS.items())
def test_status_alone(status: int, kind: FaultKind) -> None:
    fault = failure_from_status(status, ErrorWords(), {})
    assert (fault.kind, fault.status, fault.retry_after_seconds) == (kind, status, None)
    assert fault.detail


def test_every_status_means_something() -> None:
    for status in range(100, 700):
        kind = failure_from_status(status, ErrorWords("a", "b", "c"), {}).kind
        if 500 <= status < 600:
            assert kind in (FaultKind.UNAVAILABLE, FaultKind.OVERLOADED), status
        else:
            assert (kind is FaultKind.UNKNOWN) == (not 400 <= status < 500), status


@pytest.mark.parametrize("words", QUOTA_WORDS)
@pytest.mark.parametrize("status", [400, 402, 422, 429])
def test_money_is_not_a_rate_limit(status: int, words: ErrorWords) -> None:
    assert failure_from_status(status, words, {}).kind is FaultKind.QUOTA


@pytest.mark.parametrize("words", CONTEXT_WORDS)
@pytest.mark.parametrize("status", [400, 422])
def test_too_long_for_the_model(status: int, words: ErrorWords) -> None:
    assert failure_from_status(status, words, {}).kind is FaultKind.CONTEXT_WINDOW


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (
            ErrorWords(type="INVALID_ARGUMENT", message="API key not valid. Please pass a valid API key."),
            FaultKind.AUTH,
        ),
        (ErrorWords(code="API_KEY_INVALID"), FaultKind.AUTH),
        (ErrorWords(message="API key expired. Please renew the API key."), FaultKind.AUTH),
        (ErrorWords(message="Incorrect API key provided"), FaultKind.AUTH),
        (
            ErrorWords(code="model_not_found", message="The requested model 'x' does not exist."),
            FaultKind.MODEL_MISSING,
        ),
        (ErrorWords(message="Model not found"), FaultKind.MODEL_MISSING),
        (ErrorWords(type="rate_limit_error"), FaultKind.INVALID_REQUEST),
        (ErrorWords(message="temperature must be at most 2"), FaultKind.INVALID_REQUEST),
    ],
)
def test_words_of_a_400(words: ErrorWords, kind: FaultKind) -> None:
    assert failure_from_status(400, words, {}).kind is kind


@pytest.mark.parametrize("words", [*CONTEXT_WORDS, ErrorWords(message="model not found, api key not valid")])
def test_a_429_stays_a_rate_limit_whatever_else_it_says(words: ErrorWords) -> None:
    assert failure_from_status(429, words, {}).kind is FaultKind.RATE_LIMITED


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, FaultKind.AUTH), (404, FaultKind.MODEL_MISSING), (500, FaultKind.UNAVAILABLE), (529, FaultKind.OVERLOADED)],
)
@pytest.mark.parametrize("words", [*QUOTA_WORDS, *CONTEXT_WORDS])
def test_clear_statuses_do_not_listen_to_words(status: int, kind: FaultKind, words: ErrorWords) -> None:
    assert failure_from_status(status, words, {}).kind is kind


@given(st.text(min_size=3), st.text(min_size=3), st.text(min_size=3), st.integers(100, 599))
def test_no_word_of_the_provider_is_passed_on(type_: str, code: str, message: str, status: int) -> None:
    marked = ErrorWords("<T>" + type_, "<C>" + code, "<M>" + message)
    for fault in (failure_from_status(status, marked, {}), failure_in_answer(marked, status)):
        shown = f"{fault} {fault.detail} {fault!r}"
        assert not any(mark in shown for mark in ("<T>", "<C>", "<M>"))


class TestErrorInsideAnAnswer:
    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            (ErrorWords(type="rate_limit_error"), FaultKind.RATE_LIMITED),
            (ErrorWords(type="too_many_requests"), FaultKind.RATE_LIMITED),
            (ErrorWords(code="RESOURCE_EXHAUSTED"), FaultKind.RATE_LIMITED),
            (ErrorWords(type="overloaded_error"), FaultKind.OVERLOADED),
            (ErrorWords(type="authentication_error"), FaultKind.AUTH),
            (ErrorWords(type="permission_error"), FaultKind.AUTH),
            (ErrorWords(code="UNAUTHENTICATED"), FaultKind.AUTH),
            (ErrorWords(type="billing_error"), FaultKind.QUOTA),
            (ErrorWords(type="insufficient_quota"), FaultKind.QUOTA),
            (ErrorWords(type="quota_exceeded"), FaultKind.QUOTA),
            (ErrorWords(type="not_found_error"), FaultKind.MODEL_MISSING),
            (ErrorWords(type="request_too_large"), FaultKind.REQUEST_TOO_LARGE),
            (ErrorWords(type="invalid_request_error"), FaultKind.INVALID_REQUEST),
            (ErrorWords(code="INVALID_ARGUMENT"), FaultKind.INVALID_REQUEST),
            (ErrorWords(type="invalid_request_error", message="prompt is too long"), FaultKind.CONTEXT_WINDOW),
            (ErrorWords(type="timeout_error"), FaultKind.TIMEOUT),
            (ErrorWords(type="api_error"), FaultKind.UNAVAILABLE),
            (ErrorWords(type="server_error", message="rate_limit_error is only in the message"), FaultKind.UNAVAILABLE),
            (ErrorWords(), FaultKind.UNAVAILABLE),
        ],
    )
    def test_by_type(self, words: ErrorWords, kind: FaultKind) -> None:
        fault = failure_in_answer(words)
        assert (fault.kind, fault.status) == (kind, 200)

    @pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503, 529])
    def test_by_the_status_it_carries(self, status: int) -> None:
        fault = failure_in_answer(ErrorWords(type="authentication_error"), status)
        assert (fault.kind, fault.status) == (SAID_BY_STATUS[status], 200)

    @pytest.mark.parametrize("status", [0, 200, 399, 600, -1])
    def test_by_type_where_the_status_is_none_of_an_error(self, status: int) -> None:
        assert failure_in_answer(ErrorWords(type="overloaded_error"), status).kind is FaultKind.OVERLOADED


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "2"}, 2.0),
            ({"retry-after": " 2 "}, 2.0),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": "0.5"}, 0.5),
            ({"retry-after": "86400"}, 86_400.0),
            ({"retry-after": str(int(MAX_RETRY_AFTER_SECONDS))}, MAX_RETRY_AFTER_SECONDS),
            ({"retry-after": str(int(MAX_RETRY_AFTER_SECONDS) + 1)}, None),
            ({"retry-after": "1" * 400}, None),
            ({"retry-after": "-5"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": "-inf"}, None),
            ({"retry-after": ""}, None),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "2 seconds"}, None),
            ({"retry-after": "\x00\xff"}, None),
            ({"retry-after-ms": "250"}, 0.25),
            ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
            ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
            ({"retry-after-ms": "-1", "retry-after": "1"}, 1.0),
            ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
            ({"retry-after-ms": "nan", "retry-after": "1"}, 1.0),
            ({"retry-after-ms": "9e15"}, None),
            ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
            ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
            ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
            ({"retry-after": formatdate(NOW + 2 * MAX_RETRY_AFTER_SECONDS, usegmt=True)}, None),
            ({"retry-after": "Fri, 15 Jan 2027 10:00:30 +0200"}, 30.0),
            ({"retry-after": "Fri, 15 Jan 2027 08:00:30 -0000"}, 30.0),
            ({"retry-after": "Fri, 15 Jan 2027 08:00:30"}, 30.0),
            ({"retry-after": "Mon, 99 Foo 2026 00:00:00 GMT"}, None),
            ({"retry-after": "Fri, 15 Jan 99999 08:00:30 GMT"}, None),
            ({"retry-after": "Fri, 15 Jan 2027 08:00:30 +" + "9" * 30}, None),
            ({"retry-after": "Fri, 15 Jan 0001 00:00:00"}, 0.0),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_forms(self, headers: dict[str, str], seconds: float | None) -> None:
        assert time.gmtime(NOW)[:6] == (2027, 1, 15, 8, 0, 0)
        assert parse_retry_after(headers, NOW) == seconds

    @pytest.fixture
    def far_east(self) -> Iterator[None]:
        before = os.environ.get("TZ")
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        yield
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()

    @pytest.mark.usefixtures("far_east")
    @pytest.mark.parametrize("zone", ["GMT", "-0000", ""])
    def test_a_date_is_utc_wherever_the_server_stands(self, zone: str) -> None:
        assert parse_retry_after({"retry-after": f"Fri, 15 Jan 2027 08:00:30 {zone}".strip()}, NOW) == 30.0

    @given(st.text(max_size=40))
    def test_nonsense_never_fails(self, value: str) -> None:
        seconds = parse_retry_after({"retry-after": value, "retry-after-ms": value}, NOW)
        assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS

    @pytest.mark.parametrize("status", [429, 503, 529])
    def test_is_read_where_it_means_something(self, status: int) -> None:
        fault = failure_from_status(status, ErrorWords(), {"retry-after": "3"}, now=lambda: NOW)
        assert fault.retry_after_seconds == 3.0

    @pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 408, 500, 502, 504])
    def test_is_not_read_elsewhere(self, status: int) -> None:
        assert failure_from_status(status, ErrorWords(), {"retry-after": "3"}).retry_after_seconds is None

    def test_date_is_counted_from_now(self) -> None:
        headers = {"retry-after": formatdate(time.time() + 100, usegmt=True)}
        fault = failure_from_status(429, ErrorWords(), headers)
        assert fault.retry_after_seconds is not None
        assert 90 < fault.retry_after_seconds <= 100
