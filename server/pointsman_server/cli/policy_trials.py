"""The trials of `pointsman policy`: a policy on a share of the calls, or beside them all."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.cli.configuration import ConfigurationError, environment, read_policy
from pointsman_server.cli.control_store import operator_name, with_control_store
from pointsman_server.domain.control import Rollout, RolloutKind

_comment_option = click.option("--comment", metavar="TEXT", default="", help="Why; it is recorded.")


@click.command(short_help="Try a policy on a share of the calls.")
@click.argument("policy", metavar="FILE|VERSION")
@click.option("--percent", type=click.IntRange(0, 100), required=True, help="Share of the calls, 0 to 100.")
@_comment_option
def canary(policy: str, *, percent: int, comment: str) -> None:
    """Try the policy in a file, or one that was in force, on a share of the calls.

    A session always gets the same policy, and a larger share keeps those that had it. Say it again with another
    --percent to change the share. If the canary fails or lags far more than the others, it is stopped by itself.
    """
    version = _try_out(policy, RolloutKind.CANARY, percent, comment)
    click.echo(f"canary: {version} for {percent} % of the calls", err=True)


@click.command(short_help="Let a policy decide beside the one in force.")
@click.argument("policy", metavar="FILE|VERSION")
@_comment_option
def shadow(policy: str, *, comment: str) -> None:
    """Let a policy decide every call beside the one in force, without effect and without a call to a provider.

    What it would change is in the servers' logs and metrics.
    """
    version = _try_out(policy, RolloutKind.SHADOW, 0, comment)
    click.echo(f"shadow: {version}", err=True)


@click.command(short_help="Show which policy is being tried.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def trial(*, as_json: bool) -> None:
    """Show which policy is being tried, and how."""
    rollout = with_control_store(ControlStore.load).rollout
    if as_json:
        plain = rollout and {"version": rollout.version, "kind": rollout.kind.value, "percent": rollout.percent}
        click.echo(orjson.dumps(plain))
    elif rollout is None:
        click.echo("no policy is being tried")
    else:
        share = f" for {rollout.percent} % of the calls" if rollout.kind is RolloutKind.CANARY else ""
        click.echo(f"{rollout.kind.value}: {rollout.version}{share}")


@click.command(short_help="Put the tried policy in force for all.")
@_comment_option
def promote(*, comment: str) -> None:
    """Put the policy that is being tried in force for all calls, and end the trial."""

    async def promote_it(store: ControlStore) -> str:
        version = await _tried(store)
        kept = await store.policy(version)
        if kept is None:
            raise ConfigurationError(f"version {version} is not kept in the database; stop the trial")
        await store.apply_policy(version, kept.yaml, operator_name(), comment)
        await store.set_rollout(None, operator_name(), comment)
        return version

    click.echo(f"in force: {with_control_store(promote_it)}", err=True)


@click.command(short_help="End the trial.")
@_comment_option
def stop(*, comment: str) -> None:
    """End the trial: all calls get the policy in force."""

    async def stop_it(store: ControlStore) -> str:
        version = await _tried(store)
        await store.set_rollout(None, operator_name(), comment)
        return version

    click.echo(f"no longer tried: {with_control_store(stop_it)}", err=True)


def _try_out(policy: str, kind: RolloutKind, percent: int, comment: str) -> str:
    """Begins the trial of what this names; gives its version. A file's policy is kept, so that the servers find it."""
    loaded = read_policy(policy, environment({})) if Path(policy).is_file() else None
    version = policy if loaded is None else loaded.snapshot.version

    async def begin(store: ControlStore) -> None:
        if loaded is not None:
            await store.keep_policy(version, loaded.text)
        elif await store.policy(version) is None:
            raise ConfigurationError(
                f"{policy} is neither a file nor a version that is kept; `pointsman policy history` lists the versions"
            )
        await store.set_rollout(Rollout(version, kind, percent), operator_name(), comment)

    with_control_store(begin)
    return version


async def _tried(store: ControlStore) -> str:
    rollout = (await store.load()).rollout
    if rollout is None:
        raise ConfigurationError("no policy is being tried; `pointsman policy canary` tries one")
    return rollout.version
