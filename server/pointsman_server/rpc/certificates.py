"""The server's TLS: its certificate and key, who may sign its callers' certificates; all read again after a change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

_LARGEST_FILE_BYTES = 1_000_000

_LOG = structlog.stdlib.get_logger("pointsman.tls")


class CertificateError(Exception):
    """Files that TLS cannot be offered with. The message names the file and the remedy, never its content."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files. With `client_ca_file` every caller needs a certificate signed by one of its authorities."""

    cert_file: str
    key_file: str
    client_ca_file: str = ""

    def check(self) -> None:
        """Raises `CertificateError` unless TLS can be offered with these files as they are now."""
        _read(self)

    def credentials(self) -> grpc.ServerCredentials:
        """TLS from version 1.2 on, with the files as they are at each new connection. Raises `CertificateError`."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(_read(self)), _Renewal(self).renewed, require_client_authentication=bool(self.client_ca_file)
        )

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(file for file in (self.cert_file, self.key_file, self.client_ca_file) if file)


@dataclass(frozen=True, slots=True)
class _Contents:
    certificate: bytes
    key: bytes
    client_authorities: bytes | None


class _Renewal:
    """Looks at the files before every new connection, in a thread of the library's own.

    While they cannot be used, half written for example, the last good ones stay.
    """

    def __init__(self, files: Certificates) -> None:
        self._files = files
        self._seen = _stamps(files)
        self._broken: Any = None

    def renewed(self) -> Any:
        """The new configuration, None when nothing changed."""
        stamps = _stamps(self._files)
        if stamps in (self._seen, self._broken):
            return None
        try:
            configuration = _configuration(_read(self._files))
        except CertificateError as error:
            self._broken = stamps
            _LOG.error("certificates_not_renewed", reason=str(error))
            return None
        self._seen, self._broken = stamps, None
        _LOG.info("certificates_renewed")
        return configuration


def _stamps(files: Certificates) -> tuple[tuple[int, ...], ...]:
    return tuple(_stamp(Path(file)) for file in files.files)


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _configuration(contents: _Contents) -> Any:
    pair = (contents.key, contents.certificate)
    return grpc.ssl_server_certificate_configuration([pair], contents.client_authorities)


def _read(files: Certificates) -> _Contents:
    stamps = _stamps(files)
    certificate, key = _content(files.cert_file), _content(files.key_file)
    _check_pair(files)
    authorities = _content(files.client_ca_file) if files.client_ca_file else None
    if authorities is not None:
        _check_authorities(files.client_ca_file, authorities)
    if _stamps(files) != stamps:
        raise CertificateError("the files changed while they were read")
    return _Contents(certificate, key, authorities)


def _content(file: str) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"{file} cannot be read: {error.strerror}") from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise CertificateError(f"{file} is larger than {_LARGEST_FILE_BYTES} bytes; name a PEM file")
    return content


def _check_pair(files: Certificates) -> None:
    # The library offers nothing at all with a pair that does not fit together, and says so to nobody.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert_file, files.key_file, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CertificateError(
            f"{files.cert_file} and {files.key_file} are not a certificate and its key; name two PEM files that belong "
            "together, the key without a password"
        ) from error


def _no_password() -> str:
    # Without it OpenSSL would ask for one on the terminal.
    raise ValueError


def _check_authorities(file: str, content: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"{file} holds no certificate; name a PEM file of authorities") from error
