"""Who can reach a server with these settings, and what has to stand between."""

from __future__ import annotations

from collections.abc import Iterator

from pointsman_server.config.settings import Address, Authentication, SettingProblem, Settings

_CERT, _KEY, _CLIENT_CA = "POINTSMAN_TLS_CERT_FILE", "POINTSMAN_TLS_KEY_FILE", "POINTSMAN_TLS_CLIENT_CA_FILE"


def needs_callers(settings: Settings) -> bool | None:
    """Whether every call needs a caller. None leaves it to whether there are any: keys, or identities in the policy."""
    if settings.authentication is not None:
        return settings.authentication is Authentication.REQUIRED
    exposed = not all(address.is_loopback for address in settings.grpc_addresses.values())
    return True if exposed or settings.has_tls else None


def exposure_problems(settings: Settings) -> tuple[SettingProblem, ...]:
    """Why a server must not start with these settings: what contradicts itself, or lets strangers in or listen."""
    return (*_incomplete_tls(settings), *_exposed_calls(settings), *_exposed_metrics(settings))


def _incomplete_tls(settings: Settings) -> Iterator[SettingProblem]:
    if settings.tls_cert_file and not settings.tls_key_file:
        yield SettingProblem(_CERT, "has no key", f"Set {_KEY} too.")
    if settings.tls_key_file and not settings.tls_cert_file:
        yield SettingProblem(_KEY, "has no certificate", f"Set {_CERT} too.")
    if settings.tls_client_ca_file and not settings.has_tls:
        yield SettingProblem(_CLIENT_CA, "is of no use without TLS", f"Set {_CERT} and {_KEY} too.")


def _exposed_calls(settings: Settings) -> Iterator[SettingProblem]:
    for variable, address in settings.grpc_addresses.items():
        if address.is_loopback:
            continue
        fact, instead = f"is {address}, which other machines can reach", _instead(address)
        if not settings.has_tls:
            yield SettingProblem(
                variable, f"{fact}, and calls are not encrypted", f"Set {_CERT} and {_KEY}, or {instead}."
            )
        if settings.authentication is Authentication.INSECURE:
            remedy = f"Unset POINTSMAN_AUTHENTICATION and make keys (`pointsman keys create`), or {instead}."
            yield SettingProblem(variable, f"{fact}, and nobody checks who calls", remedy)


def _exposed_metrics(settings: Settings) -> Iterator[SettingProblem]:
    address = settings.http_address
    if not address.is_loopback:
        fact = f"is {address}, which other machines can reach, and HTTP is neither encrypted nor checks who asks"
        remedy = f"{_instead(address).capitalize()}, and let a proxy that does both stand before it."
        yield SettingProblem("POINTSMAN_HTTP_ADDRESS", fact, remedy)


def _instead(address: Address) -> str:
    return f"listen on 127.0.0.1:{address.port}"
