from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from kit.boards import Board
from kit.catalog import deployment, provider
from kit.clock import CountingIds, FakeClock
from kit.control_desk import Desk
from kit.house import ANYBODY_IS_LOCAL
from kit.running import RichError
from pointsman.v1 import admin_service_pb2 as pb
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.caller import LOCAL_CALLER
from pointsman_server.domain.control import KillScope, KillSwitch
from pointsman_server.domain.governance import Governance, TenantPolicy
from pointsman_server.domain.ledger import UsageDimension, UsageQuery, UsageRow
from pointsman_server.execution.flags import FLAGS
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.boundary import Boundary

GLOBAL, TENANT, PROVIDER = pb.KILL_SWITCH_SCOPE_GLOBAL, pb.KILL_SWITCH_SCOPE_TENANT, pb.KILL_SWITCH_SCOPE_PROVIDER


async def refused(call: Any) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RichError(caught.value)


def only_listed(*tenants: str) -> Governance:
    return Governance(tenants={name: TenantPolicy() for name in tenants}, only_listed=True)


@pytest.fixture
async def desk(database: Database) -> AsyncGenerator[Desk, None]:
    board = Board(deployment("one", provider=provider("up")), deployment("two", provider=provider("other")))
    async with Desk.open(database, board) as opened:
        yield opened


@pytest.fixture
async def away(desk: Desk, database: Database) -> Desk:
    """The same, when its database has gone away."""
    async with database.write() as connection:
        await connection.exec_driver_sql("DROP TABLE audit_events")
    return desk


class TestFlags:
    async def test_all_are_listed_with_what_they_usually_are(self, desk: Desk) -> None:
        flags = (await desk.stub.ListFlags(pb.ListFlagsRequest())).flags
        assert [flag.name for flag in flags] == list(FLAGS)
        for flag in flags:
            assert flag.value_json == flag.default_json == json.dumps(json.loads(flag.default_json))
            assert (flag.tenant, flag.description.startswith(FLAGS[flag.name].description)) == ("", True)

    async def test_one_is_set_at_once_and_recorded_with_who_did_it(self, desk: Desk) -> None:
        with structlog.testing.capture_logs() as logs:
            flag = await desk.set("hedging", " false ")
        assert (flag.name, flag.value_json, flag.default_json, flag.tenant) == ("hedging", "false", "true", "")
        assert FLAGS["hedging"].of(desk.book.current, "acme") is False
        (event,) = await desk.events()
        assert (event.actor, event.action, event.target) == (LOCAL_CALLER.name, "flag_set", "hedging")
        assert (event.before_json, event.after_json) == ("null", '{"value": false}')
        assert event.event_time.ToMicroseconds() == 1_750_000_000_000_000
        assert [(one["flag"], one["actor"]) for one in logs if one["event"] == "flag_set"] == [("hedging", "local")]

    async def test_for_one_tenant(self, desk: Desk) -> None:
        await desk.set("quality_bias_override", "0.25", "acme")
        await desk.set("quality_bias_override", "0.75")
        rows = (await desk.stub.ListFlags(pb.ListFlagsRequest())).flags
        of_it = [(row.tenant, row.value_json) for row in rows if row.name == "quality_bias_override"]
        assert of_it == [("", "0.75"), ("acme", "0.25")]

    async def test_null_clears_it(self, desk: Desk) -> None:
        await desk.set("stream_failover_default", '"restart"')
        await desk.set("stream_failover_default", '"continue"', "acme")
        assert (await desk.set("stream_failover_default", "null", "acme")).value_json == '"restart"'
        assert (await desk.set("stream_failover_default", "null")).value_json == '"terminate"'
        assert not desk.book.current.flags
        assert [event.action for event in await desk.events()] == ["flag_cleared"] * 2 + ["flag_set"] * 2

    async def test_what_changes_nothing_is_not_recorded(self, desk: Desk) -> None:
        with structlog.testing.capture_logs() as logs:
            await desk.set("hedging", "null")
        assert await desk.events() == []
        assert not any(one["event"] == "flag_set" for one in logs)

    async def test_pages(self, desk: Desk) -> None:
        for tenant in ("zeta", "acme", "acme2"):
            await desk.set("max_output_tokens_cap", "10", tenant)
        found, token = [], ""
        for _ in range(20):
            page = await desk.stub.ListFlags(pb.ListFlagsRequest(page_size=2, page_token=token))
            found += [(flag.name, flag.tenant) for flag in page.flags]
            token = page.next_page_token
            if not token:
                break
        own = [("max_output_tokens_cap", tenant) for tenant in ("acme", "acme2", "zeta")]
        assert found == sorted([*((name, "") for name in FLAGS), *own])

    async def test_a_flag_of_another_version_is_not_shown(self, desk: Desk) -> None:
        await desk.store.set_flag("from_the_future", "acme", 1, "somebody")
        await desk.book.refresh()
        assert len((await desk.stub.ListFlags(pb.ListFlagsRequest())).flags) == len(FLAGS)

    @pytest.mark.parametrize(
        ("name", "value", "tenant", "field"),
        [
            ("hegding", "true", "", "name"),
            ("hedging", "1", "", "value_json"),
            ("hedging", "yes", "", "value_json"),
            ("hedging", "[" * 4_000, "", "value_json"),
            ("max_output_tokens_cap", "1e400", "", "value_json"),
            ("hedging", "", "", "value_json"),
            ("hedging", "true", "No Tenant", "tenant"),
            ("hedging", "true", "unknown", "tenant"),
        ],
    )
    async def test_what_is_refused_names_the_field(
        self, desk: Desk, name: str, value: str, tenant: str, field: str
    ) -> None:
        desk.board.snapshot = replace(desk.board.snapshot, governance=only_listed("acme"))
        error = await refused(desk.set(name, value, tenant))
        assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
        assert await desk.events() == []

    async def test_without_its_store_nothing_is_set(self, away: Desk) -> None:
        error = await refused(away.set("hedging", "false"))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert not away.book.current.flags


class TestKillSwitches:
    @pytest.mark.parametrize(
        ("scope", "target", "kind"),
        [(GLOBAL, "", KillScope.GLOBAL), (TENANT, "acme", KillScope.TENANT), (PROVIDER, "up", KillScope.PROVIDER)],
    )
    async def test_on_and_off(self, desk: Desk, scope: int, target: str, kind: KillScope) -> None:
        told = await desk.switch(scope, target, comment="runaway agent")
        assert told == pb.KillSwitch(scope=scope, target=target, engaged=True, comment="runaway agent")  # type: ignore[arg-type]
        assert desk.book.current.kill_switches == {KillSwitch(kind, target, "runaway agent")}
        assert list((await desk.stub.GetStatus(pb.GetStatusRequest())).kill_switches) == [told]
        assert not (await desk.switch(scope, target, engaged=False)).engaged
        assert not desk.book.current.kill_switches
        off, on = await desk.events()
        assert (on.action, off.action) == ("kill_switch_engaged", "kill_switch_released")
        assert json.loads(on.after_json) == json.loads(off.before_json) == {"comment": "runaway agent"}

    async def test_several_are_told_in_a_stable_order(self, desk: Desk) -> None:
        await desk.switch(TENANT, "zeta")
        await desk.switch(PROVIDER, "up")
        await desk.switch(TENANT, "acme")
        await desk.switch(GLOBAL)
        switches = (await desk.stub.GetStatus(pb.GetStatusRequest())).kill_switches
        assert [one.target for one in switches] == ["", "up", "acme", "zeta"]

    @pytest.mark.parametrize(
        ("scope", "target", "field"),
        [
            (pb.KILL_SWITCH_SCOPE_UNSPECIFIED, "", "scope"),
            (77, "", "scope"),
            (GLOBAL, "acme", "target"),
            (TENANT, "", "target"),
            (TENANT, "not a tenant", "target"),
            (TENANT, "acmee", "target"),
            (PROVIDER, "", "target"),
            (PROVIDER, "one", "target"),
        ],
    )
    async def test_one_that_would_stop_nothing_is_refused(
        self, desk: Desk, scope: int, target: str, field: str
    ) -> None:
        desk.board.snapshot = replace(desk.board.snapshot, governance=only_listed("acme"))
        error = await refused(desk.switch(scope, target))
        assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
        assert await desk.events() == []

    async def test_the_providers_there_are_are_named(self, desk: Desk) -> None:
        assert "there are other, up" in (await refused(desk.switch(PROVIDER, "upp"))).message

    async def test_one_whose_provider_is_gone_from_the_policy_can_be_turned_off(self, desk: Desk) -> None:
        await desk.store.set_kill_switch(KillScope.PROVIDER, "gone", True, "", "somebody")
        await desk.switch(PROVIDER, "gone", engaged=False)
        assert not desk.book.current.kill_switches


class TestAudit:
    async def test_pages_newest_first(self, desk: Desk) -> None:
        for place in range(5):
            desk.clock.advance(1.0)
            await desk.set("max_output_tokens_cap", str(place + 1))
        found, token = [], ""
        while True:
            page = await desk.stub.ListAuditEvents(pb.ListAuditEventsRequest(page_size=2, page_token=token))
            found += [json.loads(event.after_json)["value"] for event in page.events]
            token = page.next_page_token
            if not token:
                break
        assert found == [5, 4, 3, 2, 1]

    async def test_of_a_time(self, desk: Desk) -> None:
        for place in range(4):
            await desk.set("max_output_tokens_cap", str(2 * place + 1))
            await desk.set("max_output_tokens_cap", str(2 * place + 2))
            desk.clock.advance(1.0)
        begin = int(desk.clock.now()) - 3
        start, end = Timestamp(seconds=begin), Timestamp(seconds=begin + 2)
        events = await desk.events(start_time=start, end_time=end)
        assert [json.loads(event.after_json)["value"] for event in events] == [6, 5, 4, 3]

    @pytest.mark.parametrize("token", ["x", "YXVkaXQtYWZ0ZXI6eA==", "ZmxhZ3MtYWZ0ZXI6MQ==", "/w=="])
    async def test_a_token_of_somebody_else(self, desk: Desk, token: str) -> None:
        assert (await refused(desk.events(page_token=token))).fields == ["page_token"]

    async def test_a_span_that_ends_before_it_begins(self, desk: Desk) -> None:
        error = await refused(desk.events(start_time=Timestamp(seconds=9), end_time=Timestamp(seconds=9)))
        assert error.fields == ["end_time"]

    async def test_a_breaker_that_is_reset(self, desk: Desk) -> None:
        await desk.stub.ResetBreaker(pb.ResetBreakerRequest(deployment="one"))
        (event,) = await desk.events()
        assert (event.actor, event.action, event.target) == ("local", "breaker_reset", "one")

    async def test_it_is_reset_although_that_cannot_be_recorded(self, away: Desk) -> None:
        with structlog.testing.capture_logs() as logs:
            await away.stub.ResetBreaker(pb.ResetBreakerRequest(deployment="one"))
        assert any(one["event"] == "audit_event_lost" and one["target"] == "one" for one in logs)


class TestUsage:
    async def test_a_row_for_each_group(self, desk: Desk) -> None:
        answer = await desk.stub.GetUsage(
            pb.GetUsageRequest(
                start_time=Timestamp(seconds=20_775 * 86_400),
                end_time=Timestamp(seconds=20_779 * 86_400),
                group_by=[pb.USAGE_DIMENSION_LABEL, pb.USAGE_DIMENSION_DAY, pb.USAGE_DIMENSION_LABEL],
                label="team",
                tenant="acme",
            )
        )
        groups = frozenset({UsageDimension.LABEL, UsageDimension.DAY})
        assert desk.sums.asked == UsageQuery(groups, "team", "2026-11-18", "2026-11-22", "acme")
        (row,) = answer.rows
        assert (row.tenant, row.model, row.day, row.label_value, row.calls) == ("acme", "m", "2026-11-21", "red", 2)
        usage = row.usage
        assert (usage.input_tokens, usage.cached_input_tokens, usage.cache_write_input_tokens) == (10, 4, 1)
        assert (usage.output_tokens, usage.reasoning_tokens, usage.cost_micro_usd) == (20, 5, 700)
        assert not usage.estimated

    async def test_of_everything(self, desk: Desk) -> None:
        desk.sums.rows = [UsageRow(cost_micro_usd=9, estimated_cost_micro_usd=1)]
        (row,) = (await desk.stub.GetUsage(pb.GetUsageRequest())).rows
        assert desk.sums.asked == UsageQuery()
        assert row.usage.estimated

    @pytest.mark.parametrize(("group_by", "label"), [([pb.USAGE_DIMENSION_LABEL], ""), ([], "team")])
    async def test_the_label_and_grouping_by_it_belong_together(
        self, desk: Desk, group_by: list[Any], label: str
    ) -> None:
        error = await refused(desk.stub.GetUsage(pb.GetUsageRequest(group_by=group_by, label=label)))
        assert error.fields == ["label"]

    @pytest.mark.parametrize(
        ("field", "time"),
        [
            ("start_time", Timestamp(seconds=86_400 + 1)),
            ("end_time", Timestamp(seconds=86_400, nanos=1)),
            ("start_time", Timestamp(seconds=-86_400)),
            ("end_time", Timestamp(seconds=1 << 62)),
        ],
    )
    async def test_days_are_whole_ones(self, desk: Desk, field: str, time: Timestamp) -> None:
        fields: Any = {field: time}
        error = await refused(desk.stub.GetUsage(pb.GetUsageRequest(**fields)))
        assert error.fields == [field]

    async def test_a_span_that_ends_before_it_begins(self, desk: Desk) -> None:
        day = Timestamp(seconds=86_400)
        error = await refused(desk.stub.GetUsage(pb.GetUsageRequest(start_time=day, end_time=day)))
        assert error.fields == ["end_time"]


async def test_without_a_desk_its_methods_are_not_served(board_alone: Any) -> None:
    for method, request in (
        ("ListFlags", pb.ListFlagsRequest()),
        ("SetFlag", pb.SetFlagRequest(name="hedging", value_json="true")),
        ("SetKillSwitch", pb.SetKillSwitchRequest(scope=GLOBAL)),
        ("ListAuditEvents", pb.ListAuditEventsRequest()),
        ("GetUsage", pb.GetUsageRequest()),
    ):
        with pytest.raises(NotImplementedError):
            await getattr(board_alone, method)(request, None)


@pytest.fixture
def board_alone() -> AdminServicer:
    board = Board()
    boundary = Boundary(CountingIds(), FakeClock(), 10, ANYBODY_IS_LOCAL)
    return AdminServicer(board.health, lambda: board.snapshot, boundary, 0.0)
