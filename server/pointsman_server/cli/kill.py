"""`pointsman kill`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import orjson

from pointsman.v1 import admin_service_pb2 as pb
from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import as_shown, make_table, open_console, without_controls
from pointsman_server.cli.operating import operating
from pointsman_server.cli.server_option import Server, server_option

Command = TypeVar("Command", bound=Callable[..., Any])

_WORDS = {
    pb.KILL_SWITCH_SCOPE_GLOBAL: "all calls",
    pb.KILL_SWITCH_SCOPE_TENANT: "tenant",
    pb.KILL_SWITCH_SCOPE_PROVIDER: "provider",
}


def _whom(command: Command) -> Command:
    for option in (
        click.option("--provider", metavar="ID", help="The calls to this provider; others answer instead."),
        click.option("--tenant", metavar="ID", help="This tenant's calls."),
        click.option("--all", "everything", is_flag=True, help="Every call."),
    ):
        command = option(command)
    return command


@click.group(short_help="Stop calls at once, and let them in again.")
def kill() -> None:
    """Turn kill switches on and off: for all calls, a tenant or a provider.

    A running server follows at once, its other processes and replicas within a second or two. Switches survive restarts
    and every change is recorded with the key that made it.
    """


@kill.command("on", short_help="Stop calls.")
@_whom
@click.option("--comment", metavar="TEXT", default="", help="Why; it is recorded and shown to operators.")
@server_option
def turn_on(*, everything: bool, tenant: str | None, provider: str | None, comment: str, server: Server) -> None:
    """Stop all calls, those of a tenant, or those to a provider."""
    _switch(server, _switch_of(everything, tenant, provider, engaged=True, comment=comment))


@kill.command("off", short_help="Let calls in again.")
@_whom
@server_option
def turn_off(*, everything: bool, tenant: str | None, provider: str | None, server: Server) -> None:
    """Take one kill switch back; others stay as they are."""
    _switch(server, _switch_of(everything, tenant, provider, engaged=False))


@kill.command("list", short_help="List the kill switches that are on.")
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_switches(*, server: Server, as_json: bool) -> None:
    """List the kill switches that are on."""
    with operating(server) as admin:
        switches = admin.GetStatus(pb.GetStatusRequest()).kill_switches
    if as_json:
        plain = [{"stops": _WORDS[one.scope], "target": one.target, "comment": one.comment} for one in switches]
        click.echo(orjson.dumps(plain, option=orjson.OPT_INDENT_2))
        return
    if not switches:
        click.echo("no kill switch is on")
        return
    table = make_table(("stops", "target", "comment"))
    for one in switches:
        table.add_row(_WORDS[one.scope], as_shown(one.target), as_shown(one.comment))
    open_console().print(table)


def _switch_of(
    everything: bool, tenant: str | None, provider: str | None, *, engaged: bool, comment: str = ""
) -> pb.SetKillSwitchRequest:
    if everything + (tenant is not None) + (provider is not None) != 1:
        raise ConfigurationError("name exactly one: --all, --tenant ID or --provider ID")
    scope = pb.KILL_SWITCH_SCOPE_GLOBAL
    if tenant is not None:
        scope = pb.KILL_SWITCH_SCOPE_TENANT
    elif provider is not None:
        scope = pb.KILL_SWITCH_SCOPE_PROVIDER
    return pb.SetKillSwitchRequest(scope=scope, target=tenant or provider or "", engaged=engaged, comment=comment)


def _switch(server: Server, request: pb.SetKillSwitchRequest) -> None:
    with operating(server) as admin:
        switch = admin.SetKillSwitch(request).kill_switch
    whom = f"{_WORDS[switch.scope]} {switch.target}".rstrip()
    click.echo(without_controls(f"{whom}: {'stopped' if switch.engaged else 'no longer stopped'}"))
