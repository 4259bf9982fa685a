"""What the two OpenAI dialects share in reading an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_range(source: Mapping[str, Any]) -> tuple[int, int]:
    """The place in the text that a source belongs to, (-1, -1) when it is not known."""
    start, end = source.get("start_index"), source.get("end_index")
    # An empty range is how some say that they do not know the place.
    if isinstance(start, int) and isinstance(end, int) and 0 <= start < end:
        return start, end
    return -1, -1
