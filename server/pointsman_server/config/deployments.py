"""Reads the deployments of a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from pointsman_server.config.models import MAX_WINDOW_TOKENS
from pointsman_server.config.prices import NO_PRICE
from pointsman_server.config.problems import nearest, shown
from pointsman_server.config.scalars import (
    decimal_number,
    identifier,
    json_value,
    list_of,
    name,
    one_of,
    seconds,
    whole_number,
)
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Provider, Timeouts
from pointsman_server.domain.request import Capability, DataClass, ReasoningEffort, Tier
from pointsman_server.domain.tokenizer import Tokenizer

T = TypeVar("T")

DEPLOYMENT_KEYS: Keys = {
    "provider": "provider: anthropic",
    "model": "model: claude-sonnet",
    "model_name": "model_name: claude-sonnet-4-5",
    "data_class": "data_class: internal",
    "regions": "regions: [us]",
    "timeouts": "timeouts: {first_token_seconds: 10}",
    "expected_first_token_seconds": "expected_first_token_seconds: 1",
    "expected_tokens_per_second": "expected_tokens_per_second: 50",
    "reasoning_token_budgets": "reasoning_token_budgets: {low: 1024, medium: 4096, high: 16384}",
    "options": "options: {store: false}",
    "max_concurrent_calls": "max_concurrent_calls: 50",
}
TIMEOUT_KEYS: Keys = {
    "connect_seconds": "connect_seconds: 3",
    "first_token_seconds": "first_token_seconds: 10",
    "idle_seconds": "idle_seconds: 15",
    "total_seconds": "total_seconds: 120",
    "least_tokens_per_second": "least_tokens_per_second: 2",
}
REASONING_BUDGET_KEYS: Keys = {
    effort.value: f"{effort.value}: 4096" for effort in ReasoningEffort if effort is not ReasoningEffort.NONE
}

DATA_CLASSES = {data_class.name.lower(): data_class for data_class in DataClass}
_FOREIGN_OPTIONS = {
    "model": "Use the deployment's `model_name`.",
    "base_url": "Use the provider's `base_url`.",
    "api_key": "Use the provider's `api_key`.",
    **dict.fromkeys(("messages", "contents", "input", "texts", "requests", "stream"), "It is filled in from the call."),
    **dict.fromkeys(("headers", "extra_headers", "extra_query", "extra_body"), "Only body fields can be set."),
}
_DEFAULTS = Timeouts()


NO_MODEL_AT_ALL = Model(
    id="no-model",
    tier=Tier.LIGHT,
    context_window_tokens=MAX_WINDOW_TOKENS,
    max_output_tokens=1_000_000,
    capabilities=frozenset({Capability.STREAMING}),
    quality=0.05,
    price=replace(NO_PRICE, version="no model, no price"),
    tokenizer=Tokenizer.O200K,
)
"""What stands for the model where a knowledge base answers."""

_NO_PROVIDER = Provider(id="", dialect=Dialect.OPENAI_CHAT, base_url="")
_NO_MODEL = Model("", Tier.STANDARD, 0, 0, frozenset(), 0.0, NO_PRICE)


def one_defined(kind: str, defined: Mapping[str, T]) -> Callable[[Spot], T]:
    """A reader of references to something that the policy defines."""

    def read(spot: Spot) -> T:
        reference = spot.text()
        if reference not in defined:
            raise UnacceptableError(
                f"refers to {shown(reference)}, but there is no such {kind}",
                nearest(reference, defined) or f"Define it, or refer to a {kind} that is defined.",
            )
        return defined[reference]

    return read


def read_deployment(
    deployment_id: str, spot: Spot, providers: Mapping[str, Provider], models: Mapping[str, Model]
) -> Deployment:
    """Compiles one deployment of a provider and a model that the policy defines."""
    section = Section(spot, DEPLOYMENT_KEYS)
    provider = section.required("provider", one_defined("provider", providers), _NO_PROVIDER)
    if provider.dialect is Dialect.LOCAL_KNOWLEDGE:
        return _knowledge_deployment(deployment_id, provider, section)
    model = section.required("model", one_defined("model", models), _NO_MODEL)
    if model.embedding is not None and not provider.dialect.makes_vectors:
        _refuse_vectors(section, provider)
    speed = decimal_number(Decimal("0.1"), Decimal(1_000_000))
    return Deployment(
        id=deployment_id,
        provider=provider,
        model=model,
        model_name=section.required("model_name", name, ""),
        approved_data_class=section.optional("data_class", one_of(DATA_CLASSES), DataClass.PUBLIC),
        regions=frozenset(section.optional("regions", list_of(identifier), ())),
        timeouts=section.optional("timeouts", _timeouts, _DEFAULTS),
        expected_first_token_seconds=section.optional("expected_first_token_seconds", seconds(), 1.0),
        expected_tokens_per_second=float(section.optional("expected_tokens_per_second", speed, Decimal(50))),
        reasoning_token_budgets=section.optional("reasoning_token_budgets", _reasoning_budgets(model), {}),
        options=section.optional("options", _options, {}),
        max_concurrent_calls=section.optional("max_concurrent_calls", whole_number(0, 100_000), 0),
    )


def _refuse_vectors(section: Section, provider: Provider) -> None:
    if spot := section.at("model"):
        spot.refuse(
            f"makes vectors, and {shown(provider.id)} speaks {provider.dialect.value}, which has none",
            "Use a provider of another dialect.",
        )


def _knowledge_deployment(deployment_id: str, provider: Provider, section: Section) -> Deployment:
    for key in DEPLOYMENT_KEYS.keys() - {"provider", "max_concurrent_calls"}:
        if spot := section.at(key):
            spot.refuse("means nothing here: a knowledge base answers without a model", "Remove it.")
    return Deployment(
        id=deployment_id,
        provider=provider,
        model=NO_MODEL_AT_ALL,
        model_name="knowledge",
        approved_data_class=DataClass.RESTRICTED,
        expected_first_token_seconds=0.01,
        max_concurrent_calls=section.optional("max_concurrent_calls", whole_number(0, 100_000), 0),
    )


def _timeouts(spot: Spot) -> Timeouts:
    section = Section(spot, TIMEOUT_KEYS)
    return Timeouts(
        connect_seconds=section.optional("connect_seconds", seconds(), _DEFAULTS.connect_seconds),
        first_token_seconds=section.optional("first_token_seconds", seconds(), _DEFAULTS.first_token_seconds),
        idle_seconds=section.optional("idle_seconds", seconds(), _DEFAULTS.idle_seconds),
        total_seconds=section.optional("total_seconds", seconds(), _DEFAULTS.total_seconds),
        least_tokens_per_second=float(
            section.optional("least_tokens_per_second", decimal_number(Decimal(0), Decimal(10_000)), Decimal(0))
        ),
    )


def _reasoning_budgets(model: Model) -> Callable[[Spot], dict[str, int]]:
    """A reader of reasoning budgets; they come out of the output, so each must leave room for an answer."""
    highest = max(1, model.max_output_tokens - 1) if model.max_output_tokens else MAX_WINDOW_TOKENS

    def read(spot: Spot) -> dict[str, int]:
        section = Section(spot, REASONING_BUDGET_KEYS)
        given = [effort for effort in REASONING_BUDGET_KEYS if section.at(effort)]
        return {effort: section.required(effort, whole_number(1, highest), 0) for effort in given}

    return read


def _options(spot: Spot) -> dict[str, object]:
    options: dict[str, object] = {}
    for key, value in spot.entries():
        if key in _FOREIGN_OPTIONS:
            value.refuse("cannot be set as an option", _FOREIGN_OPTIONS[key])
        options[key] = value.read(json_value, None)
    return options
