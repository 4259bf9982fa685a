"""Prices that a policy writes out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.domain.catalog import Price, Rates
from pointsman_server.domain.reply import Usage

Compile = Callable[..., LoadedPolicy]
LIST = "price: [{input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6, above: [\n      {input_tokens: 4000, "
LIST += "input_usd_per_mtok: 0.3, output_usd_per_mtok: 1.2}]}]"

DATED = """price: [
      {input_usd_per_mtok: 3, output_usd_per_mtok: 4},
      {valid_from: 2026-06-01, input_usd_per_mtok: 2, output_usd_per_mtok: 3},
      {valid_from: 2026-01-01, input_usd_per_mtok: 1, output_usd_per_mtok: 2}]"""


@pytest.fixture
def price_of(good_policy: str, compile_text: Compile) -> Callable[..., Price]:
    def price(text: str, today: date = date(2026, 11, 21)) -> Price:
        assert LIST in good_policy
        policy = compile_text(good_policy.replace(LIST, text), today=today)
        return policy.snapshot.deployments["small-local"].model.price

    return price


@pytest.mark.parametrize(
    ("today", "input_rate", "valid_from"),
    [
        (date(2025, 12, 31), 3_000_000, None),
        (date(2026, 1, 1), 1_000_000, date(2026, 1, 1)),
        (date(2026, 5, 31), 1_000_000, date(2026, 1, 1)),
        (date(2026, 6, 1), 2_000_000, date(2026, 6, 1)),
        (date(2030, 1, 1), 2_000_000, date(2026, 6, 1)),
    ],
)
def test_latest_price_that_has_begun_is_in_force(
    today: date, input_rate: int, valid_from: date | None, price_of: Callable[..., Price]
) -> None:
    price = price_of(DATED, today)
    assert (price.steps[0][1].input, price.valid_from) == (input_rate, valid_from)


def test_amounts_are_exact(price_of: Callable[..., Price]) -> None:
    price = price_of(
        "price: [{input_usd_per_mtok: 0.1, output_usd_per_mtok: 1234.567891, cached_input_usd_per_mtok: 0.000001, "
        'cache_write_input_usd_per_mtok: "0.3", per_request_usd: 0.29}]'
    )
    assert price.steps == ((0, Rates(100_000, 1_234_567_891, 1, 300_000)),)
    assert price.per_request_micro_usd == 290_000


def test_steps_price_the_whole_call(price_of: Callable[..., Price]) -> None:
    price = price_of(LIST)
    assert price.cost_micro_usd(Usage(input_tokens=4000, output_tokens=0)) == 600
    assert price.cost_micro_usd(Usage(input_tokens=4001, output_tokens=0)) == 1201


def test_zero_has_to_be_written(price_of: Callable[..., Price]) -> None:
    price = price_of("price: [{input_usd_per_mtok: 0, output_usd_per_mtok: 0}]")
    assert price.cost_micro_usd(Usage(input_tokens=10**6, output_tokens=10**6)) == 0


def test_version_names_the_source(price_of: Callable[..., Price]) -> None:
    assert price_of(LIST).version == "policy small undated"
    assert price_of(DATED).version == "policy small 2026-06-01"
    surcharged = price_of('price: {ref: "openai/gpt-4o", per_request_usd: 0.005}')
    assert surcharged.version.endswith("openai/gpt-4o + 5000 micro-USD per request")
    assert surcharged.per_request_micro_usd == 5_000
