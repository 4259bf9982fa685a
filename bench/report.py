"""The outcome of a run: figures beside their floors, as tables and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from bench.measures import Rate

_PACKAGES = ("grpcio", "protobuf", "aiohttp", "uvloop", "anthropic", "orjson")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. With a `limit` it is judged: at most, or at least when `at_least`."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return {None: "", True: "ok", False: "MISSED"}[self.met]

    @property
    def limit_text(self) -> str:
        """The limit with its direction."""
        return "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run found."""

    rates: Sequence[Rate]
    figures: Sequence[Figure]
    failures: int
    quick: bool
    seconds: float

    def write(self, file: Path) -> None:
        """Writes it all as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        figures = [{**asdict(figure), "met": figure.met} for figure in self.figures]
        content = {
            "machine": machine(),
            "quick": self.quick,
            "seconds": round(self.seconds, 1),
            "failures": self.failures,
            "rates": [asdict(rate) for rate in self.rates],
            "figures": figures,
        }
        file.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def show(self, console: Console) -> None:
        """Prints the tables."""
        console.print(_rates_table(self.rates))
        console.print()
        console.print(_figures_table(self.figures))
        if self.failures:
            console.print(f"\n{self.failures} calls FAILED: the figures above are not worth much")
        how = "quick, so the figures are rough" if self.quick else "medians of interleaved rounds"
        console.print(f"\n{self.seconds:.0f} s in all; {how}")


def machine() -> dict[str, object]:
    """What the figures depend on, without names of the machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _rates_table(rates: Iterable[Rate]) -> Table:
    table = _table(
        "32 callers at a time", "calls/s", "CPU µs/call", "p50 ms", "p99 ms", "server's core busy", "load's busy"
    )
    for rate in rates:
        table.add_row(
            rate.name,
            f"{rate.calls_per_second:,.0f}",
            f"{rate.cpu_micros_per_call:,.0f}",
            f"{rate.latency.p50 * 1e3:.1f}",
            f"{rate.latency.p99 * 1e3:.1f}",
            f"{rate.server_busy:.0%}",
            f"{rate.load_busy:.0%}",
        )
    return table


def _figures_table(figures: Iterable[Figure]) -> Table:
    table = _table("figure", "measured", "floor", "verdict", "note")
    table.columns[-1].justify = "left"
    for figure in figures:
        digits = 0 if figure.value >= 100 else 2
        table.add_row(
            figure.name, f"{figure.value:,.{digits}f} {figure.unit}", figure.limit_text, figure.verdict, figure.note
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    return table
