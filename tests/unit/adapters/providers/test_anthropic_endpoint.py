from __future__ import annotations

import subprocess
import sys

import anthropic
import httpx2
import pytest

from pointsman_server.adapters.providers.anthropic_endpoint import AnthropicEndpoint
from pointsman_server.adapters.providers.wire import PreparedRequest
from pointsman_server.domain.catalog import Dialect, Provider, Secret


def provider(base_url: str = "https://api.anthropic.com", key: str | None = "planted-key", **changes: bool) -> Provider:
    secret = None if key is None else Secret(key, "env:KEY")
    return Provider("claude", Dialect.ANTHROPIC_MESSAGES, base_url, secret, **changes)  # type: ignore[arg-type]


def prepare(made_for: Provider) -> PreparedRequest:
    return AnthropicEndpoint(made_for).prepare("/v1/messages", b"{}", {"traceparent": "00-1"})


async def sent_by_the_sdk(base_url: str) -> httpx2.Request:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"type": "message", "content": []})

    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    client = anthropic.AsyncAnthropic(api_key="planted-key", base_url=base_url, max_retries=0, http_client=http_client)
    await client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    return seen[0]


@pytest.mark.parametrize("base_url", ["https://api.anthropic.com", "http://127.0.0.1:8080/claude/"])
async def test_url_and_headers_are_the_sdks(base_url: str) -> None:
    ours, theirs = prepare(provider(base_url)), await sent_by_the_sdk(base_url)
    assert ours.url == str(theirs.url)
    of_the_transport = {"host", "accept-encoding", "connection", "content-length"}
    of_the_sdks_own_sending = {"x-stainless-timeout", "x-stainless-retry-count", "x-stainless-read-timeout"}
    expected = {
        name: value for name, value in theirs.headers.items() if name not in of_the_transport | of_the_sdks_own_sending
    }
    assert ours.headers == {**expected, "traceparent": "00-1"}
    assert ours.body == b"{}"
    assert "planted-key" in str(expected)


def test_a_calls_own_headers_win() -> None:
    endpoint = AnthropicEndpoint(provider())
    named = endpoint.prepare("/v1/messages", b"", {"anthropic-version": "2023-06-01"}).headers
    assert [value for name, value in named.items() if name.lower() == "anthropic-version"] == ["2023-06-01"]
    assert endpoint.prepare("/v1/messages", b"", {}).headers["anthropic-version"] != "2023-06-01"


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = prepare(provider())
    monkeypatch.setenv("ANTHROPIC_API_KEY", "other-key")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "other-token")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert prepare(provider()) == expected


def test_a_simulated_provider_needs_no_key() -> None:
    headers = prepare(provider(key=None, simulated=True)).headers
    assert headers["authorization"] == "Bearer simulated"


def test_a_real_provider_needs_one() -> None:
    with pytest.raises(ValueError, match="provider claude has no API key"):
        AnthropicEndpoint(provider(key=None))


def test_the_key_shows_in_no_repr() -> None:
    endpoint = AnthropicEndpoint(provider())
    endpoint.prepare("/v1/messages", b"", {})
    assert "planted-key" not in repr(endpoint)


def test_the_sdk_is_loaded_only_for_those_who_use_it() -> None:
    modules = "pointsman_server.adapters.providers."
    script = (
        f"import sys; import {modules}anthropic_endpoint, {modules}anthropic_messages; "
        "sys.exit('anthropic' in sys.modules or 'httpx2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
