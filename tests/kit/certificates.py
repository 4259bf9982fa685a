"""Authorities and the certificates they sign, as files in PEM."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Signed:
    """A certificate and its key."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """The paths of two files with them."""
        cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
        cert_file.write_bytes(self.certificate)
        key_file.write_bytes(self.key)
        return str(cert_file), str(key_file)


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.certificate = _pem(self._sign(self._name, self._key, (), ends_in=_HOUR, is_authority=True))

    def write(self, folder: Path, name: str = "authority") -> str:
        """The path of a file with its certificate."""
        file = folder / f"{name}.pem"
        file.write_bytes(self.certificate)
        return str(file)

    def server(self) -> Signed:
        """For a server on 127.0.0.1."""
        return self._signed("server", [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])

    def client(
        self,
        *,
        uris: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        common_name: str = "client",
        expired: bool = False,
    ) -> Signed:
        """For a caller with these URIs and DNS names."""
        alternatives = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, names)]
        return self._signed(common_name, alternatives, -_HOUR / 2 if expired else _HOUR)

    def _signed(self, name: str, alternatives: list[x509.GeneralName], ends: datetime.timedelta = _HOUR) -> Signed:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_named(name), key, alternatives, ends_in=ends, is_authority=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Signed(_pem(certificate), private)

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        alternatives: list[x509.GeneralName] | tuple[()],
        *,
        ends_in: datetime.timedelta,
        is_authority: bool,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _HOUR)
            .not_valid_after(now + ends_in)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
