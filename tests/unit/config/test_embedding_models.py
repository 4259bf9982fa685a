"""Models that make vectors, as the policy describes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.preflight import _tier_check
from pointsman_server.config.price_list import PriceList
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.section import UnacceptableError
from pointsman_server.domain.catalog import EmbeddingTraits
from pointsman_server.domain.request import Tier
from pointsman_server.domain.tokenizer import Tokenizer

Compile = Callable[..., LoadedPolicy]
VECTORS = """
  vectors: {kind: embedding, context_window_tokens: 8192, dimensions: 1536, variable_dimensions: true,
    max_inputs_per_call: 64, max_tokens_per_call: 300000, tokenizer: cl100k,
    price: {ref: "openai/text-embedding-3-small"}}
  plain: {kind: embedding, context_window_tokens: 512, dimensions: 384, price: [{input_usd_per_mtok: 0.01}]}
"""
PLACES = """
  vectors-one: {provider: local, model: vectors, model_name: v}
  vectors-two: {provider: local, model: vectors, model_name: w}
  plain-one: {provider: local, model: plain, model_name: p}
"""


@pytest.fixture
def compiled(compile_text: Compile, good_policy: str) -> Callable[..., LoadedPolicy]:
    def compile_(*changes: tuple[str, str], vectors: str = VECTORS, places: str = PLACES) -> LoadedPolicy:
        text = good_policy.replace("deployments:\n", f"deployments:{places}").replace("models:\n", f"models:{vectors}")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return compile_text(text)

    return compile_


def problems(error: PolicyError) -> str:
    return str(error)


def test_what_is_said_is_read(compiled: Compile) -> None:
    loaded = compiled(("routing: {", "routing: {embedding: vectors, "))
    snapshot = loaded.snapshot
    vectors, plain = snapshot.deployments["vectors-one"].model, snapshot.deployments["plain-one"].model
    assert vectors.embedding == EmbeddingTraits(1536, True, 64, 300_000)
    assert plain.embedding == EmbeddingTraits(384, False, 96, 0)
    assert (vectors.tokenizer, plain.tokenizer) == (Tokenizer.CL100K, None)
    assert (vectors.capabilities, vectors.max_output_tokens) == (frozenset(), 0)
    assert vectors.price.tokens_cost_micro_usd(1_000_000, 0) == 20_000
    assert plain.price.tokens_cost_micro_usd(1_000_000, 1_000_000) == 10_000
    assert set(snapshot.answering) == {"claude-direct", "small-local"}
    assert loaded.warnings == ()


def test_what_vectors_cost_does_not_move_the_dial(compiled: Compile, compile_text: Compile, good_policy: str) -> None:
    assert compiled().snapshot.cost_weights == compile_text(good_policy).snapshot.cost_weights
    assert compiled().snapshot.strongest.id == "claude-direct"


@pytest.mark.parametrize("name", ["vectors", "vectors-two", "search"])
def test_the_default_may_be_named_in_three_ways(compiled: Compile, name: str) -> None:
    snapshot = compiled(
        ("routing: {", f"routing: {{embedding: {name}, "), ("aliases: {", "aliases: {search: vectors-one, ")
    ).snapshot
    assert snapshot.embedding_model == "vectors"


def test_several_models_and_no_default_are_warned_about(compiled: Compile) -> None:
    (warning,) = compiled().warnings
    assert "does not say which of 2 embedding models" in str(warning)
    assert "embedding: plain" in warning.remedy
    one = compiled(places=PLACES.replace("  plain-one", "  plain-two").replace("model: plain,", "model: vectors,"))
    assert not any("which of" in str(warning) for warning in one.warnings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("dimensions: 384, ", ""), "models.plain.dimensions is missing"),
        (("dimensions: 384", "dimensions: 0"), "models.plain.dimensions"),
        (("dimensions: 384", "dimensions: 384, quality: 0.5"), "models.plain.quality is not a known key"),
        (("embedding, context_window_tokens: 512", "vector, context_window_tokens: 512"), "models.plain.kind"),
        (("max_inputs_per_call: 64", "max_inputs_per_call: 5000"), "models.vectors.max_inputs_per_call"),
        (("small-local, best]", "small-local, plain-one]"), "names plain-one, whose model only makes vectors"),
        (("routing: {", "routing: {embedding: claude, "), "there is no such embedding model"),
        (("plain-one: {provider: local", "plain-one: {provider: anthropic"), "anthropic_messages, which has none"),
        (('"openai/text-embedding-3-small"', '"openai/no-such"'), "models.vectors.price.ref"),
    ],
)  # fmt: skip
def test_mistakes_are_named(compiled: Compile, change: tuple[str, str], words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compiled(change)
    assert words in problems(caught.value)


def test_a_completion_says_so_or_nothing(compile_text: Compile, good_policy: str) -> None:
    said = good_policy.replace("small: {tier", "small: {kind: completion, tier")
    assert compile_text(said).snapshot.version == compile_text(good_policy).snapshot.version


def test_a_list_where_a_model_should_stand_is_one_problem(compile_text: Compile, good_policy: str) -> None:
    with pytest.raises(PolicyError) as caught:
        compile_text(good_policy.replace("models:\n", "models:\n  wrong: [kind, embedding]\n"))
    assert problems(caught.value).count("models.wrong is not a mapping") == 1


def test_a_policy_may_make_nothing_but_vectors(compile_text: Compile) -> None:
    snapshot = compile_text(
        "version: 1\nproviders:\n  local: {dialect: openai_chat, base_url: 'http://127.0.0.1:8089/v1'}\n"
        f"models:{VECTORS}deployments:{PLACES}"
    ).snapshot
    assert snapshot.answering == {}
    assert snapshot.cost_weights == ()


def test_preflight_does_not_take_vectors_for_a_tier(compiled: Compile) -> None:
    snapshot = compiled(("tier: light", "tier: standard"), ("tiers: {light", "tiers: {advanced")).snapshot
    assert "no deployment is of tier light" in _tier_check(snapshot, Tier.LIGHT).message


def test_the_price_list_knows_models_without_output() -> None:
    prices = PriceList(date(2026, 11, 21))
    for ref in ("openai/text-embedding-3-large", "cohere/embed-v4.0", "google/gemini-embedding-2"):
        assert prices.find_embedding(ref).price.tokens_cost_micro_usd(1_000_000, 5_000) > 0
        with pytest.raises(UnacceptableError, match="kind: embedding"):
            prices.find(ref)
