"""Which server a command asks, and how it gets there: address, key, TLS."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import click
import grpc

from pointsman_client import tls_from_files
from pointsman_server.cli.configuration import GRPC_ADDRESS_VARIABLE, ConfigurationError
from pointsman_server.config.settings import API_KEY_VARIABLE
from pointsman_server.execution.keys import PREFIX, is_whole

DEFAULT_SERVER = "127.0.0.1:50051"

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Server:
    """A server to ask. Without `credentials` the client decides: plaintext on this machine, TLS to all others."""

    address: str
    api_key: str = field(default="", repr=False)
    credentials: grpc.ChannelCredentials | None = None


def server_option(command: Command) -> Command:
    """Gives a command the options that lead to a server; they reach it as one argument, `server`."""

    @functools.wraps(command)
    def with_server(
        *arguments: Any,
        server: str,
        api_key_env: str | None,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        **options: Any,
    ) -> Any:
        reached = Server(server, _api_key(api_key_env), _credentials(tls_ca, tls_cert, tls_key))
        return command(*arguments, server=reached, **options)

    taking: Any = with_server
    for option in reversed(_OPTIONS):
        taking = option(taking)
    return cast("Command", taking)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--server", metavar="ADDRESS", default=DEFAULT_SERVER, envvar=GRPC_ADDRESS_VARIABLE,
        show_default=True, show_envvar=True, help="The server to ask.",
    ),
    click.option(
        "--api-key-env", metavar="NAME", help=f"The environment variable with the key.  [default: {API_KEY_VARIABLE}]"
    ),
    click.option("--tls-ca", metavar="FILE", help="Speak TLS and trust these authorities (PEM)."),
    click.option("--tls-cert", metavar="FILE", help="Speak TLS and show this client certificate (PEM)."),
    click.option("--tls-key", metavar="FILE", help="The client certificate's key (PEM)."),
)  # fmt: skip


def _api_key(variable: str | None) -> str:
    key = os.environ.get(variable or API_KEY_VARIABLE, "")
    if variable is not None and not key:
        raise ConfigurationError(f"--api-key-env names {variable}, which is not set; put the key there")
    if key.startswith(PREFIX) and not is_whole(key):
        raise ConfigurationError(f"{variable or API_KEY_VARIABLE} holds a key that was cut or mistyped; copy all of it")
    return key


def _credentials(ca: str | None, cert: str | None, key: str | None) -> grpc.ChannelCredentials | None:
    if ca is None and cert is None and key is None:
        return None
    try:
        return tls_from_files(ca, cert, key)
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError("--tls-cert and --tls-key go together; give both") from error
