"""Who calls: every way to come without being known, or without being allowed, through a real server."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from grpc_reflection.v1alpha import reflection_pb2

from kit.callers import Doorkeeper, bearer
from kit.clock import FakeClock
from kit.house import NO_ADMIN, Door, open_door
from kit.raw_http2 import framed, raw_caller
from kit.running import RichError, router, spec
from pointsman.v1 import answer_pb2, completion_pb2, router_service_pb2, router_service_pb2_grpc
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_client import AsyncClient, PermissionDenied, Unauthenticated
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.caller import Caller, Role
from pointsman_server.domain.control import Key
from pointsman_server.domain.governance import Governance, TenantPolicy
from pointsman_server.domain.resilience import LoadPolicy
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.keys import make_key
from pointsman_server.rpc.authentication import METHOD_ROLES, Authenticator, Mode
from pointsman_server.rpc.boundary import CURRENT_CALL, CallInfo

COMPLETE = "/pointsman.v1.RouterService/Complete"
STREAM = "/pointsman.v1.RouterService/StreamComplete"
STATUS = "/pointsman.v1.AdminService/GetStatus"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CANARY = "canary-4f0e"
UNAUTHENTICATED, PERMISSION_DENIED = 16, 7
QUESTION = CompleteRequest(completion=spec("Hello")).SerializeToString()


class Echo(router_service_pb2_grpc.RouterServiceServicer):
    """Answers with the tenant whose call it is."""

    def __init__(self) -> None:
        self.infos: list[CallInfo] = []
        self.go_on = asyncio.Event()
        self.waiting = asyncio.Event()

    async def Complete(self, request: Any, context: Any) -> Any:
        self.infos.append(CURRENT_CALL.get())
        if request.completion.end_user == "wait":
            self.waiting.set()
            await self.go_on.wait()
        await asyncio.sleep(0)
        message = completion_pb2.Message(
            role=completion_pb2.ROLE_ASSISTANT,
            parts=[completion_pb2.Part(text=CURRENT_CALL.get().caller.tenant)],
        )
        return answer_pb2.CompleteResponse(request_id=CURRENT_CALL.get().request_id, message=message)

    async def StreamComplete(self, request: Any, context: Any) -> Any:  # type: ignore[override]
        text = CURRENT_CALL.get().caller.tenant
        await context.write(answer_pb2.StreamCompleteResponse(delta=answer_pb2.Delta(text=text)))

    async def Route(self, request: Any, context: Any) -> Any:
        return router_service_pb2.RouteResponse(request_id=CURRENT_CALL.get().caller.tenant)


class House:
    """A server that wants to know its callers."""

    def __init__(self, door: Door, keeper: Doorkeeper, echo: Echo, observed: list[tuple[str, str]]) -> None:
        self.door = door
        self.keeper = keeper
        self.echo = echo
        self.observed = observed

    async def ask(self, *metadata: tuple[str, str], **fields: Any) -> str:
        """The tenant that a call with this metadata belongs to."""
        request = CompleteRequest(completion=spec("Hello", **fields))
        answer = await router(self.door.channel).Complete(request, metadata=metadata, timeout=10)
        return answer.message.parts[0].text

    async def refuses(self, *metadata: tuple[str, str], method: str = COMPLETE, body: bytes = QUESTION) -> RichError:
        """The error of such a call, after proof that the next good one is answered."""
        asked = len(self.echo.infos)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.door.channel.unary_unary(method)(body, metadata=metadata, timeout=10)
        assert len(self.echo.infos) == asked
        error = RichError(caught.value)
        assert CANARY not in error.everything()
        assert await self.ask(*bearer(self.keeper.key("well"))) == "well"
        return error


@asynccontextmanager
async def house_of(mode: Mode = Mode.REQUIRED, **settings: Any) -> AsyncGenerator[House, None]:
    keeper, echo, observed = Doorkeeper(mode, SystemClock()), Echo(), []
    border = {
        "authenticator": keeper.authenticator,
        "observe": lambda method, code, seconds: observed.append((method, code)),
        **settings.pop("border", {}),
    }
    async with open_door(echo, admin=NO_ADMIN, border=border, **settings) as door:
        yield House(door, keeper, echo, observed)


@pytest.fixture
async def house() -> AsyncGenerator[House, None]:
    async with house_of() as opened:
        yield opened


def told(error: RichError) -> str:
    """The message without what names the call."""
    return error.message.rpartition(" (request ")[0]


CREDENTIALS: dict[str, Sequence[tuple[str, str]]] = {
    "none": (),
    "empty": (("authorization", ""),),
    "only the scheme": (("authorization", "Bearer"),),
    "no scheme": (("authorization", CANARY),),
    "another scheme": (("authorization", f"Basic {CANARY}"),),
    "unknown": bearer(make_key().text),
    "another issuer's": bearer("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9.AAAA"),
    "SQL": bearer("x'; DROP TABLE api_keys; --"),
    "SQL in the other header": (("x-api-key", "' OR '1'='1"),),
    "template": bearer("{{7*7}}${7*7}"),
    "path": bearer("../../etc/passwd%00"),
    "7 kB": bearer("pm_" + "a" * 7_000),
    "in another header": (("x-auth-token", CANARY), ("cookie", f"key={CANARY}"), ("x-forwarded-user", "root")),
    "beside an empty one": (("x-api-key", ""), *bearer(make_key().text)),
}


class TestUnknownCallers:
    @pytest.mark.parametrize("name", CREDENTIALS)
    async def test_row_30_all_are_told_the_same(self, house: House, name: str) -> None:
        expected = await house.refuses()
        with structlog.testing.capture_logs() as logs:
            error = await house.refuses(*CREDENTIALS[name])
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert told(error) == told(expected)
        assert list(error.details) == ["ErrorInfo"]
        for _, value in CREDENTIALS[name]:
            assert value in ("", "Bearer") or value not in error.everything() + json.dumps(logs, default=str)

    async def test_row_30_expired_and_revoked_keys_too(self, house: House) -> None:
        expired, revoked = house.keeper.key(expires_at=1.0), house.keeper.key(revoked_at=1.0)
        messages = {told(await house.refuses(*bearer(key))) for key in (expired, revoked)}
        assert messages == {told(await house.refuses())}

    async def test_row_30_a_megabyte_of_token_is_refused_by_the_transport(self, house: House) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await house.door.channel.unary_unary(COMPLETE)(QUESTION, metadata=bearer(CANARY * 100_000), timeout=10)
        assert CANARY not in str(caught.value)
        assert await house.ask(*bearer(house.keeper.key("well"))) == "well"

    async def test_row_31_two_values(self, house: House) -> None:
        key = house.keeper.key()
        for metadata in ((*bearer(key), *bearer(key)), (*bearer(key), ("x-api-key", key))):
            assert (await house.refuses(*metadata)).reason == "UNAUTHENTICATED"

    async def test_row_31_two_values_in_one_header(self, house: House) -> None:
        key = house.keeper.key()
        assert (await house.refuses(("authorization", f"Bearer {key},Bearer {key}"))).reason == "UNAUTHENTICATED"

    @pytest.mark.parametrize("method", [name for name in METHOD_ROLES if name != REFLECTION])
    async def test_no_method_is_open(self, house: House, method: str) -> None:
        assert (await house.refuses(method=method, body=b"")).reason == "UNAUTHENTICATED"

    async def test_nor_is_a_stream(self, house: House) -> None:
        call = router(house.door.channel).StreamComplete(StreamCompleteRequest(completion=spec("Hello")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(call))
        assert RichError(caught.value).reason == "UNAUTHENTICATED"

    async def test_what_is_malformed_is_not_even_looked_at(self, house: House) -> None:
        assert (await house.refuses(body=b"\xff\xff")).reason == "UNAUTHENTICATED"

    async def test_a_key_is_taken_only_in_full_of_one_that_exists(self, house: House) -> None:
        key = house.keeper.key()
        for presented in (key[:-1], key + "A", key.lower(), key[:20], "=" + key):
            assert (await house.refuses(*bearer(presented))).reason == "UNAUTHENTICATED"

    async def test_refusals_are_counted_and_told_once_an_address(self, house: House) -> None:
        with structlog.testing.capture_logs() as logs:
            for _ in range(30):
                with pytest.raises(grpc.aio.AioRpcError):
                    await house.door.channel.unary_unary(COMPLETE)(QUESTION, metadata=bearer(CANARY))
        assert house.observed == [("Complete", "UNAUTHENTICATED")] * 30
        (line,) = logs
        assert (line["event"], line["peer"], line["reason"]) == ("stranger_refused", "127.0.0.1", "unknown_key")

    async def test_nobody_fills_the_log_through_the_open_methods(self, house: House) -> None:
        too_much = [(f"x-{number}", "v") for number in range(70)]
        with structlog.testing.capture_logs() as logs:
            for _ in range(10):
                with pytest.raises(grpc.aio.AioRpcError):
                    await house.door.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", metadata=too_much)
        assert [line["event"] for line in logs] == ["stranger_refused"]

    async def test_an_error_of_ours_lets_nobody_in(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        key = house.keeper.key()

        def fails(*_: object) -> None:
            raise RuntimeError(CANARY)

        monkeypatch.setattr("pointsman_server.rpc.authentication.find_key", fails)
        with structlog.testing.capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
            await house.ask(*bearer(key))
        assert RichError(caught.value).reason == "UNAUTHENTICATED"
        assert CANARY not in RichError(caught.value).everything()
        assert [line["reason"] for line in logs] == ["broken (RuntimeError)"]


class TestBeforeTheMessage:
    async def test_section_8_callers_without_credentials_hold_nothing(self) -> None:
        """Ninety calls of headers alone, and then nothing: they are refused at once, and nobody else is kept out."""
        async with house_of(most_calls=4, body_timeout_seconds=60) as house, raw_caller(house.door.port) as raw:
            streams = [raw.begin(COMPLETE) for _ in range(90)]
            await raw.send()
            await raw.read_until(*streams)
            assert {raw.status(stream) for stream in streams} == {UNAUTHENTICATED}
            assert house.door.boundary.active_calls == 0
            answers = await asyncio.gather(*(house.ask(*bearer(house.keeper.key("acme"))) for _ in range(4)))
            assert answers == ["acme"] * 4

    async def test_who_is_known_but_may_not_is_refused_as_early(self) -> None:
        async with house_of(body_timeout_seconds=60) as house, raw_caller(house.door.port) as raw:
            stream = raw.begin(STATUS, authorization=f"Bearer {house.keeper.key()}")
            await raw.send()
            await raw.read_until(stream)
            assert raw.status(stream) == PERMISSION_DENIED


class TestMethods:
    @pytest.mark.parametrize(
        "path",
        [COMPLETE.lower(), COMPLETE[1:], f"{COMPLETE}/", f"{COMPLETE}?x", f"/{COMPLETE}", COMPLETE.rpartition("/")[0],
         f"{STATUS}%2f..%2fRouterService%2fComplete", "*", "/"],
    )  # fmt: skip
    async def test_row_34_only_the_names_of_the_server_lead_to_a_method(self, house: House, path: str) -> None:
        async with raw_caller(house.door.port) as raw:
            stream = raw.begin(path, authorization=f"Bearer {house.keeper.key('acme', *Role)}")
            raw.go_on(stream, framed(QUESTION), end=True)
            await raw.send()
            await raw.read_until(stream)
            assert stream in raw.resets or raw.ends[stream].get("grpc-status") != "0"
        assert house.echo.infos == []

    async def test_cve_2026_48710_no_header_changes_what_a_call_may(self, house: House) -> None:
        key = house.keeper.key("acme", Role.CALL)
        odd = {"x_forwarded_host": "127.0.0.1", "x_original_uri": COMPLETE, "x_role": "administer"}
        async with raw_caller(house.door.port) as raw:
            stream = raw.begin(STATUS, authorization=f"Bearer {key}", **odd)
            await raw.send()
            await raw.read_until(stream)
            assert raw.status(stream) == PERMISSION_DENIED

    async def test_roles_decide(self, house: House) -> None:
        operator = house.keeper.key("platform", Role.OPERATE)
        assert (await house.refuses(*bearer(operator))).code is grpc.StatusCode.PERMISSION_DENIED
        # Let in, it learns that this admin service does nothing.
        error = await house.refuses(*bearer(operator), method=STATUS, body=b"")
        assert error.code is grpc.StatusCode.UNIMPLEMENTED
        apply = "/pointsman.v1.AdminService/ApplyPolicy"
        error = await house.refuses(*bearer(operator), method=apply, body=b"")
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert "needs the role `administer`" in error.message

    async def test_health_is_open_and_reflection_is_not(self, house: House) -> None:
        assert await house.door.health() == "SERVING"
        request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        call = house.door.channel.stream_stream(REFLECTION)(iter([request]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        key = house.keeper.key("acme", Role.READ)
        call = house.door.channel.stream_stream(REFLECTION)(iter([request]), metadata=bearer(key))
        assert b"RouterService" in await call.read()


class TestTenants:
    async def test_rows_32_and_t6_another_tenant_in_the_metadata(self, house: House) -> None:
        key = house.keeper.key("acme")
        with structlog.testing.capture_logs() as logs:
            error = await house.refuses(*bearer(key), ("x-tenant", "other"))
        assert [(line["event"], line["tenant"], line["caller"]) for line in logs] == [
            ("call_refused", "acme", key.split("_")[1])
        ]
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert await house.ask(*bearer(key), ("x-tenant", "acme")) == "acme"

    async def test_row_33_unknown_suspended_and_deleted_tenants(self, house: House) -> None:
        key, admit = house.keeper.key("acme"), house.keeper
        admit.governance = Governance(tenants={"acme": TenantPolicy(suspended=True)})
        assert (await house.refuses(*bearer(key))).code is grpc.StatusCode.PERMISSION_DENIED
        admit.governance = Governance(tenants={"well": TenantPolicy()}, only_listed=True)
        assert (await house.refuses(*bearer(key))).code is grpc.StatusCode.PERMISSION_DENIED
        admit.governance = Governance(tenants={"well": TenantPolicy(), "acme": TenantPolicy()}, only_listed=True)
        assert await house.ask(*bearer(key)) == "acme"

    async def test_t5_calls_at_the_same_time_keep_their_tenants(self) -> None:
        async with house_of(most_calls=80) as house:
            keys = {f"tenant-{number}": house.keeper.key(f"tenant-{number}") for number in range(20)}
            asked = [tenant for tenant in keys for _ in range(16)]
            random.Random(5).shuffle(asked)
            for begin in range(0, len(asked), 80):
                some = asked[begin : begin + 80]
                assert await asyncio.gather(*(house.ask(*bearer(keys[tenant])) for tenant in some)) == some
        assert {info.caller.name for info in house.echo.infos} == {key.split("_")[1] for key in keys.values()}
        assert {info.peer for info in house.echo.infos} == {"127.0.0.1"}

    async def test_waiting_calls_are_queued_by_tenant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        border = {"load": lambda: LoadPolicy(most_queued=10)}
        async with house_of(most_calls=1, border=border) as house:
            gate, queued = house.door.boundary.gate, []
            enter = gate.enter

            async def spy(tenant: str, *rest: Any) -> Any:
                queued.append(tenant)
                return await enter(tenant, *rest)

            monkeypatch.setattr(gate, "enter", spy)
            first = asyncio.create_task(house.ask(*bearer(house.keeper.key("first")), end_user="wait"))
            await house.echo.waiting.wait()
            second = asyncio.create_task(house.ask(*bearer(house.keeper.key("second"))))
            async with asyncio.timeout(5):
                while not gate.queued:  # noqa: ASYNC110 - the gate tells nobody
                    await asyncio.sleep(0.001)
            house.echo.go_on.set()
            assert [await first, await second] == ["first", "second"]
        assert queued == ["second"]


class TestSmuggling:
    @pytest.mark.parametrize("name", ["base_url", "base-url", "x-api-base", "api_key", "api-key", "x-custom-host"])
    async def test_row_29_nobody_chooses_a_providers_host_or_key(self, house: House, name: str) -> None:
        key = house.keeper.key()
        with structlog.testing.capture_logs() as logs:
            error = await house.refuses(*bearer(key), (name, f"https://{CANARY}.example"))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert error.fields == [f"metadata.{name}"]
        (line,) = logs
        assert (line["event"], line["caller"], line["tenant"]) == ("call_refused", key.split("_")[1], "acme")
        assert CANARY not in json.dumps(line)

    async def test_a_stranger_is_not_told_which_names_those_are(self, house: House) -> None:
        assert (await house.refuses(("base_url", "x"))).reason == "UNAUTHENTICATED"


class TestStore:
    @asynccontextmanager
    async def replica(self, database: Database, poll_seconds: float) -> AsyncGenerator[tuple[Door, ControlBook], None]:
        """A server that learns of keys from the database."""
        book = ControlBook(ControlStore(database, SystemClock()), SystemClock(), poll_seconds)
        await book.load()
        book.start()
        keeper = Doorkeeper()
        authenticator = Authenticator(
            lambda: book.current, keeper.authenticator._snapshot, SystemClock(), Mode.REQUIRED
        )
        try:
            async with open_door(Echo(), border={"authenticator": authenticator}) as door:
                yield door, book
        finally:
            await book.close()

    async def test_keys_act_on_every_replica_within_a_second(self, database: Database) -> None:
        store, clock = ControlStore(database, SystemClock()), FakeClock()
        async with self.replica(database, 0.05) as (first, _), self.replica(database, 0.05) as (second, _):
            new = make_key()
            key = Key(new.id, "acme", frozenset({Role.CALL}), new.digest, created_at=clock.now())
            await store.add_key(key, "test")
            await asyncio.gather(*(self.until(door, new.text, "OK") for door in (first, second)))
            assert await store.revoke_key(new.id, "test")
            await asyncio.gather(*(self.until(door, new.text, "UNAUTHENTICATED") for door in (first, second)))

    async def until(self, door: Door, key: str, code: str) -> None:
        """Asks until this is how calls with the key end."""
        async with asyncio.timeout(2):
            while True:
                call = router(door.channel).Route(RouteRequest(completion=spec("x")), metadata=bearer(key))
                if (await call.code()).name == code:
                    return
                await asyncio.sleep(0.01)


class TestClients:
    async def test_errors_are_typed(self, house: House) -> None:
        target = f"127.0.0.1:{house.door.port}"
        async with AsyncClient(target, api_key=house.keeper.key("acme")) as client:
            assert (await client.complete("Hello")).text == "acme"
            with pytest.raises(grpc.aio.AioRpcError):
                await client.admin.GetStatus(b"")  # type: ignore[arg-type]
        async with AsyncClient(target, api_key=make_key().text) as client:
            with pytest.raises(Unauthenticated, match="no valid credentials"):
                await client.complete("Hello")
        async with AsyncClient(target, api_key=house.keeper.key("acme", Role.READ)) as client:
            with pytest.raises(PermissionDenied, match="needs the role `call`"):
                await client.complete("Hello")
        async with AsyncClient(target) as client:
            stream = client.stream("Hello")
            with pytest.raises(Unauthenticated):
                await stream.finish()


async def test_insecure_mode_is_the_local_callers() -> None:
    async with house_of(Mode.INSECURE) as house:
        assert await house.ask(("authorization", "whatever"), ("x-tenant", "acme")) == "local"
        assert house.echo.infos[0].caller == Caller("local", "local", frozenset(Role))
