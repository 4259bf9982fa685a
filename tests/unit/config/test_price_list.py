"""The compiled prices cost what the price list itself would charge, to the micro-USD, or are refused."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal

import pytest
from genai_prices import calc_price
from genai_prices import types as listed
from genai_prices.data import providers

from pointsman_server.config.price_list import PriceList
from pointsman_server.config.section import UnacceptableError
from pointsman_server.domain.catalog import Rates
from pointsman_server.domain.reply import Usage

DAYS = (date(2025, 3, 1), date(2026, 3, 1), date(2026, 11, 21), date(2027, 1, 1))
VENDORS = ("anthropic", "google", "openai", "perplexity", "cohere", "mistral", "groq", "x-ai", "deepseek", "together")
INPUT_TOKENS = (0, 1, 999, 100_000, 100_001, 199_999, 200_000, 200_001, 272_001, 900_000)


def listed_models() -> list[tuple[str, listed.ModelInfo]]:
    return [(provider.id, model) for provider in providers for model in provider.models]


def usable(prices: PriceList, ref: str) -> bool:
    try:
        prices.find(ref)
    except UnacceptableError:
        return False
    return True


def usage_of(draw: random.Random) -> tuple[Usage, listed.Usage]:
    total = draw.choice(INPUT_TOKENS)
    cached = draw.randint(0, total)
    written = draw.randint(0, total - cached)
    output = draw.choice((0, 1, 1_000, 64_000))
    ours = Usage(input_tokens=total, cached_input_tokens=cached, cache_write_input_tokens=written, output_tokens=output)
    theirs = listed.Usage(
        input_tokens=total, cache_read_tokens=cached, cache_write_tokens=written, output_tokens=output
    )
    return ours, theirs


def charged_micro_usd(ref: str, usage: listed.Usage, day: date) -> int:
    provider_id, _, model_ref = ref.partition("/")
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    charge = calc_price(usage, model_ref, provider_id=provider_id, genai_request_timestamp=noon)
    return int((charge.total_price * 1_000_000).to_integral_value(ROUND_CEILING))


def test_costs_equal_those_of_the_list() -> None:
    draw = random.Random(20261121)
    compared = 0
    for day in DAYS:
        prices = PriceList(day)
        refs = [f"{vendor}/{model.id}" for vendor, model in listed_models() if vendor in VENDORS]
        refs = [ref for ref in refs if usable(prices, ref)]
        assert len(refs) > 150
        for ref in refs:
            ours, theirs = usage_of(draw)
            assert prices.find(ref).price.cost_micro_usd(ours) == charged_micro_usd(ref, theirs, day), (ref, ours, day)
            compared += 1
    assert compared > 600


def test_every_usable_price_is_within_a_micro_usd_of_the_list() -> None:
    """Also where the list holds the noise of binary fractions, which is rounded away."""
    draw = random.Random(7)
    day = date(2026, 11, 21)
    prices = PriceList(day)
    refs = [f"{provider_id}/{model.id}" for provider_id, model in listed_models()]
    refs = [ref for ref in refs if usable(prices, ref)]
    assert len(refs) > 1500
    for ref in refs:
        ours, theirs = usage_of(draw)
        difference = prices.find(ref).price.cost_micro_usd(ours) - charged_micro_usd(ref, theirs, day)
        assert abs(difference) <= 1, (ref, ours)


def test_steps_and_all_rates_are_taken_over() -> None:
    price = PriceList(date(2026, 11, 21)).find("anthropic/claude-sonnet-4-5").price
    assert price.steps == (
        (0, Rates(3_000_000, 15_000_000, 300_000, 3_750_000)),
        (200_000, Rates(6_000_000, 22_500_000, 600_000, 7_500_000)),
    )
    assert price.version.startswith("genai-prices ")
    assert price.version.endswith(" anthropic/claude-sonnet-4-5")


def test_price_per_request_is_taken_over() -> None:
    assert PriceList(date(2026, 11, 21)).find("perplexity/sonar-pro").price.per_request_micro_usd == 14_000


def test_the_day_decides() -> None:
    before = PriceList(date(2026, 11, 30)).find("google/gemini-4-argon").price
    after = PriceList(date(2026, 12, 1)).find("google/gemini-4-argon").price
    assert (before.valid_from, before.steps[0][1].output) == (None, 10_000_000)
    assert (after.valid_from, after.steps[0][1].output) == (date(2026, 12, 1), 20_000_000)


@pytest.mark.parametrize(
    ("ref", "model_id"),
    [
        ("anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic/Claude-Sonnet-4-5", "claude-sonnet-4-5"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("openai/gpt-6.1-sol-2026-09-29", "gpt-6.1-sol"),
        ("cohere/command-a-03-2025", "command-a"),
        ("perplexity/perplexity/sonar", "perplexity/sonar"),
        ("openrouter/google/gemini-2.5-pro", "google/gemini-2.5-pro"),
    ],
)
def test_names_aliases_and_dated_names_are_found(ref: str, model_id: str) -> None:
    vendor = ref.partition("/")[0]
    prices = PriceList(date(2026, 11, 21))
    assert prices.find(ref).price.steps == prices.find(f"{vendor}/{model_id}").price.steps


@pytest.mark.parametrize(
    "ref",
    [
        "anthropic/claude-sonnet-4-55",
        "anthropic/claude-sonnet-4-5-turbo",
        "google/gemini-3.8-flashy",
        "openai/gpt-6.1-sol-preview",
        "anthropic/",
        "anthropic",
        "/claude-sonnet-4-5",
        "nobody/claude-sonnet-4-5",
        "Anthropic/claude-sonnet-4-5",
        "anthropic/" + "x" * 1000,
    ],
)
def test_names_that_only_resemble_a_listed_one_are_refused(ref: str) -> None:
    with pytest.raises(UnacceptableError, match="names no listed"):
        PriceList(date(2026, 11, 21)).find(ref)


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("deepseek/deepseek-flash", "time of day"),
        ("openai/gpt-image-1.5", "input_image_mtok"),
        ("openai/whisper-1", "no price for input"),
        ("openai/text-embedding-3-large", "no price for output"),
        ("perplexity/sonar-deep-research", "output_citation_mtok, output_reasoning_mtok"),
    ],
)
def test_what_cannot_be_expressed_is_refused(ref: str, reason: str) -> None:
    with pytest.raises(UnacceptableError, match=reason):
        PriceList(date(2026, 11, 21)).find(ref)


def test_audio_is_ignored_because_no_call_carries_it() -> None:
    assert PriceList(date(2026, 11, 21)).find("google/gemini-2.5-flash").price.steps[0][1].input == 300_000


def test_searches_are_named() -> None:
    prices = PriceList(date(2026, 11, 21))
    assert prices.find("perplexity/perplexity/sonar").searches_usd_per_thousand == Decimal("2.5")
    assert prices.find("cohere/command-a").searches_usd_per_thousand is None


def test_list_is_not_imported_until_it_is_asked() -> None:
    code = (
        "import sys; from datetime import date\n"
        "import pointsman_server.config.preflight, pointsman_server.config.settings\n"
        "from pointsman_server.config.price_list import PriceList; PriceList(date(2026, 1, 1))\n"
        "sys.exit(any(name.startswith('genai_prices') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
