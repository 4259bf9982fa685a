"""Anthropic's endpoint, authorised by the official SDK."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from pointsman_server.adapters.providers.wire import PreparedRequest
from pointsman_server.domain.catalog import Provider

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

SIMULATED_KEY = "simulated"
"""What a simulated provider without a key is sent; no secret."""


class AnthropicEndpoint:
    """Asks one SDK client for URL, authorisation, API version and platform headers.

    The SDK sends nothing itself: that would cost several times the CPU of our wire. Its answers do not change during
    a client's life, so they are asked for once. Raises `ValueError` for a real provider without a key.
    """

    def __init__(self, provider: Provider) -> None:
        self._client = _open_client(provider)

    def prepare(self, path: str, body: bytes, headers: Mapping[str, str]) -> PreparedRequest:
        """See `Endpoint.prepare`. `headers` (in lower case) win over the SDK's."""
        return PreparedRequest(self._base_url + path, {**self._headers, **headers}, body)

    @cached_property
    def _base_url(self) -> str:
        return str(self._client.base_url).rstrip("/")

    @cached_property
    def _headers(self) -> dict[str, str]:
        # Values that are no text are the SDK's marks for "do not send".
        return {name.lower(): value for name, value in self._client.default_headers.items() if isinstance(value, str)}


def _open_client(provider: Provider) -> AsyncAnthropic:
    # Imported here because it takes most of a second and 50 MB, which only users of this provider should pay.
    from anthropic import AsyncAnthropic

    if provider.api_key is None and not provider.simulated:
        raise ValueError(f"provider {provider.id} has no API key; configure api_key or leave the provider out")
    key = SIMULATED_KEY if provider.api_key is None else provider.api_key.value
    return AsyncAnthropic(api_key=key, base_url=provider.base_url, max_retries=0)
