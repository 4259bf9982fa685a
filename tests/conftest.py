"""What all suites share."""

from __future__ import annotations

from typing import Any

import pytest

from kit.databases import database, database_url, postgres, postgres_server
from kit.traffic import COVERAGE

__all__ = ["database", "database_url", "postgres", "postgres_server"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands its counts to the main one."""
    worker_output = getattr(session.config, "workeroutput", None)
    if worker_output is not None:
        worker_output["recorded_traffic"] = COVERAGE.to_plain()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The main process takes a worker's counts."""
    COVERAGE.add_plain(getattr(node, "workeroutput", {}).get("recorded_traffic", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how much recorded provider traffic was covered and which classes were left out."""
    if not COVERAGE.covered:
        return
    terminalreporter.section("recorded provider traffic")
    for provider, count in sorted(COVERAGE.covered.items()):
        terminalreporter.line(f"{provider}: {count} exchanges equal to the official SDK's reading")
    for (provider, why), count in sorted(COVERAGE.left_out.items()):
        terminalreporter.line(f"{provider}: {count} left out: {why}")
    covered, left_out = sum(COVERAGE.covered.values()), sum(COVERAGE.left_out.values())
    terminalreporter.line(f"in all: {covered} exchanges covered, {left_out} left out")
