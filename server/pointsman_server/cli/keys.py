"""`pointsman keys`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import click

from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import as_shown, make_table, moment, open_console
from pointsman_server.cli.control_store import operator_name, with_control_store
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key
from pointsman_server.execution.keys import PREFIX, NewKey, is_tenant_id, make_key

_MOST_NOTE_CHARACTERS = 256
_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNIT_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


@click.group(short_help="Make, list and revoke API keys.")
def keys() -> None:
    """Make, list and revoke API keys, in the database that POINTSMAN_DATABASE_URL names.

    Running servers know of a change within a second.
    """


def _tenant(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or is_tenant_id(value):
        return value
    raise click.BadParameter("use small letters, digits, '.', '_' and '-', at most 64, none of the last three first")


def _lifetime(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = _LIFETIME.fullmatch(value)
    if not found:
        raise click.BadParameter("write it as 30m, 12h or 90d")
    return float(found[1]) * _UNIT_SECONDS[found[2]]


def _note(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if len(value) > _MOST_NOTE_CHARACTERS or not value.isprintable():
        raise click.BadParameter(f"write at most {_MOST_NOTE_CHARACTERS} printable characters")
    return value


@keys.command(short_help="Make a key and show it, once.")
@click.option("--tenant", metavar="ID", required=True, callback=_tenant, help="Whom its calls belong to.")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), multiple=True, required=True,
    help="What it may do; repeatable.",
)  # fmt: skip
@click.option("--expires", metavar="TIME", callback=_lifetime, help="How long it lives: 30m, 12h, 90d; else for ever.")
@click.option("--note", metavar="TEXT", default="", callback=_note, help="What it is for; no secret.")
@click.option("--json", "as_json", is_flag=True, help="Print the key and all about it as JSON.")
def create(tenant: str, role: Sequence[str], expires: float | None, note: str, as_json: bool) -> None:
    """Make a key and show it, this once: only its hash is kept.

    The key alone goes to standard output.
    """
    new, now = make_key(), time.time()
    expires_at = None if expires is None else now + expires
    roles = frozenset(Role(one) for one in role)
    key = Key(new.id, tenant, roles, new.digest, note, created_at=now, expires_at=expires_at)
    with_control_store(lambda store: store.add_key(key, operator_name()))
    if as_json:
        click.echo(json.dumps({"key": new.text, **_plain(key)}, indent=2))
        return
    click.echo(_told(new, key), err=True)
    click.echo(new.text)


@keys.command("list", short_help="List keys, without their secrets.")
@click.option("--tenant", metavar="ID", callback=_tenant, help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_keys(tenant: str | None, as_json: bool) -> None:
    """List all keys, oldest first, the expired and revoked ones too."""
    found = [key for key in with_control_store(ControlStore.keys) if tenant in (None, key.tenant)]
    if as_json:
        click.echo(json.dumps([_plain(key) for key in found], indent=2))
        return
    table = make_table(("id", "tenant", "roles", "state", "created", "expires", "note"))
    for key in found:
        table.add_row(
            key.id, key.tenant, _roles(key), _state(key), _time(key.created_at), _time(key.expires_at),
            as_shown(key.note),
        )  # fmt: skip
    open_console().print(table)


@keys.command(short_help="Make a key useless.")
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Make a key useless, for good; `pointsman keys list` shows the ids.

    A whole key is understood too. Calls that run when it is revoked end as they would have.
    """
    wanted = key_id.removeprefix(PREFIX).partition("_")[0]

    async def revoke_it(store: ControlStore) -> bool | None:
        if not any(key.id == wanted for key in await store.keys()):
            return None
        return await store.revoke_key(wanted, operator_name())

    done = with_control_store(revoke_it)
    if done is None:
        raise ConfigurationError("there is no key with this id; `pointsman keys list` shows the ids")
    click.echo(f"revoked: {wanted}" if done else f"was revoked before: {wanted}")


def _told(new: NewKey, key: Key) -> str:
    until = "for ever" if key.expires_at is None else f"until {_time(key.expires_at)}"
    return (
        f"key {new.id} of tenant {key.tenant} for {_roles(key)}, {until}\n"
        "This is the only time that it is shown. Send it as `authorization: Bearer …`, over TLS:"
    )


def _plain(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "roles": _roles(key).split(", "),
        "state": _state(key),
        "note": key.note,
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at) or None,
        "revoked_at": _time(key.revoked_at) or None,
    }


def _roles(key: Key) -> str:
    return ", ".join(role.value for role in Role if role in key.roles)


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_valid(time.time()) else "expired"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else moment(seconds)
