"""AdminService: what operators see of the service and of its deployments, and what they can do about a breaker."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import structlog
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import admin_service_pb2_grpc, completion_pb2
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.errors import DeploymentNotFound
from pointsman_server.domain.health import BreakerState, HealthView
from pointsman_server.execution.health import HealthBoard
from pointsman_server.rpc.admin_control import ControlDesk, check, to_timestamp
from pointsman_server.rpc.admin_policy import PolicyMethods
from pointsman_server.rpc.admin_traces import TraceMethods
from pointsman_server.rpc.boundary import CURRENT_CALL, Boundary
from pointsman_server.rpc.paging import DEFAULT_PAGE_SIZE, read_token, write_token

_MICROSECONDS = 1_000_000
_STATES = {state: pb.BreakerState.Value(f"BREAKER_STATE_{state.name}") for state in BreakerState}

_Context = Any
"""grpc.aio.ServicerContext; generic in the published types, not in the library."""

_LOG = structlog.stdlib.get_logger("pointsman.admin")


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """Reads the health board, resets what it is told to, and hands over what operators switch to `controls`, what they
    do with policies to `policies`, what they look up of past calls to `traces`.

    `started_at` is seconds since the Unix epoch. Without `controls`, `policies` or `traces` their methods are not
    served.
    """

    def __init__(
        self,
        health: HealthBoard,
        snapshot: Callable[[], Snapshot],
        boundary: Boundary,
        started_at: float,
        controls: ControlDesk | None = None,
        policies: PolicyMethods | None = None,
        traces: TraceMethods | None = None,
    ) -> None:
        self._health = health
        self._snapshot = snapshot
        self._boundary = boundary
        self._started_at = started_at
        self._controls = controls
        self._policies = policies
        self._traces = traces
        self._version = version("pointsman")

    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        """How the service is."""
        check(request)
        return pb.GetStatusResponse(
            server_version=self._version,
            policy_version=self._snapshot().version,
            start_time=to_timestamp(self._started_at),
            active_calls=self._boundary.active_calls,
            draining=self._boundary.draining,
            kill_switches=[] if self._controls is None else self._controls.kill_switches(),
        )

    async def ListFlags(self, request: pb.ListFlagsRequest, context: _Context) -> pb.ListFlagsResponse:
        """A page of the flags."""
        return self._desk.list_flags(request)

    async def SetFlag(self, request: pb.SetFlagRequest, context: _Context) -> pb.SetFlagResponse:
        """Sets or clears a flag."""
        return await self._desk.set_flag(request)

    async def SetKillSwitch(self, request: pb.SetKillSwitchRequest, context: _Context) -> pb.SetKillSwitchResponse:
        """Turns a kill switch on or off."""
        return await self._desk.set_kill_switch(request)

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: _Context
    ) -> pb.ListAuditEventsResponse:
        """A page of changes, newest first."""
        return await self._desk.list_audit_events(request)

    async def GetUsage(self, request: pb.GetUsageRequest, context: _Context) -> pb.GetUsageResponse:
        """What was used."""
        return await self._desk.get_usage(request)

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: _Context) -> pb.GetPolicyResponse:
        """A version of the policy."""
        return await self._policy_methods.get_policy(request)

    async def ListPolicyVersions(
        self, request: pb.ListPolicyVersionsRequest, context: _Context
    ) -> pb.ListPolicyVersionsResponse:
        """A page of the policy's versions, newest first."""
        return await self._policy_methods.list_versions(request)

    async def ApplyPolicy(self, request: pb.ApplyPolicyRequest, context: _Context) -> pb.ApplyPolicyResponse:
        """Checks a policy and puts it in force."""
        return await self._policy_methods.apply(request)

    async def RollbackPolicy(self, request: pb.RollbackPolicyRequest, context: _Context) -> pb.RollbackPolicyResponse:
        """Puts an earlier version of the policy in force again."""
        return await self._policy_methods.roll_back(request)

    async def ListTraces(self, request: pb.ListTracesRequest, context: _Context) -> pb.ListTracesResponse:
        """A page of recorded calls, newest first."""
        return await self._trace_methods.list_traces(request)

    async def GetTrace(self, request: pb.GetTraceRequest, context: _Context) -> pb.GetTraceResponse:
        """One recorded call."""
        return await self._trace_methods.get_trace(request)

    async def ListDeployments(
        self, request: pb.ListDeploymentsRequest, context: _Context
    ) -> pb.ListDeploymentsResponse:
        """A page of the policy's deployments, by id. Pages fit together although the policy changes between them."""
        check(request)
        after = read_token("deployments", request.page_token)
        deployments = self._snapshot().deployments
        waiting = sorted(name for name in deployments if name > after)
        page = waiting[: request.page_size or DEFAULT_PAGE_SIZE]
        view = self._health.view()
        return pb.ListDeploymentsResponse(
            deployments=[self._status(deployments[name], view) for name in page],
            next_page_token=write_token("deployments", page[-1]) if len(page) < len(waiting) else "",
        )

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: _Context) -> pb.ResetBreakerResponse:
        """Closes a breaker and ends a cooldown. Raises `DeploymentNotFound`."""
        check(request)
        deployment = self._snapshot().resolve(request.deployment)
        if deployment is None:
            raise DeploymentNotFound("deployment")
        self._health.reset(deployment.id)
        _LOG.info("breaker_reset", deployment=deployment.id, request_id=CURRENT_CALL.get().request_id)
        if self._controls is not None:
            await self._controls.note_reset(deployment.id)
        return pb.ResetBreakerResponse(deployment=self._status(deployment, self._health.view()))

    @property
    def _desk(self) -> ControlDesk:
        if self._controls is None:
            raise NotImplementedError
        return self._controls

    @property
    def _policy_methods(self) -> PolicyMethods:
        if self._policies is None:
            raise NotImplementedError
        return self._policies

    @property
    def _trace_methods(self) -> TraceMethods:
        if self._traces is None:
            raise NotImplementedError
        return self._traces

    def _status(self, deployment: Deployment, view: HealthView) -> pb.DeploymentStatus:
        report, unwell = self._health.report(deployment.id), view.unavailable(deployment.id)
        status = pb.DeploymentStatus(
            deployment=deployment.id,
            provider=deployment.provider.label,
            model=deployment.model.id,
            tier=completion_pb2.Tier.ValueType(deployment.model.tier.value),
            breaker_state=_STATES[report.breaker],
            error_rate=report.error_rate,
            unusable_because=deployment.provider.unusable_because or (unwell.detail if unwell is not None else ""),
        )
        if report.out_seconds > 0:
            _set_duration(status.cooldown_remaining, report.out_seconds)
        if report.observed is not None and report.observed.answers > 0:
            _set_duration(status.first_token_p50, report.observed.first_token_p50_seconds)
            _set_duration(status.first_token_p95, report.observed.first_token_p95_seconds)
        return status


def _set_duration(duration: Duration, seconds: float) -> None:
    duration.FromMicroseconds(round(seconds * _MICROSECONDS))
