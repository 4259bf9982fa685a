"""Kinds of replies that are wrong, odd or refused, each in several wordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wall.plays import (
    DONE,
    JSON_TYPE,
    PING,
    STREAM_TYPE,
    UPSTREAM_WORDS,
    Ending,
    Framing,
    Piece,
    Play,
    answer_body,
    body_play,
    chunk,
    closing,
    error_play,
    event,
    json_play,
    opening,
    sound,
    stream_play,
    text_pieces,
)


@dataclass(frozen=True, slots=True)
class Due:
    """The sound answer that was due: its text, and its pieces when it was to be streamed."""

    text: str
    texts: list[str] | None

    @property
    def whole(self) -> bytes:
        """As one JSON body."""
        return json.dumps(answer_body(self.text)).encode()

    @property
    def play(self) -> Play:
        """As it should have been."""
        return sound(self.text, self.texts)


Wording = Callable[[Due], Play]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of reply. `code` "" means that it is an answer; otherwise the status when nobody else can help.

    `helps`: another upstream may be asked. `most_requests` is how often the same one may be asked for a call.
    """

    id: str
    title: str
    wordings: Mapping[str, Wording]
    code: str = ""
    helps: bool = True
    most_requests: int = 3
    shapes: tuple[bool, ...] = (False, True)


def _status(status: int, code: str = "", words: str = "", **headers: str) -> Wording:
    return lambda due: error_play(status, code, words, **headers)


def _body(content: bytes, content_type: str = JSON_TYPE, status: int = 200, **headers: str) -> Wording:
    return lambda due: body_play("body", content, content_type, status, **headers)


def _page(title: str) -> bytes:
    return f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>{UPSTREAM_WORDS}</body></html>".encode()


def _from_whole(change: Callable[[bytes], bytes], **headers: str) -> Wording:
    return lambda due: body_play("changed body", change(due.whole), JSON_TYPE, 200, **headers)


def _untrue_length(announced: Callable[[int], int]) -> Wording:
    def make(due: Due) -> Play:
        play = body_play("untrue length", due.whole)
        return replace(play, announced_bytes=announced(len(due.whole)), ending=Ending.CLOSE)

    return make


def _answer(**changes: Any) -> Wording:
    return lambda due: json_play("answer", answer_body(due.text, **changes))


def choice(content: object, finish: object = "stop") -> Wording:
    """An answer with this content."""
    only = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    return lambda due: json_play("choice", answer_body("", choices=[only]))


def _frames(change: Callable[[list[bytes]], list[bytes]], **fields: Any) -> Wording:
    """A sound stream whose events are changed."""

    def make(due: Due) -> Play:
        frames = [piece.data for piece in due.play.pieces]
        play = stream_play("changed stream", [Piece(data, characters=1) for data in change(frames)])
        return replace(play, **fields)

    return make


def _first(*pieces: bytes, ending: Ending = Ending.PROPER) -> Wording:
    return lambda due: stream_play("nothing told", [Piece(data) for data in pieces], ending)


def _split(frames: list[bytes]) -> list[bytes]:
    body, at = b"".join(frames), 0
    pieces: list[bytes] = []
    while at < len(body):
        size = 1 + len(pieces) % 3
        pieces.append(body[at : at + size])
        at += size
    return pieces


def _without_done(frames: list[bytes]) -> list[bytes]:
    return [frame for frame in frames if frame != DONE]


def _named(frames: list[bytes]) -> list[bytes]:
    return [b"event: completion\nid: 7\nretry: 1000\n" + frame for frame in frames]


def _usage(usage: object) -> Wording:
    """Both shapes: the counts are odd, the answer is sound."""

    def make(due: Due) -> Play:
        if due.texts is None:
            return json_play("usage", answer_body(due.text, usage=usage))
        end = [Piece(event(chunk({}, "stop"))), Piece(event({**chunk({}), "choices": [], "usage": usage})), Piece(DONE)]
        return stream_play("usage", [opening(), *text_pieces(due.texts), *end])

    return make


def _finish(reason: str | None) -> Wording:
    def make(due: Due) -> Play:
        if due.texts is None:
            return json_play("finish", answer_body(due.text, finish=reason or "stop"))
        return stream_play("finish", [opening(), *text_pieces(due.texts), *closing(due.text, reason or "stop")])

    return make


_IN_BAND = {"message": UPSTREAM_WORDS, "type": "server_error", "code": None}
_ELSEWHERE = "/latest/meta-data/"
_LATE_DATA = event({**chunk({}), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
_FILTERED = event({"choices": [], "prompt_filter_results": [], "id": "", "model": ""})

KINDS = (
    Kind(
        "S40", "pages of a proxy", code="UNAVAILABLE",
        wordings={
            "502": _body(_page("502 Bad Gateway"), "text/html", 502),
            "503": _body(b"upstream connect error or disconnect/reset before headers", "text/plain", 503),
            "504": _body(_page("504 Gateway Time-out"), "text/html; charset=utf-8", 504),
            "500-empty": _body(b"", "text/plain", 500),
        },
    ),
    Kind(
        "S41", "errors of a provider", code="UNAVAILABLE",
        wordings={str(status): _status(status, words="boom") for status in (500, 502, 503, 504, 520, 529)},
    ),
    Kind(
        "S42", "a 200 that is no JSON", code="UNAVAILABLE",
        wordings={
            "page": _body(_page("Sign in"), "text/html"),
            "words": _body(b"OK", "text/plain"),
            "empty": _body(b""),
            "blanks": _body(b" \r\n\r\n "),
        },
    ),
    Kind(
        "S43", "JSON that is no answer", code="UNAVAILABLE",
        wordings={
            "null": _body(b"null"), "list": _body(b"[]"), "text": _body(b'"Hello"'), "number": _body(b"42"),
            "object": _body(b"{}"), "choices-null": _body(b'{"choices": null}'),
            "choices-odd": _body(b'{"choices": [17]}'), "two": _from_whole(lambda body: body + b"\n" + body),
        },
    ),
    Kind(
        "S44", "a body that was cut", code="UNAVAILABLE",
        wordings={
            "half": _from_whole(lambda body: body[: len(body) // 2]),
            "most": _from_whole(lambda body: body[:-2]),
            "length-too-short": _untrue_length(lambda length: length // 2),
            "length-too-long": _untrue_length(lambda length: length + 100),
        },
    ),
    Kind(
        "S45", "a body in no known encoding", code="UNAVAILABLE",
        wordings={
            "utf-8": _from_whole(lambda body: body.replace(b'"content": "', b'"content": "\xff\xfe', 1)),
            "gzip": _from_whole(lambda body: body, content_encoding="gzip"),
            "cut-character": _from_whole(lambda body: body.replace(b'"content": "', b'"content": "\xe2\x82', 1)),
        },
    ),
    Kind(
        "S46", "JSON too deep to read", code="UNAVAILABLE",
        wordings={"lists": _body(b"[" * 100_000), "objects": _body(b'{"a":' * 50_000)},
    ),
    Kind(
        "S47", "an answer with nothing in it", code="UNAVAILABLE",
        wordings={
            "no-choices": _answer(choices=[]), "null": choice(None), "empty": choice(""),
            "no-message": lambda due: json_play("no message", answer_body("", choices=[{"index": 0}])),
        },
    ),
    Kind(
        "S48", "an error told in a 200", code="UNAVAILABLE",
        wordings={
            "object": lambda due: json_play("error", {"error": _IN_BAND}),
            "with-choices": lambda due: json_play("error", {"error": _IN_BAND, "choices": []}),
            "text": lambda due: json_play("error", {"error": UPSTREAM_WORDS}),
        },
    ),
    Kind(
        "S49", "a redirect to somewhere else", code="UNAVAILABLE",
        wordings={str(status): _body(b"", status=status, location=_ELSEWHERE) for status in (301, 302, 307, 308)},
    ),
    Kind(
        "S50", "the key is refused", code="INTERNAL", most_requests=1,
        wordings={"401": _status(401, "invalid_api_key", "Incorrect API key provided"), "403": _status(403)},
    ),
    Kind(
        "S51", "the account is used up", code="RESOURCE_EXHAUSTED", most_requests=1,
        wordings={
            "quota": _status(429, "insufficient_quota", "You exceeded your current quota"), "402": _status(402),
            "billing": _status(429, "billing_hard_limit_reached"),
        },
    ),
    Kind(
        "S52", "too many requests, for longer than anybody waits", code="RESOURCE_EXHAUSTED", most_requests=1,
        wordings={"seconds": _status(429, retry_after="120"), "ms": _status(429, retry_after_ms="90000")},
    ),
    Kind(
        "S53", "the request is wrong", code="INVALID_ARGUMENT", helps=False, most_requests=1,
        wordings={
            "400": _status(400, "invalid_request_error", "'messages' is required"),
            "422": _status(422, "invalid_request_error"),
        },
    ),
    Kind(
        "S54", "the request is too long, here as there", code="INVALID_ARGUMENT", helps=False, most_requests=1,
        wordings={
            "code": _status(400, "context_length_exceeded", "maximum context length is 8192 tokens"),
            "413": _body(b"", status=413),
        },
    ),
    Kind(
        "S55", "the model is unknown", code="FAILED_PRECONDITION", most_requests=1,
        wordings={"404": _status(404, "model_not_found", "The model does not exist")},
    ),
    Kind(
        "S56", "an odd answer that is whole", shapes=(False,),
        wordings={
            "label": lambda due: body_play("label", due.whole, "text/plain"),
            "charset": lambda due: body_play("charset", due.whole, "application/json; charset=UTF-8"),
            "blanks-first": _from_whole(lambda body: b"\n         \n" * 4 + body),
            "pieces": lambda due: replace(body_play("pieces", due.whole), framing=Framing.CHUNKED),
            "until-close": lambda due: replace(body_play("close", due.whole), framing=Framing.UNTIL_CLOSE),
            "more-fields": _answer(service_tier="x", system_fingerprint=None, provider={"a": [1]}, citations=None),
        },
    ),
    Kind(
        "S57", "odd counts",
        wordings={
            "missing": _usage(None), "negative": _usage({"prompt_tokens": 9, "completion_tokens": -3}),
            "absurd": _usage({"prompt_tokens": 9, "completion_tokens": 10**12}),
            "texts": _usage({"prompt_tokens": "9", "completion_tokens": "3", "total_tokens": "12"}),
            "nan": _usage({"prompt_tokens": 9, "completion_tokens": float("nan")}),
            "fractions": _usage({"prompt_tokens": 9.0, "completion_tokens": 3.5}),
            "list": _usage([9, 3]),
        },
    ),
    Kind(
        "S58", "other reasons to stop",
        wordings={name: _finish(name) for name in ("length", "content_filter", "quantum")},
    ),
    Kind(
        "S59", "an odd stream that is whole", shapes=(True,),
        wordings={
            "crlf": _frames(lambda frames: [frame.replace(b"\n", b"\r\n") for frame in frames]),
            "comments": _frames(lambda frames: [b": keep-alive\n\n" + frame for frame in frames]),
            "bom": _frames(lambda frames: [b"\xef\xbb\xbf" + frames[0], *frames[1:]]),
            "no-done": _frames(_without_done),
            "after-done": _frames(lambda frames: [*frames, _LATE_DATA]),
            "no-choices-first": _frames(lambda frames: [_FILTERED, *frames]),
            "many-pings": _frames(lambda frames: [PING * 500, *frames]),
            "split": _frames(_split),
            "no-blank": _frames(lambda frames: [frame.replace(b"data: ", b"data:", 1) for frame in frames]),
            "named": _frames(_named),
            "until-close": _frames(lambda frames: frames, framing=Framing.UNTIL_CLOSE),
            "one-write": _frames(lambda frames: [b"".join(frames)]),
            "unlabelled": _frames(lambda frames: frames, headers={"content-type": "text/plain"}),
        },
    ),
    Kind(
        "S60", "one piece for a stream, a stream for one piece",
        wordings={
            "swapped": lambda due: sound(due.text, [due.text] if due.texts is None else None, "swapped"),
        },
    ),
    Kind(
        "S62", "a stream that fails before it tells anything", code="UNAVAILABLE", shapes=(True,),
        wordings={
            "error": _first(b"event: error\n" + event({"type": "error", "error": _IN_BAND})),
            "error-after-pings": _first(PING, PING, event({"error": _IN_BAND})),
            "error-then-done": _first(event({"error": _IN_BAND}), DONE),
            "error-after-opening": _first(opening().data, event({"error": _IN_BAND})),
            "end": _first(), "done": _first(DONE), "only-opening": _first(opening().data),
            "bad-json": _first(b"data: {oops\n\n", DONE), "page": _body(_page("Sign in"), STREAM_TYPE),
            "reset": _first(opening().data, ending=Ending.RESET), "close": _first(PING, ending=Ending.CLOSE),
        },
    ),
)  # fmt: skip
