from __future__ import annotations

import json
from typing import Any

import pytest

from pointsman_server.adapters.providers.gemini_failures import failure_of_error, read_failure
from pointsman_server.domain.faults import FaultKind, ProviderFault

TYPE = "type.googleapis.com/google.rpc."


def error(status: str, message: str = "no", *details: dict[str, Any], code: int = 0) -> dict[str, Any]:
    return {"code": code, "message": message, "status": status, "details": list(details)}


def fault_of(status: int, said: Any, headers: dict[str, str] | None = None) -> ProviderFault:
    body = said if isinstance(said, bytes) else json.dumps({"error": said}).encode()
    return read_failure(status, headers or {}, body)


def retry_info(delay: Any) -> dict[str, Any]:
    return {"@type": TYPE + "RetryInfo", "retryDelay": delay}


QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, error("INVALID_ARGUMENT", "Please use a valid role: user, model."), FaultKind.INVALID_REQUEST),
        (400, error("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), FaultKind.AUTH),
        (
            400,
            error("INVALID_ARGUMENT", "x", {"@type": TYPE + "ErrorInfo", "reason": "API_KEY_INVALID"}),
            FaultKind.AUTH,
        ),
        (
            400,
            error("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
            FaultKind.CONTEXT_WINDOW,
        ),
        (400, error("FAILED_PRECONDITION", "User location is not supported for the API use."), FaultKind.AUTH),
        (401, error("UNAUTHENTICATED"), FaultKind.AUTH),
        (403, error("PERMISSION_DENIED"), FaultKind.AUTH),
        (404, error("NOT_FOUND", "models/x is not found for API version v1beta"), FaultKind.MODEL_MISSING),
        (413, b"<html>too large</html>", FaultKind.REQUEST_TOO_LARGE),
        (429, error("RESOURCE_EXHAUSTED", QUOTA), FaultKind.RATE_LIMITED),
        (500, error("INTERNAL"), FaultKind.UNAVAILABLE),
        (502, b"<html>bad gateway</html>", FaultKind.UNAVAILABLE),
        (503, error("UNAVAILABLE", "The model is overloaded. Please try again later."), FaultKind.OVERLOADED),
        (504, error("DEADLINE_EXCEEDED"), FaultKind.UNAVAILABLE),
        (404, b"", FaultKind.MODEL_MISSING),
        (400, b'"text"', FaultKind.INVALID_REQUEST),
        (400, b'{"error":"API key not valid."}', FaultKind.AUTH),
        (400, b'{"error":null}', FaultKind.INVALID_REQUEST),
        (429, b"[]", FaultKind.RATE_LIMITED),
        (400, b"\xff\xfe", FaultKind.INVALID_REQUEST),
        (302, b"", FaultKind.UNKNOWN),
    ],
)
def test_what_an_error_means(status: int, said: Any, kind: FaultKind) -> None:
    fault = fault_of(status, said)
    assert (fault.kind, fault.status) == (kind, status)
    assert "API key not" not in str(fault)


class TestWaiting:
    def limit(self, delay: Any, headers: dict[str, str] | None = None, status: int = 429) -> float | None:
        return fault_of(status, error("RESOURCE_EXHAUSTED", QUOTA, retry_info(delay)), headers).retry_after_seconds

    def test_retry_info_says_how_long(self) -> None:
        assert self.limit("23s") == 23
        assert self.limit("48.939935699s") == pytest.approx(48.94, abs=0.01)
        assert self.limit("0s") == 0

    def test_a_header_wins(self) -> None:
        assert self.limit("23s", {"retry-after": "2"}) == 2

    def test_overload_may_say_it_too(self) -> None:
        assert self.limit("5s", status=503) == 5

    @pytest.mark.parametrize("delay", ["-5s", "1000000000s", "soon", "s", "nans", 23, None, {}, "23"])
    def test_nonsense_is_nothing(self, delay: Any) -> None:
        assert self.limit(delay) is None

    def test_details_of_any_shape(self) -> None:
        said = {**error("RESOURCE_EXHAUSTED"), "details": [None, "x", {"@type": 7}, {}]}
        assert fault_of(429, said).retry_after_seconds is None
        assert fault_of(429, {**said, "details": "none"}).retry_after_seconds is None

    def test_a_refused_request_has_nothing_to_wait_for(self) -> None:
        assert fault_of(400, error("INVALID_ARGUMENT", "no", retry_info("5s"))).retry_after_seconds is None

    def test_a_list_of_one_is_read(self) -> None:
        body = json.dumps([{"error": error("RESOURCE_EXHAUSTED", QUOTA, retry_info("7s"))}]).encode()
        fault = read_failure(429, {}, body)
        assert (fault.kind, fault.retry_after_seconds) == (FaultKind.RATE_LIMITED, 7)


class TestInsideAnAnswer:
    @pytest.mark.parametrize(
        ("said", "kind"),
        [
            (error("RESOURCE_EXHAUSTED", QUOTA, code=429), FaultKind.RATE_LIMITED),
            (error("UNAVAILABLE", code=503), FaultKind.OVERLOADED),
            (error("INTERNAL", code=500), FaultKind.UNAVAILABLE),
            (error("INVALID_ARGUMENT", code=400), FaultKind.INVALID_REQUEST),
            (error("FAILED_PRECONDITION", code=400), FaultKind.AUTH),
            ({"status": "RESOURCE_EXHAUSTED"}, FaultKind.RATE_LIMITED),
            ({"status": "UNAUTHENTICATED", "code": "x"}, FaultKind.AUTH),
            ("something broke", FaultKind.UNAVAILABLE),
            (7, FaultKind.UNAVAILABLE),
        ],
    )
    def test_it_means_the_same(self, said: Any, kind: FaultKind) -> None:
        fault = failure_of_error(said)
        assert (fault.kind, fault.status) == (kind, 200)

    def test_it_may_say_how_long_to_wait(self) -> None:
        said = error("RESOURCE_EXHAUSTED", QUOTA, retry_info("3s"), code=429)
        assert failure_of_error(said).retry_after_seconds == 3
