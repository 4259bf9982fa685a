# ruff: noqa: RUF001, SIM905 - lookalikes are what this is about, and words in a row are easier to read than a list
"""What a text says once its disguises are taken off, as other texts to be judged beside it.

A disguise is undone only where a cheap sign of it is seen, so an ordinary text costs one pass over it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import re2

MOST_VIEWS = 6
"""Of one text, with the plain one; what is hidden twice is looked at once more."""

_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_ASCII = bytes(range(0x80))
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\t\n\r")
_JAMO = {chr(code) for code in range(0x1100, 0x1200)}
_MOST_LOOKED_UP, _MOST_REPLACED = 1_024, 24
"""Different characters, and those of them with a fast pass over the text each; beyond, all at once is faster."""
_OVERLAYS = re.compile("[\u0300-\u036f\u0483-\u0489\u20d0-\u20ff]")
_TAGS = re.compile("[\U000e0020-\U000e007e]{8,}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{8,}")
_SQUARED = {start + place: chr(97 + place) for start in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6) for place in range(26)}
_SQUARED |= {ord(small): chr(97 + place) for place, small in enumerate("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡxʏᴢ") if small != "x"}

_LOOKALIKES = str.maketrans(
    "асеіїјорѕухԁһԛԝгкмнтвьёАВСЕНІЈКМОРЅТУХԌαβγεηικνορτυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧɑɡıⅼ∂℮",
    "aceiijopsyxdhqwrkmhtbbeABCEHIJKMOPSTYXGabyenikvoptuxwABEZHIKMNOPTYXagilde",
)
_MIXED_WORD = re2.compile("[a-zA-Z][\u0370-\u03ff\u0400-\u052f]|[\u0370-\u03ff\u0400-\u052f][a-zA-Z]")

_LEET = str.maketrans("013457@$!|", "oieastasil")
_SPACED = re.compile(r"(?:(?<![^\W_])[^\W_][ \t._\-*|/·•~+]{1,4}){7,}[^\W_](?![^\W_])")
_WORD_GAP = re.compile(r"[ \t._\-*|/·•~+]{2,}")
_LETTER_GAP = re.compile(r"[ \t._\-*|/·•~+]")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{20,}={0,2}")
_HEX = re.compile(r"(?:(?:0x|\\x|%)?[0-9A-Fa-f]{2}[\s,:]{0,2}){12,}")
_BINARY = re.compile(r"(?:[01]{8}\s*){8,}")
_ENTITIES = re.compile(r"&#(x?)([0-9A-Fa-f]{2,6});|\\u(?:00)?([0-9A-Fa-f]{2,4})")
_MORSE = re.compile(r"(?:[.\-]{1,5}[ /]+){12,}[.\-]{1,5}")
_MORSE_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
)
_MORSE_LETTERS = dict(zip(_MORSE_CODES.split(), "abcdefghijklmnopqrstuvwxyz", strict=True))
_SHIFTED = re.compile(r"[A-Za-z][A-Za-z' ,.?!;:\-]{7,}")
_PIG_WORD = re.compile(r"\b([a-z]+?)([bcdfghjklmnpqrstvwxz]{0,3}|y|qu)[aw]?ay\b", re.IGNORECASE)

_MOST_PIECES, _MOST_DECODED = 8, 4_096
_LEAST_READABLE = 0.85
_COMMON = frozenset("the and you your of to is in what ignore instructions all for with say are how tell me".split())


class View(NamedTuple):
    """A reading of a text; `disguised` if it was not there to be seen."""

    text: str
    disguised: bool


class _Sign(NamedTuple):
    pattern: str
    undo: Callable[[str], Iterator[str]]


def plain(text: str) -> str:
    """The text as a reader sees it: compatibility forms folded, nothing invisible, no strokes over letters."""
    return _without_controls(text) if text.isascii() else _read(text, _odd(text))


def views(text: str) -> list[View]:
    """The plain reading first, then what else the text may say; `MOST_VIEWS` at most."""
    odd = "" if text.isascii() else _odd(text)
    first = _read(text, odd) if odd else _without_controls(text)
    found = [View(first, False)]
    seen = {first}
    for other in _hidden(text, odd, first):
        if other not in seen and len(found) < MOST_VIEWS:
            seen.add(other)
            found.append(View(other, True))
    return found


def _odd(text: str) -> str:
    """The different characters that are not ASCII; so few in most texts that signs are looked for in them first."""
    found = text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
    points = np.frombuffer(found.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).copy()
    points.sort()
    different = points[np.append(points[1:] != points[:-1], True)]
    return bytes(different).decode("utf-32-le", "surrogatepass")


def _without_controls(text: str) -> str:
    written = text.encode("utf-8", "surrogatepass")
    cleaned = written.translate(None, _CONTROLS)
    return text if len(cleaned) == len(written) else cleaned.decode("utf-8", "surrogatepass")


def _read(text: str, odd: str) -> str:
    """`plain` of a text with `odd` characters: one by one where each has one reading whatever stands beside it."""
    if len(odd) > _MOST_LOOKED_UP:
        return _read_together(text)
    readings = {one: reading for one in odd if (reading := _reading(one)) != one}
    if None in readings.values() or len(readings) > _MOST_REPLACED:
        return _read_together(text)
    for one, reading in readings.items():
        text = text.replace(one, str(reading))
    return _without_controls(text)


def _read_together(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    return _OVERLAYS.sub("", unicodedata.normalize("NFKC", text.translate(_SQUARED)))


@lru_cache(maxsize=8_192)
def _reading(one: str) -> str | None:
    """What stands for a character that is not ASCII; None if that depends on its neighbours."""
    if _INVISIBLE.match(one):
        return ""
    reading = unicodedata.normalize("NFKC", one.translate(_SQUARED))
    if any(map(_joins, reading)) or (reading != one and any(not it.isascii() and _reading(it) != it for it in reading)):
        return None
    return reading


def _joins(one: str) -> bool:
    """Whether it may become one character with what stands before it, or goes once it stands in order."""
    return unicodedata.category(one)[0] == "M" or one in _JAMO or _OVERLAYS.match(one) is not None


def _hidden(text: str, odd: str, first: str) -> Iterator[str]:
    if odd:
        yield from _smuggled(text, odd)
        yield from _unmasked(first)
    for place in _SIGNS_SET.Match(first) or ():
        for piece in _SIGNS[place].undo(first):
            yield piece
            if (again := _undo_once(piece)) is not None:
                yield again


def _undo_once(piece: str) -> str | None:
    """A second layer, such as base64 in hexadecimal digits."""
    for place in _SIGNS_SET.Match(piece) or ():
        for inner in _SIGNS[place].undo(piece):
            return inner
    return None


def _smuggled(text: str, odd: str) -> Iterator[str]:
    """Letters in characters without a shape: tags, and variation selectors as bytes."""
    if _INVISIBLE.search(odd) is None and _without_controls(text) == text:
        return
    if tags := "".join(_TAGS.findall(text)):
        yield plain("".join(chr(ord(one) - 0xE0000) for one in tags))
    if selectors := "".join(_SELECTORS.findall(text)):
        values = bytes(ord(one) - 0xFE00 if ord(one) < 0xFF00 else ord(one) - 0xE0100 + 16 for one in selectors)
        if (decoded := _readable(values)) is not None:
            yield decoded
    yield plain(_INVISIBLE.sub(" ", text))


def _unmasked(first: str) -> Iterator[str]:
    """Latin letters for the Cyrillic and Greek ones that look like them, where both stand in one word."""
    if _MIXED_WORD.search(first):
        yield first.translate(_LOOKALIKES)


def _unspaced(first: str) -> Iterator[str]:
    yield _SPACED.sub(_closed_up, first)


def _closed_up(found: re.Match[str]) -> str:
    words = _WORD_GAP.split(found.group())
    if any(len(word) > 1 for word in words):
        return " ".join(_LETTER_GAP.sub("", word) for word in words)
    return "".join(words)


def _unleeted(first: str) -> Iterator[str]:
    yield first.lower().translate(_LEET)


def _from_base64(first: str) -> Iterator[str]:
    for piece in _pieces(_BASE64, first):
        standard = piece.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            decoded = base64.b64decode(standard + "=" * (-len(standard) % 4))
        except (binascii.Error, ValueError):
            continue
        if (read := _readable(decoded)) is not None:
            yield read


def _from_hex(first: str) -> Iterator[str]:
    for piece in _pieces(_HEX, first):
        digits = re.sub(r"0x|\\x|[%\s,:]", "", piece)
        if (read := _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))) is not None:
            yield read


def _from_binary(first: str) -> Iterator[str]:
    for piece in _pieces(_BINARY, first):
        bits = re.sub(r"\s", "", piece)
        values = bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits) // 8 * 8, 8))
        if (read := _readable(values)) is not None:
            yield read


def _from_entities(first: str) -> Iterator[str]:
    yield plain(_ENTITIES.sub(_entity, first))


def _entity(found: re.Match[str]) -> str:
    hexadecimal, digits, escape = found.groups()
    try:
        value = int(escape or digits, 16 if escape or hexadecimal else 10)
    except ValueError:
        return " "
    return chr(value) if value < 0xD800 or 0xDFFF < value < 0x110000 else " "


def _from_morse(first: str) -> Iterator[str]:
    for piece in _pieces(_MORSE, first):
        words = (word.split() for word in piece.split("/"))
        yield " ".join("".join(_MORSE_LETTERS.get(letter, "") for letter in word) for word in words)


def _rotated(first: str) -> Iterator[str]:
    yield codecs.decode(first, "rot13")


def _shifted(first: str) -> Iterator[str]:
    """A Caesar cipher named as such: the shift whose words are the commonest."""
    longest = max(_SHIFTED.findall(first[:_MOST_DECODED]), key=len, default="")
    quoted = max(re.findall(r"['\"]([^'\"]{8,})['\"]", first[:_MOST_DECODED]), key=len, default=longest)
    best = max((_shift(quoted, by) for by in range(1, 26)), key=_common_words)
    if _common_words(best):
        yield best


def _shift(text: str, by: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return text.lower().translate(str.maketrans(letters, letters[by:] + letters[:by]))


def _common_words(text: str) -> int:
    return sum(word in _COMMON for word in re.findall(r"[a-z]+", text))


def _turned(first: str) -> Iterator[str]:
    yield first[::-1]
    yield " ".join(word[::-1] for word in first.split())


def _from_pig_latin(first: str) -> Iterator[str]:
    yield _PIG_WORD.sub(r"\2\1", first)


def _pieces(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    for number, found in enumerate(pattern.finditer(text)):
        if number == _MOST_PIECES:
            return
        yield found.group()[:_MOST_DECODED]


def _readable(values: bytes) -> str | None:
    """As text, if it is some."""
    text = plain(values.decode("utf-8", "ignore"))
    letters = sum(one.isalpha() or one.isspace() for one in text)
    enough = len(text) >= 8 and len(text.encode()) >= _LEAST_READABLE * len(values)
    return text if enough and letters >= _LEAST_READABLE * len(text) else None


_SIGNS = (
    _Sign(r"(?:\b[^\W_](?:[ \t._\-*|/·•~+]{1,4})){7}", _unspaced),
    _Sign(
        r"(?i)(?:\b[a-z]*[a-z][013457@$][a-z0-9@$]*\W+(?:\w+\W+)?){3}|\b(?:1n57|1nstr|ign0|1gn|pr3v|syst3m|5y5|"
        r"pr0mp|d1sr|f0rg|byp4|j41l|3n4bl|d15@b)\w*",
        _unleeted,
    ),
    _Sign(r"[A-Za-z0-9+/_\-]{20}", _from_base64),
    _Sign(r"(?:(?:0x|\\x|%)?[0-9A-Fa-f]{2}[\s,:]{0,2}){12}", _from_hex),
    _Sign(r"(?:[01]{8}\s*){8}", _from_binary),
    _Sign(r"&#x?[0-9A-Fa-f]{2,6};|\\u[0-9A-Fa-f]{4}", _from_entities),
    _Sign(r"(?:[.\-]{1,5}[ /]+){12}", _from_morse),
    _Sign(r"(?i)rot-?13|\b(?:gur|naq|lbh|lbhe|vtaber|cebzcg|flfgrz|vafgehpgvbaf?|cerivbhf|cnffjbeq)\b", _rotated),
    _Sign(r"(?i)\bcaesar\b", _shifted),
    _Sign(
        r"(?i)\b(?:eht|dna|ruoy|erongi|drageris?d|tegrof|tpmorp|metsys|suoiverp|snoitcurtsni|drowssap|laever)\b",
        _turned,
    ),
    _Sign(r"(?i)(?:\b[a-z]+[bcdfghjklmnpqrstvwxzw]ay\b\W+(?:\w+\W+)?){3}", _from_pig_latin),
)


def _compiled() -> re2.Set:
    options = re2.Options()
    options.log_errors = False
    signs = re2.Set.SearchSet(options)
    for sign in _SIGNS:
        signs.Add(sign.pattern)
    signs.Compile()
    return signs


_SIGNS_SET = _compiled()
