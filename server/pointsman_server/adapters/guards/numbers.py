"""Numbers: cards, national numbers and phones. A run of digits is cut into groups, and windows of groups are judged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

from stdnum import verhoeff
from stdnum.br import cpf
from stdnum.de import idnr
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.jp import in_ as mynumber
from stdnum.us import ssn

from pointsman_server.adapters.guards.cues import NEAR, Cues, cues_after, cues_before, speaks_of_phones
from pointsman_server.adapters.guards.normalise import is_word
from pointsman_server.adapters.guards.phones import NumberPlace, PhoneJudge
from pointsman_server.adapters.guards.rules import Candidate, Page, Rank, Rule, expression

_RUN = expression(rb"[+(]{0,2}\d(?:[ .\-/()\t]{0,3}\d){5,}")
_GROUP = re.compile(r"\d(?:[ .-]\d(?!\d)){5,}|\d+")
"""A group of digits, or single digits set apart from one another."""

_LONGEST_RUN = 200
_PROVEN_FORM = expression(
    rb"\b(?:\d{13,19}|\d{4}[ .-]\d{4}[ .-]\d{4}(?:[ .-]\d{4})?|\d{4}[ .-]\d{6}[ .-]\d{5}|\d{3}-\d\d-\d{4}"
    rb"|\d{3}\.\d{3}\.\d{3}-\d\d)\b"
)
"""What is looked for in tables of numbers, where any window could be something by chance."""

_NO_DIGIT = re.compile(r"\D+")
_FEWEST_DIGITS_UNNAMED = 9
"""Of the numbers without any word for a phone around, those with fewer digits are nothing."""
_FEWEST_DIGITS, _MOST_DIGITS, _MOST_GROUPS = 6, 19, 8
_DIGITS = frozenset("0123456789")
_VALUES = bytes(max(byte - ord("0"), 0) for byte in range(256))
_DOUBLED = bytes(2 * value if value < 5 else max(2 * value - 9, 0) & 0xFF for value in range(256))


class _Groups:
    """The groups of digits in a stretch of text: where they stand, how long they are, and all digits together."""

    __slots__ = ("digits", "lengths", "offsets", "spans")

    def __init__(self, text: str, start: int, end: int) -> None:
        matches = [*_GROUP.finditer(text, start, end)]
        groups = [group if group.isdigit() else _NO_DIGIT.sub("", group) for group in [one.group() for one in matches]]
        self.spans = [one.span() for one in matches]
        self.lengths = tuple(map(len, groups))
        self.offsets = [0, *accumulate(self.lengths)]
        """In `digits`, of each group's first."""
        self.digits = "".join(groups)


class _Window:
    """Neighbouring groups of a run as one number."""

    __slots__ = ("digits", "end", "is_part", "lengths", "page", "start")

    def __init__(self, page: Page, start: int, end: int, lengths: tuple[int, ...], digits: str) -> None:
        self.page, self.start, self.end, self.lengths, self.digits = page, start, end, lengths, digits
        self.is_part = False
        """Whether other digits stand right before or after it, so that its check digits may be right by chance."""

    @property
    def written(self) -> str:
        return self.page.text[self.start : self.end]

    @property
    def separators(self) -> set[str]:
        return set(self.written) - _DIGITS

    @property
    def cues(self) -> Cues:
        return cues_before(self.page, self.start)


def _numbers(page: Page, start: int, end: int) -> Iterator[Candidate]:
    if _DATE.fullmatch(page.text, start, end):
        return
    if end - start <= _LONGEST_RUN:
        yield from _in_run(page, start, end)
        return
    for match in _PROVEN_FORM.finditer(page.view, start, end):
        page.pause()
        first, last = match.span()
        if not page.judged(_may_be_proven, page.text[first:last]):
            continue
        groups = _Groups(page.text, first, last)
        window = _Window(page, first, groups.spans[-1][1], groups.lengths, groups.digits)
        found = _card(window) or _national(window)
        if found is not None:
            yield found


def _may_be_proven(written: str) -> bool:
    """Whether some check digits are right, whatever stands around."""
    groups = _Groups(written, 0, len(written))
    if _is_long_enough_for_card(groups.lengths) and _passes_luhn(groups.digits):
        return True
    return any(is_valid(groups.digits) for _, is_valid in _NATIONAL.get(groups.lengths, ()))


def _in_run(page: Page, start: int, end: int) -> Iterator[Candidate]:
    groups = _Groups(page.text, start, end)
    spans, count = groups.spans, len(groups.spans)
    place = free_from = 0
    while place < count:
        if _DATE.fullmatch(page.text, spans[place][0], spans[min(place + 3, count) - 1][1]):
            place = free_from = place + 3
            continue
        begin = start if place == 0 else spans[place][0]
        for last in range(min(count, place + _MOST_GROUPS), place, -1):
            if not _may_be_one(page, groups, place, last, may_be_phone=place == free_from):
                continue
            digits = groups.digits[groups.offsets[place] : groups.offsets[last]]
            window = _Window(page, begin, spans[last - 1][1], groups.lengths[place:last], digits)
            window.is_part = place != free_from or last < count
            found = _judged(window, may_be_phone=place == free_from)
            if found is not None:
                yield found
                free_from = last
                place = last - 1
                break
        place += 1


def _may_be_one(page: Page, groups: _Groups, place: int, last: int, *, may_be_phone: bool) -> bool:
    """Whether the groups have as many digits as a number of some kind."""
    length = groups.offsets[last] - groups.offsets[place]
    if not _FEWEST_DIGITS <= length <= _MOST_DIGITS:
        return False
    if may_be_phone:
        return length >= _FEWEST_DIGITS_UNNAMED or speaks_of_phones(page)
    lengths = groups.lengths[place:last]
    return lengths in _NATIONAL or _is_long_enough_for_card(lengths)


def _judged(window: _Window, may_be_phone: bool) -> Candidate | None:
    """A phone is never the end of a longer number."""
    page = window.page
    if _is_date_or_decimal(window) or _goes_on(window) or "   " in window.written:
        return None
    if _is_glued(page, window.start):
        return _card(window) if "card" in window.cues.named else None
    international = page.text[window.start] == "+"
    proven = None if international else _card(window) or _national(window)
    return proven or (_phone(window) if may_be_phone else None)


_EXTENSION = re.compile(r"x\d|ext", re.IGNORECASE)
_REST_OF_WORD = re.compile(r"\w|-[A-Za-z0-9]{0,8}\d", re.ASCII)


def _goes_on(window: _Window) -> bool:
    """Whether the number is only the beginning of a word, as in 123456ab or 123456-78ab; an extension is no word."""
    text, end = window.page.text, window.end
    return _REST_OF_WORD.match(text, end) is not None and _EXTENSION.match(text, end) is None


def _is_glued(page: Page, start: int) -> bool:
    """Whether the number is the end of a longer word, as in ORD-123456, #123456 or 1.123456."""
    before = page.text[max(0, start - 2) : start]
    if not before:
        return False
    if is_word(before[-1]) or before[-1] in "#$€£¥":
        return True
    return before == "::" or (before[-1] in "-./" and len(before) > 1 and before[0].isascii() and before[0].isalnum())


_DATE = re.compile(r"(?:1[89]|2[01])\d\d([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2(?:1[89]|2[01])\d\d")
_SHORT_DATE = re.compile(r"(?:0?[1-9]|[12]\d|3[01])([-/.])(?:0?[1-9]|[12]\d|3[01])\1\d\d")


def _is_date_or_decimal(window: _Window) -> bool:
    if len(window.lengths) == 3:
        return _SHORT_DATE.fullmatch(window.page.text, window.start, window.end) is not None
    if len(window.lengths) != 2 or window.separators != {"."} or window.digits[:1] == "0":
        return False
    return "phone" not in window.cues.named


_FEWEST_DIGITS_OF_CARD = 12
_CARD_SHAPES = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)})
_SURE_CARD = re.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|(?:6011|64[4-9]\d|65\d\d|352[89]|35[3-8]\d)\d{12}"
)
_NAMED_CARD = re.compile(
    r"4\d{12}|4\d{18}|35\d{14}|3(?:0[0-5]|[689]\d)\d{11}|(?:2131|1800)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{15}"
    r"|(?:5[06-8]|6\d)\d{10,17}|62\d{14,17}|9792\d{12}|220[0-4]\d{12}"
)


def _card(window: _Window) -> Candidate | None:
    digits, lengths = window.digits, window.lengths
    if not _is_long_enough_for_card(lengths) or not _passes_luhn(digits):
        return None
    sure = _SURE_CARD.fullmatch(digits) is not None
    if not sure and not (_NAMED_CARD.fullmatch(digits) and window.cues.nearest == "card"):
        return None
    return _candidate(window, "CREDIT_CARD", Rank.CHECKED)


def _is_long_enough_for_card(lengths: tuple[int, ...]) -> bool:
    return lengths[0] >= _FEWEST_DIGITS_OF_CARD if len(lengths) == 1 else lengths in _CARD_SHAPES


def _candidate(window: _Window, kind: str, rank: Rank) -> Candidate:
    start = window.start
    while window.page.text[start] in "+(" and kind != "PHONE":
        start += 1
    return Candidate(start, window.end, kind, rank)


def _national(window: _Window) -> Candidate | None:
    for kind, is_valid in _NATIONAL.get(window.lengths, ()):
        if _fits(kind, window) and window.page.judged(is_valid, window.digits):
            return _candidate(window, kind, Rank.CHECKED if len(window.lengths) > 3 else Rank.LABELLED)
    return None


_FILLING = (("card", "other"), ("card",))
"""Cues that may stand between a kind's word and its number ("Aadhaar card no"); fewer where no digit is a check."""

_PROOF_ENOUGH = {
    "FR_NIR": frozenset({(15,), (13, 2), (1, 2, 2, 2, 3, 3, 2)}),
    "DE_TAX_ID": frozenset({(2, 3, 3, 3)}),
    "BR_CPF": frozenset({(3, 3, 3, 2)}),
    "IN_AADHAAR": frozenset({(4, 4, 4)}),
}
"""Shapes that with their checksum need no word before them, if no other word claims the number."""

_ALONE = frozenset({"DE_TAX_ID", "BR_CPF"})
"""Kinds with two check digits, or nearly so: eleven digits in a row are enough where nothing speaks of phones."""


def _fits(kind: str, window: _Window) -> bool:
    cues = window.cues
    if cues.nearest == kind or (kind in cues.named and cues.nearest in _FILLING[kind == "US_SSN"]):
        return True
    if cues.nearest in _WORDED_KINDS:
        return False
    if kind == "US_SSN":
        return window.lengths == (3, 2, 4) and window.separators == {"-"}
    if window.is_part or (kind == "BR_CPF" and "-" not in window.separators and len(window.lengths) > 1):
        return False
    if window.lengths in _PROOF_ENOUGH.get(kind, ()):
        return not cues.close("phone") and not cues.close("other")
    if not cues.named and kind in cues_after(window.page, window.end).named:
        return True
    quiet = cues.nearest == "" and not speaks_of_phones(window.page)
    if kind == "IL_ID":
        return quiet and any("\u05d0" <= character <= "\u05ea" for character in window.page.before(window.start, NEAR))
    return kind in _ALONE and quiet


def _passes_luhn(digits: str) -> bool:
    values = digits.encode().translate(_VALUES)
    return (sum(values[-1::-2]) + sum(values[-2::-2].translate(_DOUBLED))) % 10 == 0


def _is_il_id(digits: str) -> bool:
    return _passes_luhn(digits) and digits.strip("0") != ""


def _is_sin(digits: str) -> bool:
    return _passes_luhn(digits) and digits[0] != "8"


def _is_aadhaar(digits: str) -> bool:
    return digits[0] not in "01" and verhoeff.is_valid(digits) and digits != digits[::-1]


_NINE = (9,)
_TWELVE = frozenset({(12,), (4, 4, 4)})
_SHAPES = (
    ("US_SSN", frozenset({_NINE, (3, 2, 4)}), ssn.is_valid),
    ("IL_ID", frozenset({_NINE, (8, 1)}), _is_il_id),
    ("CA_SIN", frozenset({_NINE, (3, 3, 3)}), _is_sin),
    ("UK_NHS", frozenset({(10,), (3, 3, 4)}), nhs.is_valid),
    ("DE_TAX_ID", frozenset({(11,), (2, 3, 3, 3)}), idnr.is_valid),
    ("BR_CPF", frozenset({(11,), (3, 3, 3, 2)}), cpf.is_valid),
    ("JP_MYNUMBER", _TWELVE, mynumber.is_valid),
    ("IN_AADHAAR", _TWELVE, _is_aadhaar),
    ("FR_NIR", _PROOF_ENOUGH["FR_NIR"], nir.is_valid),
)
_WORDED_KINDS = frozenset(kind for kind, _, _ in _SHAPES)
_NATIONAL = {
    shape: tuple((kind, is_valid) for kind, shapes, is_valid in _SHAPES if shape in shapes)
    for shape in frozenset().union(*(shapes for _, shapes, _ in _SHAPES))
}
"""Kinds and their checks, by the lengths of groups."""


_JUDGE = PhoneJudge()


def _phone(window: _Window) -> Candidate | None:
    place = NumberPlace(window.page, window.start, window.end, window.lengths, window.digits, window.cues)
    span = _JUDGE.span(place)
    return Candidate(*span, "PHONE", Rank.LIKELY) if span else None


_STACKED_CARD = expression(rb"\b\d{4}(?:[ .\-\n\t\r]{1,2}\d{4}){3}\b")


def _stacked_cards(page: Page, start: int, end: int) -> Iterator[Candidate]:
    digits = _NO_DIGIT.sub("", page.text[start:end])
    if _SURE_CARD.fullmatch(digits) and _passes_luhn(digits):
        yield Candidate(start, end, "CREDIT_CARD", Rank.CHECKED)


RULES = (
    Rule(rb"\d(?:[ .\-/()\t]*\d){5}", _RUN, _numbers),
    Rule(rb"\d{4}[\n\r\t .\-]{1,2}\d{4}[\n\r\t .\-]", _STACKED_CARD, _stacked_cards),
)
