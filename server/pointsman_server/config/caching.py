"""Reads how the policy uses the cache."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pointsman_server.config.problems import shown
from pointsman_server.config.scalars import one_of, refuse_bad_id, seconds, share, switch, whole_number
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.domain.cache import CachePolicy, Caching, QuestionEmbedder
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.governance import Governance
from pointsman_server.domain.request import CacheMode

TENANT_CACHE_KEYS: Keys = {
    "mode": "mode: read_write",
    "allow_requests": "allow_requests: true",
    "ttl_seconds": "ttl_seconds: 3600",
    "semantic": "semantic: true",
    "min_similarity": "min_similarity: 0.95",
    "entries_per_tenant": "entries_per_tenant: 100",
    "largest_answer_bytes": "largest_answer_bytes: 65536",
    "per_end_user": "per_end_user: false",
    "embedder": "embedder: local",
}
CACHE_KEYS: Keys = {**TENANT_CACHE_KEYS, "tenants": "tenants: {shop: {mode: read_write}}"}

MOST_ENTRIES = 10_000
_LEAST_ANSWER_BYTES, _MOST_ANSWER_BYTES = 1_000, 1_000_000
_LONGEST_SECONDS = Decimal(7 * 86_400)
_RISKY_SIMILARITY = 0.8
_MODES: Mapping[str, CacheMode] = {
    mode.value: mode for mode in (CacheMode.OFF, CacheMode.READ_WRITE, CacheMode.READ_ONLY)
}


def read_caching(spot: Spot, deployments: Mapping[str, Deployment]) -> Caching:
    """The section as a whole."""
    has_model = any(one.model.embedding is not None for one in deployments.values())
    section = Section(spot, CACHE_KEYS)
    usual = _policy(section, CachePolicy(), has_model)
    return Caching(usual, section.optional("tenants", lambda one: _tenants(one, usual, has_model), {}))


def warn_about_strangers(spot: Spot, caching: Caching, governance: Governance) -> None:
    """Notes tenants that the policy refuses."""
    if governance.only_listed:
        for name in caching.tenants.keys() - governance.tenants.keys():
            spot.warn(f"names {shown(name)}, which `tenants` does not list and is refused", "List it, or remove it.")


def _tenants(spot: Spot, usual: CachePolicy, has_model: bool) -> dict[str, CachePolicy]:
    tenants: dict[str, CachePolicy] = {}
    for name, value in spot.entries():
        refuse_bad_id(value, name)
        tenants[name] = value.read(lambda one: _policy(Section(one, TENANT_CACHE_KEYS), usual, has_model), usual)
    return dict(sorted(tenants.items()))


def _policy(section: Section, default: CachePolicy, has_model: bool) -> CachePolicy:
    ttl = seconds(highest=_LONGEST_SECONDS)
    size = whole_number(_LEAST_ANSWER_BYTES, _MOST_ANSWER_BYTES)
    return CachePolicy(
        mode=section.optional("mode", one_of(_MODES), default.mode),
        allow_requests=section.optional("allow_requests", switch, default.allow_requests),
        ttl_seconds=section.optional("ttl_seconds", ttl, default.ttl_seconds),
        semantic=section.optional("semantic", switch, default.semantic),
        min_similarity=section.optional("min_similarity", _similarity, default.min_similarity),
        entries_per_tenant=section.optional(
            "entries_per_tenant", whole_number(1, MOST_ENTRIES), default.entries_per_tenant
        ),
        largest_answer_bytes=section.optional("largest_answer_bytes", size, default.largest_answer_bytes),
        per_end_user=section.optional("per_end_user", switch, default.per_end_user),
        embedder=section.optional("embedder", lambda one: _embedder(one, has_model), default.embedder),
    )


def _embedder(spot: Spot, has_model: bool) -> QuestionEmbedder:
    embedder = one_of({one.value: one for one in QuestionEmbedder})(spot)
    if embedder is QuestionEmbedder.SERVICE and not has_model:
        raise UnacceptableError("needs a model that makes vectors", "Define one with `embedding`, or write `local`.")
    return embedder


def _similarity(spot: Spot) -> float:
    value = share(spot)
    if value < _RISKY_SIMILARITY:
        spot.warn(f"is {value}: questions that differ will get one answer", "Write 0.95 unless you measured another.")
    return value
