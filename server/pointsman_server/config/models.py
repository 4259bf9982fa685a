"""Reads the models of a policy."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from pointsman_server.config.price_list import ListedPrice, PriceList
from pointsman_server.config.prices import NO_PRICE, ModelPrice, model_price
from pointsman_server.config.scalars import list_of, one_of, share, switch, whole_number
from pointsman_server.config.section import Keys, Section, Spot
from pointsman_server.config.yaml_tree import Table
from pointsman_server.domain.catalog import EmbeddingTraits, Model
from pointsman_server.domain.request import Capability, Tier
from pointsman_server.domain.tokenizer import Tokenizer

MAX_WINDOW_TOKENS = 100_000_000
TIERS = {tier.name.lower(): tier for tier in Tier}
TOKENIZERS = {tokenizer.value: tokenizer for tokenizer in Tokenizer}

MODEL_KEYS: Keys = {
    "kind": "kind: completion",
    "tier": "tier: standard",
    "context_window_tokens": "context_window_tokens: 200000",
    "max_output_tokens": "max_output_tokens: 64000",
    "capabilities": "capabilities: [tools, streaming]",
    "quality": "quality: 0.8",
    "price": 'price: {ref: "anthropic/claude-sonnet-4-5"}',
    "tokenizer": "tokenizer: llama",
}
EMBEDDING_MODEL_KEYS: Keys = {
    "kind": "kind: embedding",
    "context_window_tokens": "context_window_tokens: 8192",
    "dimensions": "dimensions: 1536",
    "variable_dimensions": "variable_dimensions: true",
    "max_inputs_per_call": "max_inputs_per_call: 96",
    "max_tokens_per_call": "max_tokens_per_call: 300000",
    "price": 'price: {ref: "openai/text-embedding-3-small"}',
    "tokenizer": "tokenizer: cl100k",
}
MAX_DIMENSIONS = 65_536
MAX_INPUTS_PER_CALL = 2_048

_KINDS = {"completion": False, "embedding": True}
_DEFAULT_TRAITS = EmbeddingTraits(dimensions=0)


def read_model(model_id: str, spot: Spot, price_list: PriceList, today: date) -> Model:
    """Compiles one model. A model has exactly the capabilities that are listed; of `kind: embedding`, none."""
    if _makes_vectors(spot):
        return _read_embedding_model(model_id, spot, price_list, today)
    section = Section(spot, MODEL_KEYS)
    capabilities = one_of({capability.value: capability for capability in Capability})
    priced = section.required("price", model_price(model_id, price_list, today), ModelPrice(NO_PRICE))
    model = Model(
        id=model_id,
        tier=section.required("tier", one_of(TIERS), Tier.STANDARD),
        context_window_tokens=section.required("context_window_tokens", whole_number(1, MAX_WINDOW_TOKENS), 0),
        max_output_tokens=section.required("max_output_tokens", whole_number(1, MAX_WINDOW_TOKENS), 0),
        capabilities=frozenset(section.required("capabilities", list_of(capabilities), ())),
        quality=section.required("quality", share, 0.0),
        price=priced.price,
        tokenizer=section.optional("tokenizer", one_of(TOKENIZERS), None),
    )
    _check_limits(section, model)
    if priced.listed:
        _warn_about_listing(section, model, priced.listed)
    return model


def _makes_vectors(spot: Spot) -> bool:
    """What `kind` says; what stands there is read before the other keys, for they depend on it."""
    kind = dict(spot.entries()).get("kind") if isinstance(spot.node, Table) else None
    return kind is not None and kind.read(one_of(_KINDS), False)


def _read_embedding_model(model_id: str, spot: Spot, price_list: PriceList, today: date) -> Model:
    section = Section(spot, EMBEDDING_MODEL_KEYS)
    tokens = whole_number(1, MAX_WINDOW_TOKENS)
    reader = model_price(model_id, price_list, today, prices_output=False)
    priced = section.required("price", reader, ModelPrice(NO_PRICE))
    model = Model(
        id=model_id,
        tier=Tier.LIGHT,
        context_window_tokens=section.required("context_window_tokens", tokens, 0),
        max_output_tokens=0,
        capabilities=frozenset(),
        quality=0.0,
        price=priced.price,
        tokenizer=section.optional("tokenizer", one_of(TOKENIZERS), None),
        embedding=EmbeddingTraits(
            dimensions=section.required("dimensions", whole_number(1, MAX_DIMENSIONS), 0),
            variable_dimensions=section.optional("variable_dimensions", switch, False),
            max_inputs_per_call=section.optional(
                "max_inputs_per_call", whole_number(1, MAX_INPUTS_PER_CALL), _DEFAULT_TRAITS.max_inputs_per_call
            ),
            max_tokens_per_call=section.optional("max_tokens_per_call", tokens, _DEFAULT_TRAITS.max_tokens_per_call),
        ),
    )
    if priced.listed:
        _warn_about_listing(section, model, priced.listed)
    return model


def _check_limits(section: Section, model: Model) -> None:
    limit = section.at("max_output_tokens")
    if limit and 0 < model.context_window_tokens < model.max_output_tokens:
        limit.refuse(
            f"is {model.max_output_tokens}, more than the context window of {model.context_window_tokens}",
            "The window holds input and output together; lower this or correct `context_window_tokens`.",
        )


def _warn_about_listing(section: Section, model: Model, listed: ListedPrice) -> None:
    window, listed_window = section.at("context_window_tokens"), listed.context_window_tokens
    if window and listed_window and model.context_window_tokens > listed_window:
        window.warn(
            f"is {model.context_window_tokens}, but the price list knows a window of {listed_window}",
            "Check the provider's documentation; prompts beyond the true window are refused there.",
        )
    searches = listed.searches_usd_per_thousand
    if searches and Capability.WEB_SEARCH in model.capabilities and not model.price.per_request_micro_usd:
        section.spot.warn(
            f"can search the web, which costs {searches} USD per 1000 searches besides and is not counted",
            f"Add for example `per_request_usd: {searches / Decimal(1000)}` beside `ref` to book one per call.",
        )
