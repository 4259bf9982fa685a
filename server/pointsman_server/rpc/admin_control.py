"""What operators switch at run time, and the record of it: flags, kill switches, audit events, usage.

Every change goes to the store, with the caller's name, before it is told as done; this process knows it at once, the
others within the time in which they look for changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any, Protocol

import orjson
import structlog
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import answer_pb2
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import AuditEvent, Control, KillScope, KillSwitch
from pointsman_server.domain.errors import FieldProblem, InvalidRequest
from pointsman_server.domain.ledger import UsageDimension, UsageQuery, UsageRow
from pointsman_server.domain.ports import ControlKeeper, StoreUnavailableError
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.flags import FLAGS, Flag, require_flag, require_value
from pointsman_server.execution.keys import is_tenant_id
from pointsman_server.rpc.boundary import CURRENT_CALL
from pointsman_server.rpc.paging import DEFAULT_PAGE_SIZE, bad_token, read_token, write_token
from pointsman_server.rpc.rules import check_message

_MICROSECONDS = 1_000_000
_DAY_SECONDS = 86_400
_MOST_DAYS = 2_900_000  # the calendar ends with the year 9999
_SCOPES = {scope: pb.KillSwitchScope.Value(f"KILL_SWITCH_SCOPE_{scope.name}") for scope in KillScope}
_SCOPE_OF = {value: scope for scope, value in _SCOPES.items()}
_DIMENSION_OF = {pb.UsageDimension.Value(f"USAGE_DIMENSION_{one.name}"): one for one in UsageDimension}

_LOG = structlog.stdlib.get_logger("pointsman.admin")


class UsageSource(Protocol):
    """Sums of what was used. Raises `StoreUnavailableError`."""

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        """One row for each group."""
        ...


class ControlDesk:
    """The methods of AdminService about what operators switch. `book` is this process's view of what `keeper` keeps."""

    def __init__(
        self, keeper: ControlKeeper, book: ControlBook, snapshot: Callable[[], Snapshot], usage: UsageSource
    ) -> None:
        self._keeper = keeper
        self._book = book
        self._snapshot = snapshot
        self._usage = usage

    def kill_switches(self) -> list[pb.KillSwitch]:
        """Those that are on, in a stable order."""
        switches = sorted(self._book.current.kill_switches, key=lambda one: (one.scope.value, one.target))
        return [_told(switch, engaged=True) for switch in switches]

    def list_flags(self, request: pb.ListFlagsRequest) -> pb.ListFlagsResponse:
        """A page of the flags, by name: each for all tenants, then what single tenants have of their own."""
        check(request)
        control, after = self._book.current, read_token("flags", request.page_token)
        own = [(name, tenant) for name, tenant in control.flags if tenant and name in FLAGS]
        rows = sorted({*((name, "") for name in FLAGS), *own})
        # Neither a flag's name nor a tenant's id has a blank.
        waiting = [row for row in rows if " ".join(row) > after]
        page = waiting[: request.page_size or DEFAULT_PAGE_SIZE]
        return pb.ListFlagsResponse(
            flags=[_flag(FLAGS[name], tenant, control) for name, tenant in page],
            next_page_token=write_token("flags", " ".join(page[-1])) if len(page) < len(waiting) else "",
        )

    async def set_flag(self, request: pb.SetFlagRequest) -> pb.SetFlagResponse:
        """Sets a flag, or with null clears it. Raises `InvalidRequest`."""
        check(request)
        flag, value = require_flag(request.name), _read_json(request.value_json)
        require_value(flag, value)
        if value is None:
            changed = await self._keeper.clear_flag(flag.name, request.tenant, _actor())
        else:
            self._require_tenant("tenant", request.tenant)
            changed = await self._keeper.set_flag(flag.name, request.tenant, value, _actor())
        await self._book.refresh()
        if changed:
            _LOG.warning("flag_set", flag=flag.name, tenant=request.tenant, value=request.value_json, **_who())
        return pb.SetFlagResponse(flag=_flag(flag, request.tenant, self._book.current))

    async def set_kill_switch(self, request: pb.SetKillSwitchRequest) -> pb.SetKillSwitchResponse:
        """Turns a kill switch on or off. Raises `InvalidRequest`."""
        check(request)
        scope, target = _SCOPE_OF[request.scope], request.target
        self._require_target(scope, target, engaged=request.engaged)
        await self._keeper.set_kill_switch(scope, target, request.engaged, request.comment, _actor())
        await self._book.refresh()
        _LOG.warning("kill_switch_set", scope=scope.value, target=target, engaged=request.engaged, **_who())
        switch = KillSwitch(scope, target, request.comment)
        return pb.SetKillSwitchResponse(kill_switch=_told(switch, engaged=request.engaged))

    async def note_reset(self, deployment_id: str) -> None:
        """Records that a breaker was reset, which is no less done where that cannot be recorded."""
        try:
            await self._keeper.note(_actor(), "breaker_reset", deployment_id)
        except StoreUnavailableError:
            _LOG.error("audit_event_lost", action="breaker_reset", target=deployment_id, **_who())

    async def list_audit_events(self, request: pb.ListAuditEventsRequest) -> pb.ListAuditEventsResponse:
        """A page of changes, newest first."""
        check(request)
        start, end = time_span(request)
        size, after = request.page_size or DEFAULT_PAGE_SIZE, read_token("audit", request.page_token)
        if after and not (after.isascii() and after.isdigit()):
            raise bad_token()
        events = await self._keeper.audit(size + 1, int(after) if after else None, start=start, end=end)
        page = events[:size]
        return pb.ListAuditEventsResponse(
            events=[_event(event) for event in page],
            next_page_token=write_token("audit", str(page[-1].id)) if len(events) > size else "",
        )

    async def get_usage(self, request: pb.GetUsageRequest) -> pb.GetUsageResponse:
        """What was used, one row for each group."""
        check(request)
        time_span(request)
        group_by = frozenset(_DIMENSION_OF[one] for one in request.group_by)
        if (UsageDimension.LABEL in group_by) != bool(request.label):
            wanted = "must name the label to group by" if not request.label else "is used only when grouping by label"
            raise InvalidRequest((FieldProblem("label", wanted),), conflicting=bool(request.label))
        query = UsageQuery(
            group_by=group_by,
            label=request.label,
            first_day=_day("start_time", request.start_time) if request.HasField("start_time") else "",
            end_day=_day("end_time", request.end_time) if request.HasField("end_time") else "",
            tenant=request.tenant,
        )
        return pb.GetUsageResponse(rows=[_usage(row) for row in await self._usage.usage(query)])

    def _require_target(self, scope: KillScope, target: str, *, engaged: bool) -> None:
        if scope is KillScope.GLOBAL and target:
            raise _wrong("target", "must be empty: the global switch stops every call")
        if scope is not KillScope.GLOBAL and not target:
            raise _wrong("target", f"must name the {scope.value} to stop")
        if not engaged:
            return  # one that is on may always be turned off, whatever the policy says by now
        if scope is KillScope.TENANT:
            self._require_tenant("target", target)
        known = {deployment.provider.id for deployment in self._snapshot().deployments.values()}
        if scope is KillScope.PROVIDER and target not in known:
            raise _wrong("target", f"is no provider of the policy; there are {', '.join(sorted(known))}")

    def _require_tenant(self, field: str, tenant: str) -> None:
        governance = self._snapshot().governance
        if tenant and not is_tenant_id(tenant):
            raise _wrong(field, "is no tenant's id: small letters, digits, `.`, `_` and `-`")
        if tenant and governance.only_listed and tenant not in governance.tenants:
            raise _wrong(field, "is no tenant of the policy, which refuses tenants that it does not list")


def check(request: Message) -> None:
    """Raises `InvalidRequest` when the request breaks the contract's rules."""
    problems = check_message(request)
    if problems:
        raise InvalidRequest(tuple(problems))


def to_timestamp(seconds: float) -> Timestamp:
    """This time, in seconds since the Unix epoch."""
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(seconds * _MICROSECONDS))
    return timestamp


def _actor() -> str:
    return CURRENT_CALL.get().caller.name


def _who() -> dict[str, str]:
    return {"actor": _actor(), "request_id": CURRENT_CALL.get().request_id}


def _wrong(field: str, description: str) -> InvalidRequest:
    return InvalidRequest((FieldProblem(field, description),))


def _read_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _wrong("value_json", 'must be JSON: true, 0.5, "restart", or null to clear what was set') from None


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _flag(flag: Flag[Any], tenant: str, control: Control) -> pb.Flag:
    value = flag.of(control, tenant)
    return pb.Flag(
        name=flag.name,
        description=f"{flag.description} Takes {flag.takes}.",
        value_json=_json(flag.to_json(value)),
        default_json=_json(flag.to_json(flag.usual)),
        tenant=tenant,
    )


def _told(switch: KillSwitch, *, engaged: bool) -> pb.KillSwitch:
    return pb.KillSwitch(scope=_SCOPES[switch.scope], target=switch.target, engaged=engaged, comment=switch.comment)


def _event(event: AuditEvent) -> pb.AuditEvent:
    return pb.AuditEvent(
        event_time=to_timestamp(event.at),
        actor=event.actor,
        action=event.action,
        target=event.target,
        before_json=event.before,
        after_json=event.after,
    )


def time_span(
    request: pb.ListAuditEventsRequest | pb.GetUsageRequest | pb.ListTracesRequest,
) -> tuple[float | None, float | None]:
    """From when on and before when, in seconds since the Unix epoch. Raises `InvalidRequest`."""
    start = _seconds(request.start_time) if request.HasField("start_time") else None
    end = _seconds(request.end_time) if request.HasField("end_time") else None
    if start is not None and end is not None and end <= start:
        raise _wrong("end_time", "must be later than start_time")
    return start, end


def _seconds(timestamp: Timestamp) -> float:
    return float(timestamp.seconds) + timestamp.nanos / 1e9


def _day(field: str, timestamp: Timestamp) -> str:
    """The day that begins at this time. Raises `InvalidRequest` when none does: usage is summed up by days."""
    day, rest = divmod(timestamp.seconds, _DAY_SECONDS)
    if rest or timestamp.nanos or not 0 <= day < _MOST_DAYS:
        raise _wrong(field, "must be the beginning of a day of UTC, 2026-11-21T00:00:00Z for example")
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _usage(row: UsageRow) -> pb.UsageRow:
    return pb.UsageRow(
        tenant=row.tenant,
        label_value=row.label_value,
        model=row.model,
        day=row.day,
        calls=row.calls,
        usage=answer_pb2.Usage(
            input_tokens=row.input_tokens,
            cached_input_tokens=row.cached_input_tokens,
            cache_write_input_tokens=row.cache_write_input_tokens,
            output_tokens=row.output_tokens,
            reasoning_tokens=row.reasoning_tokens,
            cost_micro_usd=row.cost_micro_usd,
            estimated=row.estimated_cost_micro_usd > 0,
        ),
    )
