"""What both OpenAI dialects share: error bodies and their headers."""

from __future__ import annotations

import orjson

from pointsman_server.simulator.dialects.dialect import Envelope, ErrorWords, Failure

_INVALID_TYPE = "invalid_request_error"
_PRETTY = orjson.OPT_INDENT_2

_ERRORS: dict[Failure, tuple[str, str | None, str | None, str]] = {
    # type, param, code, message
    Failure.INVALID: (_INVALID_TYPE, "messages", "invalid_value", "Invalid 'messages': the request is not valid."),
    Failure.CONTEXT: (
        _INVALID_TYPE, "messages", "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 131072 tokens. "
        "Please reduce the length of the messages.",
    ),
    Failure.KEY: (
        _INVALID_TYPE, None, "invalid_api_key",
        "Incorrect API key provided: sk-sim****ated. You can find your API key in your account settings.",
    ),
    Failure.FORBIDDEN: (
        _INVALID_TYPE, None, "model_not_found", "Project `proj_simulated` does not have access to model `{model}`",
    ),
    Failure.MODEL: (
        _INVALID_TYPE, None, "model_not_found", "The model `{model}` does not exist or you do not have access to it.",
    ),
    Failure.TOO_LARGE: (_INVALID_TYPE, None, None, "Request too large. The maximum size is 52428800 bytes."),
    Failure.RATE: (
        "requests", None, "rate_limit_exceeded",
        "Rate limit reached for {model} in organization org-simulated on requests per min (RPM): "
        "Limit 500, Used 500, Requested 1. Please try again in 2s.",
    ),
    Failure.QUOTA: (
        "insufficient_quota", None, "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Failure.SERVER: (
        "server_error", None, None, "The server had an error while processing your request. Sorry about that!",
    ),
    Failure.UNAVAILABLE: ("server_error", None, None, "The service is temporarily unavailable."),
    Failure.TIMEOUT: ("server_error", None, None, "The request timed out."),
    Failure.OVERLOADED: ("server_error", None, "overloaded", "The engine is currently overloaded."),
}  # fmt: skip
_REQUESTS_PER_MINUTE = "500"


def error_object(failure: Failure, model: str, words: ErrorWords | None = None) -> dict[str, str | None]:
    """The object under `error`."""
    kind, param, code, message = _ERRORS[failure]
    if words is not None:
        return {"message": words.message, "type": kind, "param": words.param, "code": words.code}
    return {"message": message.replace("{model}", model), "type": kind, "param": param, "code": code}


def error_body(error: dict[str, str | None]) -> bytes:
    """An error response."""
    return orjson.dumps({"error": error}, option=_PRETTY)


def request_headers(envelope: Envelope) -> dict[str, str]:
    """Headers of every response."""
    return {"x-request-id": "req_" + envelope.key}


def error_headers(failure: Failure, retry_after: str) -> dict[str, str]:
    """Headers that only errors have."""
    if failure is not Failure.RATE or not retry_after:
        return {"retry-after": retry_after} if retry_after else {}
    return {
        "retry-after": retry_after,
        "retry-after-ms": f"{retry_after}000",
        "x-ratelimit-limit-requests": _REQUESTS_PER_MINUTE,
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": f"{retry_after}s",
    }
