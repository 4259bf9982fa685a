"""Reads what may be left out of inputs that are longer than a context window, and whether documents are cited."""

from __future__ import annotations

from pointsman_server.config.scalars import one_of, switch
from pointsman_server.config.section import Keys, Section, Spot
from pointsman_server.domain.context import ContextPolicy, Trim

CONTEXT_KEYS: Keys = {
    "trim": "trim: documents",
    "citations": "citations: true",
}

_TRIMS = {trim.value: trim for trim in Trim}


def read_context(spot: Spot, usual: ContextPolicy) -> ContextPolicy:
    """Compiles the section; what it leaves out is as in `usual`."""
    section = Section(spot, CONTEXT_KEYS)
    return ContextPolicy(
        trim=section.optional("trim", one_of(_TRIMS), usual.trim),
        citations=section.optional("citations", switch, usual.citations),
    )
