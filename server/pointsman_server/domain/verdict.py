"""A caller's verdict on one answer."""

from __future__ import annotations

from typing import NamedTuple

from pointsman_server.domain.experience import Lesson


class Verdict(NamedTuple):
    """`score` is 0 (useless) to 1 (perfect); `given_at` in seconds since the Unix epoch."""

    request_id: str
    tenant: str
    lesson: Lesson
    score: float
    given_at: float
