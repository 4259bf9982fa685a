"""What is wrong with a policy file, told so that it can be put right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

MAX_PROBLEMS = 100
"""Reading stops here: nobody reads more, and finding suggestions for more would take seconds."""

_MAX_SHOWN_CHARACTERS = 60
_MAX_NAMES_COMPARED = 1_000
_KEY_PREFIX = re.compile(
    r"(?i)(?<![a-z0-9])(sk-|sk_|pk_|pplx-|aiza|aq\.|xai-|gsk_|hf_|gh[a-z]_|akia|ya29\.|eyj|bearer\b)"
)
_LONG_MIXED_RUN = re.compile(r"(?=[A-Za-z0-9]*[0-9])(?=[A-Za-z0-9]*[A-Za-z])[A-Za-z0-9]{16,}")
_PLAIN_PATH_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a policy file.

    `path_in_file` is the way to the value (`models.gpt.price`), "" for the file as a whole. `line` counts from 1,
    0 when no line applies. `message` continues a sentence that begins with the path.
    """

    file: str
    line: int
    path_in_file: str
    message: str
    remedy: str

    @property
    def field(self) -> str:
        """The last part of the path, "" for the file as a whole."""
        return self.path_in_file.rpartition(".")[2]

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path_in_file or 'the file'} {self.message}. {self.remedy}"


class PolicyError(Exception):
    """A policy file that cannot be used, with everything that is wrong with it, by line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Findings:
    """Collects what is wrong while a file is read, so that all of it can be told at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def refuse(self, line: int, path: str, message: str, remedy: str) -> None:
        """Notes a problem; raises `PolicyError` when there are too many to go on."""
        self.problems.append(Problem(self.file, line, path, message, remedy))
        if len(self.problems) >= MAX_PROBLEMS:
            self.stop(line, "", f"has more than {MAX_PROBLEMS} problems", "Correct these and try again.")

    def warn(self, line: int, path: str, message: str, remedy: str) -> None:
        """Notes something that is probably a mistake but can be used."""
        self.warnings.append(Problem(self.file, line, path, message, remedy))

    def stop(self, line: int, path: str, message: str, remedy: str) -> NoReturn:
        """Gives up reading: raises `PolicyError` with this and everything found before."""
        raise PolicyError([*self.problems, Problem(self.file, line, path, message, remedy)])

    def raise_if_any(self) -> None:
        """Raises `PolicyError` when there is any problem; warnings are not problems."""
        if self.problems:
            raise PolicyError(self.problems)


def looks_like_a_key(text: str) -> bool:
    """Whether this could be a credential: a known prefix or a long run of letters and digits."""
    return bool(_KEY_PREFIX.search(text) or _LONG_MIXED_RUN.search(text))


def shown(text: str) -> str:
    """The text in quotes for a message, unless it could be a credential or would be unreadable."""
    if looks_like_a_key(text):
        return "a text that looks like a key (not shown)"
    if len(text) > _MAX_SHOWN_CHARACTERS or not text.isprintable():
        return f"a text of {len(text)} characters (not shown)"
    return f"'{text}'"


def path_part(key: str) -> str:
    """A key as part of a path; one that is no plain name, or could be a credential, becomes `?`."""
    return key if _PLAIN_PATH_PART.fullmatch(key) and not looks_like_a_key(key) else "?"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the most similar known name, or lists the known ones when they are few."""
    names = [candidate for candidate in islice(known, _MAX_NAMES_COMPARED) if not looks_like_a_key(candidate)]
    close = difflib.get_close_matches(name[:_MAX_SHOWN_CHARACTERS], names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    if 0 < len(names) <= 12:
        return f"Known: {', '.join(names)}."
    return ""
