"""The methods of AdminService about recorded calls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import grpc

from pointsman.v1 import admin_service_pb2 as pb
from pointsman_server.domain.call import Attempt, Decision
from pointsman_server.domain.errors import FieldProblem, InvalidRequest, TraceNotFound
from pointsman_server.domain.trace import TraceLine, TracePlace, TraceQuery, TraceStore
from pointsman_server.rpc.admin_control import check, time_span, to_timestamp
from pointsman_server.rpc.answer import attempt_to_proto, decision_to_proto
from pointsman_server.rpc.paging import DEFAULT_PAGE_SIZE, bad_token, read_token, write_token
from pointsman_server.rpc.status import status_of

_KIND = "traces"
_LARGEST_ID = 2**63 - 1
_MICROSECONDS = 1_000_000


def account_of(decision: Decision | None, attempts: Sequence[Attempt]) -> bytes:
    """Decision and attempts as they are stored: a `Trace` of the contract with nothing else in it."""
    return pb.Trace(
        decision=None if decision is None else decision_to_proto(decision),
        attempts=[attempt_to_proto(attempt) for attempt in attempts],
    ).SerializeToString()


def outcome_of(error: Exception) -> str:
    """The name of the gRPC code that a call ends with."""
    return status_of(error).code.name


class TraceMethods:
    """Between the contract's messages and the store, whose `StoreUnavailableError` leaves as it is."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def list_traces(self, request: pb.ListTracesRequest) -> pb.ListTracesResponse:
        """A page of recorded calls, newest first. What is recorded meanwhile changes no later page."""
        check(request)
        if request.outcome and request.outcome not in grpc.StatusCode.__members__:
            problem = FieldProblem("outcome", "must be the name of a gRPC code, OK or UNAVAILABLE for example")
            raise InvalidRequest((problem,))
        start, end = time_span(request)
        query = TraceQuery(
            request_id=request.request_id,
            tenant=request.tenant,
            model=request.model,
            outcome=request.outcome,
            start=start,
            end=end,
            after=_read_place(request.page_token),
        )
        size = request.page_size or DEFAULT_PAGE_SIZE
        found = await self._store.find(query, size + 1)
        page = found[:size]
        return pb.ListTracesResponse(
            traces=[_summary(line) for _, line in page],
            next_page_token=_write_place(page[-1][0]) if len(found) > size else "",
        )

    async def get_trace(self, request: pb.GetTraceRequest) -> pb.GetTraceResponse:
        """The last recorded call with this request id. Raises `TraceNotFound`."""
        check(request)
        found = await self._store.get(request.request_id)
        if found is None:
            raise TraceNotFound
        trace = pb.Trace.FromString(found.account)
        trace.summary.CopyFrom(_summary(found.line))
        trace.masked_prompt, trace.masked_answer = found.prompt, found.answer
        trace.labels.update(found.labels)
        return pb.GetTraceResponse(trace=trace)


def _summary(line: TraceLine) -> pb.TraceSummary:
    summary = pb.TraceSummary(
        request_id=line.request_id,
        start_time=to_timestamp(line.started_at),
        tenant=line.tenant,
        model=line.model,
        outcome=line.outcome,
        cost_micro_usd=line.cost_micro_usd,
    )
    summary.latency.FromMicroseconds(round(line.latency_seconds * _MICROSECONDS))
    return summary


def _write_place(place: TracePlace) -> str:
    return write_token(_KIND, f"{place.started_at.hex()} {place.id}")


def _read_place(token: str) -> TracePlace | None:
    text = read_token(_KIND, token)
    if not text:
        return None
    time, _, number = text.partition(" ")
    try:
        place = TracePlace(float.fromhex(time), int(number))
    except (ValueError, OverflowError):
        raise bad_token() from None
    if not math.isfinite(place.started_at) or not 0 <= place.id <= _LARGEST_ID:
        raise bad_token()
    return place
