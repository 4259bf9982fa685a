"""How things look on a terminal, and when they go into a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

_MICRO = 1_000_000
_PIPED_WIDTH = 1_000
"""Wide enough that no line of a table is broken: programs and `grep` read lines."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"}


def open_console() -> Console:
    """Standard output: with colours and as wide as the terminal, plain and without line breaks elsewhere."""
    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def make_table(headings: Sequence[str], right: Sequence[str] = ()) -> Table:
    """An empty table; the columns in `right` hold numbers. Too narrow a terminal breaks lines, it hides nothing."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table


def as_shown(text: str) -> Text:
    """A text of foreign origin for a table."""
    return Text(without_controls(text))


def without_controls(text: str) -> str:
    """The text with its control characters written out: on a terminal they could do anything."""
    return text.translate(_CONTROLS)


def usd(micro_usd: int) -> str:
    """An amount in US dollars, to the millionth."""
    return f"${micro_usd // _MICRO:,}.{micro_usd % _MICRO:06d}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.1f} ms" if value < 0.01 else f"{value * 1e3:.0f} ms"
    return f"{value:.1f} s"


def moment(since_epoch: float) -> str:
    """A time of UTC, to the second."""
    return datetime.fromtimestamp(since_epoch, UTC).isoformat(timespec="seconds")


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
