"""Endpoints of providers that need no SDK: a base URL and, if there is a key, a bearer token."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman_server.adapters.providers.wire import PreparedRequest
from pointsman_server.domain.catalog import Provider

USER_AGENT = "pointsman"


class BearerEndpoint:
    """Sends `Authorization: Bearer <key>`, or nothing where the provider needs no key."""

    def __init__(self, provider: Provider) -> None:
        self._base_url = provider.base_url.rstrip("/")
        self._headers = {"content-type": "application/json", "user-agent": USER_AGENT}
        if provider.api_key is not None:
            self._headers["authorization"] = f"Bearer {provider.api_key.value}"

    def prepare(self, path: str, body: bytes, headers: Mapping[str, str]) -> PreparedRequest:
        """See `Endpoint.prepare`."""
        return PreparedRequest(self._base_url + path, {**self._headers, **headers}, body)
