"""docs/policy.md names every key of the schema with its true default, and its example does what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from kit.catalog import circumstances, judged
from pointsman_server.config import (
    alerts,
    caching,
    confidence,
    context,
    deployments,
    models,
    policy_file,
    prices,
    providers,
    resilience,
    routes,
    routing,
    safety,
    templates,
    tenants,
    traces,
)
from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.decision.engine import decide
from pointsman_server.domain.cache import CachePolicy
from pointsman_server.domain.caller import Role
from pointsman_server.domain.catalog import Dialect, FreshFacts
from pointsman_server.domain.governance import Governance, Period, RateLimit, WhenCountersFail
from pointsman_server.domain.plan import ExclusionReason, RoutePlan, TaskType
from pointsman_server.domain.reply import Usage
from pointsman_server.domain.request import Capability, DataClass, Tier
from pointsman_server.domain.resilience import Resilience
from pointsman_server.domain.trace_policy import TracePolicy

Compile = Callable[..., LoadedPolicy]
DOCS = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
SECTIONS = {
    "The file": policy_file.POLICY_KEYS,
    "providers.ID": providers.PROVIDER_KEYS,
    "models.ID": models.MODEL_KEYS,
    "models.ID of kind embedding": models.EMBEDDING_MODEL_KEYS,
    "models.ID.price as a reference": prices.PRICE_REF_KEYS,
    "models.ID.price written out": prices.PRICE_KEYS,
    "models.ID.price written out, above": prices.ABOVE_KEYS,
    "deployments.ID": deployments.DEPLOYMENT_KEYS,
    "deployments.ID.timeouts": deployments.TIMEOUT_KEYS,
    "deployments.ID.reasoning_token_budgets": deployments.REASONING_BUDGET_KEYS,
    "tiers": routes.TIERS_KEYS,
    "tiers.TIER": routes.TIER_KEYS,
    "resilience": resilience.RESILIENCE_KEYS,
    "resilience.retries": resilience.RETRY_KEYS,
    "resilience.breaker": resilience.BREAKER_KEYS,
    "resilience.hedging": resilience.HEDGING_KEYS,
    "resilience.load": resilience.LOAD_KEYS,
    "context": context.CONTEXT_KEYS,
    "safety": safety.SAFETY_KEYS,
    "safety.sensitive_data": safety.SENSITIVE_KEYS,
    "safety.injection": safety.INJECTION_KEYS,
    "cache": caching.CACHE_KEYS,
    "cache.tenants.ID": caching.TENANT_CACHE_KEYS,
    "confidence": confidence.CONFIDENCE_KEYS,
    "traces": traces.TRACE_KEYS,
    "tenants.ID": tenants.TENANT_KEYS,
    "tenants.ID.end_users": tenants.LIMIT_KEYS,
    "tenants.ID.budgets": tenants.BUDGET_KEYS,
    "identities.NAME": tenants.IDENTITY_KEYS,
    "peers": tenants.LIMIT_KEYS,
    "alerts": alerts.ALERT_KEYS,
    "alerts.webhook": alerts.WEBHOOK_KEYS,
    "templates.NAME": templates.TEMPLATE_KEYS,
    "templates.NAME.versions.N": templates.VERSION_KEYS,
    "templates.NAME.versions.N.variables.NAME": templates.VARIABLE_KEYS,
    "templates.NAME.versions.N.generation": templates.GENERATION_KEYS,
    "routing": routing.ROUTING_KEYS,
    "routing.rules": routing.RULE_KEYS,
    "routing.rules, when": routing.CONDITION_KEYS,
}
EXAMPLE, RULES, TENANTS = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


def rows(section: str) -> dict[str, str]:
    """Key to default, from the table of a section."""
    text = re.split(r"^#{2,3} ", DOCS.split(f"### {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]*?) \|", text, re.MULTILINE))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_and_no_other(section: str) -> None:
    assert list(rows(section)) == list(SECTIONS[section])


def test_every_section_with_a_table_is_compared() -> None:
    headings = re.findall(r"^### (.+)$", DOCS, re.MULTILINE)
    assert {heading for heading in headings if rows(heading)} == set(SECTIONS)


def test_every_word_of_the_closed_sets_is_documented() -> None:
    words = [*Dialect, *Capability, *FreshFacts, *TaskType, *Role, *Period, *WhenCountersFail]
    for word in (*(word.value for word in words), *(word.name.lower() for word in (*DataClass, *Tier))):
        assert f"`{word}`" in DOCS


def test_example_compiles_without_warnings(compile_text: Compile) -> None:
    assert compile_text(EXAMPLE, {"ANTHROPIC_API_KEY": "sk-ant-key-1"}).warnings == ()


def test_example_does_what_the_text_says(compile_text: Compile) -> None:
    snapshot = compile_text(EXAMPLE).snapshot
    sonnet, house = snapshot.deployments["sonnet"], snapshot.deployments["llama-house"]
    assert snapshot.tier_chains[Tier.LIGHT] == ("llama-house", "sonnet")
    assert house.approved_data_class is DataClass.RESTRICTED
    assert sonnet.approved_data_class < DataClass.RESTRICTED
    assert sonnet.model.price.cost_micro_usd(Usage(input_tokens=1000, output_tokens=500)) == 10_500
    assert len(sonnet.model.price.steps) == 2
    assert sonnet.provider.unusable_because == "environment variable ANTHROPIC_API_KEY is not set"
    assert snapshot.resolve("default") is sonnet


def test_documented_defaults_are_true(compile_text: Compile) -> None:
    bare = EXAMPLE[: EXAMPLE.index("aliases:")].replace(
        "    timeouts: {first_token_seconds: 20, total_seconds: 180}\n", ""
    )
    bare = bare.replace("    data_class: internal\n    regions: [us]\n", "")
    snapshot = compile_text(bare).snapshot
    sonnet = snapshot.deployments["sonnet"]
    assert rows("routing") == {
        "quality_bias": f"`{snapshot.quality_bias:g}`",
        "default_max_output_tokens": f"`{snapshot.default_max_output_tokens}`",
        "fresh_facts": f"`{snapshot.fresh_facts.value}`",
        "first_token_weight": f"`{snapshot.first_token_weight:g}`",
        "learn_from_feedback": f"`{str(snapshot.learn_from_feedback).lower()}`",
        "second_look": f"`{str(snapshot.second_look).lower()}`",
        "calibration": "none",
        "embedding": "the cheapest",
        "rules": "none",
    }
    for key, default in rows("deployments.ID.timeouts").items():
        assert default == f"`{getattr(sonnet.timeouts, key):g}`"
    assert rows("deployments.ID")["data_class"] == f"`{sonnet.approved_data_class.name.lower()}`"
    for key in ("expected_first_token_seconds", "expected_tokens_per_second"):
        assert rows("deployments.ID")[key] == f"`{getattr(sonnet, key):g}`"


def test_documented_defaults_of_resilience_are_true() -> None:
    defaults = Resilience()
    for name in ("retries", "breaker", "hedging", "load"):
        for key, default in rows(f"resilience.{name}").items():
            if default not in ("required", "none"):
                assert default == f"`{getattr(getattr(defaults, name), key):g}`", key
    assert defaults.hedging.quantile is None
    assert defaults.load.critical_labels == ()


def test_documented_defaults_of_the_cache_are_true() -> None:
    usual = CachePolicy()
    for key, default in rows("cache").items():
        if key != "tenants":
            value = getattr(usual, key)
            shown = value.value if isinstance(value, Enum) else str(value).lower().removesuffix(".0")
            assert default == f"`{shown}`", key


def test_documented_defaults_of_traces_are_true() -> None:
    usual = TracePolicy()
    assert rows("traces") == {
        "mode": f"`{usual.mode.value}`",
        "sample": f"`{usual.sample:g}`",
        "retention_days": f"`{usual.retention_days}`",
        "most_text_characters": f"`{usual.most_text_characters}`",
    }


def test_example_of_rules_does_what_the_text_says(compile_text: Compile) -> None:
    """The rules stand alone in the text; here they get the policy that they are about."""
    names = {"sonnet": "sonnet", "house": "llama-house"}
    text = RULES
    for name, real in names.items():
        text = text.replace(f"[{name}]", f"[{real}]")
    snapshot = compile_text(EXAMPLE[: EXAMPLE.index("routing:")] + text).snapshot

    def decided(**asked: Any) -> RoutePlan:
        return decide(circumstances(**asked), snapshot)

    assert [rule.name for rule in snapshot.rules] == ["research", "drafts", "confidential"]
    research = decided(complexity=judged(Tier.LIGHT), labels={"agent": "analyst"})
    assert (research.applied_rules, research.quality_bias) == (("research",), 1.0)
    drafts = decided(complexity=judged(Tier.ADVANCED, task=TaskType.WRITING))
    assert drafts.candidates[0].deployment.id == "llama-house"
    private = decided(labels={"project": "merger", "agent": "research"})
    assert [one.deployment.id for one in private.candidates] == ["llama-house"]


def test_documented_defaults_of_tenants_are_true(compile_text: Compile) -> None:
    governance = compile_text(f"{EXAMPLE}tenants: {{shop: {{}}}}\n").snapshot.governance
    end_users, peers = governance.of("shop").end_user_limit, governance.peer_limit
    assert rows("tenants.ID.end_users")["requests_per_minute"] == f"`{end_users.requests_per_minute}`"
    assert rows("peers")["requests_per_minute"] == f"`{peers.requests_per_minute}`"
    assert (end_users.tokens_per_minute, peers.tokens_per_minute) == (None, None)
    assert governance.of("shop").limit == RateLimit()
    assert rows("tenants.ID")["suspended"] == f"`{str(governance.of('shop').suspended).lower()}`"
    assert rows("The file")["unlisted_tenants"] == "`accept`"
    assert not governance.only_listed
    assert rows("The file")["when_counters_fail"] == f"`{governance.when_counters_fail.value}`"
    assert compile_text(EXAMPLE).snapshot.governance == Governance()


def test_example_of_tenants_does_what_the_text_says(compile_text: Compile) -> None:
    loaded = compile_text(EXAMPLE + TENANTS)
    assert loaded.warnings == ()
    governance = loaded.snapshot.governance
    shop, clinic, other = (governance.of(name) for name in ("shop", "clinic", "other"))
    assert [(one.period, one.limit_micro_usd) for one in shop.budgets] == [
        (Period.MONTH, 250_000_000),
        (Period.DAY, 5_000_000),
    ]
    assert shop.max_cost_per_request_micro_usd == 50_000
    assert clinic.end_user_limit == RateLimit()
    for tenant in (clinic, other):
        assert tenant.limit.requests_per_minute == 60
        assert [one.limit_micro_usd for one in tenant.budgets] == [1_000_000]
    plan = decide(replace(circumstances(), tenant="shop"), loaded.snapshot)
    assert [one.deployment.id for one in plan.candidates] == ["llama-house"]
    assert plan.rejections == ()
    plan = decide(replace(circumstances(), tenant="clinic"), loaded.snapshot)
    assert [(one.deployment_id, one.reason) for one in plan.rejections] == [("sonnet", ExclusionReason.DATA_CLASS)]


@pytest.mark.parametrize("section", ["The file", "models.ID", "deployments.ID"])
def test_keys_without_default_must_be_given(section: str, compile_text: Compile) -> None:
    block = {"The file": "", "models.ID": "models:\n  m: {}\n", "deployments.ID": "deployments:\n  d: {}\n"}[section]
    prefix = {"The file": "", "models.ID": "models.m.", "deployments.ID": "deployments.d."}[section]
    with pytest.raises(PolicyError) as caught:
        compile_text(block or "aliases: {}\n")
    missing = {problem.path_in_file for problem in caught.value.problems if problem.message == "is missing"}
    required = {prefix + key for key, default in rows(section).items() if default == "required"}
    assert required == {path for path in missing if path.startswith(prefix) and path.count(".") == prefix.count(".")}


def test_shown_errors_are_real_ones(compile_text: Compile) -> None:
    broken = EXAMPLE.replace("context_window_tokens", "context_windw_tokens", 1)
    broken = broken.replace("provider: anthropic", "provider: antropic")
    with pytest.raises(PolicyError) as caught:
        compile_text(broken)
    told = {str(problem).partition(": ")[2] for problem in caught.value.problems}
    shown = [line.partition(": ")[2] for line in DOCS.splitlines() if line.startswith("pointsman.yaml:")]
    assert len(shown) == 2
    assert set(shown) <= told
