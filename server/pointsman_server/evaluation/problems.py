"""What makes a file impossible to evaluate."""

from __future__ import annotations


class DataError(Exception):
    """A file cannot be used; the message names the file, the column or line, and the remedy, never a prompt."""
