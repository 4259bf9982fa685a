"""Cores, processor time and memory, as Linux tells them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

CPU_TICK_SECONDS = 1 / _TICKS_PER_SECOND
"""Processor time is told in steps of this."""


def require_linux() -> None:
    """Ends the program on systems that do not tell processor time and memory of other processes under /proc."""
    if not Path("/proc/self/stat").exists():
        sys.exit("the benchmark reads /proc, which this system does not have; run it on Linux")


def cores() -> tuple[int, int] | None:
    """Two cores to keep the server and its load apart; None when there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) >= 2 else None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started inside stay on this core; None lets them run anywhere."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Processor time that the process and its children have used, in user and kernel mode."""
    return sum(_ticks(one) for one in _family(pid)) / _TICKS_PER_SECOND


def memory_mb(pid: int, *, peak: bool = False) -> float:
    """Resident memory of the process and its children in megabytes, now or at its peak.

    What they share counts for each of them.
    """
    name = "VmHWM:" if peak else "VmRSS:"
    return sum(_kilobytes(one, name) for one in _family(pid)) * 1024 / 1e6


def _family(pid: int) -> Iterator[int]:
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from _family(int(child))


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _kilobytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
