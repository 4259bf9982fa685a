"""Plaintext or TLS, and the options of a channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.certificates import Authority
from pointsman_client import AsyncClient, Client, tls_from_files
from pointsman_client._connection import CHANNEL_OPTIONS, Connection, is_local
from pointsman_client._settings import Settings

LOCAL = [
    "localhost:50051", "localhost", "127.0.0.1:50051", "127.8.9.10:1", "[::1]:50051", "::1", "unix:/run/x.sock",
    "unix-abstract:x", "unix:///run/x.sock", "dns:localhost:50051", "dns:///localhost:50051", "dns:///127.0.0.1:1",
    "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:50051",
]  # fmt: skip
ELSEWHERE = [
    "pointsman.example:443", "10.0.0.1:50051", "0.0.0.0:50051", "localhost.evil.example:1", "127.0.0.1.evil.example:1",
    "ipv4:127.0.0.1:1,10.0.0.1:2", "[fd00::1]:1", "dns://8.8.8.8/localhost:1", "dns:///pointsman.example:443",
    "xds:///localhost", "127.1:1", "localhost@evil.example:1", "[::ffff:10.0.0.1]:1",
]  # fmt: skip


@pytest.mark.parametrize("target", LOCAL)
def test_this_machine_is_called_in_plaintext(target: str) -> None:
    assert is_local(target)
    assert Connection.to(target).credentials is None


@pytest.mark.parametrize("target", ELSEWHERE)
def test_everything_else_is_called_over_tls(target: str) -> None:
    assert not is_local(target)
    assert Connection.to(target).credentials is not None


def test_insecure_takes_tls_away() -> None:
    assert Connection.to("pointsman.example:80", insecure=True).credentials is None


def test_credentials_are_used_everywhere() -> None:
    own = grpc.ssl_channel_credentials()
    assert Connection.to("localhost:1", credentials=own).credentials is own
    assert Connection.to("pointsman.example:443", credentials=own).credentials is own


def test_no_proxy_stands_between_a_machine_and_itself() -> None:
    assert ("grpc.enable_http_proxy", 0) in Connection.to("localhost:1").options
    assert "grpc.enable_http_proxy" not in dict(Connection.to("pointsman.example:443").options)


def test_the_options_of_a_channel() -> None:
    options = dict(CHANNEL_OPTIONS)
    assert options["grpc.enable_retries"] == 0
    assert (options["grpc.http2.bdp_probe"], options["grpc.http2.lookahead_bytes"]) == (0, 65535)
    assert int(options["grpc.keepalive_time_ms"]) > 300_000, "servers take more frequent pings for abuse"
    assert options["grpc.keepalive_permit_without_calls"] == 0


def test_given_options_win() -> None:
    options = dict(Connection.to("localhost:1", channel_options=[("grpc.enable_retries", 1), ("a.b", "c")]).options)
    assert (options["grpc.enable_retries"], options["a.b"]) == (1, "c")


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("http://localhost:50051", {}, "no http://"),
        ("https://pointsman.example", {}, "no http://"),
        ("", {}, "a target is needed"),
        ("localhost:1", {"insecure": True, "credentials": grpc.ssl_channel_credentials()}, "exclude each other"),
        ("localhost:1", {"timeout_seconds": 0}, "every call has a deadline"),
        ("localhost:1", {"stream_timeout_seconds": float("inf")}, "every call has a deadline"),
        ("localhost:1", {"api_key": "pm_x\n"}, "printable ASCII"),
        ("localhost:1", {"api_key": "pm x"}, "printable ASCII"),
        ("localhost:1", {"api_key": "schlüssel"}, "printable ASCII"),
        ("pointsman.example:80", {"api_key": "k", "insecure": True}, "over TLS only"),
        ("10.0.0.1:50051", {"api_key": "k", "insecure": True}, "over TLS only"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, target: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(target, **options)


def test_no_key_is_sent_when_there_is_none() -> None:
    assert Settings.of("localhost:1", {"api_key": None}).defaults.metadata(()) == ()


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_an_unknown_setting_is_named(make: Any) -> None:
    with pytest.raises(TypeError, match="no option 'apikey'; did you mean 'api_key'"):
        make("localhost:1", apikey="x")


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_the_key_is_in_no_representation(make: Any) -> None:
    client = make("localhost:1", api_key="pm_secret")
    assert repr(client) == f"{make.__name__}('localhost:1')"
    assert "pm_secret" not in repr(client._settings)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("localhost:1", {}),
        ("localhost:1", {"insecure": True}),
        ("unix:/run/x.sock", {}),
        ("pointsman.example:443", {}),
        ("pointsman.example:443", {"credentials": grpc.ssl_channel_credentials()}),
    ],
)
def test_a_key_is_sent_where_nobody_can_read_it(target: str, options: dict[str, Any]) -> None:
    options = {"api_key": "k", **options}
    settings = Settings.of(target, options)  # type: ignore[arg-type]
    assert settings.connection.is_secret
    assert settings.defaults.metadata(()) == (("authorization", "Bearer k"),)


@pytest.mark.parametrize("name", ["authorization", "X-API-Key"])
def test_a_call_with_a_key_of_its_own_does_not_carry_the_clients_too(name: str) -> None:
    defaults = Settings.of("localhost:1", {"api_key": "k", "metadata": lambda: [("x-api-key", "other")]}).defaults
    assert defaults.metadata([(name, "own")]) == ((name.lower(), "own"),)
    assert defaults.metadata(()) == (("x-api-key", "other"),)


class TestTlsFromFiles:
    def test_a_pair_and_roots(self, tmp_path: Path) -> None:
        authority = Authority()
        ca_file, (cert_file, key_file) = authority.write(tmp_path), authority.client().write(tmp_path, "client")
        for files in ((), (ca_file,), (ca_file, cert_file, key_file), (None, Path(cert_file), Path(key_file))):
            assert isinstance(tls_from_files(*files), grpc.ChannelCredentials)

    @pytest.mark.parametrize("half", [{"cert_file": "c"}, {"key_file": "k"}])
    def test_half_a_pair_is_refused(self, half: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="go together"):
            tls_from_files(**half)

    def test_a_missing_file_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            tls_from_files(tmp_path / "no.pem")
