"""Reads what is recorded of calls."""

from __future__ import annotations

from pointsman_server.config.scalars import one_of, share, whole_number
from pointsman_server.config.section import Keys, Section, Spot
from pointsman_server.domain.trace_policy import TraceMode, TracePolicy

TRACE_KEYS: Keys = {
    "mode": "mode: metadata",
    "sample": "sample: 1",
    "retention_days": "retention_days: 7",
    "most_text_characters": "most_text_characters: 10000",
}

MOST_DAYS = 90
_LEAST_CHARACTERS, _MOST_CHARACTERS = 100, 100_000
_MODES = {mode.value: mode for mode in TraceMode}


def read_traces(spot: Spot, usual: TracePolicy) -> TracePolicy:
    """Compiles the section; what it leaves out is as in `usual`."""
    section = Section(spot, TRACE_KEYS)
    size = whole_number(_LEAST_CHARACTERS, _MOST_CHARACTERS)
    return TracePolicy(
        mode=section.optional("mode", one_of(_MODES), usual.mode),
        sample=section.optional("sample", share, usual.sample),
        retention_days=section.optional("retention_days", whole_number(1, MOST_DAYS), usual.retention_days),
        most_text_characters=section.optional("most_text_characters", size, usual.most_text_characters),
    )
