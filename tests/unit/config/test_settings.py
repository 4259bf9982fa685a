"""The environment of a process: names, defaults, and every mistake at once."""

from __future__ import annotations

import pytest

from pointsman_server.config.settings import Address, Authentication, LogLevel, Settings, SettingsError


def test_defaults() -> None:
    settings = Settings.from_environment({"PATH": "/bin", "OTHER": "x"})
    assert (str(settings.grpc_address), str(settings.http_address)) == ("127.0.0.1:50051", "127.0.0.1:8080")
    assert settings.policy_file == "pointsman.yaml"
    assert settings.database_url == "sqlite:///var/pointsman.db"
    assert settings.redis_url == ""
    assert settings.workers == 1
    assert settings.log_level is LogLevel.INFO
    assert settings.reflection is True
    assert settings.max_concurrent_calls == 256
    assert (settings.drain_notice_seconds, settings.drain_grace_seconds) == (0, 30)
    assert (settings.unary_timeout_seconds, settings.stream_timeout_seconds) == (60, 300)
    assert settings.reader_idle_seconds == 30
    assert (settings.admin_address, settings.authentication, settings.has_tls) == (None, None, False)


def test_every_variable_is_read() -> None:
    settings = Settings.from_environment(
        {
            "POINTSMAN_GRPC_ADDRESS": "[::1]:0",
            "POINTSMAN_HTTP_ADDRESS": "router.example:9000",
            "POINTSMAN_ADMIN_ADDRESS": "127.0.0.1:50052",
            "POINTSMAN_TLS_CERT_FILE": "/etc/pointsman/server.pem",
            "POINTSMAN_TLS_KEY_FILE": "/etc/pointsman/server.key",
            "POINTSMAN_TLS_CLIENT_CA_FILE": "/etc/pointsman/callers.pem",
            "POINTSMAN_AUTHENTICATION": "required",
            "POINTSMAN_POLICY_FILE": "/etc/pointsman/policy.yaml",
            "POINTSMAN_DATABASE_URL": "postgresql://user:PLANTED@db/pointsman",
            "POINTSMAN_REDIS_URL": "redis://:PLANTED@cache:6379/0",
            "POINTSMAN_STATE_DIR": "/var/lib/pointsman",
            "POINTSMAN_WORKERS": "3",
            "POINTSMAN_LOG_LEVEL": "debug",
            "POINTSMAN_REFLECTION": "off",
            "POINTSMAN_MAX_CONCURRENT_CALLS": "10",
            "POINTSMAN_DRAIN_NOTICE_SECONDS": "3",
            "POINTSMAN_DRAIN_GRACE_SECONDS": "0",
            "POINTSMAN_UNARY_TIMEOUT_SECONDS": "2.5",
            "POINTSMAN_STREAM_TIMEOUT_SECONDS": "900",
            "POINTSMAN_READER_IDLE_SECONDS": "0.5",
        }
    )
    assert settings.grpc_address == Address("::1", 0)
    assert str(settings.grpc_address) == "[::1]:0"
    assert settings.http_address == Address("router.example", 9000)
    assert settings.admin_address == Address("127.0.0.1", 50052)
    assert settings.grpc_addresses == {
        "POINTSMAN_GRPC_ADDRESS": Address("::1", 0),
        "POINTSMAN_ADMIN_ADDRESS": Address("127.0.0.1", 50052),
    }
    assert settings.has_tls
    assert (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file) == (
        "/etc/pointsman/server.pem",
        "/etc/pointsman/server.key",
        "/etc/pointsman/callers.pem",
    )
    assert settings.authentication is Authentication.REQUIRED
    assert (settings.policy_file, settings.workers) == ("/etc/pointsman/policy.yaml", 3)
    assert settings.state_dir == "/var/lib/pointsman"
    assert settings.database_url.startswith("postgresql://")
    assert settings.redis_url.startswith("redis://")
    assert (settings.log_level, settings.reflection) == (LogLevel.DEBUG, False)
    assert (settings.max_concurrent_calls, settings.drain_grace_seconds) == (10, 0)
    assert settings.drain_notice_seconds == 3
    assert (settings.unary_timeout_seconds, settings.stream_timeout_seconds) == (2.5, 900)
    assert settings.reader_idle_seconds == 0.5
    assert "PLANTED" not in repr(settings)


def test_the_key_of_callers_is_none_of_a_servers_business() -> None:
    assert Settings.from_environment({"POINTSMAN_API_KEY": "pm_x"}).grpc_addresses.keys() == {"POINTSMAN_GRPC_ADDRESS"}


def test_state_is_kept_beside_the_process_unless_the_folder_is_empty() -> None:
    assert Settings().state_dir == "var"
    assert Settings.from_environment({"POINTSMAN_STATE_DIR": ""}).state_dir == ""


WRONG = [
    ("POINTSMAN_GRPC_ADDRESS", "50051"),
    ("POINTSMAN_GRPC_ADDRESS", "localhost:"),
    ("POINTSMAN_GRPC_ADDRESS", "localhost:65536"),
    ("POINTSMAN_GRPC_ADDRESS", "::1:50051"),
    ("POINTSMAN_GRPC_ADDRESS", "[localhost]:50051"),
    ("POINTSMAN_GRPC_ADDRESS", "[::g]:50051"),
    ("POINTSMAN_GRPC_ADDRESS", "127.1:50051"),
    ("POINTSMAN_GRPC_ADDRESS", "1.2.3.4.5:50051"),
    ("POINTSMAN_GRPC_ADDRESS", "http://127.0.0.1:50051"),
    ("POINTSMAN_GRPC_ADDRESS", "-host:50051"),
    ("POINTSMAN_HTTP_ADDRESS", ""),
    ("POINTSMAN_ADMIN_ADDRESS", ""),
    ("POINTSMAN_TLS_CERT_FILE", ""),
    ("POINTSMAN_TLS_KEY_FILE", "\n"),
    ("POINTSMAN_TLS_CLIENT_CA_FILE", " "),
    ("POINTSMAN_AUTHENTICATION", "off"),
    ("POINTSMAN_AUTHENTICATION", "Required"),
    ("POINTSMAN_POLICY_FILE", " "),
    ("POINTSMAN_DATABASE_URL", "mysql://db"),
    ("POINTSMAN_DATABASE_URL", "postgresql://"),
    ("POINTSMAN_REDIS_URL", "cache:6379"),
    ("POINTSMAN_STATE_DIR", " "),
    ("POINTSMAN_WORKERS", "0"),
    ("POINTSMAN_WORKERS", "two"),
    ("POINTSMAN_WORKERS", "\u0663"),
    ("POINTSMAN_WORKERS", "9" * 5000),
    ("POINTSMAN_LOG_LEVEL", "LOUD"),
    ("POINTSMAN_REFLECTION", "yes"),
    ("POINTSMAN_MAX_CONCURRENT_CALLS", "-1"),
    ("POINTSMAN_DRAIN_GRACE_SECONDS", "nan"),
    ("POINTSMAN_DRAIN_GRACE_SECONDS", "-1"),
    ("POINTSMAN_UNARY_TIMEOUT_SECONDS", "inf"),
    ("POINTSMAN_UNARY_TIMEOUT_SECONDS", "0"),
    ("POINTSMAN_STREAM_TIMEOUT_SECONDS", "1e3"),
    ("POINTSMAN_READER_IDLE_SECONDS", "0"),
]


@pytest.mark.parametrize(("variable", "value"), WRONG)
def test_wrong_value_names_the_variable_and_the_remedy(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({variable: value})
    (problem,) = caught.value.problems
    assert problem.variable == variable
    assert problem.remedy
    assert str(caught.value).startswith(f"{variable} ")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(dict(WRONG) | {"POINTSMAN_GRPC_ADRESS": "127.0.0.1:1"})
    assert len(caught.value.problems) == len(dict(WRONG)) + 1
    assert "POINTSMAN_GRPC_ADRESS is not a known setting. Did you mean 'POINTSMAN_GRPC_ADDRESS'?" in str(caught.value)


def test_secrets_in_urls_are_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"POINTSMAN_DATABASE_URL": "mysql://user:PLANTED@db"})
    assert "PLANTED" not in f"{caught.value} {caught.value!r} {caught.value.problems}"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "router.example")),
    ],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback
