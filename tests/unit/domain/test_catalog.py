from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import deployment, provider, snapshot
from kit.properties import examples
from pointsman_server.domain.catalog import Price, Rates, Secret
from pointsman_server.domain.reply import Usage

CHEAP = Rates(input=1_000_000, output=4_000_000, cached_input=100_000, cache_write_input=1_250_000)
DEAR = Rates(input=2_000_000, output=6_000_000, cached_input=200_000, cache_write_input=2_500_000)
FLAT = Price("test", None, ((0, CHEAP),))
STEPPED = Price("test", None, ((0, CHEAP), (200_000, DEAR)))

counts = st.integers(0, 3_000_000)


@st.composite
def usual_rates(draw: st.DrawFn, least: Rates) -> Rates:
    """As vendors price: cached input is cheaper than input, and writing the cache is dearer."""
    plain = draw(st.integers(least.input, least.input + 100_000_000))
    return Rates(
        input=plain,
        output=draw(st.integers(least.output, least.output + 100_000_000)),
        cached_input=draw(st.integers(min(least.cached_input, plain), plain)),
        cache_write_input=draw(st.integers(max(plain, least.cache_write_input), 2 * plain + least.cache_write_input)),
    )


@st.composite
def rising_prices(draw: st.DrawFn) -> Price:
    """One to three steps, each at least as dear as the one before."""
    steps: list[tuple[int, Rates]] = []
    least = Rates(0, 0, 0, 0)
    for above in (0, *sorted(draw(st.sets(st.integers(1, 2_000_000), max_size=2)))):
        least = draw(usual_rates(least))
        steps.append((above, least))
    return Price("test", None, tuple(steps), draw(st.integers(0, 10_000)))


usages = st.builds(
    Usage,
    input_tokens=counts,
    cached_input_tokens=counts,
    cache_write_input_tokens=counts,
    output_tokens=counts,
    billed_input_tokens=st.none() | counts,
    billed_output_tokens=st.none() | counts,
)


def plain(usage: Usage) -> Usage:
    """The same without the numbers that some vendors bill by."""
    return replace(usage, billed_input_tokens=None, billed_output_tokens=None)


class TestCost:
    def test_every_kind_of_token_has_its_rate(self) -> None:
        usage = Usage(input_tokens=1_000, cached_input_tokens=300, cache_write_input_tokens=200, output_tokens=50)
        assert FLAT.cost_micro_usd(usage) == 500 + 30 + 250 + 200

    @pytest.mark.parametrize(("rate", "tokens", "cost"), [(1, 1, 1), (1, 1_000_000, 1), (1, 1_000_001, 2), (1, 0, 0)])
    def test_a_fraction_of_a_micro_usd_is_rounded_up(self, rate: int, tokens: int, cost: int) -> None:
        price = Price("test", None, ((0, Rates(rate, 0, 0, 0)),))
        assert price.cost_micro_usd(Usage(input_tokens=tokens)) == cost

    def test_the_whole_is_rounded_once(self) -> None:
        price = Price("test", None, ((0, Rates(1, 1, 1, 1)),))
        usage = Usage(input_tokens=9, cached_input_tokens=3, cache_write_input_tokens=3, output_tokens=9)
        assert price.cost_micro_usd(usage) == 1

    @pytest.mark.parametrize(("tokens", "rate"), [(0, 1), (200_000, 1), (200_001, 2), (900_000, 2)])
    def test_the_last_step_that_is_passed_prices_the_whole_call(self, tokens: int, rate: int) -> None:
        assert STEPPED.rates_for(tokens) == (CHEAP, DEAR)[rate - 1]
        assert STEPPED.cost_micro_usd(Usage(input_tokens=tokens)) == tokens * rate

    def test_a_fee_for_each_request_comes_on_top(self) -> None:
        price = replace(FLAT, per_request_micro_usd=5_000)
        assert price.cost_micro_usd(Usage()) == 5_000
        assert price.cost_micro_usd(Usage(input_tokens=10)) == 5_010

    def test_unknown_counts_cost_nothing(self) -> None:
        assert FLAT.cost_micro_usd(Usage()) == 0

    def test_billed_counts_go_before_counted_ones(self) -> None:
        usage = Usage(input_tokens=500, output_tokens=80, billed_input_tokens=20, billed_output_tokens=8)
        assert FLAT.cost_micro_usd(usage) == 20 + 32
        assert FLAT.cost_micro_usd(replace(usage, billed_input_tokens=0, billed_output_tokens=0)) == 0

    def test_billed_input_does_not_choose_the_step(self) -> None:
        assert STEPPED.cost_micro_usd(Usage(input_tokens=300_000, billed_input_tokens=10)) == 20

    def test_cached_and_written_tokens_are_never_more_than_all_input(self) -> None:
        usage = Usage(input_tokens=100, cached_input_tokens=90, cache_write_input_tokens=90)
        clipped = Usage(input_tokens=100, cached_input_tokens=90, cache_write_input_tokens=10)
        assert FLAT.cost_micro_usd(usage) == FLAT.cost_micro_usd(clipped) == 9 + 13


class TestCostProperties:
    @examples(100)
    @given(rising_prices(), usages)
    def test_it_is_never_less_than_the_fee(self, price: Price, usage: Usage) -> None:
        assert price.cost_micro_usd(usage) >= price.per_request_micro_usd

    @examples(100)
    @given(rising_prices(), usages, st.integers(1, 1_000_000))
    def test_it_grows_with_output(self, price: Price, usage: Usage, more: int) -> None:
        longer = replace(usage, output_tokens=(usage.output_tokens or 0) + more)
        assert price.cost_micro_usd(longer) >= price.cost_micro_usd(usage)

    @examples(100)
    @given(rising_prices(), usages, st.integers(1, 1_000_000))
    def test_it_grows_with_input(self, price: Price, usage: Usage, more: int) -> None:
        longer = replace(usage, input_tokens=(usage.input_tokens or 0) + more)
        assert price.cost_micro_usd(longer) >= price.cost_micro_usd(usage)

    @examples(100)
    @given(rising_prices(), usages, st.integers(1, 1_000_000))
    def test_it_grows_with_what_is_written_to_the_cache(self, price: Price, usage: Usage, more: int) -> None:
        written = replace(usage, cache_write_input_tokens=usage.cache_write_input_tokens + more)
        assert price.cost_micro_usd(written) >= price.cost_micro_usd(usage)

    @examples(100)
    @given(rising_prices(), usages, st.integers(1, 1_000_000))
    def test_it_falls_with_what_comes_from_the_cache(self, price: Price, usage: Usage, more: int) -> None:
        cached = replace(usage, cached_input_tokens=usage.cached_input_tokens + more)
        assert price.cost_micro_usd(cached) <= price.cost_micro_usd(usage)

    @examples(100)
    @given(rising_prices(), usages, st.integers(1, 1_000_000))
    def test_it_grows_with_what_is_billed(self, price: Price, usage: Usage, more: int) -> None:
        usage = replace(usage, billed_input_tokens=usage.billed_input_tokens or 0, billed_output_tokens=0)
        for name in ("billed_input_tokens", "billed_output_tokens"):
            dearer = replace(usage, **{name: getattr(usage, name) + more})
            assert price.cost_micro_usd(dearer) >= price.cost_micro_usd(usage)

    @examples(100)
    @given(rising_prices(), usages)
    def test_it_is_the_exact_cost_rounded_up(self, price: Price, usage: Usage) -> None:
        usage = plain(usage)
        assert usage.input_tokens is not None
        assert usage.output_tokens is not None
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        written = min(usage.cache_write_input_tokens, usage.input_tokens - cached)
        step = [rates for above, rates in price.steps if above < usage.input_tokens or above == 0][-1]
        exact = (
            Fraction(usage.input_tokens - cached - written) * step.input
            + Fraction(cached) * step.cached_input
            + Fraction(written) * step.cache_write_input
            + Fraction(usage.output_tokens) * step.output
        ) / 1_000_000 + price.per_request_micro_usd
        assert exact <= price.cost_micro_usd(usage) < exact + 1

    @examples(100)
    @given(rising_prices(), counts, counts)
    def test_the_short_way_to_it_gives_the_same(self, price: Price, input_tokens: int, output_tokens: int) -> None:
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        assert price.tokens_cost_micro_usd(input_tokens, output_tokens) == price.cost_micro_usd(usage)


class TestSecret:
    def test_its_value_is_never_shown(self) -> None:
        secret = Secret("sk-planted-value", "env:SOME_KEY")
        owner = provider(api_key=secret)
        for shown in (repr(secret), str(secret), f"{secret!s}", repr(owner), repr(deployment("d", provider=owner))):
            assert "planted" not in shown
        assert "SOME_KEY" in repr(secret)
        assert secret.value == "sk-planted-value"

    def test_equality_looks_at_the_value(self) -> None:
        assert Secret("a", "env:K") != Secret("b", "env:K")


class TestProvider:
    def test_a_simulated_one_never_goes_by_another_name(self) -> None:
        assert provider("acme").label == "acme"
        assert provider("acme", simulated=True).label == "simulated"


class TestSnapshot:
    def test_it_resolves_ids_and_aliases(self) -> None:
        first, second = deployment("first"), deployment("second")
        policy = snapshot(first, second, aliases={"best": "second"})
        assert policy.resolve("first") is first
        assert policy.resolve("best") is second
        assert policy.resolve("nobody") is None
        assert policy.resolve("") is None
