"""Provider keys: written as a reference in the policy, read from the environment or a file, never shown.

A reference that cannot be written in the policy is a problem of the policy. A key that is missing or malformed is
not: its provider is compiled as unusable, with a reason that names the reference and never the value.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pointsman_server.config.section import Spot, UnacceptableError

_REFERENCE = re.compile(r"\$\{(?:(?P<variable>[A-Za-z_][A-Za-z0-9_]{0,127})|file:(?P<file>/[!-z|~]{1,512}))\}")
_MAX_KEY_BYTES = 16_384
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_PLACEHOLDER = re.compile(
    r"(?i).*(\.\.\.|\u2026|<|>|\$\{|\{\{|your[-_ ]?(api[-_ ]?)?(key|token)|change[-_ ]?me|replace[-_ ]?me"
    r"|placeholder|insert[-_ ]|example|x{6,}|\*{3,}).*|todo|fixme|none|null|secret|key|api[-_]?key"
    r"|sk-|sk-ant-|sk-ant-api03-|sk-proj-|pplx-|aiza|aq\.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class KeyReference:
    """Where a key is kept: an environment variable or an absolute file path, one of the two."""

    variable: str = ""
    file: str = ""

    def __str__(self) -> str:
        return f"${{{self.variable}}}" if self.variable else f"${{file:{self.file}}}"

    @property
    def place(self) -> str:
        """The place in words."""
        return f"environment variable {self.variable}" if self.variable else f"file {self.file}"


@dataclass(frozen=True, slots=True)
class KeyReading:
    """A key as found; `unusable_because` is "" or why it cannot be used, and then `value` is ""."""

    value: str = field(default="", repr=False)
    unusable_because: str = ""


def key_reference(spot: Spot) -> KeyReference:
    """Reads a reference. Anything else is refused without being shown: it may be a key."""
    found = _REFERENCE.fullmatch(spot.text())
    if not found:
        raise UnacceptableError(
            "is not a reference to a key (the value is not shown)",
            'Put the key into the environment and write `api_key: "${VARIABLE_NAME}"`, '
            'or into a file and write `api_key: "${file:/run/secrets/name}"`.',
        )
    return KeyReference(found["variable"] or "", found["file"] or "")


def read_key(reference: KeyReference, environ: Mapping[str, str]) -> KeyReading:
    """The key behind a reference, or why there is none to use."""
    value = environ.get(reference.variable) if reference.variable else _file_content(Path(reference.file))
    if value is None:
        fault = "is not set" if reference.variable else "cannot be read"
    else:
        fault = next((fault for fault, applies in _FAULTS if applies(value)), "")
    if value is None or fault:
        return KeyReading(unusable_because=f"{reference.place} {fault}")
    return KeyReading(value)


def _file_content(path: Path) -> str | None:
    """The text of a key file without its last line end; None when there is no such readable file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            text = file.read(_MAX_KEY_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text.removesuffix("\n").removesuffix("\r")


_FAULTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("is empty", lambda value: not value.strip()),
    ("is too long for a key", lambda value: len(value) > _MAX_KEY_BYTES),
    ("contains a line break", lambda value: "\n" in value or "\r" in value),
    ("contains blanks", lambda value: any(character.isspace() for character in value)),
    ("contains quotes", lambda value: any(character in _QUOTES for character in value)),
    ("holds a placeholder instead of a key", lambda value: bool(_PLACEHOLDER.fullmatch(value))),
    ("contains characters that no key has", lambda value: not (value.isascii() and value.isprintable())),
)
