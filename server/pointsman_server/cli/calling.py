"""A connection to a server, and what to say and do when a call fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
import grpc

from pointsman_client import Client, PointsmanError
from pointsman_server.cli.asking import wrong_usage
from pointsman_server.cli.console import without_controls
from pointsman_server.cli.server_option import Server


class CallFailedError(click.ClickException):
    """The server refused the call, failed, or cannot be reached."""


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    """A client of this server; its typed errors leave as `CallFailedError`."""
    with wrong_usage():
        client = Client(server.address, api_key=server.api_key, credentials=server.credentials)
    try:
        with client:
            yield client
    except PointsmanError as error:
        raise CallFailedError(without_controls(explain(error, server.address))) from error


def explain(error: PointsmanError, server: str) -> str:
    """The error for people: what went wrong, the stable reason, each violation, and what to do."""
    if not error.reason and error.code is grpc.StatusCode.UNAVAILABLE:
        return (
            f"no pointsman server answers at {server}\n"
            "  remedy: start one with `make run` or `pointsman serve`, or name another: --server HOST:PORT; "
            "if it speaks TLS, --tls-ca FILE"
        )
    lines = [error.message or "the call failed", f"  reason: {error.reason or 'not given'} ({error.code.name})"]
    lines += [f"  {item.field or 'request'}: {item.description}" for item in error.field_violations]
    lines += [f"  {item.subject}: {item.description}" for item in error.precondition_violations]
    lines += [f"  {item.subject}: {item.description}" for item in error.quota_violations]
    if error.request_id and error.request_id not in error.message:
        lines.append(f"  request id: {error.request_id}")
    if remedy := _remedy(error):
        lines.append(f"  remedy: {remedy}")
    return "\n".join(lines)


def _remedy(error: PointsmanError) -> str:
    if remedy := _REMEDIES.get(error.reason):
        return remedy
    if error.retry_delay_seconds is not None:
        return f"try again in {error.retry_delay_seconds:g} s"
    return "correct what is named above" if error.field_violations else ""


_REMEDIES: Mapping[str, str] = {
    "UNAUTHENTICATED": "put a valid key into POINTSMAN_API_KEY; `pointsman keys create` makes one",
    "PERMISSION_DENIED": "use a key with the role and of the tenant that are named above",
    "KILL_SWITCH": "ask who operates the server; `pointsman kill list` and `pointsman flags list` show what is set",
    "STORE_UNAVAILABLE": "see to the server's database, and try again",
    "CONTEXT_OVERFLOW": "shorten the prompt, or leave out options that exclude deployments with a larger window",
    "UNSUPPORTED_CONTENT": "leave --deployment out, or pin one whose model can take it",
    "FEATURE_UNAVAILABLE": "leave out the option for the field named above",
    "DEPLOYMENT_NOT_FOUND": "leave --deployment out; `pointsman route` lists the deployments there are",
    "NO_ELIGIBLE_DEPLOYMENT": "relax the options that exclude them; `pointsman preflight` tells which keys are missing",
    "PROVIDER_AUTH": "correct the provider's key in the server's environment; `pointsman preflight` names its variable",
    "PROVIDER_QUOTA": "add credit to the provider account named above, or use another provider's deployment",
    "PROVIDER_MODEL_MISSING": "correct the deployment's model_name in the policy",
    "STREAM_INTERRUPTED": "ask again, or let another deployment go on or start over: --failover continue or restart",
    "ANSWER_INVALID": "ask again, or simplify the schema; the answer is in the error's details",
    "DEADLINE_EXCEEDED": "ask again, or pin a faster deployment: --deployment",
    "INTERNAL": "look for the request id in the server's log",
}
"""By the contract's reasons, for those that time alone does not mend."""
