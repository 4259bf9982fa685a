"""Reads a model's price: written out with dates, or as a reference to the price list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

from pointsman_server.config.price_list import ListedPrice, PriceList
from pointsman_server.config.scalars import calendar_date, name, usd, whole_number
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.config.yaml_tree import Items, Table
from pointsman_server.domain.catalog import Price, Rates

PRICE_REF_KEYS: Keys = {
    "ref": 'ref: "anthropic/claude-sonnet-4-5"',
    "per_request_usd": "per_request_usd: 0.005",
}
RATE_KEYS: Keys = {
    "input_usd_per_mtok": "input_usd_per_mtok: 3",
    "output_usd_per_mtok": "output_usd_per_mtok: 15",
    "cached_input_usd_per_mtok": "cached_input_usd_per_mtok: 0.3",
    "cache_write_input_usd_per_mtok": "cache_write_input_usd_per_mtok: 3.75",
}
PRICE_KEYS: Keys = {
    "valid_from": "valid_from: 2026-01-01",
    **RATE_KEYS,
    "per_request_usd": "per_request_usd: 0",
    "above": "above: [{input_tokens: 200000, input_usd_per_mtok: 6, output_usd_per_mtok: 22.5}]",
}
ABOVE_KEYS: Keys = {"input_tokens": "input_tokens: 200000", **RATE_KEYS}

NO_PRICE = Price(version="", valid_from=None, steps=((0, Rates(0, 0, 0, 0)),))
"""Stands in for a price that could not be read; a policy that holds it is never handed out."""


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """The price of a model, with the list's entry when it came from there."""

    price: Price
    listed: ListedPrice | None = None


def model_price(
    model_id: str, price_list: PriceList, today: date, *, prices_output: bool = True
) -> Callable[[Spot], ModelPrice]:
    """A reader of a model's price as it stands on this day; not every model has an output that could be priced."""

    def read(spot: Spot) -> ModelPrice:
        if isinstance(spot.node, Items):
            return ModelPrice(_price_in_force(spot, model_id, today, prices_output=prices_output))
        if isinstance(spot.node, Table) and any(entry.key == "ref" for entry in spot.node.entries):
            return _referred_price(Section(spot, PRICE_REF_KEYS), price_list, prices_output=prices_output)
        raise UnacceptableError(
            "is neither a reference nor a list of prices",
            'Write `price: {ref: "provider/model"}` or `price: [{input_usd_per_mtok: 3, output_usd_per_mtok: 15}]`.',
        )

    return read


def _referred_price(section: Section, price_list: PriceList, *, prices_output: bool) -> ModelPrice:
    find = price_list.find if prices_output else price_list.find_embedding
    listed = section.required("ref", lambda spot: find(name(spot)), None)
    surcharge = section.optional("per_request_usd", usd, 0)
    if listed is None:
        return ModelPrice(NO_PRICE)
    if not surcharge:
        return ModelPrice(listed.price, listed)
    price = replace(
        listed.price,
        version=f"{listed.price.version} + {surcharge} micro-USD per request",
        per_request_micro_usd=listed.price.per_request_micro_usd + surcharge,
    )
    return ModelPrice(price, listed)


def _price_in_force(spot: Spot, model_id: str, today: date, *, prices_output: bool) -> Price:
    by_date: dict[date | None, Price] = {}
    is_whole = True
    for item in spot.items():
        problems_before = len(spot.findings.problems)
        price = _dated_price(Section(item, PRICE_KEYS), model_id, prices_output=prices_output)
        if len(spot.findings.problems) > problems_before:
            is_whole = False
        elif price.valid_from in by_date:
            item.refuse("begins on the same day as another price", "Give each price its own `valid_from`.")
        else:
            by_date[price.valid_from] = price
    begun = {day or date.min: price for day, price in by_date.items() if day is None or day <= today}
    if begun:
        return begun[max(begun)]
    if is_whole:
        message = f"has no entry that is valid on {today.isoformat()}"
        raise UnacceptableError(message, "Add a price without `valid_from`, or one from before.")
    return NO_PRICE


def _dated_price(section: Section, model_id: str, *, prices_output: bool) -> Price:
    valid_from = section.optional("valid_from", calendar_date, None)
    base = (0, _rates(section, prices_output=prices_output))
    above = section.optional("above", lambda spot: _steps_above(spot, prices_output=prices_output), ())
    return Price(
        version=f"policy {model_id} {valid_from or 'undated'}",
        valid_from=valid_from,
        steps=(base, *above),
        per_request_micro_usd=section.optional("per_request_usd", usd, 0),
    )


def _rates(section: Section, *, prices_output: bool) -> Rates:
    """Cached input and cache writes cost as much as plain input unless the policy says otherwise."""
    plain = section.required("input_usd_per_mtok", usd, 0)
    return Rates(
        input=plain,
        output=(section.required if prices_output else section.optional)("output_usd_per_mtok", usd, 0),
        cached_input=section.optional("cached_input_usd_per_mtok", usd, plain),
        cache_write_input=section.optional("cache_write_input_usd_per_mtok", usd, plain),
    )


def _steps_above(spot: Spot, *, prices_output: bool) -> tuple[tuple[int, Rates], ...]:
    steps: list[tuple[int, Rates]] = []
    for item in spot.items():
        section = Section(item, ABOVE_KEYS)
        start = section.required("input_tokens", whole_number(1, 100_000_000), None)
        rates = _rates(section, prices_output=prices_output)
        if start is None:
            continue
        if steps and start <= steps[-1][0]:
            item.refuse("does not rise", "List the steps by rising `input_tokens`.")
        steps.append((start, rates))
    return tuple(steps)
