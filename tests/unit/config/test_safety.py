"""The policy's word on sensitive data and hostile texts: what it compiles to, and mistakes told where they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.request import DataClass
from pointsman_server.domain.safety import (
    AnswerMode,
    InjectionMode,
    InjectionPolicy,
    Safety,
    SensitiveMode,
    SensitivePolicy,
    WhenGuardsFail,
)

Compile = Callable[..., LoadedPolicy]

WHOLE = """\
safety:
  sensitive_data:
    mode: mask
    by_data_class: {restricted: block, public: off}
    answers: detect
    ignore: [PERSON, URL]
    raises_data_class: confidential
    when_it_fails: allow
  injection: {mode: block, threshold: 0.75, when_it_fails: allow}
"""
FULL = Safety(
    SensitivePolicy(
        SensitiveMode.MASK,
        {DataClass.RESTRICTED: SensitiveMode.BLOCK, DataClass.PUBLIC: SensitiveMode.OFF},
        AnswerMode.DETECT,
        frozenset({"PERSON", "URL"}),
        DataClass.CONFIDENTIAL,
        WhenGuardsFail.ALLOW,
    ),
    InjectionPolicy(InjectionMode.BLOCK, 0.75, WhenGuardsFail.ALLOW),
)


@pytest.fixture
def read(good_policy: str, compile_text: Compile) -> Callable[..., Safety]:
    """What holds for a tenant under a policy with these lines."""
    return lambda lines, tenant="somebody": compile_text(good_policy + lines).snapshot.safety_of(tenant)


def test_everything_is_taken_over(read: Callable[..., Safety]) -> None:
    assert read(WHOLE) == FULL


def test_without_a_word_everything_is_seen_and_nothing_is_stopped(read: Callable[..., Safety]) -> None:
    usual = read("")
    assert usual == Safety()
    assert (usual.sensitive.mode, usual.injection.mode) == (SensitiveMode.DETECT, InjectionMode.FLAG)


def test_a_tenant_changes_single_keys(read: Callable[..., Safety]) -> None:
    lines = WHOLE + "tenants: {shop: {safety: {sensitive_data: {mode: off, raises_data_class: none}}}}\n"
    assert read(lines) == FULL
    shop = read(lines, "shop")
    assert (shop.sensitive.mode, shop.sensitive.raises_to) == (SensitiveMode.OFF, None)
    assert (shop.sensitive.answers, shop.injection) == (AnswerMode.DETECT, FULL.injection)


def test_all_tenants_may_have_a_rule_of_their_own(read: Callable[..., Safety]) -> None:
    lines = (
        "tenant_defaults: {safety: {injection: {mode: log}}}\ntenants: {shop: {safety: {injection: {threshold: 1}}}}\n"
    )
    assert read(lines).injection == InjectionPolicy(InjectionMode.LOG)
    assert read(lines, "shop").injection == InjectionPolicy(InjectionMode.LOG, 1.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("safety: {pii: {}}", "safety.pii is not a known key"),
        ("safety: {sensitive_data: {mode: hide}}", "safety.sensitive_data.mode is not a known word"),
        ("safety: {sensitive_data: {by_data_class: {secret: mask}}}", "by_data_class.secret is not a data class"),
        ("safety: {sensitive_data: {by_data_class: {public: hide}}}", "by_data_class.public is not a known word"),
        ("safety: {sensitive_data: {ignore: [e-mail]}}", "ignore[0] is not a kind of sensitive data"),
        ("safety: {injection: {threshold: 1.5}}", "safety.injection.threshold is 1.5"),
        ("safety: {injection: {when_it_fails: retry}}", "safety.injection.when_it_fails is not a known word"),
        ("tenants: {shop: {safety: {injection: {mode: none}}}}", "tenants.shop.safety.injection.mode is not a known"),
    ],
)
def test_mistakes_are_told_where_they_stand(read: Callable[..., Safety], lines: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(lines + "\n")
    assert message in str(caught.value)
