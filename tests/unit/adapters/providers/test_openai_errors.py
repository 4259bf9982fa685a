from __future__ import annotations

import json
from typing import Any

import pytest

from pointsman_server.adapters.providers.openai_errors import fault_in_answer, read_error_body
from pointsman_server.domain.faults import FaultKind

CONTEXT = FaultKind.CONTEXT_WINDOW
INVALID = FaultKind.INVALID_REQUEST


def error(message: str = "", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (
            400,
            error("Unsupported parameter: 'stop'", type="invalid_request_error", code="unsupported_parameter"),
            INVALID,
        ),
        (400, error("Bad", type="invalid_request_error", code=None, param=None), INVALID),
        (400, error("too long", code="context_length_exceeded"), CONTEXT),
        (400, error("This model's maximum context length is 1048565 tokens."), CONTEXT),
        (400, error("The total length of all messages is too long.", type="too_many_prompt_tokens", code=400), CONTEXT),
        (400, error("the request exceeds the available context size", type="exceed_context_size_error"), CONTEXT),
        (400, {"code": "Client error", "error": "maximum prompt length is 131072 but it contains 200000"}, CONTEXT),
        (400, error("Provider returned error", code=400, metadata={"raw": "prompt is too long: 9 > 8"}), CONTEXT),
        (400, error("does not exist", code="model_not_found"), FaultKind.MODEL_MISSING),
        (401, error("Incorrect API key provided", code="invalid_api_key"), FaultKind.AUTH),
        (401, {"detail": "Unauthorized"}, FaultKind.AUTH),
        (401, error("Access denied", code="401"), FaultKind.AUTH),
        (402, error("Insufficient Balance"), FaultKind.QUOTA),
        (403, error("no"), FaultKind.AUTH),
        (404, error("The API deployment does not exist", code="DeploymentNotFound"), FaultKind.MODEL_MISSING),
        (404, {"object": "error", "message": "The model does not exist.", "code": 404}, FaultKind.MODEL_MISSING),
        (413, error("Request too large"), FaultKind.REQUEST_TOO_LARGE),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, INVALID),
        (422, {"detail": [{"msg": "input is too long"}]}, CONTEXT),
        (429, error("slow down", code="RateLimitReached"), FaultKind.RATE_LIMITED),
        (429, error("You exceeded your current quota", type="insufficient_quota"), FaultKind.QUOTA),
        (429, error("rate limited", code=429), FaultKind.RATE_LIMITED),
        (500, error("The server had an error", type="server_error"), FaultKind.UNAVAILABLE),
        (503, {"error": "overloaded"}, FaultKind.OVERLOADED),
    ],
)
def test_shapes_of_errors(status: int, said: Any, kind: FaultKind) -> None:
    fault = read_error_body(status, {}, json.dumps(said).encode())
    assert fault.kind is kind
    assert fault.status == status


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"7", b'"words"', b"{}", b'{"error": null}', b'{"error": []}', b'{"error": {"code": [1]}}',
        b"<html>Bad Gateway</html>", b"\xff\xfe", b"[" * 100_000, b'{"error"',
    ],
)  # fmt: skip
def test_any_body_is_read_and_the_status_decides(body: bytes) -> None:
    assert read_error_body(502, {}, body).kind is FaultKind.UNAVAILABLE
    assert read_error_body(401, {}, body).kind is FaultKind.AUTH


def test_plain_text_and_lists_are_read_too() -> None:
    assert read_error_body(400, {}, b"prompt is too long").kind is CONTEXT
    assert read_error_body(400, {}, json.dumps([error("prompt is too long")]).encode()).kind is CONTEXT


def test_retry_after() -> None:
    headers = {"retry-after": "1", "retry-after-ms": "0"}
    assert read_error_body(429, headers, b"{}").retry_after_seconds == 1.0
    assert read_error_body(400, headers, b"{}").retry_after_seconds is None


def test_no_word_of_the_provider_is_passed_on() -> None:
    fault = read_error_body(400, {}, json.dumps(error("your prompt was: tell me a secret")).encode())
    assert "secret" not in str(fault)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (error("x", type="invalid_request_error", code="tool_use_failed", status_code=400), INVALID),
        (error("Rate limit exceeded", code=429), FaultKind.RATE_LIMITED),
        (error("Provider returned error", code=502), FaultKind.UNAVAILABLE),
        (error("No credits", code="402"), FaultKind.QUOTA),
        (error("overloaded", type="overloaded_error"), FaultKind.OVERLOADED),
        (error("oops", code="server_error"), FaultKind.UNAVAILABLE),
        (error("slow", code="rate_limit_exceeded"), FaultKind.RATE_LIMITED),
        (error("no", code="invalid_prompt"), INVALID),
        (error("no", code="image_too_large"), INVALID),
        ({"error": "something broke"}, FaultKind.UNAVAILABLE),
        ({"error": "prompt is too long"}, CONTEXT),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, INVALID),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, FaultKind.RATE_LIMITED),
        ({"detail": "Internal error"}, FaultKind.UNAVAILABLE),
        ({}, FaultKind.UNAVAILABLE),
    ],
)
def test_errors_inside_an_answer(said: dict[str, Any], kind: FaultKind) -> None:
    fault = fault_in_answer(said)
    assert fault.kind is kind
    assert fault.status == 200
