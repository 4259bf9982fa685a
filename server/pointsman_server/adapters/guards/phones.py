"""Whether a number is a phone's."""

from __future__ import annotations

import re
from typing import NamedTuple

import phonenumbers

from pointsman_server.adapters.guards.cues import Cues, is_phone_by_what_follows, speaks_of_phones
from pointsman_server.adapters.guards.rules import Page

_REGIONS_WITHOUT_TRUNK_ZERO = ("US", "ES", "IN", "PL", "IT", "BR", "MX", "PT", "CZ", "GR")
_REGIONS_WITH_TRUNK_ZERO = ("GB", "DE", "FR", "IN", "IL", "JP", "NL", "SE", "IT", "CH", "AT", "BE", "AU", "ZA", "IE")
_EXTENSION = re.compile(r"(?: ?x| ?ext\.? ?)\d{1,6}(?!\w)", re.IGNORECASE)
_FOLLOWING = 48
_CLOSE_MOST_DIGITS = 15


class NumberPlace(NamedTuple):
    """A number of 6 to 19 digits: where it stands, how its digits are grouped, and what stands before it."""

    page: Page
    start: int
    end: int
    lengths: tuple[int, ...]
    digits: str
    cues: Cues


class PhoneJudge:
    """Tells phones from other numbers by their form and by the words around them."""

    def span(self, place: NumberPlace) -> tuple[int, int] | None:
        """Where the phone begins and ends, an extension included, or None if it is none."""
        written = place.page.text[place.start : place.end]
        start = place.start
        if written.count("(") > written.count(")"):
            start, written = start + written.index("(") + 1, written.split("(", 1)[1]
        if not self._is_phone(place, written):
            return None
        extension = _EXTENSION.match(place.page.text, place.end)
        return start, extension.end() if extension else place.end

    def _is_phone(self, place: NumberPlace, written: str) -> bool:
        digits, cues = place.digits, place.cues
        if len(digits) > _CLOSE_MOST_DIGITS + 1 or len(set(digits)) == 1:
            return False
        if written.startswith("+") or (digits.startswith("00") and len(digits) > 10):
            return cues.close("phone") or _is_in_common_form(written) or _is_international(digits, written)
        if cues.close("phone") and self._is_plain_after_a_word(place, written):
            return True
        if is_phone_by_what_follows(place.page.after(place.end, _FOLLOWING)):
            return True
        if cues.nearest not in ("", "phone") and cues.distance < 12:
            return False
        return _is_in_common_form(written) or _is_national(place, written)

    def _is_plain_after_a_word(self, place: NumberPlace, written: str) -> bool:
        """Short numbers, and numbers after another sentence's phone, need a form that phones have."""
        between = place.page.text[place.start - place.cues.distance : place.start]
        sentence_ends = re.search(r"[.!]\s", between) is not None
        return not sentence_ends or len(place.digits) >= 9 or len(place.lengths) > 1


_AMERICAN = re.compile(r"(?:(?:00)?1[ .-]?)?(?:\([2-9]\d\d\)[ .-]?|[2-9]\d\d[.-])\d{3}[ .-]\d{4}")
_AREA_IN_BRACKETS = re.compile(r"\(0?[1-9]\d{1,3}\)[ .-]{0,2}\d{3,5}[ .-]?\d{4}")
_TRUNK = re.compile(r"\(?0[1-9]")


def _is_in_common_form(written: str) -> bool:
    """As Americans write phones, or with the area in brackets."""
    return (_AMERICAN.fullmatch(written) or _AREA_IN_BRACKETS.fullmatch(written)) is not None


def _is_international(digits: str, written: str) -> bool:
    """Two zeros are a weaker sign than a plus, so the number must be in use."""
    plain = digits.removeprefix("00")
    if not 8 <= len(plain) <= _CLOSE_MOST_DIGITS:
        return False
    return _is_possible(f"+{digits}") if written.startswith("+") else _is_valid(f"+{plain}", None)


def _is_national(place: NumberPlace, written: str) -> bool:
    """A number as its own country writes it: with a zero first, or where the text speaks of phones."""
    digits = place.digits
    if not 9 <= len(digits) <= 12 or (place.lengths[0] == 1 and digits[0] != "1"):
        return False
    if _TRUNK.match(written):
        return _valid_somewhere(place.page, digits, _REGIONS_WITH_TRUNK_ZERO)
    if not speaks_of_phones(place.page) or digits.startswith("0"):
        return False
    return _valid_somewhere(place.page, digits, _REGIONS_WITHOUT_TRUNK_ZERO)


def _valid_somewhere(page: Page, digits: str, regions: tuple[str, ...]) -> bool:
    """The library takes 20 µs a time, so after many numbers the form has to do."""
    if page.phone_checks_left <= 0:
        return True
    page.phone_checks_left -= 1
    return any(_is_valid(digits, region) for region in regions)


def _is_valid(number: str, region: str | None) -> bool:
    parsed = _parsed(number, region)
    return parsed is not None and phonenumbers.is_valid_number(parsed)


def _is_possible(number: str) -> bool:
    parsed = _parsed(number, None)
    return parsed is not None and phonenumbers.is_possible_number(parsed)


def _parsed(number: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
