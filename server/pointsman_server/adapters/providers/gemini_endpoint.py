"""Where Gemini calls go and how they are authorised: the official `google-genai` SDK says so.

The SDK is asked once for each path, by making the call through a transport that writes the request down instead of
sending it. Everything used of the SDK is public. Its own transport is never used: it sleeps and retries by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pointsman_server.adapters.providers.wire import PreparedRequest
from pointsman_server.domain.catalog import Provider
from pointsman_server.domain.faults import FaultKind, ProviderFault

if TYPE_CHECKING:
    from google.genai import Client

_SIMULATED_KEY = "simulated"
_FIRST_PATH = "/models/any:generateContent"
_EMBED_METHOD = "batchEmbedContents"
_API_VERSION = re.compile(r"/(v\d+[a-z0-9]*)/?$")
_TRANSPORT_HEADERS = frozenset({"host", "connection", "accept", "accept-encoding", "content-length"})
"""Headers that belong to the SDK's transport; ours sets its own."""


class _Written(Exception):
    """Raised in place of sending a request."""


class _WritingTransport:
    """Stands where the SDK expects an HTTP transport; nothing ever leaves through it."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}

    def handle_request(self, request: Any) -> NoReturn:
        self.url = str(request.url)
        self.headers = {
            name.lower(): value for name, value in request.headers.items() if name.lower() not in _TRANSPORT_HEADERS
        }
        raise _Written

    def close(self) -> None:
        """Nothing is open."""


class GeminiEndpoint:
    """Lets one `google.genai.Client` per provider produce URL, API version, authorisation and telemetry headers.

    A `base_url` that ends in an API version ("…/v1beta") chooses that version; otherwise the SDK's default applies.
    Building one takes about half a second the first time in a process, because only then the SDK is imported.
    Raises `ValueError` for a key that the SDK refuses.
    """

    def __init__(self, provider: Provider) -> None:
        self._transport = _WritingTransport()
        self._client = _open_client(provider, self._transport)
        self._known: dict[str, tuple[str, Mapping[str, str]]] = {}
        # The SDK's first call builds its validators for 20 ms: not on a caller's time.
        self._ask_sdk(_FIRST_PATH)

    def prepare(self, path: str, body: bytes, headers: Mapping[str, str]) -> PreparedRequest:
        """See `Endpoint.prepare`. Raises `ProviderFault` MODEL_MISSING for a model name that the SDK refuses."""
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._learn(path)
        url, own_headers = known
        return PreparedRequest(url, {**own_headers, **headers}, body)

    def _learn(self, path: str) -> tuple[str, Mapping[str, str]]:
        try:
            return self._ask_sdk(path)
        except ValueError as error:
            raise ProviderFault(
                FaultKind.MODEL_MISSING, "the SDK refuses the deployment's model_name as malformed"
            ) from error

    def _ask_sdk(self, path: str) -> tuple[str, Mapping[str, str]]:
        model, _, method = path.removeprefix("/").rpartition(":")
        call: dict[str, Any] = {
            "model": model,
            "contents": "-",
            "config": {"automatic_function_calling": {"disable": True}},
        }
        try:
            if method == _EMBED_METHOD:
                self._client.models.embed_content(model=model, contents="-")
            elif method.startswith("stream"):
                next(iter(self._client.models.generate_content_stream(**call)))
            else:
                self._client.models.generate_content(**call)
        except _Written:
            return self._transport.url, self._transport.headers
        raise RuntimeError("google-genai answered without using the transport it was given")


def _open_client(provider: Provider, transport: _WritingTransport) -> Client:
    from google.genai import Client
    from google.genai.types import HttpOptions, HttpRetryOptions

    if provider.api_key is None and not provider.simulated:
        raise ValueError(f"provider {provider.id} has no api_key, which Gemini needs")
    version = _API_VERSION.search(provider.base_url)
    return Client(
        # Said outright, because the SDK would otherwise take it from the environment.
        enterprise=False,
        api_key=_SIMULATED_KEY if provider.api_key is None else provider.api_key.value,
        http_options=HttpOptions(
            base_url=provider.base_url[: version.start()] if version else provider.base_url,
            api_version=version.group(1) if version else None,
            retry_options=HttpRetryOptions(attempts=1),
            client_args={"transport": transport},
        ),
    )
