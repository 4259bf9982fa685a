"""Reads the models of a policy."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from pointsman_server.config.price_list import ListedPrice, PriceList
from pointsman_server.config.prices import NO_PRICE, ModelPrice, model_price
from pointsman_server.config.scalars import list_of, one_of, share, whole_number
from pointsman_server.config.section import Keys, Section, Spot
from pointsman_server.domain.catalog import Model
from pointsman_server.domain.request import Capability, Tier
from pointsman_server.domain.tokenizer import Tokenizer

MAX_WINDOW_TOKENS = 100_000_000
TIERS = {tier.name.lower(): tier for tier in Tier}
TOKENIZERS = {tokenizer.value: tokenizer for tokenizer in Tokenizer}

MODEL_KEYS: Keys = {
    "tier": "tier: standard",
    "context_window_tokens": "context_window_tokens: 200000",
    "max_output_tokens": "max_output_tokens: 64000",
    "capabilities": "capabilities: [tools, streaming]",
    "quality": "quality: 0.8",
    "price": 'price: {ref: "anthropic/claude-sonnet-4-5"}',
    "tokenizer": "tokenizer: llama",
}


def read_model(model_id: str, spot: Spot, price_list: PriceList, today: date) -> Model:
    """Compiles one model. A model has exactly the capabilities that are listed."""
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
