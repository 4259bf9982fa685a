"""`pointsman flags`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import orjson

from pointsman.v1.admin_service_pb2 import Flag, ListFlagsRequest, SetFlagRequest
from pointsman_server.cli.console import as_shown, make_table, open_console, without_controls
from pointsman_server.cli.operating import all_pages, operating
from pointsman_server.cli.server_option import Server, server_option

_tenant_option = click.option(
    "--tenant", metavar="ID", default="", help="For this tenant's calls only; else for all that have no own value."
)


@click.group(short_help="Show, set and clear feature flags.")
def flags() -> None:
    """Show, set and clear the feature flags of a running server.

    All its processes and replicas follow within a second or two, and every change is recorded with the key that made
    it. What depends on labels or tasks is a rule of the policy instead.
    """


@flags.command("list", short_help="List the flags with their values.")
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_flags(*, server: Server, as_json: bool) -> None:
    """List the flags: each for all tenants, then what single tenants have of their own."""
    with operating(server) as admin:
        found = list(_all_flags(admin))
    if as_json:
        click.echo(orjson.dumps([_plain(flag) for flag in found], option=orjson.OPT_INDENT_2))
        return
    table = make_table(("flag", "tenant", "value", "usually", "what it does"))
    for flag in found:
        texts = (flag.name, flag.tenant or "(all)", flag.value_json, flag.default_json, flag.description)
        table.add_row(*(as_shown(text) for text in texts))
    open_console().print(table)


@flags.command("set", short_help="Set a flag.")
@click.argument("name")
@click.argument("value")
@_tenant_option
@server_option
def set_flag(name: str, value: str, *, tenant: str, server: Server) -> None:
    """Set the flag NAME to VALUE: true, 0.5 or a word such as restart."""
    _send(server, name, _as_json(value), tenant)


@flags.command("clear", short_help="Take back what was set.")
@click.argument("name")
@_tenant_option
@server_option
def clear_flag(name: str, *, tenant: str, server: Server) -> None:
    """Take back what was set of the flag NAME: the value for all is in force again, or the usual one."""
    _send(server, name, "null", tenant)


def _send(server: Server, name: str, value_json: str, tenant: str) -> None:
    with operating(server) as admin:
        flag = admin.SetFlag(SetFlagRequest(name=name, value_json=value_json, tenant=tenant)).flag
    whom = f"tenant {flag.tenant}" if flag.tenant else "all tenants"
    click.echo(without_controls(f"{flag.name} is {flag.value_json} for {whom}"))


def _all_flags(admin: Any) -> Iterator[Flag]:
    for page in all_pages(lambda token: admin.ListFlags(ListFlagsRequest(page_token=token))):
        yield from page.flags


def _as_json(value: str) -> str:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return orjson.dumps(value).decode()
    return value


def _plain(flag: Flag) -> dict[str, Any]:
    return {
        "name": flag.name,
        "tenant": flag.tenant,
        "value": orjson.loads(flag.value_json),
        "default": orjson.loads(flag.default_json),
        "description": flag.description,
    }
