"""The methods of AdminService about policies: look at them, put one in force, go back to an earlier one."""

from __future__ import annotations

import math

import structlog

from pointsman.v1 import admin_service_pb2 as pb
from pointsman_server.domain.control import PolicyVersion
from pointsman_server.execution.policy_desk import PolicyDesk
from pointsman_server.rpc.admin_control import check, to_timestamp
from pointsman_server.rpc.boundary import CURRENT_CALL
from pointsman_server.rpc.paging import DEFAULT_PAGE_SIZE, bad_token, read_token, write_token

_KIND = "policies"

_LOG = structlog.stdlib.get_logger("pointsman.admin")


class PolicyMethods:
    """Between the contract's messages and the desk. What goes wrong leaves as `InvalidRequest`, problem by problem."""

    def __init__(self, desk: PolicyDesk) -> None:
        self._desk = desk

    async def get_policy(self, request: pb.GetPolicyRequest) -> pb.GetPolicyResponse:
        """A version with its text."""
        check(request)
        return pb.GetPolicyResponse(policy=_policy(await self._desk.version(request.version)))

    async def list_versions(self, request: pb.ListPolicyVersionsRequest) -> pb.ListPolicyVersionsResponse:
        """A page of applications, newest first; a version that was applied twice is there twice."""
        check(request)
        size, before = request.page_size or DEFAULT_PAGE_SIZE, _read_time(request.page_token)
        found = await self._desk.versions(size + 1, before)
        page = found[:size]
        return pb.ListPolicyVersionsResponse(
            policies=[_policy(one) for one in page],
            next_page_token=write_token(_KIND, page[-1].applied_at.hex()) if len(found) > size else "",
        )

    async def apply(self, request: pb.ApplyPolicyRequest) -> pb.ApplyPolicyResponse:
        """Checks a policy and, unless that was all that was asked for, puts it in force."""
        check(request)
        actor = CURRENT_CALL.get().caller.name
        applied = await self._desk.apply(request.yaml, actor, request.comment, check_only=request.validate_only)
        if not request.validate_only:
            _LOG.warning("policy_applied", policy_version=applied.version, **_who())
        return pb.ApplyPolicyResponse(version=applied.version, diff=applied.diff)

    async def roll_back(self, request: pb.RollbackPolicyRequest) -> pb.RollbackPolicyResponse:
        """Puts an earlier version in force again."""
        check(request)
        version = await self._desk.roll_back(request.version, CURRENT_CALL.get().caller.name, request.comment)
        _LOG.warning("policy_rolled_back", policy_version=version, **_who())
        return pb.RollbackPolicyResponse(version=version)


def _policy(policy: PolicyVersion) -> pb.Policy:
    return pb.Policy(
        version=policy.version,
        yaml=policy.yaml,
        author=policy.author,
        apply_time=to_timestamp(policy.applied_at) if policy.applied_at else None,
        comment=policy.comment,
    )


def _who() -> dict[str, str]:
    info = CURRENT_CALL.get()
    return {"actor": info.caller.name, "request_id": info.request_id}


def _read_time(token: str) -> float | None:
    text = read_token(_KIND, token)
    if not text:
        return None
    try:
        seconds = float.fromhex(text)
    except (ValueError, OverflowError):
        raise bad_token() from None
    if not math.isfinite(seconds):
        raise bad_token()
    return seconds
