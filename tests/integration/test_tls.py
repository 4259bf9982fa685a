"""TLS: what is spoken, whose certificates are taken, and files that change while the server runs."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.callers import Doorkeeper, bearer
from kit.certificates import Authority, Signed
from kit.clock import CountingIds
from kit.command_line import Cli, simulated_policy, started
from kit.house import NO_ADMIN, NO_EMBEDDING, NO_FEEDBACK
from kit.running import RichError, router, spec
from pointsman.v1 import router_service_pb2, router_service_pb2_grpc
from pointsman.v1.admin_service_pb2 import GetStatusRequest
from pointsman.v1.admin_service_pb2_grpc import AdminServiceStub
from pointsman.v1.router_service_pb2 import RouteRequest
from pointsman_client import AsyncClient, Client, Unauthenticated, Unavailable, tls_from_files
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.caller import Role
from pointsman_server.domain.governance import Governance, Identity
from pointsman_server.rpc.boundary import CURRENT_CALL, Boundary
from pointsman_server.rpc.certificates import CertificateError, Certificates
from pointsman_server.rpc.server import ROUTER_SERVICE, GrpcServer, Servicers

AUTHORITY, STRANGER = Authority("ours"), Authority("theirs")
SHOP = "spiffe://company/shop"
ADMIN = "pointsman.v1.AdminService"
STATUS = f"/{ADMIN}/GetStatus"
ROUTE = f"/{ROUTER_SERVICE}/Route"


class Echo(router_service_pb2_grpc.RouterServiceServicer):
    """Tells the caller."""

    async def Route(self, request: Any, context: Any) -> Any:
        caller = CURRENT_CALL.get().caller
        return router_service_pb2.RouteResponse(request_id=f"{caller.tenant} {caller.name}")


_ECHO: Any = Echo
ECHO = _ECHO()


class House:
    """A server with its files."""

    def __init__(self, folder: Path, keeper: Doorkeeper, server: GrpcServer) -> None:
        self.folder = folder
        self.keeper = keeper
        self.server = server

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.ports[0]}"

    def shown(self) -> bytes:
        """The certificate that a new connection is shown, in PEM."""
        return ssl.get_server_certificate(("127.0.0.1", self.server.ports[0])).encode()

    async def ask(self, credentials: grpc.ChannelCredentials, *metadata: tuple[str, str]) -> str:
        """Whose call it is, over a connection of its own."""
        async with grpc.aio.secure_channel(self.target, credentials) as channel:
            answer = await router(channel).Route(RouteRequest(completion=spec("x")), metadata=metadata, timeout=5)
            return answer.request_id

    async def refuses(self, credentials: grpc.ChannelCredentials, *metadata: tuple[str, str]) -> grpc.StatusCode:
        """How such a call ends."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(credentials, *metadata)
        return caught.value.code()


@asynccontextmanager
async def house_in(
    folder: Path, *, mutual: bool = False, tls: bool = True, **settings: Any
) -> AsyncGenerator[House, None]:
    keeper = Doorkeeper()
    boundary = Boundary(CountingIds(), SystemClock(), 10, keeper.authenticator)
    files = Certificates(*AUTHORITY.server().write(folder, "server"), AUTHORITY.write(folder) if mutual else "")
    server = GrpcServer(
        Servicers(ECHO, NO_FEEDBACK, NO_ADMIN, NO_EMBEDDING),
        boundary,
        address="127.0.0.1:0",
        offer_reflection=False,
        certificates=files if tls else None,
        **settings,
    )
    await server.start()
    try:
        yield House(folder, keeper, server)
    finally:
        await server.stop()


def trusting(client: Signed | None = None, authority: Authority = AUTHORITY) -> grpc.ChannelCredentials:
    """What a caller connects with."""
    if client is None:
        return grpc.ssl_channel_credentials(authority.certificate)
    return grpc.ssl_channel_credentials(authority.certificate, client.key, client.certificate)


class TestVersions:
    @pytest.mark.parametrize(
        ("version", "spoken"),
        [
            (ssl.TLSVersion.TLSv1, False),
            (ssl.TLSVersion.TLSv1_1, False),
            (ssl.TLSVersion.TLSv1_2, True),
            (ssl.TLSVersion.TLSv1_3, True),
        ],
    )
    async def test_nothing_below_1_2_is_spoken(self, tmp_path: Path, version: ssl.TLSVersion, spoken: bool) -> None:
        async with house_in(tmp_path) as house:
            assert await asyncio.to_thread(_speaks, house.server.ports[0], version) is spoken

    async def test_plaintext_is_not_understood(self, tmp_path: Path) -> None:
        async with house_in(tmp_path) as house, grpc.aio.insecure_channel(house.target) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await router(channel).Route(RouteRequest(completion=spec("x")), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    async def test_a_key_is_still_needed(self, tmp_path: Path) -> None:
        async with house_in(tmp_path) as house:
            assert await house.refuses(trusting()) is grpc.StatusCode.UNAUTHENTICATED
            assert (await house.ask(trusting(), *bearer(house.keeper.key("acme")))).startswith("acme ")

    async def test_callers_who_trust_others_go_away(self, tmp_path: Path) -> None:
        async with house_in(tmp_path) as house:
            assert await house.refuses(trusting(authority=STRANGER)) is grpc.StatusCode.UNAVAILABLE


def _speaks(port: int, version: ssl.TLSVersion) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=AUTHORITY.certificate.decode())
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("ALL:@SECLEVEL=0")  # otherwise OpenSSL itself would not speak the old versions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    try:
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as sealed,
        ):
            return sealed.selected_alpn_protocol() == "h2"
    except (ssl.SSLError, ConnectionError):
        return False


class TestClientCertificates:
    @pytest.fixture
    async def house(self, tmp_path: Path) -> AsyncGenerator[House, None]:
        async with house_in(tmp_path, mutual=True) as opened:
            opened.keeper.governance = Governance(identities={SHOP: Identity("shop", frozenset({Role.CALL}))})
            yield opened

    async def test_the_name_in_it_is_the_caller(self, house: House) -> None:
        assert await house.ask(trusting(AUTHORITY.client(uris=(SHOP,)))) == f"shop {SHOP}"

    @pytest.mark.parametrize(
        "client",
        [None, STRANGER.client(uris=(SHOP,)), AUTHORITY.client(uris=(SHOP,), expired=True)],
        ids=["none", "of another authority", "expired"],
    )
    async def test_without_a_good_one_there_is_no_connection(self, house: House, client: Signed | None) -> None:
        assert await house.refuses(trusting(client)) is grpc.StatusCode.UNAVAILABLE

    @pytest.mark.parametrize(
        "client",
        [
            AUTHORITY.client(),
            AUTHORITY.client(common_name=SHOP),
            AUTHORITY.client(uris=(f"{SHOP}/other",)),
            AUTHORITY.client(names=("shop.company",)),
        ],
        ids=["no name", "only a common name", "a longer name", "another kind of name"],
    )
    async def test_a_good_one_that_the_policy_does_not_name_opens_nothing(self, house: House, client: Signed) -> None:
        assert await house.refuses(trusting(client)) is grpc.StatusCode.UNAUTHENTICATED

    async def test_roles_and_keys_hold_here_too(self, house: House) -> None:
        shop = trusting(AUTHORITY.client(uris=(SHOP,)))
        async with grpc.aio.secure_channel(house.target, shop) as channel:
            stub: Any = AdminServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetStatus(GetStatusRequest(), timeout=5)
            assert RichError(caught.value).reason == "PERMISSION_DENIED"
        assert await house.refuses(shop, *bearer("pm_nonsense")) is grpc.StatusCode.UNAUTHENTICATED
        assert await house.refuses(shop, *bearer(house.keeper.key("acme"))) is grpc.StatusCode.UNAUTHENTICATED

    async def test_a_policy_without_the_name_acts_on_open_connections(self, house: House) -> None:
        async with grpc.aio.secure_channel(house.target, trusting(AUTHORITY.client(uris=(SHOP,)))) as channel:
            request = RouteRequest(completion=spec("x"))
            assert (await router(channel).Route(request, timeout=5)).request_id == f"shop {SHOP}"
            house.keeper.governance = Governance()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await router(channel).Route(request, timeout=5)
            assert RichError(caught.value).reason == "UNAUTHENTICATED"

    async def test_the_client_package_shows_its_certificate(self, house: House, tmp_path: Path) -> None:
        cert_file, key_file = AUTHORITY.client(uris=(SHOP,)).write(tmp_path, "shop")
        credentials = tls_from_files(AUTHORITY.write(tmp_path), cert_file, key_file)
        async with AsyncClient(house.target, credentials=credentials) as client:
            assert (await client.route("x")).response.request_id == f"shop {SHOP}"

    async def test_so_does_the_command_line(self, house: House, tmp_path: Path, cli: Cli) -> None:
        cert_file, key_file = AUTHORITY.client(uris=(SHOP,)).write(tmp_path, "shop")
        tls = ("--tls-ca", AUTHORITY.write(tmp_path), "--tls-cert", cert_file, "--tls-key", key_file)
        result = await asyncio.to_thread(cli, "route", "--server", house.target, *tls, "--json", "x")
        assert result.exit_code == 0, result.output
        assert f"shop {SHOP}" in result.stdout


class TestFilesThatChange:
    async def test_new_connections_get_the_new_certificate_and_old_ones_live_on(self, tmp_path: Path) -> None:
        async with house_in(tmp_path) as house, grpc.aio.secure_channel(house.target, trusting()) as channel:
            metadata = bearer(house.keeper.key("acme"))
            request = RouteRequest(completion=spec("x"))
            assert await router(channel).Route(request, metadata=metadata, timeout=5)
            before, new = await asyncio.to_thread(house.shown), AUTHORITY.server()
            new.write(tmp_path, "server")
            after = await asyncio.to_thread(house.shown)
            assert after == new.certificate != before
            assert await router(channel).Route(request, metadata=metadata, timeout=5)
            assert await house.ask(trusting(), *metadata)

    async def test_half_of_a_pair_changes_nothing(self, tmp_path: Path) -> None:
        async with house_in(tmp_path) as house:
            before, new = await asyncio.to_thread(house.shown), AUTHORITY.server()
            (tmp_path / "server.pem").write_bytes(new.certificate)
            assert [await asyncio.to_thread(house.shown) for _ in range(3)] == [before] * 3
            (tmp_path / "server.key").unlink()
            assert await asyncio.to_thread(house.shown) == before
            (tmp_path / "server.key").write_bytes(new.key)
            assert await asyncio.to_thread(house.shown) == new.certificate

    async def test_an_authority_that_goes_takes_its_callers_with_it(self, tmp_path: Path) -> None:
        async with house_in(tmp_path, mutual=True) as house:
            house.keeper.governance = Governance(identities={SHOP: Identity("shop", frozenset({Role.CALL}))})
            ours, theirs = (trusting(one.client(uris=(SHOP,))) for one in (AUTHORITY, STRANGER))
            assert await house.ask(ours)
            assert await house.refuses(theirs) is grpc.StatusCode.UNAVAILABLE
            STRANGER.write(tmp_path)
            assert await house.refuses(ours) is grpc.StatusCode.UNAVAILABLE
            assert await house.ask(theirs) == f"shop {SHOP}"

    async def test_files_that_cannot_be_used_stop_the_start(self, tmp_path: Path) -> None:
        boundary = Boundary(CountingIds(), SystemClock(), 1, Doorkeeper().authenticator)
        server = GrpcServer(
            Servicers(ECHO, NO_FEEDBACK, NO_ADMIN, NO_EMBEDDING),
            boundary,
            address="127.0.0.1:0",
            offer_reflection=False,
            certificates=Certificates(str(tmp_path / "no.pem"), str(tmp_path / "no.key")),
        )
        with pytest.raises(CertificateError, match="cannot be read"):
            await server.start()
        await server.stop()


class TestAdminAddress:
    @pytest.mark.parametrize("tls", [False, True])
    async def test_each_service_is_at_its_address_alone(self, tmp_path: Path, tls: bool) -> None:
        async with house_in(tmp_path, tls=tls, admin_address="127.0.0.1:0") as house:
            everything = bearer(house.keeper.key("acme", *Role))
            main, admin = (self.channel(port, tls) for port in house.server.ports)
            assert len(set(house.server.ports)) == 2
            async with main, admin:
                request = RouteRequest(completion=spec("x")).SerializeToString()
                assert await main.unary_unary(ROUTE)(request, metadata=everything, timeout=5)
                for channel, method in ((main, STATUS), (admin, ROUTE)):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await channel.unary_unary(method)(b"", metadata=everything, timeout=5)
                    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
                    assert "not found" in (caught.value.details() or "").lower()
                # There the admin service is reached; this one serves nothing.
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await admin.unary_unary(STATUS)(b"", metadata=everything, timeout=5)
                assert RichError(caught.value).reason == "FEATURE_UNAVAILABLE"
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await admin.unary_unary(STATUS)(b"", metadata=bearer(house.keeper.key("acme")), timeout=5)
                assert RichError(caught.value).reason == "PERMISSION_DENIED"

    async def test_health_is_told_at_both(self, tmp_path: Path) -> None:
        async with house_in(tmp_path, tls=False, admin_address="127.0.0.1:0") as house:
            main, admin = (self.channel(port, False) for port in house.server.ports)
            async with main, admin:
                assert [await self.health(main, name) for name in ("", ROUTER_SERVICE)] == ["SERVING"] * 2
                assert [await self.health(admin, name) for name in ("", ADMIN)] == ["SERVING"] * 2
                for channel, name in ((main, ADMIN), (admin, ROUTER_SERVICE)):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await self.health(channel, name)
                await house.server.drain(1.0)

    def channel(self, port: int, tls: bool) -> Any:
        target = f"127.0.0.1:{port}"
        return grpc.aio.secure_channel(target, trusting()) if tls else grpc.aio.insecure_channel(target)

    async def health(self, channel: Any, name: str) -> str:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


class TestCommandLine:
    async def test_the_key_comes_from_the_environment(self, tmp_path: Path, cli: Cli) -> None:
        async with house_in(tmp_path) as house:
            key, tls = house.keeper.key("acme"), ("--tls-ca", AUTHORITY.write(tmp_path))
            asked = ("route", "--server", house.target, *tls, "--json", "x")
            answered = await asyncio.to_thread(cli, *asked, POINTSMAN_API_KEY=key)
            assert (answered.exit_code, "acme" in answered.stdout) == (0, True), answered.output
            other = await asyncio.to_thread(cli, *asked, "--api-key-env", "MY_KEY", MY_KEY=key)
            assert other.exit_code == 0, other.output
            refused = await asyncio.to_thread(cli, *asked)
            assert refused.exit_code == 1
            assert "reason: UNAUTHENTICATED (UNAUTHENTICATED)" in refused.stderr
            assert "remedy: put a valid key into POINTSMAN_API_KEY" in refused.stderr
            reader = await asyncio.to_thread(cli, *asked, POINTSMAN_API_KEY=house.keeper.key("acme", Role.READ))
            assert "needs the role `call`" in reader.stderr
            assert "reason: PERMISSION_DENIED" in reader.stderr

    async def test_the_synchronous_client_too(self, tmp_path: Path) -> None:
        async with house_in(tmp_path) as house:

            def ask(**options: Any) -> str:
                with Client(house.target, **options) as client:
                    return client.route("x", timeout_seconds=5).response.request_id

            credentials = tls_from_files(AUTHORITY.write(tmp_path))
            key = house.keeper.key("acme")
            assert (await asyncio.to_thread(ask, credentials=credentials, api_key=key)).startswith("acme ")
            with pytest.raises(Unauthenticated):
                await asyncio.to_thread(ask, credentials=credentials)
            with pytest.raises(Unavailable):
                await asyncio.to_thread(ask, api_key=key)


def test_a_process_serves_others_over_tls_and_only_those_it_knows(tmp_path: Path) -> None:
    cert_file, key_file = AUTHORITY.server().write(tmp_path, "server")
    log, policy = tmp_path / "log", tmp_path / "policy.yaml"
    policy.write_text(simulated_policy("sim-fast"))
    environ = {
        "POINTSMAN_TLS_CERT_FILE": cert_file,
        "POINTSMAN_TLS_KEY_FILE": key_file,
        "POINTSMAN_DATABASE_URL": f"sqlite:///{tmp_path}/pointsman.db",
    }
    arguments = ("serve", "--policy", str(policy), "--grpc-address", "0.0.0.0:0")
    with started(log, *arguments, **environ) as (_, line):
        assert line.endswith("; it speaks TLS, and callers need a key\n")
        target = f"127.0.0.1:{line.split()[3].rstrip(';').rpartition(':')[2]}"
        credentials = tls_from_files(AUTHORITY.write(tmp_path))
        with Client(target, credentials=credentials, api_key="pm_PLANTED") as client, pytest.raises(Unauthenticated):
            client.route("x", timeout_seconds=10)
    assert "PLANTED" not in log.read_text()
    assert '"no_callers"' in log.read_text()


@pytest.fixture
def cli() -> Cli:
    return Cli()
