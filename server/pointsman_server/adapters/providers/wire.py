"""The way bytes travel: one pooled HTTP client for all dialects, which maps every network failure once.

No redirects, no proxies from the environment, no retries: whatever goes wrong is told to the one loop that decides.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from pointsman_server.domain.faults import FaultKind, ProviderFault

MAX_BODY_BYTES = 32_000_000
"""Longest whole body that is read into memory."""

_READ_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A POST that is ready to be sent: absolute URL, all headers (authorisation included) and the body.

    Only the URL is shown when it is printed: the headers hold the key and the body holds the prompt.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class WireResponse:
    """A response whose headers have arrived; looking one up ignores case."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; what is already in the buffer comes in one piece."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise body_fault(error) from error

    async def whole(self) -> bytes:
        """The whole body, at most `MAX_BODY_BYTES`."""
        return await join_chunks(self.chunks())


async def join_chunks(chunks: AsyncIterator[bytes], opening: bytes = b"") -> bytes:
    """`opening` and all that follows; MALFORMED_REPLY past `MAX_BODY_BYTES`."""
    pieces = [opening]
    size = len(opening)
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise ProviderFault(FaultKind.MALFORMED_REPLY, f"the body is longer than {MAX_BODY_BYTES} bytes")
        pieces.append(chunk)
    return b"".join(pieces)


class HttpWire:
    """A connection pool. One per process; it must be used on the event loop it was first used on."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def send(
        self, request: PreparedRequest, *, connect_seconds: float, total_seconds: float
    ) -> AsyncGenerator[WireResponse, None]:
        """Sends the request; leaving the context before the body was read closes the connection.

        Raises `ProviderFault` CONNECTION, TIMEOUT or MALFORMED_REPLY.
        """
        timeout = aiohttp.ClientTimeout(total=total_seconds, sock_connect=connect_seconds)
        try:
            response = await self._open_session().post(
                request.url, data=request.body, headers=request.headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise send_fault(error) from error
        try:
            yield WireResponse(response)
        finally:
            # close(), not release(): an answer that nobody reads to its end must stop costing money.
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=True,
                read_bufsize=_READ_CHUNK_BYTES,
                skip_auto_headers=("User-Agent",),
            )
        return self._session


def send_fault(error: Exception) -> ProviderFault:
    """What a failure before the response's headers means."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return ProviderFault(FaultKind.CONNECTION, "no connection within the connect timeout")
        case TimeoutError():
            return ProviderFault(FaultKind.TIMEOUT, "no response within the time allowed")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return ProviderFault(FaultKind.CONNECTION, "the TLS handshake failed")
        case aiohttp.ClientConnectorDNSError():
            return ProviderFault(FaultKind.CONNECTION, "the host name could not be resolved")
        case aiohttp.ClientConnectorError():
            return ProviderFault(FaultKind.CONNECTION, "the connection was refused")
        case aiohttp.ClientResponseError():
            return ProviderFault(FaultKind.MALFORMED_REPLY, "the response is not valid HTTP")
        case aiohttp.InvalidURL():
            return ProviderFault(FaultKind.CONNECTION, "the provider's base_url is not a usable address")
        case _:
            return ProviderFault(FaultKind.CONNECTION, "the connection was lost before a response")


def body_fault(error: Exception) -> ProviderFault:
    """What a failure while the body was arriving means."""
    match error:
        case TimeoutError():
            return ProviderFault(FaultKind.TIMEOUT, "the response did not end within the time allowed")
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return ProviderFault(FaultKind.STREAM_CUT, "the body ended early or could not be decoded")
        case _:
            return ProviderFault(FaultKind.STREAM_CUT, "the connection was lost in the middle of the body")
