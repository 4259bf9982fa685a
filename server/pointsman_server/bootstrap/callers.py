"""Who may call this server, by its settings, its keys and its policy."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from pointsman_server.config.exposure import needs_callers
from pointsman_server.config.settings import Settings
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control
from pointsman_server.domain.ports import Clock
from pointsman_server.rpc.authentication import Authenticator, Mode
from pointsman_server.rpc.certificates import Certificates

_LOG = structlog.stdlib.get_logger("pointsman.callers")


def build_authenticator(
    settings: Settings, control: Callable[[], Control], snapshot: Callable[[], Snapshot], clock: Clock
) -> Authenticator:
    """What reads callers as the settings demand it."""
    return Authenticator(control, snapshot, clock, _mode(settings))


def announce_callers(authenticator: Authenticator) -> None:
    """Says in the log what whoever starts a server must know: that anybody may call, or that nobody can."""
    if authenticator.is_insecure:
        _LOG.warning(
            "insecure_mode",
            message="every program on this machine may call, spend and change everything without a key",
            remedy="make a key with `pointsman keys create`, or set POINTSMAN_AUTHENTICATION=required",
        )
    elif not authenticator.knows_callers:
        _LOG.warning(
            "no_callers",
            message="every call is refused: there is no key, and the policy names no certificate",
            remedy="make a key with `pointsman keys create`",
        )


def certificates_of(settings: Settings) -> Certificates | None:
    """The files that TLS is offered with; None is plaintext."""
    if not settings.has_tls:
        return None
    return Certificates(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def _mode(settings: Settings) -> Mode:
    match needs_callers(settings):
        case None:
            return Mode.UNTIL_CALLERS_EXIST
        case needed:
            return Mode.REQUIRED if needed else Mode.INSECURE
