"""Looks at the network without sending anything of value: whether a port is free, whether a provider answers.

Uses no proxy, follows no redirect and sends no key.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from pointsman_server.config.settings import Address

PROBE_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Reachability:
    """What came of asking a provider: its HTTP status after so long, or the fault in our own words."""

    status: int = 0
    seconds: float = 0.0
    fault: str = ""


def port_fault(address: Address) -> str:
    """Why nothing can listen here now, "" when something can."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with closing(socket.socket(family, kind, protocol)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(1)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def reach(base_url: str, timeout_seconds: float = PROBE_TIMEOUT_SECONDS) -> Reachability:
    """Asks for the base URL with a plain GET. Any HTTP status means that the provider can be reached."""
    parts = urlsplit(base_url)
    started = time.monotonic()
    with closing(_connection(parts.scheme, parts.netloc, timeout_seconds)) as connection:
        try:
            connection.request("GET", parts.path or "/", headers={"user-agent": "pointsman"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return Reachability(fault=_in_words(error), seconds=time.monotonic() - started)
    return Reachability(status=status, seconds=time.monotonic() - started)


def _connection(scheme: str, netloc: str, timeout_seconds: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(netloc, timeout=timeout_seconds, context=ssl.create_default_context())
    return http.client.HTTPConnection(netloc, timeout=timeout_seconds)


_FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (ssl.SSLCertVerificationError, "its certificate cannot be verified"),
    (ssl.SSLError, "no secure connection can be made"),
    (TimeoutError, "it does not answer in time"),
    (ConnectionRefusedError, "nothing listens there"),
    (ConnectionError, "it closes the connection"),
    (socket.gaierror, "its name cannot be resolved"),
    (OSError, "it cannot be reached"),
)


def _in_words(error: Exception) -> str:
    return next((words for kind, words in _FAULTS if isinstance(error, kind)), "it does not answer in HTTP")
