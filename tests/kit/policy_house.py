"""A process that follows a policy, with everything real but the calls: file, database, compiler, adapters."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from kit.boards import Board
from kit.house import ANYBODY_IS_LOCAL
from kit.threads import in_thread
from kit.trial_desk import TrialDesk
from pointsman.v1 import admin_service_pb2_grpc
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import RandomIds, SystemClock
from pointsman_server.bootstrap.policy_workshop import FileOnDisk, PolicyWorkshop, compiled
from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.config.policy_file import load_policy
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.policies import PolicyKeeper
from pointsman_server.execution.policy_watch import PolicyWatch, Shared
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.admin_policy import PolicyMethods
from pointsman_server.rpc.boundary import Boundary

POLICY = """\
version: 1
providers: {{local: {{dialect: openai_chat, base_url: "http://127.0.0.1:{port}/v1"}}}}
models: {{small: {{tier: light, context_window_tokens: 8000, max_output_tokens: 1000, capabilities: [streaming],
    quality: 0.5, price: [{{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}]}}}}
deployments: {{one: {{provider: local, model: small, model_name: {name}}}}}
"""


def text(name: str = "first", port: int = 8089, more: str = "") -> str:
    """A policy; each name has a version of its own."""
    return POLICY.format(name=name, port=port) + more


def name_in(snapshot: Snapshot) -> str:
    """Which `text` a policy was made of."""
    return snapshot.deployments["one"].model_name


def write(path: Path, content: str) -> None:
    """Puts a whole new file in the place of the old one."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(content)
    os.replace(beside, path)


class House:
    """One process. It looks for changes far more often than a server, so that tests need not wait."""

    def __init__(
        self,
        file: Path,
        *,
        database: Database | None = None,
        chosen: bool = True,
        environ: Mapping[str, str] | None = None,
        look_seconds: float = 0.04,
        settle_seconds: float = 0.02,
    ) -> None:
        loaded = load_policy(file, environ or {})
        self.wire = HttpWire()
        self.adapters = AdapterBook(self.wire)
        self.records: list[PolicyRecord] = []
        self.workshop = PolicyWorkshop(
            str(file), environ or {}, self.adapters, simulate=_as_it_is, keep_record=self.records.append
        )
        self.keeper = PolicyKeeper(compiled(loaded), self.workshop)
        clock = SystemClock()
        self.store = None if database is None else ControlStore(database, clock)
        self.book = None if self.store is None else ControlBook(self.store, clock, poll_seconds=0.05)
        shared = None
        if self.store is not None and self.book is not None:
            shared = Shared(self.store, self.book)
            self.desk = TrialDesk(self.keeper, self.workshop, self.store, self.book)
        on_disk = FileOnDisk(str(file), loaded.text, chosen=chosen, settle_seconds=settle_seconds)
        self.watch = PolicyWatch(
            self.keeper, self.workshop, clock, file=on_disk, shared=shared, look_seconds=look_seconds
        )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[House, None]:
        """It runs until the end of the block."""
        if self.book is not None:
            await self.book.load()
            self.book.start()
        await self.watch.open()
        self.watch.start()
        try:
            yield self
        finally:
            await self.watch.close()
            if self.book is not None:
                await self.book.close()

    async def has(self, name: str, within_seconds: float = 5.0) -> bool:
        """Waits until the policy with this name is in force."""
        changed = asyncio.Event()
        self.keeper.subscribe(lambda snapshot: changed.set())
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                while name_in(self.keeper.current) != name:
                    changed.clear()
                    await changed.wait()
        return name_in(self.keeper.current) == name


@asynccontextmanager
async def serving(house: House, clock: Clock | None = None) -> AsyncGenerator[str, None]:
    """An AdminService for the policies of this house, behind the real border; gives its address."""
    board, clock = Board(), clock or SystemClock()
    boundary = Boundary(RandomIds(), clock, 10, ANYBODY_IS_LOCAL)
    methods = PolicyMethods(house.desk)
    servicer = AdminServicer(board.health, lambda: house.keeper.current, boundary, 0.0, policies=methods)
    server = grpc.aio.server()
    guarded: Any = boundary.guard(server)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(servicer, guarded)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def serving_in_thread(file: Path, database_url: str) -> AbstractContextManager[tuple[str, House]]:
    """The same in a thread of its own, for callers that block."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[tuple[str, House], None]:
        database = Database(database_url)
        await database.open()
        async with House(file, database=database).open() as house, serving(house) as address:
            yield address, house
        await database.close()

    return in_thread(opened)


async def _as_it_is(snapshot: Snapshot) -> Snapshot:
    return snapshot
