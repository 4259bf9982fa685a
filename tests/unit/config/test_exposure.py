"""What a server must not be started with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pointsman_server.config.exposure import exposure_problems, needs_callers
from pointsman_server.config.settings import Address, Authentication, Settings

LOCAL, ELSEWHERE = Address("127.0.0.1", 50051), Address("0.0.0.0", 50051)
TLS = {"tls_cert_file": "c.pem", "tls_key_file": "k.pem"}
INSECURE = {"authentication": Authentication.INSECURE}
REQUIRED = {"authentication": Authentication.REQUIRED}


def settings(**changes: Any) -> Settings:
    return replace(Settings(), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grpc_address": Address("::1", 1), "admin_address": Address("localhost", 2)},
        INSECURE,
        TLS | INSECURE,
        TLS | {"tls_client_ca_file": "ca.pem"},
        {"grpc_address": ELSEWHERE, **TLS},
        {"grpc_address": ELSEWHERE, **TLS, **REQUIRED},
        {"admin_address": ELSEWHERE, **TLS},
    ],
)
def test_these_are_fine(changes: dict[str, Any]) -> None:
    assert exposure_problems(settings(**changes)) == ()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "router.example", "::ffff:10.0.0.1"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["calls are not encrypted. Set POINTSMAN_TLS_CERT_FILE"]),
        (REQUIRED, ["calls are not encrypted"]),
        (TLS | INSECURE, ["nobody checks who calls. Unset POINTSMAN_AUTHENTICATION"]),
        (INSECURE, ["calls are not encrypted", "nobody checks who calls"]),
    ],
)
@pytest.mark.parametrize("name", ["grpc_address", "admin_address"])
def test_others_must_not_reach_what_is_open(address: str, changes: dict[str, Any], words: list[str], name: str) -> None:
    problems = exposure_problems(settings(**{name: Address(address, 50051), **changes}))
    assert len(problems) == len(words)
    for problem, said in zip(problems, words, strict=True):
        assert problem.variable == f"POINTSMAN_{name.upper()}"
        assert said in str(problem)
        assert "or listen on 127.0.0.1:50051." in problem.remedy


def test_metrics_are_never_for_others() -> None:
    (problem,) = exposure_problems(settings(http_address=ELSEWHERE, grpc_address=ELSEWHERE, **TLS))
    assert str(problem) == (
        "POINTSMAN_HTTP_ADDRESS is 0.0.0.0:50051, which other machines can reach, and HTTP is neither encrypted nor "
        "checks who asks. Listen on 127.0.0.1:50051, and let a proxy that does both stand before it."
    )


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"tls_cert_file": "c.pem"}, "POINTSMAN_TLS_CERT_FILE"),
        ({"tls_key_file": "k.pem"}, "POINTSMAN_TLS_KEY_FILE"),
        ({"tls_client_ca_file": "ca.pem"}, "POINTSMAN_TLS_CLIENT_CA_FILE"),
    ],
)
def test_half_of_tls_is_none(changes: dict[str, Any], variable: str) -> None:
    (problem,) = exposure_problems(settings(**changes))
    assert problem.variable == variable
    assert problem.remedy


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, None),
        ({"admin_address": Address("127.0.0.1", 2)}, None),
        (TLS, True),
        ({"grpc_address": ELSEWHERE}, True),
        ({"admin_address": ELSEWHERE}, True),
        (REQUIRED, True),
        (INSECURE, False),
        (TLS | INSECURE, False),
        ({"grpc_address": LOCAL, **TLS, **REQUIRED}, True),
    ],
)
def test_when_calls_need_a_caller(changes: dict[str, Any], needed: bool | None) -> None:
    assert needs_callers(settings(**changes)) is needed
