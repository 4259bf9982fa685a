"""What is recorded of calls for operators, as the policy says it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TraceMode(Enum):
    """What of a call is recorded: nothing, its account without any text, or masked texts as well."""

    OFF = "off"
    METADATA = "metadata"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class TracePolicy:
    """How calls of a tenant are recorded. `sample` 0..1 is the share of the calls.

    Of a masked prompt and of a masked answer at most `most_text_characters` are kept each.
    """

    mode: TraceMode = TraceMode.METADATA
    sample: float = 1.0
    retention_days: int = 7
    most_text_characters: int = 10_000

    @property
    def records_all(self) -> bool:
        """Whether every call is recorded."""
        return self.mode is not TraceMode.OFF and self.sample >= 1.0
