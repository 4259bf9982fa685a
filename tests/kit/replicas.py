"""Two real server processes that share a PostgreSQL and a Redis, behind a real Envoy, all of them on this machine."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from psycopg import connect

from kit.certificates import Authority
from kit.command_line import COMMAND, environment
from kit.databases import PostgresServer
from kit.envoy import REPLICAS, Envoy, configuration
from kit.redis_server import RedisServer
from kit.running import MODEL
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key
from pointsman_server.execution.keys import NewKey, make_key

CALL_COST_MICRO_USD = 10_000
"""What every call costs, at worst and in fact."""

LIMITED_PER_MINUTE = 2_000

NOTICE_SECONDS = 4
"""Twice what two health checks of Envoy take."""

BUDGETED_CALLS = 10
TENANTS = ("shop", "limited", "thrifty", "counted", "operators")

_START_SECONDS = 60.0
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


def policy(name: str = "first") -> str:
    """A policy under which a call costs the same always; `name` is another name of `quick`."""
    return json.dumps(
        {
            "version": 1,
            "providers": {"up": {"dialect": "openai_chat", "base_url": "http://127.0.0.1:1/v1", "simulated": True}},
            "models": {name: {**MODEL, "quality": quality, "price": [{
                "input_usd_per_mtok": 0, "output_usd_per_mtok": 0, "per_request_usd": CALL_COST_MICRO_USD / 1e6,
            }]} for name, quality in (("m", 0.9), ("other", 0.1))},
            "deployments": {
                "quick": {"provider": "up", "model": "m", "model_name": "m-1"},
                "slow": {"provider": "up", "model": "other", "model_name": "sim-slow"},
            },
            "aliases": {name: "quick"},
            "tenants": {
                **{tenant: {} for tenant in TENANTS},
                "limited": {"requests_per_minute": LIMITED_PER_MINUTE},
                "thrifty": {"budgets": [_budget("ten", BUDGETED_CALLS)], "only": ["quick"]},
                "counted": {"budgets": [_budget("many", 1_000_000)], "only": ["quick"]},
            },
            "peers": {"requests_per_minute": "none"},
        },
        indent=1,
    )  # fmt: skip


def _budget(name: str, calls: int) -> dict[str, Any]:
    return {"name": name, "period": "month", "limit_usd": calls * CALL_COST_MICRO_USD / 1e6}


class Replica:
    """One server; `kill` and `start` it as often as you like, it keeps its ports and its folder."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self._folder, self._site = folder, site
        self._process: subprocess.Popen[str] | None = None
        (folder / "policy.yaml").write_text(policy())

    def start(self) -> None:
        """Starts the process, without waiting for it."""
        certificate, key = self._site.authority.server().write(self._folder, "server")
        environ = environment(
            POINTSMAN_GRPC_ADDRESS=f"127.0.0.1:{self.port}",
            POINTSMAN_ADMIN_ADDRESS=f"127.0.0.1:{self.admin_port}",
            POINTSMAN_TLS_CERT_FILE=certificate,
            POINTSMAN_TLS_KEY_FILE=key,
            POINTSMAN_TLS_CLIENT_CA_FILE=self._site.authority.write(self._folder),
            POINTSMAN_DATABASE_URL=self._site.database_url,
            POINTSMAN_REDIS_URL=self._site.redis.url,
            POINTSMAN_WORKERS=str(self._site.workers),
            POINTSMAN_DRAIN_NOTICE_SECONDS=str(NOTICE_SECONDS),
            POINTSMAN_STATE_DIR=str(self._folder / "state"),
        )
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "serve", "--policy", str(self._folder / "policy.yaml")],
                stdout=subprocess.PIPE, stderr=log, env=environ, text=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Returns when it answers."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("pointsman listens on "), self.log()

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ends it in order; gives the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        code = process.wait(_START_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        return code

    def log(self) -> str:
        """What it logged so far."""
        return (self._folder / "log").read_text()


class Site:
    """All of it, with so many worker processes in each replica.

    `keys` open the door for a tenant each; the operators' opens AdminService.
    """

    def __init__(self, folder: Path, database_url: str, redis: RedisServer, workers: int) -> None:
        self.authority, self.workers = Authority(), workers
        self.database_url, self.redis = database_url, redis
        self.folder = folder
        self.port = free_port()
        self.keys: dict[str, NewKey] = {}
        self.replicas = tuple(Replica(_made(folder / name), self) for name in REPLICAS)
        admin_port = free_port()
        ports = {name: one.port for name, one in zip(REPLICAS, self.replicas, strict=True)}
        self.file = configuration(_made(folder / "envoy"), self.authority, self.port, admin_port, ports)
        self.envoy = Envoy(self.file, admin_port)
        client = self.authority.client(names=("operator.example",))
        self._from_inside = grpc.ssl_channel_credentials(self.authority.certificate, client.key, client.certificate)

    def channel(self) -> grpc.aio.Channel:
        """A new connection to Envoy, as callers have it."""
        credentials = grpc.ssl_channel_credentials(self.authority.certificate)
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=_OWN_CONNECTION)

    def inside(self, port: int) -> grpc.aio.Channel:
        """A new connection to a port of a replica, as Envoy and operators have it."""
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", self._from_inside, options=_OWN_CONNECTION)

    def bearer(self, tenant: str) -> tuple[tuple[str, str], ...]:
        """The metadata that presents this tenant's key."""
        return (("authorization", f"Bearer {self.keys[tenant].text}"),)

    def booked(self, tenant: str) -> dict[str, int]:
        """What the ledger has for this tenant: micro-USD by request id."""
        with connect(self.database_url) as connection:
            rows = connection.execute(
                "SELECT request_id, SUM(cost_micro_usd) FROM ledger_entries WHERE tenant = %s GROUP BY request_id",
                [tenant],
            )
            return {str(request_id): int(cost) for request_id, cost in rows}

    def verify(self) -> tuple[int, dict[str, Any]]:
        """What `pointsman ledger verify` finds, and its exit code."""
        done = subprocess.run(
            [*COMMAND, "ledger", "verify", "--json"], capture_output=True, check=False, text=True, timeout=60,
            env=environment(POINTSMAN_DATABASE_URL=self.database_url),
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)

    async def make_keys(self, tenants: Collection[str]) -> None:
        """A key for each, kept in the database."""
        database = Database(self.database_url)
        await database.open()
        store = ControlStore(database, SystemClock())
        for tenant in tenants:
            made = self.keys[tenant] = make_key()
            roles = frozenset(Role) if tenant == "operators" else frozenset({Role.CALL})
            await store.add_key(Key(made.id, tenant, roles, made.digest), "test")
        await database.close()

    async def revoke(self, tenant: str) -> None:
        """As `pointsman keys revoke` does."""
        database = Database(self.database_url)
        await database.open()
        assert await ControlStore(database, SystemClock()).revoke_key(self.keys[tenant].id, "test")
        await database.close()


@contextmanager
def running_site(folder: Path, workers: int = 1) -> Generator[Site, None, None]:
    """Everything is up, and Envoy knows it."""
    with ExitStack() as stack:
        postgres, redis = PostgresServer(), RedisServer()
        stack.callback(postgres.remove)
        asyncio.run(redis.start())
        stack.callback(redis.kill)
        site = Site(folder, postgres.make(), redis, workers)
        asyncio.run(site.make_keys(TENANTS))
        for replica in site.replicas:
            stack.callback(replica.kill)
            replica.start()
        for replica in site.replicas:
            replica.wait()
        stack.callback(site.envoy.stop)
        site.envoy.start()
        yield site


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
