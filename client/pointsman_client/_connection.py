"""Where to connect and how: plaintext or TLS, and gRPC's channel options."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

ChannelOption = tuple[str, int | str]

LARGEST_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""A few of the largest images the contract allows, or a large batch of vectors."""

CHANNEL_OPTIONS: Final[tuple[ChannelOption, ...]] = (
    # The client decides about retries: gRPC does not know what a call costs.
    ("grpc.enable_retries", 0),
    # A reader that stops must stop the server. By default a server runs ahead by a hundred thousand small messages.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65535),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    # Servers take pings more often than every five minutes for abuse (too_many_pings). A dead connection is noticed
    # much sooner all the same: keepalive also bounds how long sent bytes may stay unacknowledged, to its timeout.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Between attempts to connect every call fails at once, so a server that is back must be found soon.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
"""What every channel is opened with."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a server; without `credentials` in plaintext."""

    target: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[ChannelOption, ...]

    @property
    def is_secret(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        return self.credentials is not None or is_local(self.target)

    @classmethod
    def to(
        cls,
        target: str,
        *,
        insecure: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        channel_options: Sequence[ChannelOption] = (),
    ) -> Connection:
        """The connection for a target: plaintext on this machine or when told so, TLS everywhere else.

        `channel_options` win over ours. Raises ValueError for a target or settings that make no sense.
        """
        if target.partition("://")[0] in {"http", "https"}:
            raise ValueError("a gRPC target has no http:// or https:// in front; write host:port")
        if not target.strip():
            raise ValueError("a target is needed: host:port")
        if insecure and credentials is not None:
            raise ValueError("insecure=True and credentials exclude each other")
        local = is_local(target)
        if credentials is None and not insecure and not local:
            credentials = grpc.ssl_channel_credentials()
        ours = CHANNEL_OPTIONS + ((("grpc.enable_http_proxy", 0),) if local else ())
        return cls(target, credentials, tuple({**dict(ours), **dict(channel_options)}.items()))


def tls_from_files(
    ca_file: str | os.PathLike[str] | None = None,
    cert_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
) -> grpc.ChannelCredentials:
    """TLS with roots and a client certificate of your own, for the option `credentials`; all files are PEM.

    Without `ca_file` the system's roots are trusted. `cert_file` and `key_file` go together: they tell the server who
    calls. Raises OSError for a file that cannot be read and ValueError for half a pair.
    """
    if (cert_file is None) != (key_file is None):
        raise ValueError("a client certificate and its key go together: give cert_file and key_file, or neither")
    roots, certificate, key = (
        None if file is None else Path(file).read_bytes() for file in (ca_file, cert_file, key_file)
    )
    return grpc.ssl_channel_credentials(roots, key, certificate)


def is_local(target: str) -> bool:
    """Whether all addresses of a gRPC target are on this machine; when in doubt they are not."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if colon and scheme in {"ipv4", "ipv6"}:
        return all(_is_loopback(address) for address in rest.split(","))
    if target.startswith("dns:"):
        return _is_loopback(rest.removeprefix("///"))
    return _is_loopback(target)


def _is_loopback(address: str) -> bool:
    host = _host(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]
