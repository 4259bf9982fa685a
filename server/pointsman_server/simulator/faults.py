"""What each fault makes of a response. Pure: takes a sound delivery and gives the faulty one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial

from pointsman_server.simulator.behaviour import Fault
from pointsman_server.simulator.delivery import Delivery, Ending, whole
from pointsman_server.simulator.dialects.dialect import Envelope, Failure, Frame, WireDialect

_HTML_502 = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_HTML_200 = b"<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"
_REDIRECT_TARGET = "http://169.254.169.254/latest/meta-data/"
_DEEP_JSON = b"[" * 100_000
_LEADING_WHITESPACE = b"\n         \n" * 4
_LONG_LINE_PIECE_BYTES = 1 << 16
_LONG_LINE_PIECES = 160
_MANY_PINGS = 500
_PAST_DATE = "Fri, 31 Dec 1999 23:59:59 GMT"
_DEFAULT_RETRY_SECONDS = "2"
_LATE_BY_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """What a fault needs to know besides the sound response."""

    wire: WireDialect
    envelope: Envelope
    model: str
    is_stream: bool


@dataclass(frozen=True, slots=True)
class _StatusFault:
    status: int
    failure: Failure
    headers: Callable[[], Mapping[str, str]] = dict
    retry_after: str = ""


_STATUS_FAULTS = {
    Fault.STATUS_400: _StatusFault(400, Failure.INVALID),
    Fault.STATUS_400_CONTEXT: _StatusFault(400, Failure.CONTEXT),
    Fault.STATUS_400_KEY: _StatusFault(400, Failure.KEY),
    Fault.STATUS_400_MODEL: _StatusFault(400, Failure.MODEL),
    Fault.STATUS_401: _StatusFault(401, Failure.KEY),
    Fault.STATUS_403: _StatusFault(403, Failure.FORBIDDEN),
    Fault.STATUS_404: _StatusFault(404, Failure.MODEL),
    Fault.STATUS_413: _StatusFault(413, Failure.TOO_LARGE),
    Fault.STATUS_429: _StatusFault(429, Failure.RATE, retry_after=_DEFAULT_RETRY_SECONDS),
    Fault.STATUS_429_MILLISECONDS: _StatusFault(
        429, Failure.RATE, lambda: {"retry-after": "1", "retry-after-ms": "250"}
    ),
    Fault.STATUS_429_DATE: _StatusFault(
        429, Failure.RATE, lambda: {"retry-after": formatdate(time.time() + _LATE_BY_SECONDS, usegmt=True)}
    ),
    Fault.STATUS_429_PAST_DATE: _StatusFault(429, Failure.RATE, lambda: {"retry-after": _PAST_DATE}),
    Fault.STATUS_429_DAY: _StatusFault(429, Failure.RATE, lambda: {"retry-after": "86400"}),
    Fault.STATUS_429_NEGATIVE: _StatusFault(429, Failure.RATE, lambda: {"retry-after": "-5"}),
    Fault.STATUS_429_GARBAGE: _StatusFault(429, Failure.RATE, lambda: {"retry-after": "soon"}),
    Fault.STATUS_429_SILENT: _StatusFault(429, Failure.RATE),
    Fault.STATUS_429_QUOTA: _StatusFault(429, Failure.QUOTA),
    Fault.STATUS_500: _StatusFault(500, Failure.SERVER),
    Fault.STATUS_503: _StatusFault(503, Failure.UNAVAILABLE),
    Fault.STATUS_504: _StatusFault(504, Failure.TIMEOUT),
    Fault.STATUS_529: _StatusFault(529, Failure.OVERLOADED),
}


def answer_without_content(fault: Fault, setting: Setting) -> Delivery | None:
    """The response of a fault that needs no answer at all; None for the others."""
    status_fault = _STATUS_FAULTS.get(fault)
    if status_fault is not None:
        return _error(status_fault, setting)
    match fault:
        case Fault.STATUS_502:
            return whole(502, {"content-type": "text/html"}, _HTML_502)
        case Fault.REDIRECT_302:
            return whole(302, {"location": _REDIRECT_TARGET}, b"")
        case Fault.RESET_ON_ACCEPT:
            return Delivery(0, {}, (), ending=Ending.RESET)
        case Fault.STALL_HEADERS:
            return Delivery(0, {}, (), ending=Ending.STALL)
        case Fault.ERROR_BODY_200:
            return replace(_error(_StatusFault(500, Failure.SERVER), setting), status=200)
        case _:
            return None


def _error(fault: _StatusFault, setting: Setting) -> Delivery:
    wire = setting.wire
    headers = {
        "content-type": wire.json_type,
        **wire.headers(setting.envelope),
        **wire.error_headers(fault.failure, fault.retry_after),
        **fault.headers(),
    }
    return whole(fault.status, headers, wire.error(fault.status, fault.failure, setting.model, setting.envelope))


def distort(fault: Fault, sound: Delivery, setting: Setting) -> Delivery:
    """The sound response as this fault sends it; unchanged where the fault does not concern it."""
    change = _DISTORTIONS.get(fault)
    if change is None and setting.is_stream:
        change = _STREAM_DISTORTIONS.get(fault)
    return sound if change is None else change(sound, setting)


# Bodies


def _with_body(sound: Delivery, body: bytes, content_type: str) -> Delivery:
    return whole(200, {**sound.headers, "content-type": content_type}, body)


def _html(sound: Delivery, setting: Setting) -> Delivery:
    return _with_body(sound, _HTML_200, "text/html; charset=utf-8")


def _empty(sound: Delivery, setting: Setting) -> Delivery:
    return replace(sound, frames=(), announced_bytes=None if setting.is_stream else 0)


def _json(make: Callable[[bytes], bytes]) -> Callable[[Delivery, Setting], Delivery]:
    def change(sound: Delivery, setting: Setting) -> Delivery:
        return _with_body(sound, make(sound.body), setting.wire.json_type)

    return change


def _bad_utf8(body: bytes) -> bytes:
    # After the first colon and quote a text begins, whatever the dialect.
    at = body.index(b'": "') + 4 if b'": "' in body else body.index(b'":"') + 3
    return body[:at] + b"\xff\xfe" + body[at:]


def _untrue_length(change_length: Callable[[int], int]) -> Callable[[Delivery, Setting], Delivery]:
    def change(sound: Delivery, setting: Setting) -> Delivery:
        sent = _with_body(sound, sound.body, setting.wire.json_type)
        return replace(sent, announced_bytes=change_length(len(sent.body)), ending=Ending.CLOSE)

    return change


def _gzip_lie(sound: Delivery, setting: Setting) -> Delivery:
    return replace(sound, headers={**sound.headers, "content-encoding": "gzip"})


def _wrong_type(sound: Delivery, setting: Setting) -> Delivery:
    return replace(sound, headers={**sound.headers, "content-type": "text/plain"})


# Cuts


def _middle(frames: tuple[Frame, ...]) -> int:
    """The number of frames up to half of the content, at least one piece of content."""
    content = [index for index, frame in enumerate(frames) if frame.tokens]
    return content[(len(content) - 1) // 2] + 1 if content else len(frames) // 2


def _first_half(sound: Delivery) -> tuple[Frame, ...]:
    if sound.announced_bytes is None:
        return sound.frames[: _middle(sound.frames)]
    body = sound.body
    return (Frame(body[: len(body) // 2]),)


def _cut(ending: Ending, sound: Delivery, setting: Setting) -> Delivery:
    return replace(sound, frames=_first_half(sound), ending=ending)


def _opening(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    first = next((index for index, frame in enumerate(frames) if frame.tokens), 0)
    return frames[:first]


def _stall_before_first_token(sound: Delivery, setting: Setting) -> Delivery:
    frames = _opening(sound.frames) if sound.announced_bytes is None else ()
    return replace(sound, frames=frames, ending=Ending.STALL)


def _pings_only(sound: Delivery, setting: Setting) -> Delivery:
    return replace(sound, frames=_opening(sound.frames), ending=Ending.PINGS, ping=setting.wire.ping())


# Events


def _error_first(sound: Delivery, setting: Setting) -> Delivery:
    return replace(sound, frames=(Frame(setting.wire.stream_error(setting.envelope, first=True)),))


def _error_mid(sound: Delivery, setting: Setting) -> Delivery:
    error = Frame(setting.wire.stream_error(setting.envelope, first=False))
    return replace(sound, frames=(*_first_half(sound), error))


def _bad_json_mid(sound: Delivery, setting: Setting) -> Delivery:
    middle = _middle(sound.frames)
    end = setting.wire.line_end
    broken = sound.frames[middle - 1].data.rstrip(b"}\r\n ")[:-8] + end + end
    return replace(sound, frames=(*sound.frames[:middle], Frame(broken, 1), *sound.frames[middle + 1 :]))


def _long_line(sound: Delivery, setting: Setting) -> Delivery:
    piece = Frame(b"x" * _LONG_LINE_PIECE_BYTES)
    end = Frame(setting.wire.line_end * 2)
    return replace(sound, frames=(Frame(b"data: "), *([piece] * _LONG_LINE_PIECES), end), one_by_one=True)


def _other_line_ends(sound: Delivery, setting: Setting) -> Delivery:
    old, new = (b"\n", b"\r\n") if setting.wire.line_end == b"\n" else (b"\r\n", b"\n")
    return replace(sound, frames=tuple(Frame(data.replace(old, new), tokens) for data, tokens in sound.frames))


def _comments(sound: Delivery, setting: Setting) -> Delivery:
    end = setting.wire.line_end
    comment = b": SIMULATED PROCESSING" + end + end
    return replace(sound, frames=tuple(Frame(comment + data, tokens) for data, tokens in sound.frames))


def _prefixed(prefix: bytes, sound: Delivery, setting: Setting) -> Delivery:
    first = sound.frames[0]
    return replace(sound, frames=(Frame(prefix + first.data, first.tokens), *sound.frames[1:]))


def _data_after_done(sound: Delivery, setting: Setting) -> Delivery:
    return replace(sound, frames=(*sound.frames, Frame(setting.wire.late_event)))


def _no_done(sound: Delivery, setting: Setting) -> Delivery:
    done = setting.wire.done
    return replace(sound, frames=tuple(frame for frame in sound.frames if not done or frame.data != done))


def _empty_choices_first(sound: Delivery, setting: Setting) -> Delivery:
    if setting.wire.done and b'"choices"' in sound.frames[0].data:
        unnamed = b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[]}\n\n'
        return _prefixed(unnamed, sound, setting)
    return sound


def _many_pings(sound: Delivery, setting: Setting) -> Delivery:
    opening = _opening(sound.frames)
    pings = (Frame(setting.wire.ping()),) * _MANY_PINGS
    return replace(sound, frames=(*opening, *pings, *sound.frames[len(opening) :]))


def _split_bytes(sound: Delivery, setting: Setting) -> Delivery:
    body = sound.body
    frames: list[Frame] = []
    at = 0
    while at < len(body):
        size = 1 + len(frames) % 3
        frames.append(Frame(body[at : at + size]))
        at += size
    return replace(sound, frames=tuple(frames), one_by_one=True)


_Change = Callable[[Delivery, Setting], Delivery]

_DISTORTIONS: dict[Fault, _Change] = {
    Fault.HTML_200: _html,
    Fault.EMPTY_200: _empty,
    Fault.TRUNCATED_JSON: _json(lambda body: body[: len(body) // 2]),
    Fault.JSON_NULL: _json(lambda body: b"null"),
    Fault.JSON_ARRAY: _json(lambda body: b"[]"),
    Fault.TWO_DOCUMENTS: _json(lambda body: body + b"\n" + body),
    Fault.BAD_UTF8: _json(_bad_utf8),
    Fault.DEEP_JSON: _json(lambda body: _DEEP_JSON),
    Fault.SHORT_CONTENT_LENGTH: _untrue_length(lambda true_bytes: true_bytes // 2),
    Fault.LONG_CONTENT_LENGTH: _untrue_length(lambda true_bytes: true_bytes + 100),
    Fault.GZIP_LIE: _gzip_lie,
    Fault.WRONG_CONTENT_TYPE: _wrong_type,
    Fault.LEADING_WHITESPACE: _json(lambda body: _LEADING_WHITESPACE + body),
    Fault.STREAM_RESET_MID: partial(_cut, Ending.RESET),
    Fault.STREAM_CLOSE_MID: partial(_cut, Ending.CLOSE),
    Fault.STALL_MID_STREAM: partial(_cut, Ending.STALL),
    Fault.STALL_BEFORE_FIRST_TOKEN: _stall_before_first_token,
}
_STREAM_DISTORTIONS: dict[Fault, _Change] = {
    Fault.PINGS_ONLY: _pings_only,
    Fault.STREAM_ERROR_FIRST: _error_first,
    Fault.STREAM_ERROR_MID: _error_mid,
    Fault.STREAM_EOF_WITHOUT_FINISH: partial(_cut, Ending.PROPER),
    Fault.STREAM_BAD_JSON_MID: _bad_json_mid,
    Fault.TEN_MEGABYTE_LINE: _long_line,
    Fault.STREAM_OTHER_LINE_ENDS: _other_line_ends,
    Fault.STREAM_COMMENTS: _comments,
    Fault.STREAM_BOM: partial(_prefixed, b"\xef\xbb\xbf"),
    Fault.STREAM_DATA_AFTER_DONE: _data_after_done,
    Fault.STREAM_NO_DONE: _no_done,
    Fault.STREAM_EMPTY_CHOICES_FIRST: _empty_choices_first,
    Fault.STREAM_MANY_PINGS: _many_pings,
    Fault.STREAM_SPLIT_BYTES: _split_bytes,
}

# Faults of the JSON body are made from the whole answer even when a stream was asked for.
WHOLE_BODY_FAULTS = frozenset(
    {
        Fault.HTML_200,
        Fault.TRUNCATED_JSON,
        Fault.JSON_NULL,
        Fault.JSON_ARRAY,
        Fault.TWO_DOCUMENTS,
        Fault.BAD_UTF8,
        Fault.DEEP_JSON,
        Fault.SHORT_CONTENT_LENGTH,
        Fault.LONG_CONTENT_LENGTH,
        Fault.LEADING_WHITESPACE,
        Fault.JSON_INSTEAD_OF_STREAM,
    }
)
