from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from kit.callers import Doorkeeper
from kit.clock import FakeClock
from pointsman_server.bootstrap.callers import announce_callers, build_authenticator, certificates_of
from pointsman_server.config.settings import Address, Authentication, Settings
from pointsman_server.domain.control import Control
from pointsman_server.rpc.authentication import Authenticator
from pointsman_server.rpc.certificates import Certificates

TLS = {"tls_cert_file": "c.pem", "tls_key_file": "k.pem"}


def authenticator(keeper: Doorkeeper, **changes: Any) -> Authenticator:
    settings = replace(Settings(), **changes)
    return build_authenticator(settings, lambda: keeper.control, keeper.authenticator._snapshot, FakeClock())


@pytest.mark.parametrize(
    ("changes", "before", "with_a_key"),
    [
        ({}, True, False),
        ({"authentication": Authentication.INSECURE}, True, True),
        ({"authentication": Authentication.REQUIRED}, False, False),
        (TLS, False, False),
        ({"grpc_address": Address("0.0.0.0", 1)}, False, False),
    ],
)
def test_who_may_call_follows_from_settings_and_keys(changes: dict[str, Any], before: bool, with_a_key: bool) -> None:
    keeper = Doorkeeper()
    door = authenticator(keeper, **changes)
    assert door.is_insecure is before
    keeper.key()
    assert door.is_insecure is with_a_key


@pytest.mark.parametrize(
    ("changes", "event"),
    [({}, "insecure_mode"), ({"authentication": Authentication.REQUIRED}, "no_callers")],
)
def test_what_must_be_known_is_said_loudly(changes: dict[str, Any], event: str) -> None:
    keeper = Doorkeeper()
    with capture_logs() as logs:
        announce_callers(authenticator(keeper, **changes))
    (line,) = logs
    assert (line["event"], line["log_level"]) == (event, "warning")
    assert "pointsman keys create" in line["remedy"]


def test_nothing_is_said_where_all_is_well() -> None:
    keeper = Doorkeeper()
    keeper.key()
    with capture_logs() as logs:
        announce_callers(authenticator(keeper, authentication=Authentication.REQUIRED))
    assert logs == []


def test_the_files_of_tls() -> None:
    assert certificates_of(Settings()) is None
    assert certificates_of(replace(Settings(), **TLS)) == Certificates("c.pem", "k.pem")  # type: ignore[arg-type]
    mutual: dict[str, Any] = {**TLS, "tls_client_ca_file": "ca.pem"}
    assert certificates_of(replace(Settings(), **mutual)) == Certificates("c.pem", "k.pem", "ca.pem")


def test_an_empty_control_is_no_key() -> None:
    keeper = Doorkeeper()
    keeper.control = Control(revision=7)
    assert authenticator(keeper).is_insecure
