"""`pointsman serve`."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click
import structlog

from pointsman_server.bootstrap.callers import certificates_of
from pointsman_server.bootstrap.lifecycle import run_service, run_worker
from pointsman_server.bootstrap.logs import configure_logs
from pointsman_server.bootstrap.policies import choose_policy_file, is_shipped
from pointsman_server.bootstrap.service import Service
from pointsman_server.bootstrap.workers import run_workers
from pointsman_server.cli.configuration import (
    GRPC_ADDRESS_VARIABLE,
    POLICY_VARIABLE,
    ConfigurationError,
    environment,
    listed,
    read_policy,
    read_settings,
)
from pointsman_server.config.exposure import exposure_problems
from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.settings import Address, Settings
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.rpc.certificates import CertificateError

_LOG = structlog.stdlib.get_logger("pointsman.cli")


@click.command(short_help="Answer calls.")
@click.option("--policy", metavar="FILE", help=f"The policy file.  [env var: {POLICY_VARIABLE}]")
@click.option("--grpc-address", metavar="HOST:PORT", help=f"Where to listen.  [env var: {GRPC_ADDRESS_VARIABLE}]")
@click.option("--worker", type=int, default=0, hidden=True)
def serve(policy: str | None, grpc_address: str | None, worker: int) -> None:
    """Answer calls until SIGTERM or SIGINT.

    Without a policy file the shipped policy is used: it calls the providers whose keys are in the environment, and
    without any key the built-in simulator answers.
    """
    environ = environment({POLICY_VARIABLE: policy, GRPC_ADDRESS_VARIABLE: grpc_address})
    settings = read_settings(environ)
    _refuse_exposure(settings)
    policy_file = choose_policy_file(settings, environ)
    loaded = read_policy(policy_file, environ)
    configure_logs(settings.log_level)
    if not worker:
        _warn(environ, settings, loaded)
    try:
        if settings.workers > 1 and not worker:
            told = {**environ, POLICY_VARIABLE: policy_file}
            raise SystemExit(run_workers(settings, told, on_ready=lambda port: _announce(settings, port)))
        _serve(settings, loaded, environ, worker)
    except (CertificateError, StoreUnavailableError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    except OSError as error:
        remedy = "--grpc-address 127.0.0.1:50052, and POINTSMAN_HTTP_ADDRESS=127.0.0.1:8081 for HTTP"
        raise click.ClickException(f"{error}\nStop it, or listen elsewhere: {remedy}") from error


def _serve(settings: Settings, loaded: LoadedPolicy, environ: Mapping[str, str], worker: int) -> None:
    chosen = not is_shipped(loaded.snapshot.source)
    service = Service(settings, loaded.snapshot, loaded.record, environ=environ, file_was_chosen=chosen, worker=worker)
    if worker:
        run_worker(service, on_ready=lambda: click.echo(json.dumps({"http_port": service.http_port})))
    else:
        run_service(service, on_ready=lambda port: _announce(settings, port))


def _refuse_exposure(settings: Settings) -> None:
    problems = exposure_problems(settings)
    if problems:
        raise ConfigurationError(listed("the settings cannot be used:", problems))
    certificates = certificates_of(settings)
    try:
        if certificates is not None:
            certificates.check()
    except CertificateError as error:
        raise ConfigurationError(str(error)) from error


def _warn(environ: Mapping[str, str], settings: Settings, loaded: LoadedPolicy) -> None:
    for problem in loaded.warnings:
        _LOG.warning("policy_warning", message=str(problem))


def _announce(settings: Settings, port: int) -> None:
    address = Address(settings.grpc_address.host, port)
    hint = "it speaks TLS, and callers need a key" if settings.has_tls else f"try: {_trial(address)}"
    click.echo(f"pointsman listens on {address}; {hint}")


def _trial(address: Address) -> str:
    return f'pointsman complete --server {address} "Hello"'
