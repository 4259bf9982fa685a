from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from kit.catalog import deployment, provider, snapshot
from pointsman_server.adapters.providers.anthropic_messages import AnthropicMessages
from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.adapters.providers.dialect import DialectAdapter
from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.bootstrap.providers import build_adapters
from pointsman_server.domain.catalog import Dialect, Secret

CLASSES: dict[Dialect, type[Any]] = {
    Dialect.ANTHROPIC_MESSAGES: AnthropicMessages,
    Dialect.GEMINI_GENERATE: GeminiGenerate,
    Dialect.OPENAI_CHAT: OpenAiChat,
    Dialect.OPENAI_RESPONSES: OpenAiResponses,
    Dialect.COHERE_CHAT: CohereChat,
}
KEY = Secret("sk-planted", "env:K")


def test_every_dialect_is_known() -> None:
    assert set(CLASSES) == set(Dialect)


@pytest.mark.parametrize("dialect", Dialect)
def test_each_dialect_has_its_adapter(dialect: Dialect) -> None:
    policy = snapshot(deployment("d", by={"dialect": dialect, "api_key": KEY}))
    adapter: Any = build_adapters(policy, HttpWire())["d-provider"]
    assert isinstance(adapter, DialectAdapter)
    assert any(isinstance(held, CLASSES[dialect]) for held in vars(adapter).values())


def test_a_provider_has_one_adapter_for_all_its_deployments() -> None:
    shared = provider("shared", api_key=KEY)
    adapters = build_adapters(
        snapshot(*(deployment(name, provider=shared) for name in "abc"), deployment("d", by={"api_key": KEY})),
        HttpWire(),
    )
    assert set(adapters) == {"shared", "d-provider"}


def test_a_provider_that_cannot_be_called_has_none() -> None:
    policy = snapshot(deployment("a", by={"unusable_because": "no key"}), deployment("b"))
    assert set(build_adapters(policy, HttpWire())) == {"b-provider"}


_IMPORTS = """
import sys
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.bootstrap.providers import build_adapters
from pointsman_server.domain.catalog import *
from pointsman_server.domain.request import Tier
import pointsman_server.bootstrap.service
price = Price("p", None, ((0, Rates(0, 0, 0, 0)),))
model = Model("m", Tier.LIGHT, 1000, 100, frozenset(), 0.5, price)
provider = Provider("p", Dialect(sys.argv[1]), "http://127.0.0.1:1/v1", Secret("k", "env:K"))
policy = Snapshot("v", "s", {"d": Deployment("d", provider, model, "m")}, {}, {})
build_adapters(policy, HttpWire())
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
