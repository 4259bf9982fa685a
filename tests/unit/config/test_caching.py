"""The policy's cache section: what it compiles to, and every mistake in it told where it stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.cache import CachePolicy, Caching, QuestionEmbedder
from pointsman_server.domain.request import CacheMode

Compile = Callable[..., LoadedPolicy]
WHOLE = """\
cache:
  mode: read_write
  allow_requests: false
  ttl_seconds: 60
  semantic: false
  min_similarity: 0.9
  entries_per_tenant: 50
  largest_answer_bytes: 2000
  per_end_user: true
  tenants:
    shop: {mode: read_only, entries_per_tenant: 500}
    bank: {mode: "off"}
"""
USUAL = CachePolicy(CacheMode.READ_WRITE, False, 60.0, False, 0.9, 50, 2_000, True)


@pytest.fixture
def load(good_policy: str, compile_text: Compile) -> Callable[[str], LoadedPolicy]:
    """The policy with this section."""
    return lambda section: compile_text(good_policy + section)


Load = Callable[[str], LoadedPolicy]


def test_everything_is_taken_over(load: Load) -> None:
    caching = load(WHOLE).snapshot.caching
    assert caching.usual == caching.of("anybody") == USUAL
    assert caching.of("shop") == CachePolicy(CacheMode.READ_ONLY, False, 60.0, False, 0.9, 500, 2_000, True)
    assert caching.of("bank").mode is CacheMode.OFF


def test_vectors_by_a_model_need_one_that_makes_them(load: Load, good_policy: str, compile_text: Compile) -> None:
    with pytest.raises(PolicyError, match="needs a model that makes vectors") as caught:
        load("cache: {tenants: {shop: {embedder: service}}}\n")
    assert "cache.tenants.shop.embedder" in str(caught.value)
    model = '  v: {kind: embedding, dimensions: 8, context_window_tokens: 100, price: [{input_usd_per_mtok: "1"}]}\n'
    text = good_policy.replace("models:\n", "models:\n" + model)
    text = text.replace("deployments:\n", "deployments:\n  v: {provider: local, model: v, model_name: v}\n")
    section = "cache: {embedder: service, tenants: {shop: {embedder: local}}}\n"
    caching = compile_text(text + section).snapshot.caching
    assert caching.usual.embedder is QuestionEmbedder.SERVICE
    assert caching.of("shop").embedder is QuestionEmbedder.LOCAL


@pytest.mark.parametrize("section", ["", "cache: {}\n", "cache: {tenants: {}}\n"])
def test_what_is_left_out_has_its_default(load: Load, section: str) -> None:
    assert load(section).snapshot.caching == Caching()
    assert load(section).snapshot.caching.of("t") == CachePolicy()


def test_it_is_part_of_the_policys_version(load: Load) -> None:
    assert load("cache: {min_similarity: 0.96}\n").snapshot.version != load("").snapshot.version


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{mode: refresh}", "cache.mode is not a known word"),
        ("{mode: [off]}", "cache.mode is a list"),
        ("{ttl_seconds: 0}", "cache.ttl_seconds is 0"),
        ("{ttl_seconds: 604801}", "cache.ttl_seconds is 604801"),
        ("{min_similarity: 1.1}", "cache.min_similarity is 1.1"),
        ("{entries_per_tenant: 0}", "cache.entries_per_tenant is 0"),
        ("{largest_answer_bytes: 10}", "cache.largest_answer_bytes is 10"),
        ("{semantic: yes}", "cache.semantic is neither true nor false"),
        ("{tenants: {SHOP: {}}}", "cache.tenants.SHOP is not an id"),
        ("{tenants: {shop: {mdoe: off}}}", "cache.tenants.shop.mdoe is not a known key"),
        ("{tenants: {shop: {tenants: {}}}}", "cache.tenants.shop.tenants is not a known key"),
        ("[]", "cache is not a mapping"),
    ],
)
def test_mistakes(load: Load, text: str, place: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(f"cache: {text}\n")
    assert place in str(caught.value)


def test_probable_mistakes(load: Load) -> None:
    found = load("cache: {min_similarity: 0.5, tenants: {shop: {}}}\nunlisted_tenants: refuse\ntenants: {bank: {}}\n")
    told = [str(one) for one in found.warnings]
    assert any("cache.min_similarity is 0.5" in one for one in told)
    assert any("cache names 'shop', which `tenants` does not list" in one for one in told)
