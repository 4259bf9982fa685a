"""What Gemini's errors mean, whether they come with an error status or inside an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.adapters.providers.failures import (
    ErrorWords,
    failure_from_status,
    failure_in_answer,
    parse_retry_after,
)
from pointsman_server.adapters.providers.json_reading import as_list, as_object, as_text
from pointsman_server.domain.faults import FaultKind, ProviderFault

_LONGEST_TEXT_BYTES = 4096
_WAITABLE = frozenset({FaultKind.RATE_LIMITED, FaultKind.OVERLOADED})


def read_failure(status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
    """The fault that a response with an error status means."""
    error = _find_error(body)
    fault = _account_fault(status, error) or failure_from_status(status, _words(error), headers)
    return _with_delay(fault, error)


def failure_of_error(error: object) -> ProviderFault:
    """The fault that an `error` inside a 200 means."""
    said: Mapping[str, Any] = error if isinstance(error, dict) else {"message": error}
    code = said.get("code")
    status = code if isinstance(code, int) else 0
    fault = _account_fault(status, said) or failure_in_answer(_words(said), status)
    fault.status = 200
    return _with_delay(fault, said)


def _find_error(body: bytes) -> Mapping[str, Any]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": body[:_LONGEST_TEXT_BYTES].decode("utf-8", "replace")}
    if isinstance(said, list) and said:
        # An error to a stream without SSE framing comes as a list of one.
        said = said[0]
    error = said.get("error", said) if isinstance(said, dict) else said
    return error if isinstance(error, dict) else {"message": error}


def _words(error: Mapping[str, Any]) -> ErrorWords:
    reason = as_text(_detail(error, "ErrorInfo").get("reason"))
    return ErrorWords(type=as_text(error.get("status")), code=reason, message=as_text(error.get("message")))


def _detail(error: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    for entry in as_list(error.get("details")):
        detail = as_object(entry)
        if as_text(detail.get("@type")).endswith(f"google.rpc.{kind}"):
            return detail
    return {}


def _account_fault(status: int, error: Mapping[str, Any]) -> ProviderFault | None:
    # Google's 400 FAILED_PRECONDITION speaks of the account (region, billing), not of the request.
    if status == 400 and error.get("status") == "FAILED_PRECONDITION":
        return ProviderFault(FaultKind.AUTH, "the provider does not serve this account as it is set up", status=status)
    return None


def _with_delay(fault: ProviderFault, error: Mapping[str, Any]) -> ProviderFault:
    if fault.retry_after_seconds is None and fault.kind in _WAITABLE:
        delay = as_text(_detail(error, "RetryInfo").get("retryDelay"))
        if delay.endswith("s"):
            fault.retry_after_seconds = parse_retry_after({"retry-after": delay[:-1]}, 0.0)
    return fault
