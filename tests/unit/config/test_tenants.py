"""The policy's keys about tenants: what they compile to, and every mistake told where it stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.config.policy_file import LoadedPolicy, compile_policy, compile_record
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.tenants import MAX_BUDGETS
from pointsman_server.domain.caller import Role
from pointsman_server.domain.governance import (
    Budget,
    Governance,
    Identity,
    Period,
    RateLimit,
    TenantPolicy,
    WhenCountersFail,
)
from pointsman_server.domain.request import DataClass

Compile = Callable[..., LoadedPolicy]
Read = Callable[[str], LoadedPolicy]

WHOLE = """\
tenants:
  shop:
    requests_per_minute: 600
    tokens_per_minute: 500000
    end_users: {requests_per_minute: 5, tokens_per_minute: 10000}
    budgets:
      - {name: month, period: month, limit_usd: 250}
      - {name: research, period: day, limit_usd: 0.000001, labels: {team: on call, agent: research}}
    max_cost_per_request_usd: 0.05
    only: [best, small-local]
    deny: [small-local]
    least_data_class: internal
  lab: {suspended: true, end_users: {requests_per_minute: none}}
tenant_defaults: {requests_per_minute: 60, tokens_per_minute: none, max_cost_per_request_usd: 0.5}
unlisted_tenants: refuse
identities:
  "spiffe://company/shop": {tenant: shop, roles: [call]}
  ops.company.example: {tenant: lab, roles: [read, operate]}
peers: {requests_per_minute: 1000}
when_counters_fail: allow
"""


@pytest.fixture
def read(good_policy: str, compile_text: Compile) -> Read:
    """The policy with these lines."""
    return lambda lines: compile_text(good_policy + lines)


def test_everything_is_taken_over(read: Read) -> None:
    loaded = read(WHOLE)
    assert loaded.warnings == ()
    others = TenantPolicy(
        limit=RateLimit(requests_per_minute=60),
        end_user_limit=RateLimit(requests_per_minute=20),
        max_cost_per_request_micro_usd=500_000,
    )
    shop = TenantPolicy(
        limit=RateLimit(600, 500_000),
        end_user_limit=RateLimit(5, 10_000),
        budgets=(
            Budget("month", Period.MONTH, 250_000_000),
            Budget("research", Period.DAY, 1, (("agent", "research"), ("team", "on call"))),
        ),
        max_cost_per_request_micro_usd=50_000,
        allowed_deployments=frozenset({"claude-direct", "small-local"}),
        denied_deployments=frozenset({"small-local"}),
        least_data_class=DataClass.INTERNAL,
    )
    lab = TenantPolicy(
        limit=RateLimit(60), end_user_limit=RateLimit(), max_cost_per_request_micro_usd=500_000, suspended=True
    )
    assert loaded.snapshot.governance == Governance(
        tenants={"lab": lab, "shop": shop},
        others=others,
        only_listed=True,
        identities={
            "ops.company.example": Identity("lab", frozenset({Role.READ, Role.OPERATE})),
            "spiffe://company/shop": Identity("shop", frozenset({Role.CALL})),
        },
        peer_limit=RateLimit(1000),
        when_counters_fail=WhenCountersFail.ALLOW,
    )


def test_a_policy_that_says_nothing_limits_nobody(read: Read) -> None:
    assert read("").snapshot.governance == Governance()


class TestDefaults:
    def test_listed_tenants_have_end_users_and_peers_that_are_limited(self, read: Read) -> None:
        loaded = read("tenants: {shop: {}}\n")
        governance = loaded.snapshot.governance
        assert governance.of("shop").end_user_limit == RateLimit(requests_per_minute=20)
        assert governance.of("anybody") == governance.of("shop") == governance.others
        assert governance.peer_limit == RateLimit(requests_per_minute=100)
        (warning,) = loaded.warnings
        assert warning.path_in_file == "tenants"
        assert "100 requests a minute" in warning.message
        assert "`none`" in warning.remedy

    def test_what_is_said_about_peers_is_not_warned_of(self, read: Read) -> None:
        loaded = read("tenants: {shop: {}}\npeers: {requests_per_minute: none}\n")
        assert loaded.warnings == ()
        assert loaded.snapshot.governance.peer_limit == RateLimit()

    def test_a_tenant_overrides_key_by_key(self, read: Read) -> None:
        defaults = """\
tenant_defaults:
  requests_per_minute: 10
  tokens_per_minute: 20
  end_users: {requests_per_minute: 7}
  budgets: [{name: day, period: day, limit_usd: 1}]
  max_cost_per_request_usd: 1
  only: [best]
  least_data_class: internal
peers: {}
"""
        one = read(f"{defaults}tenants: {{one: {{tokens_per_minute: none, end_users: {{tokens_per_minute: 9}}}}}}\n")
        policy = one.snapshot.governance.of("one")
        assert policy.limit == RateLimit(requests_per_minute=10)
        assert policy.end_user_limit == RateLimit(7, 9)
        assert [budget.name for budget in policy.budgets] == ["day"]
        assert policy.allowed_deployments == {"claude-direct"}
        freed = "{budgets: [], max_cost_per_request_usd: none, least_data_class: public}"
        free = read(f"{defaults}tenants: {{free: {freed}}}\n").snapshot.governance.of("free")
        assert free.budgets == ()
        assert free.max_cost_per_request_micro_usd is None
        assert free.least_data_class is DataClass.PUBLIC

    def test_defaults_hold_for_tenants_that_are_not_listed(self, read: Read) -> None:
        governance = read("tenant_defaults: {requests_per_minute: 3}\n").snapshot.governance
        assert governance.of("whoever").limit == RateLimit(3)
        assert governance.of("whoever").end_user_limit == RateLimit()
        assert governance.peer_limit == RateLimit()


class TestVersion:
    @pytest.mark.parametrize(
        "lines",
        [
            "tenants: {shop: {}}\n",
            "tenant_defaults: {suspended: true}\n",
            "unlisted_tenants: refuse\ntenants: {shop: {}}\n",
            "peers: {requests_per_minute: 5}\n",
            "when_counters_fail: allow\n",
            "identities: {a.example: {tenant: shop, roles: [call]}}\n",
            "identities: {a.example: {tenant: shop, roles: [read]}}\n",
            "tenants: {shop: {budgets: [{name: a, period: day, limit_usd: 1}]}}\n",
            "tenants: {shop: {budgets: [{name: a, period: month, limit_usd: 1}]}}\n",
            "tenants: {shop: {budgets: [{name: a, period: month, limit_usd: 1.000001}]}}\n",
        ],
    )
    def test_it_changes_with_them_and_the_record_keeps_them(self, read: Read, lines: str) -> None:
        loaded = read(lines)
        assert loaded.snapshot.version != read("").snapshot.version
        assert compile_record(loaded.record).governance == loaded.snapshot.governance

    def test_it_does_not_change_with_the_order(self, read: Read) -> None:
        one = read("tenants: {a: {deny: [best, small-local]}, b: {}}\n")
        other = read("tenants: {b: {}, a: {deny: [small-local, best]}}\n")
        assert one.snapshot.version == other.snapshot.version

    def test_all_of_these_are_different(self, read: Read) -> None:
        texts = [
            f"tenants: {{shop: {{{key}}}}}\n"
            for key in (
                "requests_per_minute: 1",
                "requests_per_minute: 2",
                "tokens_per_minute: 1",
                "max_cost_per_request_usd: 0.000001",
                "only: [best]",
                "deny: [best]",
                "least_data_class: internal",
                "suspended: true",
                "end_users: {tokens_per_minute: 1}",
            )
        ]
        assert len({read(text).snapshot.version for text in texts}) == len(texts)


class TestNobodyMayCall:
    @pytest.mark.parametrize(
        ("lines", "path"),
        [
            ("tenants: {shop: {requests_per_minute: 0}}", "tenants.shop.requests_per_minute"),
            ("tenants: {shop: {tokens_per_minute: 0}}", "tenants.shop.tokens_per_minute"),
            ("tenants: {shop: {end_users: {requests_per_minute: 0}}}", "tenants.shop.end_users.requests_per_minute"),
            (
                "tenants: {shop: {budgets: [{name: a, period: day, limit_usd: 0}]}}",
                "tenants.shop.budgets[0].limit_usd",
            ),
            ("tenants: {shop: {max_cost_per_request_usd: 0}}", "tenants.shop.max_cost_per_request_usd"),
            ("tenants: {shop: {only: [best], deny: [smart]}}", "tenants.shop"),
            ("tenants: {shop: {deny: [best, small-local]}}", "tenants.shop"),
            ("tenants: {shop: {only: [best], least_data_class: restricted}}", "tenants.shop"),
            ("tenant_defaults: {requests_per_minute: 0}", "tenant_defaults.requests_per_minute"),
            ("unlisted_tenants: refuse", "unlisted_tenants"),
        ],
    )
    def test_it_is_accepted_and_said(self, read: Read, lines: str, path: str) -> None:
        loaded = read(f"{lines}\npeers: {{requests_per_minute: 100}}\n")
        (warning,) = loaded.warnings
        assert warning.path_in_file == path
        assert "refuse" in warning.message
        assert warning.remedy

    def test_peers_of_0(self, read: Read) -> None:
        (warning,) = read("peers: {requests_per_minute: 0}\n").warnings
        assert warning.path_in_file == "peers.requests_per_minute"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("tenants: [shop]", "tenants is not a mapping"),
        ("tenants: {Shop: {}}", "tenants.Shop is not an id: 'Shop'"),
        ("tenants: {shop: {request_per_minute: 1}}", "Did you mean 'requests_per_minute'?"),
        ("tenants: {shop: {requests_per_minute: -1}}", "tenants.shop.requests_per_minute is -1"),
        ("tenants: {shop: {requests_per_minute: 1.5}}", "is not a whole number: '1.5'"),
        ("tenants: {shop: {requests_per_minute: 1e3}}", "is not a whole number: '1e3'"),
        ("tenants: {shop: {requests_per_minute: [1]}}", "tenants.shop.requests_per_minute is a list"),
        ("tenants: {shop: {tokens_per_minute: nine}}", "is not a whole number: 'nine'"),
        ("tenants: {shop: {end_users: 20}}", "tenants.shop.end_users is not a mapping"),
        ("tenants: {shop: {end_users: {per_minute: 20}}}", "tenants.shop.end_users.per_minute is not a known key"),
        ("tenants: {shop: {max_cost_per_request_usd: -1}}", "is -1. Write an amount from 0"),
        ("tenants: {shop: {max_cost_per_request_usd: 0.0000001}}", "has more than six decimal places"),
        ("tenants: {shop: {only: []}}", "tenants.shop.only is empty"),
        ("tenants: {shop: {only: [claud-direct]}}", "Did you mean 'claude-direct'?"),
        ("tenants: {shop: {deny: [best, smart]}}", "tenants.shop.deny[1] is listed twice"),
        ("tenants: {shop: {least_data_class: secret}}", "tenants.shop.least_data_class is not a known word: 'secret'"),
        ("tenants: {shop: {suspended: yes}}", "tenants.shop.suspended is neither true nor false: 'yes'"),
        ("tenants: {shop: {budgets: {name: a}}}", "tenants.shop.budgets is not a list"),
        ("tenants: {shop: {budgets: [{period: day, limit_usd: 1}]}}", "tenants.shop.budgets[0].name is missing"),
        ("tenants: {shop: {budgets: [{name: a, limit_usd: 1}]}}", "tenants.shop.budgets[0].period is missing"),
        ("tenants: {shop: {budgets: [{name: a, period: day}]}}", "tenants.shop.budgets[0].limit_usd is missing"),
        ("tenants: {shop: {budgets: [{name: a, period: week, limit_usd: 1}]}}", "is not a known word: 'week'"),
        ("tenants: {shop: {budgets: [{name: a, period: day, limit_usd: -5}]}}", "limit_usd is -5"),
        ("tenants: {shop: {budgets: [{name: a, period: day, limit_usd: .inf}]}}", "not a plain decimal number: '.inf'"),
        ("tenants: {shop: {budgets: [{name: a, period: day, limit_usd: 1, labels: {}}]}}", "labels is empty"),
        ("tenants: {shop: {budgets: [{name: a, period: day, limit_usd: 1, labels: {A b: c}}]}}", "name of a label"),
        (
            "tenants: {shop: {budgets: [{name: a, period: day, limit_usd: 1}, {name: a, period: day, limit_usd: 2}]}}",
            "tenants.shop.budgets[1] has the name of an earlier budget",
        ),
        ("tenants: {shop: {budgets: [nothing]}}", "tenants.shop.budgets[0] is not a mapping"),
        ("tenant_defaults: {deny: [nobody]}", "tenant_defaults.deny[0] refers to 'nobody'"),
        ("unlisted_tenants: refused", "Did you mean 'refuse'?"),
        ("when_counters_fail: open", "when_counters_fail is not a known word: 'open'"),
        ("peers: 100", "peers is not a mapping"),
        ("identities: {a.example: {roles: [call]}}", "identities.a.example.tenant is missing"),
        ("identities: {a.example: {tenant: shop}}", "identities.a.example.roles is missing"),
        ("identities: {a.example: {tenant: shop, roles: []}}", "identities.a.example.roles is empty"),
        ("identities: {a.example: {tenant: shop, roles: [admin]}}", "Did you mean 'administer'?"),
        ('identities: {"*.example": {tenant: shop, roles: [call]}}', "is not a name of a certificate"),
        ('identities: {"a b": {tenant: shop, roles: [call]}}', "is not a name of a certificate"),
        ("identities: {a.example: shop}", "identities.a.example is not a mapping"),
        (
            "unlisted_tenants: refuse\ntenants: {a: {}}\nidentities: {b.example: {tenant: shop, roles: [call]}}",
            "belongs to 'shop', which `tenants` does not list",
        ),
        ("budgets: []", "budgets is not a known key"),
    ],
)
def test_mistakes_are_told_with_line_and_remedy(read: Read, good_policy: str, lines: str, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(f"{lines}\n")
    assert told in str(caught.value)
    first = good_policy.count("\n") + 1
    assert all(first <= problem.line <= first + lines.count("\n") for problem in caught.value.problems)
    assert all(problem.remedy.strip() for problem in caught.value.problems)


def test_there_is_an_end_to_budgets_and_their_labels(read: Read) -> None:
    many = ", ".join(f"{{name: b{number}, period: day, limit_usd: 1}}" for number in range(MAX_BUDGETS + 1))
    with pytest.raises(PolicyError, match=f"has {MAX_BUDGETS + 1} budgets. Write at most {MAX_BUDGETS}"):
        read(f"tenants: {{shop: {{budgets: [{many}]}}}}\n")
    labels = ", ".join(f"l{number}: x" for number in range(9))
    with pytest.raises(PolicyError, match="has 9 labels"):
        read(f"tenants: {{shop: {{budgets: [{{name: a, period: day, limit_usd: 1, labels: {{{labels}}}}}]}}}}\n")
    label = "x" * 257
    with pytest.raises(PolicyError, match="is too long"):
        read(f"tenants: {{shop: {{budgets: [{{name: a, period: day, limit_usd: 1, labels: {{a: {label}}}}}]}}}}\n")


def test_a_price_that_is_missing_stays_a_mistake_whatever_the_budgets(good_policy: str, compile_text: Compile) -> None:
    unpriced = good_policy.replace(', price: {ref: "anthropic/claude-sonnet-4-5"}', "")
    with pytest.raises(PolicyError, match=r"models.claude.price is missing"):
        compile_text(unpriced + "tenants: {shop: {budgets: [{name: a, period: day, limit_usd: 1}]}}\n")


_AMOUNTS = st.integers(0, 10**12)


@given(_AMOUNTS)
def test_money_is_exact_to_the_micro_usd(micro_usd: int) -> None:
    whole, parts = divmod(micro_usd, 1_000_000)
    budget = f"{{name: a, period: day, limit_usd: {whole}.{parts:06d}}}"
    text = _SMALL + f"tenants: {{t: {{budgets: [{budget}], max_cost_per_request_usd: {whole}.{parts:06d}}}}}\n"
    tenant = compile_policy(text.encode(), "p.yaml", {}, date(2026, 11, 21)).snapshot.governance.of("t")
    assert tenant.budgets[0].limit_micro_usd == tenant.max_cost_per_request_micro_usd == micro_usd


_SMALL = """\
version: 1
providers: {local: {dialect: openai_chat, base_url: "http://127.0.0.1:8089/v1"}}
models: {small: {tier: light, context_window_tokens: 8000, max_output_tokens: 1000, capabilities: [], quality: 0.5,
    price: [{input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6}]}}
deployments: {one: {provider: local, model: small, model_name: s}}
"""
