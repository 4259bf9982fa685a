"""From the policy's providers to adapters: the only place that knows which class speaks which dialect.

The vendors' SDKs are imported only when a provider that needs them is configured: they cost a second and tens of
megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pointsman_server.adapters.providers.dialect import DialectAdapter, Endpoint, WireDialect
from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import Dialect, Provider, Snapshot
from pointsman_server.domain.ports import ProviderAdapter


def build_adapters(snapshot: Snapshot, wire: HttpWire) -> Mapping[str, ProviderAdapter]:
    """An adapter for every provider that can be called, by provider id."""
    usable = (provider for provider in snapshot.providers.values() if not provider.unusable_because)
    return {provider.id: _build_adapter(provider, wire) for provider in usable}


def _build_adapter(provider: Provider, wire: HttpWire) -> ProviderAdapter:
    dialect, endpoint = _BUILDERS[provider.dialect](provider)
    return DialectAdapter(dialect, endpoint, wire)


def _anthropic(provider: Provider) -> tuple[WireDialect, Endpoint]:
    from pointsman_server.adapters.providers.anthropic_endpoint import AnthropicEndpoint
    from pointsman_server.adapters.providers.anthropic_messages import AnthropicMessages

    return AnthropicMessages(), AnthropicEndpoint(provider)


def _gemini(provider: Provider) -> tuple[WireDialect, Endpoint]:
    from pointsman_server.adapters.providers.gemini_endpoint import GeminiEndpoint
    from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate

    return GeminiGenerate(), GeminiEndpoint(provider)


def _openai_chat(provider: Provider) -> tuple[WireDialect, Endpoint]:
    from pointsman_server.adapters.providers.openai_chat import OpenAiChat

    return OpenAiChat(), BearerEndpoint(provider)


def _openai_responses(provider: Provider) -> tuple[WireDialect, Endpoint]:
    from pointsman_server.adapters.providers.openai_responses import OpenAiResponses

    return OpenAiResponses(), BearerEndpoint(provider)


def _cohere(provider: Provider) -> tuple[WireDialect, Endpoint]:
    from pointsman_server.adapters.providers.cohere_chat import CohereChat

    return CohereChat(), BearerEndpoint(provider)


_BUILDERS: Mapping[Dialect, Callable[[Provider], tuple[WireDialect, Endpoint]]] = {
    Dialect.ANTHROPIC_MESSAGES: _anthropic,
    Dialect.GEMINI_GENERATE: _gemini,
    Dialect.OPENAI_CHAT: _openai_chat,
    Dialect.OPENAI_RESPONSES: _openai_responses,
    Dialect.COHERE_CHAT: _cohere,
}
