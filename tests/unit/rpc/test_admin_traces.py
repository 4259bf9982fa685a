"""AdminService's methods about recorded calls, over a real store: what is asked, what is answered, and refusals."""

from __future__ import annotations

import base64
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from kit.accounts import attempt, decision, failed
from kit.catalog import deployment
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import answer_pb2
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.trace_store import SqlTraces
from pointsman_server.domain.errors import DeploymentNotFound, InvalidRequest, Overloaded, RouterError, TraceNotFound
from pointsman_server.domain.trace import Trace, TraceLine
from pointsman_server.rpc.admin_traces import TraceMethods, account_of, outcome_of
from pointsman_server.rpc.paging import DEFAULT_PAGE_SIZE, write_token
from pointsman_server.rpc.status import status_of

A = deployment("a")
AT = 1_750_000_000.25


def trace(request_id: str, at: float = AT, **changes: Any) -> Trace:
    fields = {"latency_seconds": 1.5, "tenant": "shop", "model": "m", "outcome": "OK", "cost_micro_usd": 9}
    line = {name: changes.pop(name, value) for name, value in fields.items()}
    return Trace(TraceLine(request_id, at, **line), AT + 1e6, **changes)


@pytest.fixture
async def house(tmp_path: Path) -> Any:
    database = Database(f"sqlite:///{tmp_path}/pointsman.db")
    await database.open()
    store = SqlTraces(database)
    yield store, TraceMethods(store)
    await database.close()


@pytest.fixture
def store(house: tuple[SqlTraces, TraceMethods]) -> SqlTraces:
    return house[0]


@pytest.fixture
def methods(house: tuple[SqlTraces, TraceMethods]) -> TraceMethods:
    return house[1]


async def listed(methods: TraceMethods, **fields: Any) -> list[str]:
    answer = await methods.list_traces(pb.ListTracesRequest(**fields))
    return [one.request_id for one in answer.traces]


async def refused(call: Awaitable[Any]) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        await call
    return [problem.field for problem in caught.value.problems]


class TestGet:
    async def test_all_that_is_known_is_told(self, store: SqlTraces, methods: TraceMethods) -> None:
        account = account_of(decision(A), (failed(A), attempt(A)))
        await store.write(
            [trace("r", account=account, labels={"agent": "a"}, prompt="user: [EMAIL_1]", answer="fine", tenant="t")]
        )
        found = (await methods.get_trace(pb.GetTraceRequest(request_id="r"))).trace
        assert found.summary.request_id == "r"
        assert found.summary.start_time.ToMicroseconds() == round(AT * 1e6)
        assert found.summary.latency.ToMicroseconds() == 1_500_000
        assert (found.summary.tenant, found.summary.model, found.summary.outcome) == ("t", "m", "OK")
        assert found.summary.cost_micro_usd == 9
        assert (found.decision.decision_id, found.decision.chosen.deployment) == ("dec_1", "a")
        assert [one.outcome for one in found.attempts] == [
            answer_pb2.ATTEMPT_OUTCOME_FAILED,
            answer_pb2.ATTEMPT_OUTCOME_SUCCEEDED,
        ]
        assert (found.masked_prompt, found.masked_answer, dict(found.labels)) == (
            "user: [EMAIL_1]",
            "fine",
            {"agent": "a"},
        )

    async def test_a_call_that_was_never_decided(self, store: SqlTraces, methods: TraceMethods) -> None:
        await store.write([trace("r", account=account_of(None, ()), outcome="RESOURCE_EXHAUSTED", model="")])
        found = (await methods.get_trace(pb.GetTraceRequest(request_id="r"))).trace
        assert not found.HasField("decision")
        assert (list(found.attempts), found.summary.outcome) == ([], "RESOURCE_EXHAUSTED")

    async def test_one_that_is_not_there(self, methods: TraceMethods) -> None:
        with pytest.raises(TraceNotFound) as caught:
            await methods.get_trace(pb.GetTraceRequest(request_id="r"))
        status = status_of(caught.value)
        assert (status.code.name, "recorded" in status.message) == ("NOT_FOUND", True)

    async def test_a_request_must_be_named(self, methods: TraceMethods) -> None:
        assert await refused(methods.get_trace(pb.GetTraceRequest())) == ["request_id"]


class TestList:
    async def test_each_filter(self, store: SqlTraces, methods: TraceMethods) -> None:
        await store.write(
            [
                trace("a", AT),
                trace("b", AT + 1, tenant="other"),
                trace("c", AT + 2, model="n"),
                trace("d", AT + 3, outcome="UNAVAILABLE"),
            ]
        )
        assert await listed(methods) == ["d", "c", "b", "a"]
        assert await listed(methods, request_id="a") == ["a"]
        assert await listed(methods, tenant="other") == ["b"]
        assert await listed(methods, model="n") == ["c"]
        assert await listed(methods, outcome="UNAVAILABLE") == ["d"]
        start, end = Timestamp(), Timestamp()
        start.FromMicroseconds(round((AT + 1) * 1e6))
        end.FromMicroseconds(round((AT + 3) * 1e6))
        assert await listed(methods, start_time=start, end_time=end) == ["c", "b"]
        assert await refused(methods.list_traces(pb.ListTracesRequest(start_time=end, end_time=start))) == ["end_time"]

    async def test_pages(self, store: SqlTraces, methods: TraceMethods) -> None:
        await store.write([trace(f"{number}", AT + number) for number in range(5)])
        token, pages = "", []
        for _ in range(3):
            page = await methods.list_traces(pb.ListTracesRequest(page_size=2, page_token=token))
            pages.append([one.request_id for one in page.traces])
            token = page.next_page_token
            await store.write([trace("new", AT + 100)])
        assert pages == [["4", "3"], ["2", "1"], ["0"]]
        assert token == ""

    async def test_a_page_has_a_usual_size(self, store: SqlTraces, methods: TraceMethods) -> None:
        await store.write([trace(f"{number}") for number in range(DEFAULT_PAGE_SIZE + 1)])
        page = await methods.list_traces(pb.ListTracesRequest())
        assert len(page.traces) == DEFAULT_PAGE_SIZE
        assert page.next_page_token

    @pytest.mark.parametrize(
        "token",
        [
            "x",
            write_token("audit", "1"),
            write_token("traces", "1"),
            write_token("traces", "0x1p+0"),
            write_token("traces", "0x1p+0 x"),
            write_token("traces", "nan 1"),
            write_token("traces", "inf 1"),
            write_token("traces", "0x1p+99999 1"),
            write_token("traces", "0x1p+0 -1"),
            write_token("traces", f"0x1p+0 {2**63}"),
            base64.urlsafe_b64encode(b"\xff").decode(),
        ],
    )
    async def test_a_token_that_nobody_gave(self, methods: TraceMethods, token: str) -> None:
        assert await refused(methods.list_traces(pb.ListTracesRequest(page_token=token))) == ["page_token"]

    async def test_an_outcome_that_there_is_not(self, methods: TraceMethods) -> None:
        assert await refused(methods.list_traces(pb.ListTracesRequest(outcome="ok"))) == ["outcome"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (DeploymentNotFound("deployment"), "NOT_FOUND"),
        (Overloaded(1.0), "RESOURCE_EXHAUSTED"),
        (RouterError(), "INTERNAL"),
        (RuntimeError("any"), "INTERNAL"),
    ],
)
def test_the_outcome_is_what_the_caller_is_told(error: Exception, name: str) -> None:
    assert outcome_of(error) == name
