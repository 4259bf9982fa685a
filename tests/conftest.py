"""What all suites share."""

from __future__ import annotations

import pytest

from kit.traffic import COVERAGE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how much recorded provider traffic was covered and which classes were left out."""
    if not COVERAGE.covered:
        return
    terminalreporter.section("recorded provider traffic")
    for provider, count in sorted(COVERAGE.covered.items()):
        terminalreporter.line(f"{provider}: {count} exchanges equal to the official SDK's reading")
    for (provider, why), count in sorted(COVERAGE.left_out.items()):
        terminalreporter.line(f"{provider}: {count} left out: {why}")
    terminalreporter.line(
        f"in all: {sum(COVERAGE.covered.values())} covered, {sum(COVERAGE.left_out.values())} left out"
    )
