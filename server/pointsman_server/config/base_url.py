"""Checks the address of a provider, so that no call and no key can go where it should not.

Only the text is checked here, no name is looked up: a name that resolves to a forbidden address is the business of
whoever connects.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pointsman_server.config.section import Spot, UnacceptableError

_VISIBLE_ASCII = re.compile(r"[!-~]{1,512}")
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/]*)(?P<path>/.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?")
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")

_METADATA_NAMES = frozenset(["metadata", "instance-data"])
_METADATA_ADDRESSES = frozenset(
    map(ipaddress.ip_address, ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"])
)
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_FORBIDDEN_SUFFIXES = (".internal", ".local", ".localhost")
_PRIVATE_SUFFIXES = (".lan", ".home.arpa", ".localdomain", ".intranet", ".corp", ".home", ".svc")
_FORBIDDEN_PORTS = frozenset([21, 22, 23, 25, 53, 110, 143, 445, 465, 587, 993, 995, 2375, 3306, 3389, 5432, 6379])
_FORBIDDEN_PORTS |= {9200, 11211, 27017}


class Reach(Enum):
    """How far away a host is, by its name or address."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """A checked address without trailing slash."""

    url: str
    host: str
    reach: Reach


def base_url(*, allow_private_network: bool) -> Callable[[Spot], BaseUrl]:
    """A reader of addresses. The address itself never appears in a message: it may hold a credential."""
    return lambda spot: parse_base_url(spot.text(), allow_private_network=allow_private_network)


def parse_base_url(text: str, *, allow_private_network: bool) -> BaseUrl:
    """Checks an address; raises `UnacceptableError` with the reason."""
    _check_characters(text)
    parts = _URL.fullmatch(text)
    if not parts:
        raise UnacceptableError("is not an https address", 'Write it as "https://host" or "https://host/path".')
    authority = _AUTHORITY.fullmatch(parts["authority"].lower())
    if not authority:
        raise UnacceptableError("has no plain host name", 'Write it as "https://host" or "https://host:port".')
    scheme, path = parts["scheme"].lower(), parts["path"] or ""
    if not _PATH.fullmatch(path):
        raise UnacceptableError("has an odd path", "Use letters, digits, '.', '_', '~', '-' and single '/' only.")
    _check_port(authority["port"])
    host = authority["host"]
    reach = reach_of(host)
    if reach is Reach.PRIVATE and not allow_private_network:
        raise UnacceptableError(
            "points into a private network", "If that is meant, add `allow_private_network: true` beside it."
        )
    if scheme == "http" and reach is not Reach.LOOPBACK:
        raise UnacceptableError("is not encrypted", "Use https; plain http is accepted for this machine only.")
    return BaseUrl(f"{scheme}://{authority[0]}{path.rstrip('/')}", host, reach)


def _check_characters(text: str) -> None:
    if not _VISIBLE_ASCII.fullmatch(text):
        raise UnacceptableError(
            "has blanks, line breaks or other odd characters", "Use up to 512 visible ASCII characters."
        )
    for character, meaning in {"@": "a user name", "?": "a query", "#": "a fragment", "\\": "a backslash"}.items():
        if character in text:
            raise UnacceptableError(f"has {meaning}", "Write scheme, host, port and path only; keys go into `api_key`.")


def _check_port(port: str | None) -> None:
    if port is None:
        return
    if port.startswith("0") or not 1 <= int(port) <= 65535:
        raise UnacceptableError("has no valid port", "Use a number from 1 to 65535.")
    if int(port) in _FORBIDDEN_PORTS:
        raise UnacceptableError(f"uses port {port}, which belongs to another service", "Use the port of the HTTP API.")


def reach_of(host: str) -> Reach:
    """How far away this host is; raises `UnacceptableError` for hosts that no provider may have."""
    if host.startswith("["):
        return _reach_of_address(_address(ipaddress.IPv6Address, host[1:-1]))
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        return _reach_of_address(_address(ipaddress.IPv4Address, host))
    return _reach_of_name(host)


def _address(kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address], text: str) -> _Address:
    try:
        return kind(text)
    except ValueError:
        raise UnacceptableError(
            "has an odd numeric host", "Write an IPv4 address as four decimal numbers, or use the host's name."
        ) from None


def _reach_of_address(address: _Address) -> Reach:
    if isinstance(address, ipaddress.IPv6Address) and _wraps_ipv4(address):
        raise UnacceptableError("has an IPv4 address inside an IPv6 one", "Write the IPv4 address itself.")
    if address.is_loopback:
        return Reach.LOOPBACK
    if address in _METADATA_ADDRESSES or _is_special(address):
        raise UnacceptableError("has an address that no provider has", "Use the address of the provider's API.")
    return Reach.PUBLIC if address.is_global else Reach.PRIVATE


def _is_special(address: _Address) -> bool:
    return address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved


def _wraps_ipv4(address: ipaddress.IPv6Address) -> bool:
    return bool(address.ipv4_mapped or address.sixtofour or address.teredo or address in _NAT64)


def _reach_of_name(host: str) -> Reach:
    if host == "localhost":
        return Reach.LOOPBACK
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnacceptableError("has no valid host name", "Use letters, digits and '-', without a dot at the end.")
    if any(label.startswith("xn--") for label in labels):
        raise UnacceptableError("has an international host name", "Use the provider's ASCII name.")
    if host.endswith(_FORBIDDEN_SUFFIXES) or host in _METADATA_NAMES:
        raise UnacceptableError("has a host name that is reserved for local services", "Use the provider's own name.")
    return Reach.PRIVATE if len(labels) == 1 or host.endswith(_PRIVATE_SUFFIXES) else Reach.PUBLIC
