"""AdminService: what operators see of the service and of its deployments, and what they can do about a breaker."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import admin_service_pb2_grpc, completion_pb2
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.errors import DeploymentNotFound, FieldProblem, InvalidRequest
from pointsman_server.domain.health import BreakerState, HealthView
from pointsman_server.execution.health import HealthBoard
from pointsman_server.rpc.boundary import CURRENT_CALL, Boundary
from pointsman_server.rpc.rules import check_message

DEFAULT_PAGE_SIZE = 100

_TOKEN_BEGINNING = b"deployments-after:"
_MICROSECONDS = 1_000_000
_STATES = {state: pb.BreakerState.Value(f"BREAKER_STATE_{state.name}") for state in BreakerState}

_Context = Any
"""grpc.aio.ServicerContext; generic in the published types, not in the library."""

_LOG = structlog.stdlib.get_logger("pointsman.admin")


async def _refuse(self: object, request: Any, context: _Context) -> Any:
    raise NotImplementedError


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """Reads the health board and resets what it is told to. `started_at` is seconds since the Unix epoch."""

    ListTraces = GetTrace = GetUsage = _refuse
    GetPolicy = ListPolicyVersions = ApplyPolicy = RollbackPolicy = _refuse
    ListFlags = SetFlag = SetKillSwitch = ListAuditEvents = _refuse

    def __init__(
        self, health: HealthBoard, snapshot: Callable[[], Snapshot], boundary: Boundary, started_at: float
    ) -> None:
        self._health = health
        self._snapshot = snapshot
        self._boundary = boundary
        self._started_at = started_at
        self._version = version("pointsman")

    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        """How the service is."""
        _check(request)
        start_time = Timestamp()
        start_time.FromMicroseconds(round(self._started_at * _MICROSECONDS))
        return pb.GetStatusResponse(
            server_version=self._version,
            policy_version=self._snapshot().version,
            start_time=start_time,
            active_calls=self._boundary.active_calls,
            draining=self._boundary.draining,
        )

    async def ListDeployments(
        self, request: pb.ListDeploymentsRequest, context: _Context
    ) -> pb.ListDeploymentsResponse:
        """A page of the policy's deployments, by id. Pages fit together although the policy changes between them."""
        _check(request)
        after = _read_token(request.page_token)
        deployments = self._snapshot().deployments
        waiting = sorted(name for name in deployments if name > after)
        page = waiting[: request.page_size or DEFAULT_PAGE_SIZE]
        view = self._health.view()
        return pb.ListDeploymentsResponse(
            deployments=[self._status(deployments[name], view) for name in page],
            next_page_token=_write_token(page[-1]) if len(page) < len(waiting) else "",
        )

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: _Context) -> pb.ResetBreakerResponse:
        """Closes a breaker and ends a cooldown. Raises `DeploymentNotFound`."""
        _check(request)
        deployment = self._snapshot().resolve(request.deployment)
        if deployment is None:
            raise DeploymentNotFound("deployment")
        self._health.reset(deployment.id)
        _LOG.info("breaker_reset", deployment=deployment.id, request_id=CURRENT_CALL.get().request_id)
        return pb.ResetBreakerResponse(deployment=self._status(deployment, self._health.view()))

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


def _check(request: Message) -> None:
    problems = check_message(request)
    if problems:
        raise InvalidRequest(tuple(problems))


def _set_duration(duration: Duration, seconds: float) -> None:
    duration.FromMicroseconds(round(seconds * _MICROSECONDS))


def _write_token(last_id: str) -> str:
    return base64.urlsafe_b64encode(_TOKEN_BEGINNING + last_id.encode()).decode()


def _read_token(token: str) -> str:
    """The id after which the page begins, "" for the first. Raises `InvalidRequest`."""
    if not token:
        return ""
    try:
        read = base64.b64decode(token, altchars=b"-_", validate=True)
        if read.startswith(_TOKEN_BEGINNING):
            return read.removeprefix(_TOKEN_BEGINNING).decode()
    except ValueError:  # not base64, or not UTF-8
        pass
    problem = FieldProblem("page_token", "must be next_page_token of the page before, or empty for the first page")
    raise InvalidRequest((problem,))
