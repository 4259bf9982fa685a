"""A text that a regular expression matches, for the constructs that JSON Schemas use.

Understood: literals, escapes, classes, groups, alternatives and counted repeats. Look-arounds and back-references are
not; `text_for_pattern` then gives a plain text.
"""

from __future__ import annotations

import re
import string
import warnings

_PLAIN = "simulated"
_ESCAPES = {"d": "1", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a", "n": "\n", "t": "\t", "r": "\r"}
_EMPTY_ESCAPES = frozenset("bBAZz")
_ALPHABET = string.ascii_lowercase + string.ascii_uppercase + string.digits + "-_. /@:+#" + string.punctuation
_MAX_OPEN_REPEATS = 200
_MAX_SEARCHED_CHARACTERS = 20
_MAX_CHARACTERS = 10_000
_MAX_PATTERN_CHARACTERS = 500


class _NotUnderstoodError(Exception):
    """The pattern uses something this module cannot read."""


def text_for_pattern(pattern: str, shortest: int = 0) -> str:
    """A text of at least `shortest` characters that the pattern finds; a plain one when the pattern is too hard."""
    try:
        # Each repeat is made from the same parts, so that looking at the shortest text is enough.
        if len(pattern) <= _MAX_PATTERN_CHARACTERS and _is_found(pattern, _Pattern(pattern, 1).whole()):
            for repeats in (1, 2, 4, 8, shortest):
                made = _Pattern(pattern, min(repeats, _MAX_OPEN_REPEATS)).whole()
                if len(made) >= shortest:
                    return made
    except (_NotUnderstoodError, re.error):
        pass
    return _PLAIN + "x" * max(0, shortest - len(_PLAIN))


def _is_found(pattern: str, made: str) -> bool:
    """Whether the pattern finds the text; taken on trust for a long one, on which some patterns search for ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        compiled = re.compile(pattern)
    return len(made) > _MAX_SEARCHED_CHARACTERS or compiled.search(made) is not None


class _Pattern:
    """A recursive descent through a pattern; `open_repeats` is how often `+` and `*` and `{n,}` repeat at least."""

    def __init__(self, pattern: str, open_repeats: int) -> None:
        self._text = pattern
        self._at = 0
        self._open_repeats = open_repeats

    def whole(self) -> str:
        made = self._alternatives()
        if self._at < len(self._text):
            raise _NotUnderstoodError
        return made

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise _NotUnderstoodError
        self._at += 1
        return self._text[self._at - 1]

    def _alternatives(self) -> str:
        first = self._sequence()
        while self._peek() == "|":
            self._take()
            self._sequence()
        return first

    def _sequence(self) -> str:
        made = []
        while self._peek() not in ("", "|", ")"):
            atom = self._atom()
            repeats = self._repeats()
            if len(atom) * repeats > _MAX_CHARACTERS:
                raise _NotUnderstoodError
            made.append(atom * repeats)
        return "".join(made)

    def _atom(self) -> str:
        taken = self._take()
        if taken in "^$":
            return ""
        if taken == ".":
            return "a"
        if taken == "[":
            return self._one_of_class()
        if taken == "(":
            return self._group()
        if taken == "\\":
            return self._escape()
        return taken

    def _escape(self) -> str:
        taken = self._take()
        if taken in _EMPTY_ESCAPES:
            return ""
        if taken in _ESCAPES:
            return _ESCAPES[taken]
        if taken.isalnum():
            raise _NotUnderstoodError
        return taken

    def _group(self) -> str:
        if self._text.startswith("?:", self._at):
            self._at += 2
        elif self._text.startswith("?P<", self._at):
            self._at = self._text.index(">", self._at) + 1
        elif self._peek() == "?":
            raise _NotUnderstoodError
        made = self._alternatives()
        if self._take() != ")":
            raise _NotUnderstoodError
        return made

    def _one_of_class(self) -> str:
        start = self._at - 1
        if self._peek() == "^":
            self._take()
        if self._peek() == "]":
            self._take()
        while (taken := self._take()) != "]":
            if taken == "\\":
                self._take()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            matcher = re.compile(self._text[start : self._at])
        found = next((character for character in _ALPHABET if matcher.fullmatch(character)), None)
        if found is None:
            raise _NotUnderstoodError
        return found

    def _repeats(self) -> int:
        low, high = self._bounds()
        if self._peek() in ("?", "+") and (low, high) != (1, 1):
            self._take()
        return low if high is not None and high <= low else max(low, min(self._open_repeats, high or 1_000))

    def _bounds(self) -> tuple[int, int | None]:
        simple = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(self._peek())
        if simple is not None:
            self._take()
            return simple
        counted = re.compile(r"\{(\d+)(,(\d*))?\}").match(self._text, self._at)
        if counted is None:
            return 1, 1
        self._at = counted.end()
        low = int(counted[1])
        if counted[2] is None:
            return low, low
        return low, int(counted[3]) if counted[3] else None
