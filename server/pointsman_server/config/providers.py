"""Reads the providers of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pointsman_server.config.base_url import BaseUrl, Reach, base_url
from pointsman_server.config.key_reference import KeyReading, KeyReference, key_reference, read_key
from pointsman_server.config.knowledge import KNOWLEDGE_KEYS, NOT_READ, read_knowledge
from pointsman_server.config.scalars import one_of, switch
from pointsman_server.config.section import Keys, Section, Spot
from pointsman_server.domain.catalog import Dialect, Provider, Secret

PROVIDER_KEYS: Keys = {
    "dialect": "dialect: anthropic_messages",
    "base_url": 'base_url: "https://api.anthropic.com"',
    "api_key": 'api_key: "${ANTHROPIC_API_KEY}"',
    "simulated": "simulated: false",
    "allow_private_network": "allow_private_network: false",
    **KNOWLEDGE_KEYS,
}

_VENDOR_ORIGINS = {
    Dialect.ANTHROPIC_MESSAGES: "https://api.anthropic.com",
    Dialect.GEMINI_GENERATE: "https://generativelanguage.googleapis.com",
    Dialect.OPENAI_CHAT: "https://api.openai.com",
    Dialect.OPENAI_RESPONSES: "https://api.openai.com",
    Dialect.COHERE_CHAT: "https://api.cohere.com",
}
_PATHS = {Dialect.OPENAI_CHAT: "/v1", Dialect.OPENAI_RESPONSES: "/v1"}
"""OpenAI-compatible vendors document their address with the version, the others without."""

_SIMULATOR_ORIGIN = "http://127.0.0.1:8089"


@dataclass(frozen=True, slots=True)
class _Vendor:
    """What the keys of a vendor begin with; () when that is not documented."""

    name: str
    key_prefixes: tuple[str, ...] = ()
    foreign_prefixes: tuple[str, ...] = ()


_VENDORS = {
    "api.anthropic.com": _Vendor("Anthropic", ("sk-ant-",)),
    "generativelanguage.googleapis.com": _Vendor("Gemini", ("AIza", "AQ.")),
    "api.openai.com": _Vendor("OpenAI", ("sk-",), foreign_prefixes=("sk-ant-",)),
    "api.perplexity.ai": _Vendor("Perplexity", ("pplx-",)),
    "api.cohere.com": _Vendor("Cohere"),
}


@dataclass(frozen=True, slots=True)
class ReadProvider:
    """A provider and what the policy says of it beyond that."""

    provider: Provider
    key_reference: str
    """As written, "" when the provider needs no key."""
    reach: Reach


def read_provider(provider_id: str, spot: Spot, environ: Mapping[str, str], *, read_files: bool = True) -> ReadProvider:
    """Compiles one provider. A missing or malformed key makes it unusable, not the policy wrong.

    Without `read_files` a knowledge base stays empty and its files need not be there.
    """
    section = Section(spot, PROVIDER_KEYS)
    dialect = section.required("dialect", one_of({dialect.value: dialect for dialect in Dialect}), Dialect.OPENAI_CHAT)
    if dialect is Dialect.LOCAL_KNOWLEDGE:
        return _knowledge_base(provider_id, section, read_files)
    _refuse_keys(section, KNOWLEDGE_KEYS, f"is for providers of dialect {Dialect.LOCAL_KNOWLEDGE.value} only")
    simulated = section.optional("simulated", switch, False)
    private = section.optional("allow_private_network", switch, False)
    address = section.optional(
        "base_url", base_url(allow_private_network=private), default_base_url(dialect, simulated)
    )
    reference = section.optional("api_key", key_reference, None)
    key = read_key(reference, environ) if reference else KeyReading()
    _warn_about_key(section, address, reference, key)
    provider = Provider(
        id=provider_id,
        dialect=dialect,
        base_url=address.url,
        api_key=Secret(key.value, str(reference)) if key.value else None,
        unusable_because=key.unusable_because,
        simulated=simulated,
    )
    return ReadProvider(provider, str(reference or ""), address.reach)


def _knowledge_base(provider_id: str, section: Section, read_files: bool) -> ReadProvider:
    foreign = PROVIDER_KEYS.keys() - KNOWLEDGE_KEYS.keys() - {"dialect"}
    _refuse_keys(section, sorted(foreign), "means nothing here: a knowledge base answers from this process")
    knowledge = read_knowledge(section) if read_files else NOT_READ
    provider = Provider(id=provider_id, dialect=Dialect.LOCAL_KNOWLEDGE, base_url="", knowledge=knowledge)
    return ReadProvider(provider, "", Reach.LOOPBACK)


def _refuse_keys(section: Section, keys: Iterable[str], message: str) -> None:
    for key in keys:
        if spot := section.at(key):
            spot.refuse(message, "Remove it.")


def default_base_url(dialect: Dialect, simulated: bool) -> BaseUrl:
    """Where a provider of this dialect is when the policy does not say: the vendor, or a simulator on this machine."""
    origin = _SIMULATOR_ORIGIN if simulated else _VENDOR_ORIGINS[dialect]
    host = origin.partition("://")[2].partition(":")[0]
    return BaseUrl(origin + _PATHS.get(dialect, ""), host, Reach.LOOPBACK if simulated else Reach.PUBLIC)


def _warn_about_key(section: Section, address: BaseUrl, reference: KeyReference | None, key: KeyReading) -> None:
    vendor = _VENDORS.get(address.host)
    if vendor is None:
        return
    if section.at("api_key") is None:
        section.spot.warn("has no `api_key`", f"{vendor.name} asks for one; add a reference to it.")
    elif reference and key.value and not _begins_like(vendor, key.value):
        message = f"refers to a key that does not begin as {vendor.name} keys do ({', '.join(vendor.key_prefixes)})"
        section.spot.warn(message, f"Check {reference.place}.")


def _begins_like(vendor: _Vendor, value: str) -> bool:
    if not vendor.key_prefixes:
        return True
    return value.startswith(vendor.key_prefixes) and not value.startswith(vendor.foreign_prefixes or "\0")
