"""Prices that the `genai-prices` package carries, compiled to whole micro-USD.

The package is imported at the first reference only, and its updater is never started: prices change with the
installed version, not while the server runs.

What a listed price is made of decides whether it can be used. Priced here: input, output, cached input, cache
writes, steps by input length, and a price per request. Ignored, because no call of ours causes them: audio and video
tokens (the contract carries neither) and one-hour cache writes (never asked for). Ignored with a warning where it
matters: searches, which are billed besides. Everything else that would be billed (image tokens at a rate of their
own, reasoning or citation tokens at a rate of their own, hours, pages, characters, times of day) makes the reference
unusable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from pointsman_server.config.problems import nearest, shown
from pointsman_server.config.section import UnacceptableError
from pointsman_server.domain.catalog import Price, Rates

if TYPE_CHECKING:
    from genai_prices import types

_MICRO = 1_000_000
_REQUESTS_PER_UNIT = 1_000
_MAX_REF_CHARACTERS = 200
_DATE_SUFFIX = re.compile(r"[-@]20[0-9]{2}-?[0-9]{2}-?[0-9]{2}$")
_PRICED = frozenset(["input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "requests_kcount"])
_SEARCHES = frozenset(["web_searches_kcount", "social_searches_kcount", "storage_searches_kcount"])
_IGNORED = _SEARCHES | {
    "cache_write_1h_mtok",
    "input_audio_mtok",
    "output_audio_mtok",
    "cache_audio_read_mtok",
    "cache_audio_write_mtok",
    "input_video_mtok",
    "output_video_mtok",
    "cache_video_read_mtok",
    "cache_video_write_mtok",
    "code_executions_kcount",
}


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A listed model: its price on the day asked for, its window (None when not listed), and what is billed besides.

    `searches_usd_per_thousand` is what a thousand web searches cost besides, None when the list names no such price.
    """

    price: Price
    context_window_tokens: int | None
    searches_usd_per_thousand: Decimal | None


class PriceList:
    """The listed prices as they stand on one day (UTC)."""

    def __init__(self, today: date) -> None:
        self._today = today

    @cached_property
    def _providers(self) -> dict[str, types.Provider]:
        from genai_prices.data import providers

        return {provider.id: provider for provider in providers}

    @cached_property
    def version(self) -> str:
        """The package and its version, as they stand in a price's own version."""
        from importlib.metadata import version

        return f"genai-prices {version('genai-prices')}"

    def find(self, ref: str) -> ListedPrice:
        """The listed model behind `provider_id/model_ref`; raises `UnacceptableError` when it cannot be used."""
        return self._find(ref, {}, _IGNORED)

    def find_embedding(self, ref: str) -> ListedPrice:
        """The same for a model that turns texts into vectors, and so has no output and is shown no images."""
        return self._find(ref, {"output_mtok": Decimal(0)}, _IGNORED | {"input_image_mtok"})

    def _find(self, ref: str, free: Mapping[str, Decimal], ignored: Set[str]) -> ListedPrice:
        model = self._model(ref)
        listed, valid_from = _valid_on(model, self._today)
        prices = {**free, **{key: value for key, value in vars(listed).items() if value is not None}}
        _check_dimensions(prices, ignored)
        per_request = _amount(prices.get("requests_kcount", Decimal(0)), 0) * _MICRO / _REQUESTS_PER_UNIT
        searches = prices.get("web_searches_kcount")
        return ListedPrice(
            price=Price(
                version=f"{self.version} {ref}",
                valid_from=valid_from,
                steps=tuple((start, _rates(prices, start)) for start in _step_starts(prices.values())),
                per_request_micro_usd=_whole(per_request),
            ),
            context_window_tokens=model.context_window,
            searches_usd_per_thousand=None if searches is None else _amount(searches, 0),
        )

    def _model(self, ref: str) -> types.ModelInfo:
        provider_id, _, model_ref = ref.partition("/")
        provider = self._providers.get(provider_id)
        if provider is None or not model_ref or len(ref) > _MAX_REF_CHARACTERS:
            raise UnacceptableError(
                f"names no listed provider: {shown(ref)}",
                f"Write `provider/model`. {nearest(provider_id, self._providers)}".strip(),
            )
        model = provider.find_model(model_ref)
        if model is None or not _names_exactly(model, model_ref.lower()):
            known = [f"{provider_id}/{name}" for listed in provider.models for name in sorted(_names(listed))]
            raise UnacceptableError(
                f"names no listed model: {shown(ref)}",
                nearest(ref, known) or f"See the models that genai-prices lists for '{provider_id}'.",
            )
        return model


def _names_exactly(model: types.ModelInfo, model_ref: str) -> bool:
    """Whether the reference is a name of the model, with or without a date.

    The list's own matching is by prefix, so that `claude-sonnet-4-55` would get the price of `claude-sonnet-4-5`.
    """
    names = _names(model)
    return model_ref in names or _DATE_SUFFIX.sub("", model_ref) in names


def _names(model: types.ModelInfo) -> set[str]:
    return {model.id.lower(), *(name.lower() for name in _equal_names(model.match))}


def _equal_names(match: types.MatchLogic) -> Iterator[str]:
    from genai_prices.types import ClauseEquals, ClauseOr

    if isinstance(match, ClauseEquals):
        yield match.equals
    elif isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _equal_names(clause)


def _valid_on(model: types.ModelInfo, today: date) -> tuple[types.ModelPrice, date | None]:
    """The price in force and the day it came into force, by the list's rule: the last entry that applies wins."""
    from genai_prices.types import ModelPrice, TimeOfDateConstraint

    if isinstance(model.prices, ModelPrice):
        return model.prices, None
    for entry in reversed(model.prices):
        if isinstance(entry.constraint, TimeOfDateConstraint):
            raise UnacceptableError("has a price that depends on the time of day", _WRITE_OUT)
        if entry.constraint is None or entry.constraint.start_date <= today:
            return entry.prices, entry.constraint.start_date if entry.constraint else None
    return model.prices[0].prices, None


_WRITE_OUT = "Write the price out instead of referring to it; take the highest that can apply."


def _check_dimensions(prices: Iterable[str], ignored: Set[str]) -> None:
    keys = set(prices)
    if missing := {"input_mtok", "output_mtok"} - keys:
        raise UnacceptableError(
            f"has no price for {'input' if 'input_mtok' in missing else 'output'} tokens",
            "Refer to a model that answers, or say `kind: embedding` if it makes vectors.",
        )
    if unknown := keys - _PRICED - ignored:
        raise UnacceptableError(f"bills what is not counted here: {', '.join(sorted(unknown))}", _WRITE_OUT)


def _step_starts(prices: Iterable[Decimal | types.TieredPrices]) -> list[int]:
    starts = {0}
    for price in prices:
        if not isinstance(price, Decimal):
            starts.update(tier.start for tier in price.tiers)
    return sorted(starts)


def _rates(prices: dict[str, Decimal | types.TieredPrices], start: int) -> Rates:
    """The rates of a call with more than `start` input tokens; what has no rate of its own is plain input."""
    plain = prices["input_mtok"]
    return Rates(
        input=_whole(_amount(plain, start) * _MICRO),
        output=_whole(_amount(prices["output_mtok"], start) * _MICRO),
        cached_input=_whole(_amount(prices.get("cache_read_mtok", plain), start) * _MICRO),
        cache_write_input=_whole(_amount(prices.get("cache_write_mtok", plain), start) * _MICRO),
    )


def _amount(price: Decimal | types.TieredPrices, start: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= start), price.base)


def _whole(micro_usd: Decimal) -> int:
    """The list holds a few amounts with the noise of binary fractions; they lie within 0.000001 USD per million."""
    return int(micro_usd.to_integral_value(ROUND_HALF_UP))
