from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.command_line import Cli, serving, simulated_policy

MODELS = (
    "sim-fast",
    "sim-cited",
    "sim-length",
    "sim-long",
    "sim-fault-401",
    "sim-fault-stream-error-mid",
    "sim-cached",
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a pointsman with a deployment for each way of answering; `sim-fast` is the cheapest."""
    with serving(tmp_path_factory.mktemp("server"), simulated_policy(*MODELS)) as (_, address):
        yield address


@pytest.fixture
def cli() -> Cli:
    return Cli()
