"""Calls behind a gate."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from pointsman_server.execution.admission import Gate


@asynccontextmanager
async def staying(
    gate: Gate, tenant: str, labels: Mapping[str, str], deadline: float = math.inf
) -> AsyncGenerator[None, None]:
    """A call that holds a place meanwhile."""
    stay = await gate.enter(tenant, labels, deadline)
    try:
        yield
    finally:
        stay.end()
