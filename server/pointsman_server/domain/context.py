"""What may be left out of an input that is longer than a model's context window, as the policy says it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Trim(Enum):
    """What may be left out. The system prompt, the last turn of the user and all that follows it never are."""

    DOCUMENTS = "documents"
    ALL = "all"
    """Documents, and the oldest turns of the conversation."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class ContextPolicy:
    """With `citations` models are asked to say which document something rests on."""

    trim: Trim = Trim.DOCUMENTS
    citations: bool = True
