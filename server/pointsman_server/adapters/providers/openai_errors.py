"""What OpenAI and the many servers that speak its dialects say when something went wrong.

The shapes seen: `{"error": {message, type, code}}` with texts or numbers as code, `{"error": "text"}`,
`{"detail": "text"}` or `{"detail": [{msg}]}`, `{"message", "type", "code"}` on the top level, any of these in a
list, and plain text or HTML from whatever stands in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.adapters.providers.failures import ErrorWords, failure_from_status, failure_in_answer
from pointsman_server.adapters.providers.json_reading import as_object, as_text
from pointsman_server.domain.faults import ProviderFault

_LONGEST_PLAIN_ERROR_BYTES = 4_096

_BAD_INPUT_CODES = ("invalid_", "image_", "unsupported_", "empty_")
"""How the codes begin that blame the request although the response began with status 200."""

_STATUS_NAMES = ("status_code", "http_code", "code", "status")


def read_error_body(status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
    """The fault that a response with an error status means. Header names are lower case."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = body[:_LONGEST_PLAIN_ERROR_BYTES].decode("utf-8", "replace")
    if isinstance(said, list) and said:
        said = said[0]
    words = _error_words(said) if isinstance(said, dict) else ErrorWords(message=as_text(said))
    return failure_from_status(status, words, headers)


def fault_in_answer(body: Mapping[str, Any]) -> ProviderFault:
    """The fault that a body or an event means which came with status 200 but tells of an error."""
    words = _error_words(body)
    status = _status(as_object(body.get("error"))) or _status(body)
    blames_request = not status and words.code.startswith(_BAD_INPUT_CODES)
    return failure_in_answer(words, 400 if blames_request else status)


def _error_words(body: Mapping[str, Any]) -> ErrorWords:
    error = body.get("error")
    inner = as_object(error) or body
    return ErrorWords(
        type=as_text(inner.get("type")),
        code=_code(inner.get("code")) or _code(body.get("code")),
        message=" ".join((_message(inner) or as_text(error), _upstream_words(inner))),
    )


def _code(code: object) -> str:
    return str(code) if isinstance(code, (str, int)) else ""


def _message(said: Mapping[str, Any]) -> str:
    message = said.get("message") or said.get("detail")
    if message is None or isinstance(message, str):
        return message or ""
    return orjson.dumps(message).decode()


def _upstream_words(error: Mapping[str, Any]) -> str:
    # OpenRouter's own message says only that a provider failed; what it said itself is in here.
    return as_text(as_object(error.get("metadata")).get("raw"))


def _status(said: Mapping[str, Any]) -> int:
    for name in _STATUS_NAMES:
        value = said.get(name)
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if isinstance(number, int) and 400 <= number < 600:
            return number
    return 0
