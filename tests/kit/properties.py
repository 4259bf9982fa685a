"""Properties on machines that are shared: one example may take long, all of them together may not."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> settings:
    """Tries so many examples, however slow the machine is."""
    return settings(max_examples=count, deadline=None)
