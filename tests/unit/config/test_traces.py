"""The policy's traces section: what it compiles to, for everybody and for a tenant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.trace_policy import TraceMode, TracePolicy

Compile = Callable[..., LoadedPolicy]
Read = Callable[[str], Snapshot]


@pytest.fixture
def read(good_policy: str, compile_text: Compile) -> Read:
    """The policy with these sections."""
    return lambda sections: compile_text(good_policy + sections).snapshot


@pytest.mark.parametrize(
    ("section", "policy"),
    [
        ("", TracePolicy()),
        ("traces: {}\n", TracePolicy()),
        ("traces: {mode: off}\n", TracePolicy(TraceMode.OFF)),
        (
            "traces: {mode: text, sample: 0.25, retention_days: 30, most_text_characters: 500}\n",
            TracePolicy(TraceMode.TEXT, 0.25, 30, 500),
        ),
    ],
)
def test_it_holds_for_everybody(read: Read, section: str, policy: TracePolicy) -> None:
    snapshot = read(section)
    assert snapshot.traces == snapshot.traces_of("anybody") == policy


def test_a_tenant_says_what_is_different_for_it(read: Read) -> None:
    snapshot = read(
        "traces: {retention_days: 3}\n"
        "tenant_defaults: {traces: {sample: 0.5}}\n"
        "tenants: {shop: {traces: {mode: text}}, clinic: {traces: {mode: off, sample: 1}}}\n"
    )
    assert snapshot.traces_of("shop") == TracePolicy(TraceMode.TEXT, 0.5, 3)
    assert snapshot.traces_of("clinic") == TracePolicy(TraceMode.OFF, 1.0, 3)
    assert snapshot.traces_of("other") == TracePolicy(TraceMode.METADATA, 0.5, 3)


def test_it_is_part_of_the_version(read: Read) -> None:
    assert read("traces: {mode: text}\n").version != read("").version == read("traces: {mode: metadata}\n").version


@pytest.mark.parametrize(
    "section",
    [
        "traces: {mode: everything}",
        "traces: {sample: 2}",
        "traces: {retention_days: 0}",
        "traces: {retention_days: 91}",
        "traces: {most_text_characters: 99}",
        "traces: {most_text_characters: 100001}",
        "traces: {keep: 7}",
        "traces: text",
    ],
)
def test_what_makes_no_sense_is_refused(read: Read, section: str) -> None:
    with pytest.raises(PolicyError, match="traces"):
        read(f"{section}\n")
