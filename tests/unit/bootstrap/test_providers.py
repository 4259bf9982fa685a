from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from kit.catalog import deployment, provider, snapshot, user
from kit.knowledge import load_with_knowledge
from kit.upstream import HELLO, json_script, running_upstream
from pointsman_server.adapters.providers.anthropic_messages import AnthropicMessages
from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.adapters.providers.dialect import DialectAdapter
from pointsman_server.adapters.providers.embedding_exchange import EmbeddingAdapter
from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.adapters.providers.local_knowledge import LocalKnowledge
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.domain.catalog import Dialect, Secret, Snapshot
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import GenerationConfig

CLASSES: dict[Dialect, type[Any]] = {
    Dialect.ANTHROPIC_MESSAGES: AnthropicMessages,
    Dialect.GEMINI_GENERATE: GeminiGenerate,
    Dialect.OPENAI_CHAT: OpenAiChat,
    Dialect.OPENAI_RESPONSES: OpenAiResponses,
    Dialect.COHERE_CHAT: CohereChat,
}
KEY = Secret("sk-planted", "env:K")


def book_of(policy: Snapshot) -> AdapterBook:
    book = AdapterBook(HttpWire())
    book.add(policy)
    return book


def test_every_dialect_is_known() -> None:
    assert set(CLASSES) == set(Dialect) - {Dialect.LOCAL_KNOWLEDGE}


async def test_a_knowledge_base_is_an_adapter_without_a_wire() -> None:
    snapshot = load_with_knowledge().snapshot
    adapter = book_of(snapshot).adapter_of(snapshot.providers["house"])
    assert isinstance(adapter, LocalKnowledge)
    await adapter.close()


@pytest.mark.parametrize("dialect", CLASSES)
def test_each_dialect_has_its_adapter(dialect: Dialect) -> None:
    policy = snapshot(deployment("d", by={"dialect": dialect, "api_key": KEY}))
    adapter: Any = book_of(policy).adapter_of(policy.providers["d-provider"])
    assert isinstance(adapter, EmbeddingAdapter) is dialect.makes_vectors
    if isinstance(adapter, EmbeddingAdapter):
        adapter = vars(adapter)["_completions"]
    assert isinstance(adapter, DialectAdapter)
    assert any(isinstance(held, CLASSES[dialect]) for held in vars(adapter).values())


def test_a_provider_has_one_adapter_for_all_its_deployments() -> None:
    shared = provider("shared", api_key=KEY)
    adapters = book_of(
        snapshot(*(deployment(name, provider=shared) for name in "abc"), deployment("d", by={"api_key": KEY}))
    )
    assert set(adapters) == {"shared", "d-provider"}


def test_a_provider_that_cannot_be_called_has_none() -> None:
    policy = snapshot(deployment("a", by={"unusable_because": "no key"}), deployment("b"))
    assert set(book_of(policy)) == {"b-provider"}


_IMPORTS = """
import sys
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.domain.catalog import *
from pointsman_server.domain.request import Tier
import pointsman_server.bootstrap.service
price = Price("p", None, ((0, Rates(0, 0, 0, 0)),))
model = Model("m", Tier.LIGHT, 1000, 100, frozenset(), 0.5, price)
provider = Provider("p", Dialect(sys.argv[1]), "http://127.0.0.1:1/v1", Secret("k", "env:K"))
policy = Snapshot("v", "s", {"d": Deployment("d", provider, model, "m")}, {}, {})
AdapterBook(HttpWire()).add(policy)
print(*sorted({"anthropic", "google.genai"} & sys.modules.keys()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "loaded"),
    [
        (Dialect.OPENAI_CHAT, []),
        (Dialect.OPENAI_RESPONSES, []),
        (Dialect.COHERE_CHAT, []),
        (Dialect.ANTHROPIC_MESSAGES, ["anthropic"]),
    ],
)
def test_a_vendors_library_is_loaded_only_where_its_dialect_is_spoken(dialect: Dialect, loaded: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS, dialect.value], capture_output=True, text=True, check=True, timeout=50
    )
    assert set(done.stdout.split()) <= set(loaded)


class TestBook:
    """Adapters of several policies at once."""

    def two(self) -> tuple[Any, Any]:
        """The same ids, but the provider moved."""
        before = snapshot(deployment("a"), deployment("b"))
        moved = snapshot(deployment("a", by={"base_url": "http://127.0.0.1:2/v1"}), deployment("b"))
        return before, moved

    async def test_each_policy_has_its_own(self) -> None:
        before, moved = self.two()
        book = AdapterBook(HttpWire())
        book.add(before)
        book.add(moved)
        assert set(book) == {"a-provider", "b-provider"}
        assert len(book) == 2
        assert len(book.providers) == 3, "what is the same is shared"
        await book.keep_only([moved])
        assert book.providers == set(moved.providers.values())
        await book.close()
        assert len(book) == 0

    def test_one_that_cannot_be_called_has_none(self) -> None:
        book = AdapterBook(HttpWire())
        book.add(snapshot(deployment("a", by={"unusable_because": "no key"}), deployment("b")))
        assert "a-provider" not in book
        assert book["b-provider"] is book
        with pytest.raises(KeyError):
            book["a-provider"]

    async def test_a_call_goes_where_its_own_policy_says(self) -> None:
        async with running_upstream(json_script(HELLO)) as one, running_upstream(json_script(HELLO)) as other:
            policies = [snapshot(deployment("a", by={"base_url": up.base_url})) for up in (one, other)]
            wire = HttpWire()
            book = AdapterBook(wire)
            for policy in policies:
                book.add(policy)
            for policy in (policies[0], policies[1], policies[1]):
                call = ProviderCall(policy.deployments["a"], (user("hi"),), GenerationConfig(), 10, False, 5.0)
                async for _ in book["a-provider"].exchange(call):
                    pass
            await wire.close()
            assert (one.calls, other.calls) == (1, 2)
