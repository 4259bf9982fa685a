"""`pointsman serve`."""

from __future__ import annotations

from collections.abc import Mapping

import click
import structlog

from pointsman_server.bootstrap.lifecycle import run_service
from pointsman_server.bootstrap.logs import configure_logs
from pointsman_server.bootstrap.policies import choose_policy_file
from pointsman_server.bootstrap.service import Service
from pointsman_server.cli.configuration import (
    GRPC_ADDRESS_VARIABLE,
    POLICY_VARIABLE,
    ConfigurationError,
    environment,
    read_policy,
    read_settings,
)
from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.settings import Address, Settings

_UNUSED_VARIABLES = ("POINTSMAN_DATABASE_URL",)

_LOG = structlog.stdlib.get_logger("pointsman.cli")


@click.command(short_help="Answer calls.")
@click.option("--policy", metavar="FILE", help=f"The policy file.  [env var: {POLICY_VARIABLE}]")
@click.option("--grpc-address", metavar="HOST:PORT", help=f"Where to listen.  [env var: {GRPC_ADDRESS_VARIABLE}]")
def serve(policy: str | None, grpc_address: str | None) -> None:
    """Answer calls until SIGTERM or SIGINT.

    Without a policy file the shipped policy is used: it calls the providers whose keys are in the environment, and
    without any key the built-in simulator answers.
    """
    environ = environment({POLICY_VARIABLE: policy, GRPC_ADDRESS_VARIABLE: grpc_address})
    settings = read_settings(environ)
    _refuse_exposed(settings.grpc_address)
    _refuse_exposed(settings.http_address)
    loaded = read_policy(choose_policy_file(settings, environ), environ)
    configure_logs(settings.log_level)
    _warn(environ, settings, loaded)
    try:
        run_service(Service(settings, loaded.snapshot, loaded.record), on_ready=lambda port: _announce(settings, port))
    except OSError as error:
        remedy = "--grpc-address 127.0.0.1:50052, and POINTSMAN_HTTP_ADDRESS=127.0.0.1:8081 for HTTP"
        raise click.ClickException(f"{error}\nStop it, or listen elsewhere: {remedy}") from error


def _refuse_exposed(address: Address) -> None:
    if not address.is_loopback:
        raise ConfigurationError(
            f"{address} can be reached from other machines, and this version does not check who calls. "
            f"Listen on a loopback address, 127.0.0.1:{address.port} for example, and let a proxy that authenticates "
            "its callers stand before it."
        )


def _warn(environ: Mapping[str, str], settings: Settings, loaded: LoadedPolicy) -> None:
    unused = [variable for variable in _UNUSED_VARIABLES if variable in environ]
    if "POINTSMAN_WORKERS" in environ and settings.workers > 1:
        unused.append("POINTSMAN_WORKERS")
    for variable in unused:
        _LOG.warning("setting_not_used", variable=variable, message="this version does not use it; unset it")
    for problem in loaded.warnings:
        _LOG.warning("policy_warning", message=str(problem))


def _announce(settings: Settings, port: int) -> None:
    address = Address(settings.grpc_address.host, port)
    click.echo(f'pointsman listens on {address}; try: pointsman complete --server {address} "Hello"')
