"""From the policies' providers to adapters: the only place that knows which class speaks which dialect.

The vendors' SDKs are imported only when a provider that needs them is configured: they cost a second and tens of
megabytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence, Set

from pointsman_server.adapters.providers.cohere_embeddings import CohereEmbeddings
from pointsman_server.adapters.providers.dialect import DialectAdapter, Endpoint, WireDialect
from pointsman_server.adapters.providers.embedding_exchange import EmbeddingAdapter, EmbeddingDialect
from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.adapters.providers.gemini_embeddings import GeminiEmbeddings
from pointsman_server.adapters.providers.openai_embeddings import OpenAiEmbeddings
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import Dialect, Provider, Snapshot
from pointsman_server.domain.knowledge import Knowledge
from pointsman_server.domain.ports import ProviderAdapter, ProviderCall
from pointsman_server.domain.reply import ReplyEvent


class AdapterBook(Mapping[str, ProviderAdapter]):
    """The adapters of all policies under which calls run, as one mapping by provider id.

    Two policies may mean different accounts or hosts by the same id. So what stands under an id is the book itself,
    which finds the adapter by all that the called deployment's provider is.
    """

    def __init__(self, wire: HttpWire) -> None:
        self._wire = wire
        self._adapters: dict[Provider, ProviderAdapter] = {}
        self._ids: frozenset[str] = frozenset()

    def add(self, snapshot: Snapshot) -> None:
        """Makes the adapters that calls under this policy need; imports SDKs, so it belongs off the event loop."""
        for provider in snapshot.providers.values():
            if not provider.unusable_because and provider not in self._adapters:
                self._adapters[provider] = _build_adapter(provider, self._wire)
        self._count_ids()

    async def keep_only(self, snapshots: Iterable[Snapshot]) -> None:
        """Closes the adapters that none of these needs."""
        needed = {provider for snapshot in snapshots for provider in snapshot.providers.values()}
        for provider in [one for one in self._adapters if one not in needed]:
            adapter = self._adapters.pop(provider)
            self._count_ids()
            await adapter.close()

    def exchange(self, call: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """See `ProviderAdapter.exchange`."""
        return self.adapter_of(call.deployment.provider).exchange(call)

    async def close(self) -> None:
        """Closes all."""
        await self.keep_only(())

    @property
    def providers(self) -> Set[Provider]:
        """Those that have an adapter."""
        return self._adapters.keys()

    def adapter_of(self, provider: Provider) -> ProviderAdapter:
        """What speaks with this provider; raises `KeyError` where there is nothing."""
        return self._adapters[provider]

    def __getitem__(self, provider_id: str) -> ProviderAdapter:
        if provider_id not in self._ids:
            raise KeyError(provider_id)
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def _count_ids(self) -> None:
        self._ids = frozenset(provider.id for provider in self._adapters)


def _build_adapter(provider: Provider, wire: HttpWire) -> ProviderAdapter:
    if provider.knowledge is not None:
        return _local_knowledge(provider.knowledge)
    dialect, endpoint = _BUILDERS[provider.dialect](provider)
    completions = DialectAdapter(dialect, endpoint, wire)
    embeddings = _EMBEDDINGS.get(provider.dialect)
    return completions if embeddings is None else EmbeddingAdapter(completions, embeddings, endpoint, wire)


def _local_knowledge(knowledge: Knowledge) -> ProviderAdapter:
    from pointsman_server.adapters.providers.local_knowledge import LocalKnowledge

    return LocalKnowledge(knowledge)


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


_EMBEDDINGS: Mapping[Dialect, EmbeddingDialect] = {
    Dialect.GEMINI_GENERATE: GeminiEmbeddings(),
    Dialect.OPENAI_CHAT: OpenAiEmbeddings(),
    Dialect.OPENAI_RESPONSES: OpenAiEmbeddings(),
    Dialect.COHERE_CHAT: CohereEmbeddings(),
}
"""How vectors are asked for, where the vendor makes any."""

_BUILDERS: Mapping[Dialect, Callable[[Provider], tuple[WireDialect, Endpoint]]] = {
    Dialect.ANTHROPIC_MESSAGES: _anthropic,
    Dialect.GEMINI_GENERATE: _gemini,
    Dialect.OPENAI_CHAT: _openai_chat,
    Dialect.OPENAI_RESPONSES: _openai_responses,
    Dialect.COHERE_CHAT: _cohere,
}
