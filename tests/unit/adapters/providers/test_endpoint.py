from __future__ import annotations

import pytest

from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.domain.catalog import Dialect, Provider, Secret

KEY = "key-nobody-may-see"


def provider(base_url: str = "https://llm.example", key: str | None = KEY) -> Provider:
    secret = None if key is None else Secret(key, "env:LLM_KEY")
    return Provider("p", Dialect.OPENAI_CHAT, base_url, secret)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://llm.example", "https://llm.example/v2/chat"),
        ("https://llm.example/", "https://llm.example/v2/chat"),
        ("http://127.0.0.1:8080/proxy//", "http://127.0.0.1:8080/proxy/v2/chat"),
    ],
)
def test_url(base_url: str, url: str) -> None:
    assert BearerEndpoint(provider(base_url)).prepare("/v2/chat", b"{}", {}).url == url


def test_headers_and_body() -> None:
    request = BearerEndpoint(provider()).prepare("/x", b'{"a":1}', {"traceparent": "00-1-2-01"})
    assert request.body == b'{"a":1}'
    assert request.headers == {
        "content-type": "application/json",
        "user-agent": "pointsman",
        "authorization": f"Bearer {KEY}",
        "traceparent": "00-1-2-01",
    }


def test_no_key_no_authorization() -> None:
    assert "authorization" not in BearerEndpoint(provider(key=None)).prepare("/x", b"", {}).headers


def test_headers_of_one_call_do_not_stay() -> None:
    endpoint = BearerEndpoint(provider())
    endpoint.prepare("/x", b"", {"traceparent": "1"})
    assert "traceparent" not in endpoint.prepare("/x", b"", {}).headers


def test_nothing_printed_shows_the_key_or_the_prompt() -> None:
    endpoint = BearerEndpoint(provider())
    request = endpoint.prepare("/x", b"the prompt", {})
    for thing in (endpoint, request, provider(), vars(endpoint).get("_provider")):
        assert KEY not in repr(thing)
        assert KEY not in str(thing)
        assert "the prompt" not in repr(thing)
