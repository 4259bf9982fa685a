"""What a provider's failure means: the status first, its words only where the status leaves the question open."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from pointsman_server.domain.faults import FaultKind, ProviderFault

MAX_RETRY_AFTER_SECONDS = 7 * 24 * 3600.0
"""A wait longer than this is taken for nonsense."""

_BY_STATUS: dict[int, FaultKind] = {
    401: FaultKind.AUTH,
    402: FaultKind.QUOTA,
    403: FaultKind.AUTH,
    404: FaultKind.MODEL_MISSING,
    408: FaultKind.TIMEOUT,
    409: FaultKind.UNAVAILABLE,
    413: FaultKind.REQUEST_TOO_LARGE,
    425: FaultKind.UNAVAILABLE,
    429: FaultKind.RATE_LIMITED,
    498: FaultKind.AUTH,
    499: FaultKind.UNAVAILABLE,
    503: FaultKind.OVERLOADED,
    529: FaultKind.OVERLOADED,
}

_OPEN_STATUSES = frozenset({400, 422, 429})
"""Statuses that providers use for several faults; their words decide."""

_MARKS: tuple[tuple[FaultKind, tuple[str, ...]], ...] = (
    (
        FaultKind.QUOTA,
        (
            "insufficient_quota",
            "insufficient quota",
            "billing_",
            "credit balance",
            "spend limit",
            "spending limit",
            "spend_limit",
            "out of credits",
            "monthly limit",
            "calls / month",
            "credits are depleted",
        ),
    ),
    (
        FaultKind.CONTEXT_WINDOW,
        (
            "context_length_exceeded",
            "context length",
            "context window",
            "prompt is too long",
            "too_many_tokens",
            "too many tokens",
            "maximum context",
            "input token count",
            "exceeds the maximum number of tokens",
            "input is too long",
            "string_above_max_length",
            "context limit",
            "too_many_prompt_tokens",
            "context size",
            "maximum prompt length",
        ),
    ),
    (
        FaultKind.AUTH,
        (
            "api_key_invalid",
            "api key not valid",
            "invalid_api_key",
            "api key expired",
            "incorrect api key",
            "organization_on_hold",
        ),
    ),
    (FaultKind.MODEL_MISSING, ("model_not_found", "model not found", "does not exist or you do not have access")),
)

_BY_TYPE: tuple[tuple[str, FaultKind], ...] = (
    ("rate_limit", FaultKind.RATE_LIMITED),
    ("too_many_requests", FaultKind.RATE_LIMITED),
    ("resource_exhausted", FaultKind.RATE_LIMITED),
    ("overloaded", FaultKind.OVERLOADED),
    ("authentication", FaultKind.AUTH),
    ("permission", FaultKind.AUTH),
    ("unauthenticated", FaultKind.AUTH),
    ("billing", FaultKind.QUOTA),
    ("quota", FaultKind.QUOTA),
    ("not_found", FaultKind.MODEL_MISSING),
    ("request_too_large", FaultKind.REQUEST_TOO_LARGE),
    ("invalid_request", FaultKind.INVALID_REQUEST),
    ("invalid_argument", FaultKind.INVALID_REQUEST),
    ("timeout", FaultKind.TIMEOUT),
)

_DETAILS: dict[FaultKind, str] = {
    FaultKind.RATE_LIMITED: "the provider's rate limit is reached",
    FaultKind.OVERLOADED: "the provider is overloaded",
    FaultKind.UNAVAILABLE: "the provider failed",
    FaultKind.TIMEOUT: "the provider gave up waiting",
    FaultKind.AUTH: "the provider refused our key",
    FaultKind.QUOTA: "the provider account has no quota or credit left",
    FaultKind.CONTEXT_WINDOW: "the provider says that the input does not fit the model's context window",
    FaultKind.REQUEST_TOO_LARGE: "the provider says that the request is too large",
    FaultKind.INVALID_REQUEST: "the provider refused the request as invalid",
    FaultKind.MODEL_MISSING: "the provider does not know the model",
    FaultKind.UNKNOWN: "the provider answered with an unexpected status",
}


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """What an error body says, in the provider's own words; used to classify, never passed on."""

    type: str = ""
    code: str = ""
    message: str = ""

    @property
    def all(self) -> str:
        """Everything in lower case."""
        return f"{self.type} {self.code} {self.message}".lower()


def failure_from_status(
    status: int,
    words: ErrorWords,
    headers: Mapping[str, str],
    now: Callable[[], float] = time.time,
) -> ProviderFault:
    """The fault that a response with an error status means. `headers` are looked up in lower case."""
    kind = _kind_from_status(status, words)
    retry_after = parse_retry_after(headers, now()) if status in (429, 503, 529) else None
    return ProviderFault(kind, _DETAILS[kind], status=status, retry_after_seconds=retry_after)


def failure_in_answer(words: ErrorWords, status: int = 0) -> ProviderFault:
    """The fault that an error object inside a 200 means: by a status it carries, else by its type."""
    kind = _kind_from_status(status, words) if 400 <= status < 600 else _kind_from_type(words)
    return ProviderFault(kind, _DETAILS[kind], status=200)


def _kind_from_status(status: int, words: ErrorWords) -> FaultKind:
    if status in _OPEN_STATUSES:
        said = _kind_from_marks(words.all, quota_only=status == 429)
        if said is not None:
            return said
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    if 500 <= status < 600:
        return FaultKind.UNAVAILABLE
    return FaultKind.INVALID_REQUEST if 400 <= status < 500 else FaultKind.UNKNOWN


def _kind_from_marks(said: str, *, quota_only: bool) -> FaultKind | None:
    for kind, marks in _MARKS:
        if quota_only and kind is not FaultKind.QUOTA:
            continue
        if any(mark in said for mark in marks):
            return kind
    return None


def _kind_from_type(words: ErrorWords) -> FaultKind:
    marked = _kind_from_marks(words.all, quota_only=False)
    if marked is not None:
        return marked
    named = f"{words.type} {words.code}".lower()
    return next((kind for mark, kind in _BY_TYPE if mark in named), FaultKind.UNAVAILABLE)


def parse_retry_after(headers: Mapping[str, str], now_seconds: float) -> float | None:
    """The wait in seconds that `retry-after-ms` or `retry-after` asks for.

    Seconds, milliseconds and HTTP dates are read; a past date is 0. None for anything negative, absurd or unreadable.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None and milliseconds > 0:
        return _plausible(milliseconds / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return _plausible(seconds)
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _plausible(max(0.0, moment.timestamp() - now_seconds))


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _plausible(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= MAX_RETRY_AFTER_SECONDS else None
