"""What a rule of the scanner is: a cheap sign that it may apply, the places it looks at, and what it makes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import re2

from pointsman_server.adapters.guards.normalise import Normalised, is_word

T = TypeVar("T")


class Rank(IntEnum):
    """Which of two candidates for the same place is right: the lower one."""

    CREDENTIAL = 0
    CHECKED = 1
    """A checksum or an unmistakable form."""
    LABELLED = 2
    """A word before the value says what it is."""
    LIKELY = 3
    WORDS = 4
    """Names and addresses."""


class Candidate(NamedTuple):
    """What may be sensitive: from `start` to `end` (exclusive) in the normalised text."""

    start: int
    end: int
    kind: str
    rank: Rank


_MOST_PHONE_CHECKS = 64
_MOST_REMEMBERED = 4_096
_SECONDS_BETWEEN_PAUSES, _PAUSE_SECONDS = 0.004, 0.001
_MOST_NAMES, _MORE_NAMES_EVERY = 1_000, 200


class Page:
    """A normalised text with what rules ask about the surroundings of a place."""

    def __init__(self, normalised: Normalised) -> None:
        self.text, self.view = normalised.text, normalised.view
        self.has_foreign = normalised.has_foreign
        self.phone_checks_left = _MOST_PHONE_CHECKS
        self.name_checks_left = _MOST_NAMES + len(self.text) // _MORE_NAMES_EVERY
        self.speaks_of_phones: bool | None = None
        self._judgements: dict[tuple[Callable[[str], Any], str], Any] = {}
        self._is_beside_others = threading.current_thread() is not threading.main_thread()
        self._pause_at = time.monotonic() + _SECONDS_BETWEEN_PAUSES

    def pause(self) -> None:
        """In a thread, lets others have the interpreter every few milliseconds; asked at every match.

        RE2 lets go of it at every match and takes it back at once: whoever waits is woken each time, comes too late,
        and never gets as far as to insist.
        """
        if self._is_beside_others and time.monotonic() >= self._pause_at:
            time.sleep(_PAUSE_SECONDS)
            self._pause_at = time.monotonic() + _SECONDS_BETWEEN_PAUSES

    def judged(self, judge: Callable[[str], T], value: str) -> T:
        """What `judge` says of the value, asked once for values that come again and again in this text."""
        key = judge, value
        found: T | None = self._judgements.get(key)
        if found is None:
            if len(self._judgements) >= _MOST_REMEMBERED:
                self._judgements.clear()
            found = self._judgements[key] = judge(value)
        return found

    def before(self, start: int, length: int) -> str:
        """Up to `length` code points before `start`, in small letters."""
        return self.text[max(0, start - length) : start].lower()

    def after(self, end: int, length: int) -> str:
        """Up to `length` code points from `end`, in small letters."""
        return self.text[end : end + length].lower()

    def stands_alone(self, start: int, end: int) -> bool:
        """Whether neither a letter nor a digit nor an underscore touches the place."""
        return not is_word(self.text[start - 1 : start]) and not is_word(self.text[end : end + 1])


Find = Callable[[Page, int, int], Iterable[Candidate]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`sign` is a short expression that matches wherever `pattern` does; `find` judges each match of `pattern`.

    Expressions are RE2's, over `Page.view`. Repeats are bounded, so that finding all matches takes linear time.
    """

    sign: bytes
    pattern: Any
    find: Find

    def apply(self, page: Page) -> Iterator[Candidate]:
        """All candidates of this rule, in any order."""
        for match in self.pattern.finditer(page.view):
            page.pause()
            yield from self.find(page, *match.span())


def options() -> re2.Options:
    """One byte is one character; problems are raised, not written to standard error."""
    made = re2.Options()
    made.encoding = re2.Options.Encoding.LATIN1
    made.log_errors = False
    return made


def expression(pattern: bytes) -> Any:
    """A compiled expression over `Page.view`."""
    return re2.compile(pattern, options())


def whole(kind: str, rank: Rank, accept: Callable[[str], bool] = bool) -> Find:
    """A rule's judgement: the match is of this kind if `accept` says so of its text."""

    def find(page: Page, start: int, end: int) -> Iterator[Candidate]:
        if page.judged(accept, page.text[start:end]):
            yield Candidate(start, end, kind, rank)

    return find
