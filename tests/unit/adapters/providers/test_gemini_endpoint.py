from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from google.genai import Client
from google.genai.types import HttpOptions, HttpRetryOptions

from pointsman_server.adapters.providers import gemini_endpoint
from pointsman_server.adapters.providers.gemini_endpoint import GeminiEndpoint
from pointsman_server.domain.catalog import Dialect, Provider, Secret
from pointsman_server.domain.faults import FaultKind, ProviderFault

KEY = Secret("key-of-ours", "env:GEMINI")
VENDOR = "https://generativelanguage.googleapis.com"
WHOLE = "/models/gemini-3.8-flash:generateContent"
STREAM = "/models/gemini-3.8-flash:streamGenerateContent?alt=sse"


def provider(base_url: str = VENDOR, key: Secret | None = KEY, *, simulated: bool = False) -> Provider:
    return Provider("gemini", Dialect.GEMINI_GENERATE, base_url, key, simulated=simulated)


@pytest.fixture(scope="module")
def endpoint() -> GeminiEndpoint:
    return GeminiEndpoint(provider())


def sent_by_the_sdk(*, stream: bool) -> httpx2.Request:
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json={"candidates": []})

    options = HttpOptions(
        base_url=VENDOR,
        retry_options=HttpRetryOptions(attempts=1),
        client_args={"transport": httpx2.MockTransport(answer)},
    )
    client = Client(enterprise=False, api_key=KEY.value, http_options=options)
    if stream:
        list(client.models.generate_content_stream(model="gemini-3.8-flash", contents="x"))
    else:
        client.models.generate_content(model="gemini-3.8-flash", contents="x")
    return sent[0]


@pytest.mark.parametrize(("path", "stream"), [(WHOLE, False), (STREAM, True)])
def test_url_and_headers_are_those_of_the_official_sdk(endpoint: GeminiEndpoint, path: str, stream: bool) -> None:
    request = endpoint.prepare(path, b"{}", {})
    theirs = sent_by_the_sdk(stream=stream)
    assert request.url == str(theirs.url)
    assert request.url.startswith(VENDOR)
    assert request.url.endswith(path)
    assert request.body == b"{}"
    assert request.headers == {
        name: theirs.headers[name] for name in ("content-type", "x-goog-api-key", "user-agent", "x-goog-api-client")
    }
    assert request.headers["x-goog-api-key"] == KEY.value
    assert "google-genai-sdk/" in request.headers["user-agent"]


def test_a_calls_own_headers_are_added(endpoint: GeminiEndpoint) -> None:
    assert endpoint.prepare(WHOLE, b"", {"traceparent": "00-1"}).headers["traceparent"] == "00-1"
    assert "traceparent" not in endpoint.prepare(WHOLE, b"", {}).headers


def test_the_sdk_is_asked_once_for_each_path(endpoint: GeminiEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    first = endpoint.prepare(WHOLE, b"", {})
    monkeypatch.setattr(endpoint, "_ask_sdk", lambda path: pytest.fail(f"asked again for {path}"))
    assert endpoint.prepare(WHOLE, b"", {}) == first


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://127.0.0.1:9/v1beta", "http://127.0.0.1:9/v1beta" + WHOLE),
        ("http://127.0.0.1:9/proxy/v1beta/", "http://127.0.0.1:9/proxy/v1beta" + WHOLE),
        ("http://127.0.0.1:9/proxy/v2x", "http://127.0.0.1:9/proxy/v2x" + WHOLE),
    ],
)
def test_the_base_url_may_choose_the_api_version(base_url: str, url: str) -> None:
    assert GeminiEndpoint(provider(base_url)).prepare(WHOLE, b"", {}).url == url


def test_the_base_url_may_have_a_path() -> None:
    url = GeminiEndpoint(provider("http://127.0.0.1:9/proxy/")).prepare(WHOLE, b"", {}).url
    assert url.startswith("http://127.0.0.1:9/proxy/v1")
    assert url.endswith(WHOLE)


def test_the_environment_chooses_neither_platform_nor_key(
    endpoint: GeminiEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "other")
    monkeypatch.setenv("GOOGLE_API_KEY", "other-key")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert GeminiEndpoint(provider()).prepare(WHOLE, b"", {}) == endpoint.prepare(WHOLE, b"", {})


def test_only_a_simulated_provider_needs_no_key() -> None:
    request = GeminiEndpoint(provider("http://127.0.0.1:9", None, simulated=True)).prepare(WHOLE, b"", {})
    assert request.headers["x-goog-api-key"] == "simulated"
    with pytest.raises(ValueError, match="provider gemini has no api_key"):
        GeminiEndpoint(provider(key=None))


@pytest.mark.parametrize("model", ["../secrets", "a?b", "a&b"])
def test_a_malformed_model_name_is_a_missing_model(endpoint: GeminiEndpoint, model: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        endpoint.prepare(f"/models/{model}:generateContent", b"", {})
    assert caught.value.kind is FaultKind.MODEL_MISSING
    assert model not in str(caught.value)


def test_importing_the_module_does_not_import_the_sdk() -> None:
    source = Path(gemini_endpoint.__file__).parents[3]
    code = "import sys, pointsman_server.adapters.providers.gemini_endpoint; sys.exit('google.genai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=source, check=False)
    assert run.returncode == 0
