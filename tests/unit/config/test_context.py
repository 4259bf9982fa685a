"""The policy's context section: what it compiles to, for everybody and for a tenant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.context import ContextPolicy, Trim

Compile = Callable[..., LoadedPolicy]
Read = Callable[[str], Snapshot]


@pytest.fixture
def read(good_policy: str, compile_text: Compile) -> Read:
    """The policy with these sections."""
    return lambda sections: compile_text(good_policy + sections).snapshot


@pytest.mark.parametrize(
    ("section", "policy"),
    [
        ("", ContextPolicy(Trim.DOCUMENTS, citations=True)),
        ("context: {}\n", ContextPolicy()),
        ("context: {trim: all}\n", ContextPolicy(Trim.ALL)),
        ("context: {trim: never, citations: false}\n", ContextPolicy(Trim.NEVER, citations=False)),
    ],
)
def test_it_holds_for_everybody(read: Read, section: str, policy: ContextPolicy) -> None:
    snapshot = read(section)
    assert snapshot.context == snapshot.context_of("anybody") == policy


def test_a_tenant_says_what_is_different_for_it(read: Read) -> None:
    snapshot = read(
        "context: {citations: false}\n"
        "tenant_defaults: {context: {trim: never}}\n"
        "tenants: {shop: {context: {trim: all}}, clinic: {}}\n"
    )
    assert snapshot.context_of("shop") == ContextPolicy(Trim.ALL, citations=False)
    assert snapshot.context_of("clinic") == snapshot.context_of("other") == ContextPolicy(Trim.NEVER, citations=False)


def test_it_is_part_of_the_version(read: Read) -> None:
    versions = {read(section).version for section in ("", "context: {trim: all}\n", "context: {citations: false}\n")}
    assert len(versions) == 3
    assert read("context: {trim: documents}\n").version == read("").version


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("context: {trim: history}\n", "context.trim"),
        ("context: {citations: maybe}\n", "context.citations"),
        ("context: {trimm: all}\n", "context.trimm"),
        ("context: all\n", "context"),
        ("tenant_defaults: {context: {trim: some}}\n", "tenant_defaults.context.trim"),
    ],
)
def test_a_mistake_is_told_where_it_stands(read: Read, section: str, told: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read(section)
    assert told in str(refused.value)
