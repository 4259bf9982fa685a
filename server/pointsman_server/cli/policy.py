"""`pointsman policy`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from pointsman.v1 import admin_service_pb2 as pb
from pointsman_server.cli.asking import wrong_usage
from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import as_shown, make_table, moment, open_console, without_controls
from pointsman_server.cli.operating import all_pages, operating
from pointsman_server.cli.policy_trials import canary, promote, shadow, stop, trial
from pointsman_server.cli.server_option import Server, server_option
from pointsman_server.execution.policy_desk import unified_diff

DIFFERS_EXIT_CODE = 1

_comment_option = click.option("--comment", metavar="TEXT", default="", help="Why; it is recorded and shown.")


@click.group(short_help="Put policies in force, compare them, go back, try one out.")
def policy() -> None:
    """Put policies in force, compare them, go back to an earlier one, or try one out.

    `apply`, `diff`, `history`, `rollback` and `show` ask a running server: it checks a policy where it would be used.
    The trials (`canary`, `shadow`, `trial`, `promote`, `stop`) are written to the database that POINTSMAN_DATABASE_URL
    names. All servers that share it follow within seconds, and every change is recorded with who made it.
    """


@policy.command(short_help="Put a policy file in force.")
@click.argument("file", type=click.Path(dir_okay=False))
@_comment_option
@click.option("--check", is_flag=True, help="Only check it and show what would change.")
@server_option
def apply(file: str, *, comment: str, check: bool, server: Server) -> None:
    """Put the policy in FILE in force on all servers; what it changes is shown.

    It is checked as a whole first: if anything is wrong, everything that is wrong is told and nothing changes.
    """
    request = pb.ApplyPolicyRequest(yaml=_read(file), comment=comment, validate_only=check)
    with operating(server) as admin:
        applied = admin.ApplyPolicy(request)
    click.echo(without_controls(applied.diff), nl=False)
    if check:
        found = "would change the policy as shown" if applied.diff else "means what is in force already"
        click.echo(f"it can be used and {found}; still in force: {applied.version}", err=True)
    else:
        click.echo(f"in force: {applied.version}", err=True)


@policy.command(short_help="Show what differs between policies.")
@click.argument("one", metavar="FILE|VERSION")
@click.argument("other", metavar="[FILE|VERSION]", required=False)
@server_option
def diff(one: str, other: str | None, *, server: Server) -> None:
    """Show what differs between the policy in force and a file or version, or between two of them.

    The exit code is 0 when they are the same and 1 when they differ.
    """
    with operating(server) as admin:
        before = _text_of(admin, one if other is not None else "")
        after = _text_of(admin, one if other is None else other)
    told = unified_diff(before[1], after[1], before[0], after[0])
    click.echo(without_controls(told), nl=False)
    if told:
        raise SystemExit(DIFFERS_EXIT_CODE)


@policy.command(short_help="List which policies were in force.")
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def history(*, server: Server, as_json: bool) -> None:
    """List which policies were put in force, when, by whom and why, newest first."""
    with operating(server) as admin:
        found = list(_all_versions(admin))
    if as_json:
        click.echo(orjson.dumps([_plain(one) for one in found], option=orjson.OPT_INDENT_2))
        return
    table = make_table(("version", "applied", "by", "comment"))
    for one in found:
        table.add_row(as_shown(one.version), _time(one), as_shown(one.author), as_shown(one.comment))
    open_console().print(table)


@policy.command(short_help="Put an earlier version in force again.")
@click.argument("version")
@_comment_option
@server_option
def rollback(version: str, *, comment: str, server: Server) -> None:
    """Put VERSION in force again; `pointsman policy history` shows the versions."""
    with operating(server) as admin:
        done = admin.RollbackPolicy(pb.RollbackPolicyRequest(version=version, comment=comment))
    click.echo(f"in force: {done.version}", err=True)


@policy.command(short_help="Print a policy's text.")
@click.argument("version", required=False, default="")
@server_option
def show(version: str, *, server: Server) -> None:
    """Print the text of VERSION, or of the policy in force."""
    with operating(server) as admin:
        shown = admin.GetPolicy(pb.GetPolicyRequest(version=version)).policy
    click.echo(without_controls(shown.yaml), nl=not shown.yaml.endswith("\n"))


for command in (canary, shadow, trial, promote, stop):
    policy.add_command(command)


def _read(file: str) -> str:
    with wrong_usage():
        try:
            return Path(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{file} is not UTF-8 text") from error


def _text_of(admin: Any, name: str) -> tuple[str, str]:
    """What it is called, and its text; "" is the policy in force."""
    if name and Path(name).is_file():
        return name, _read(name)
    found = admin.GetPolicy(pb.GetPolicyRequest(version=name)).policy
    return found.version, found.yaml


def _all_versions(admin: Any) -> Iterator[pb.Policy]:
    for page in all_pages(lambda token: admin.ListPolicyVersions(pb.ListPolicyVersionsRequest(page_token=token))):
        yield from page.policies


def _plain(one: pb.Policy) -> dict[str, Any]:
    return {"version": one.version, "applied_at": _time(one), "author": one.author, "comment": one.comment}


def _time(one: pb.Policy) -> str:
    return moment(one.apply_time.seconds)
