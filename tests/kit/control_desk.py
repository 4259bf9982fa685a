"""An AdminService with its store behind the real border: in the test's loop, or in a thread for blocking callers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from kit.boards import Board
from kit.clock import CountingIds, FakeClock
from kit.house import ANYBODY_IS_LOCAL
from kit.threads import in_thread
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import admin_service_pb2_grpc
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.trace_store import SqlTraces
from pointsman_server.domain.ledger import UsageQuery, UsageRow
from pointsman_server.execution.control import ControlBook
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.admin_control import ControlDesk
from pointsman_server.rpc.admin_traces import TraceMethods
from pointsman_server.rpc.boundary import Boundary

ROW = UsageRow("acme", "m", "2026-11-21", "red", 2, 10, 4, 1, 20, 5, 700, 0)


class Sums:
    """Gives the rows it was given, and keeps what it was asked."""

    def __init__(self) -> None:
        self.rows: list[UsageRow] = [ROW]
        self.asked: UsageQuery | None = None

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        """See `UsageSource`."""
        self.asked = query
        return self.rows


class Desk:
    """An AdminService with its store, behind the real border."""

    def __init__(self, database: Database, board: Board) -> None:
        self.clock = FakeClock()
        self.store = ControlStore(database, self.clock)
        self.book = ControlBook(self.store, self.clock)
        self.sums = Sums()
        self.traces = SqlTraces(database)
        self.board = board
        self.stub: Any = None
        self.address = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database, board: Board) -> AsyncGenerator[Desk, None]:
        """Serves on a free port of the loopback interface."""
        desk = cls(database, board)
        await desk.book.load()
        boundary = Boundary(CountingIds(), desk.clock, 10, ANYBODY_IS_LOCAL)
        controls = ControlDesk(desk.store, desk.book, lambda: desk.board.snapshot, desk.sums)
        servicer = AdminServicer(
            board.health, lambda: desk.board.snapshot, boundary, 0.0, controls, traces=TraceMethods(desk.traces)
        )
        server = grpc.aio.server()
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(servicer, boundary.guard(server))  # type: ignore[arg-type]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            desk.address = f"127.0.0.1:{port}"
            async with grpc.aio.insecure_channel(desk.address) as channel:
                desk.stub = admin_service_pb2_grpc.AdminServiceStub(channel)
                yield desk
        finally:
            await server.stop(0)

    async def set(self, name: str, value: str, tenant: str = "") -> pb.Flag:
        """Sets a flag."""
        answer = await self.stub.SetFlag(pb.SetFlagRequest(name=name, value_json=value, tenant=tenant))
        flag: pb.Flag = answer.flag
        return flag

    async def switch(self, scope: int, target: str = "", *, engaged: bool = True, comment: str = "") -> pb.KillSwitch:
        """Turns a kill switch on or off."""
        request = pb.SetKillSwitchRequest(scope=scope, target=target, engaged=engaged, comment=comment)  # type: ignore[arg-type]
        answer = await self.stub.SetKillSwitch(request)
        switch: pb.KillSwitch = answer.kill_switch
        return switch

    async def events(self, **fields: Any) -> list[pb.AuditEvent]:
        """The recorded changes."""
        return list((await self.stub.ListAuditEvents(pb.ListAuditEventsRequest(**fields))).events)


def open_desk(folder: Path, board: Board) -> AbstractContextManager[Desk]:
    """One with a database in this folder, in a thread of its own."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Desk, None]:
        database = Database(f"sqlite:///{folder}/pointsman.db")
        await database.open()
        async with Desk.open(database, board) as desk:
            yield desk
        await database.close()

    return in_thread(opened)
