from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from pointsman_server.adapters.providers import wire as wire_module
from pointsman_server.adapters.providers.wire import HttpWire, PreparedRequest, WireResponse, body_fault, join_chunks
from pointsman_server.domain.faults import FaultKind, ProviderFault

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


class Upstream:
    """A server below HTTP: the handler decides which bytes go out and how the connection ends."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone_at: list[float] = []
        self.url = ""

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0])) if lengths else b""
        self.requests.append(head + body)
        return head + body

    async def note_end(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            await reader.read()
        self.gone_at.append(time.monotonic())

    @asynccontextmanager
    async def serve(self, handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self.url
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def wire() -> AsyncIterator[HttpWire]:
    http = HttpWire()
    yield http
    await http.close()


def post(
    url: str, headers: dict[str, str] | None = None, body: bytes = b'{"prompt":"secret words"}'
) -> PreparedRequest:
    return PreparedRequest(f"{url}/v1/answer?key=secret", {"authorization": "Bearer secret", **(headers or {})}, body)


async def fetch(wire: HttpWire, url: str, *, connect: float = 2.0, total: float = 5.0) -> bytes:
    async with wire.send(post(url), connect_seconds=connect, total_seconds=total) as response:
        assert response.status == 200
        return await response.whole()


@asynccontextmanager
async def response_to(wire: HttpWire, url: str, request: PreparedRequest | None = None) -> AsyncIterator[WireResponse]:
    async with wire.send(request or post(url), connect_seconds=2, total_seconds=5) as response:
        yield response


async def fault_of(wire: HttpWire, url: str, *, connect: float = 2.0, total: float = 5.0) -> ProviderFault:
    with pytest.raises(ProviderFault) as caught:
        await fetch(wire, url, connect=connect, total=total)
    for hidden in ("secret", "127.0.0.1", url.rsplit(":", 1)[-1], "Traceback"):
        assert not hidden or hidden not in str(caught.value)
    return caught.value


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def answering(upstream: Upstream, *parts: bytes, then: Callable[[asyncio.StreamWriter], None] | None = None) -> Handler:
    """Answers one request with these bytes, and then hangs up, in its own way if `then` says so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then is not None:
            await asyncio.sleep(0.02)
            then(writer)

    return handle


def staying(upstream: Upstream, *parts: bytes) -> Handler:
    """Answers one request with these bytes, and then says nothing until the other side goes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read_request(reader)
        for part in parts:
            writer.write(part)
        await upstream.note_end(reader)

    return handle


def serving(upstream: Upstream, answer: bytes) -> Handler:
    """Answers every request of a connection with the same bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.read_request(reader)
            writer.write(answer)

    return handle


class TestBeforeTheResponse:
    async def test_refused(self, wire: HttpWire) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            fault = await fault_of(wire, f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert (fault.kind, fault.detail) == (FaultKind.CONNECTION, "the connection was refused")

    async def test_reset_on_accept(self, wire: HttpWire, upstream: Upstream) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reset(writer)

        async with upstream.serve(handle) as url:
            assert (await fault_of(wire, url)).kind is FaultKind.CONNECTION
        assert upstream.connections == 1, "the wire retries nothing"

    async def test_reset_after_the_request(self, wire: HttpWire, upstream: Upstream) -> None:
        async with upstream.serve(answering(upstream, then=reset)) as url:
            assert (await fault_of(wire, url)).kind is FaultKind.CONNECTION
        assert len(upstream.requests) == 1

    async def test_hung_up_without_a_word(self, wire: HttpWire, upstream: Upstream) -> None:
        async with upstream.serve(answering(upstream)) as url:
            assert (await fault_of(wire, url)).kind is FaultKind.CONNECTION
        assert len(upstream.requests) == 1

    @pytest.mark.parametrize("part", [b"HTTP/1.1 20", OK, OK + b"content-length: 5"])
    async def test_hung_up_within_the_headers(self, wire: HttpWire, upstream: Upstream, part: bytes) -> None:
        async with upstream.serve(answering(upstream, part)) as url:
            assert (await fault_of(wire, url)).kind is FaultKind.CONNECTION

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 twohundred OK\r\n\r\n",
            b"\x16\x03\x01\x00\x00\r\n\r\n",
            OK + b"content-length: five\r\n\r\nhello",
            OK + b"content-length: -1\r\n\r\nhello",
            OK + b"no colon\r\n\r\n",
            OK + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
        ],
        ids=lambda answer: repr(answer[-24:]),
    )
    async def test_not_http(self, wire: HttpWire, upstream: Upstream, answer: bytes) -> None:
        async with upstream.serve(answering(upstream, answer)) as url:
            fault = await fault_of(wire, url)
        assert (fault.kind, fault.detail) == (FaultKind.MALFORMED_REPLY, "the response is not valid HTTP")

    async def test_silence(self, wire: HttpWire, upstream: Upstream) -> None:
        start = time.monotonic()
        async with upstream.serve(staying(upstream)) as url:
            fault = await fault_of(wire, url, total=0.1)
            assert time.monotonic() - start < 1.0
            await until(lambda: upstream.gone_at)
        assert fault.kind is FaultKind.TIMEOUT

    async def test_no_connection_in_time(self, wire: HttpWire) -> None:
        with full_backlog() as url:
            fault = await fault_of(wire, url, connect=0.1)
        assert (fault.kind, fault.detail) == (FaultKind.CONNECTION, "no connection within the connect timeout")

    async def test_unknown_host(self, wire: HttpWire) -> None:
        fault = await fault_of(wire, "http://no-such-host.invalid")
        assert (fault.kind, fault.detail) == (FaultKind.CONNECTION, "the host name could not be resolved")

    @pytest.mark.parametrize(
        "url", ["", "llm.example", "http://", "ftp://127.0.0.1", "http://a b", "http://[::1", "http://x:99999"]
    )
    async def test_unusable_address(self, wire: HttpWire, url: str) -> None:
        assert (await fault_of(wire, url)).kind is FaultKind.CONNECTION

    @pytest.mark.parametrize("value", ["Bearer secret\r\nx: y", "Bearer secret\n", "Bearer \x00secret"])
    async def test_key_that_is_no_header_value(self, wire: HttpWire, upstream: Upstream, value: str) -> None:
        async with upstream.serve(serving(upstream, HELLO)) as url:
            with pytest.raises(ProviderFault) as caught:
                async with wire.send(post(url, {"authorization": value}), connect_seconds=1, total_seconds=1):
                    pass
        assert caught.value.kind is FaultKind.CONNECTION
        assert "secret" not in str(caught.value)
        assert upstream.requests == []

    async def test_cancelled_while_waiting(self, wire: HttpWire, upstream: Upstream) -> None:
        async with upstream.serve(staying(upstream)) as url:
            task = asyncio.create_task(fetch(wire, url))
            await until(lambda: upstream.requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: upstream.gone_at, seconds=0.2)


@contextmanager
def full_backlog() -> Iterator[str]:
    """A port whose queue is full, so that no connection to it is ever made."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()


async def until(condition: Callable[[], object], seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        await asyncio.sleep(0.002)


class TestTls:
    async def test_certificate_nobody_vouches_for(self, wire: HttpWire, upstream: Upstream, tmp_path: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self_signed_certificate(tmp_path / "server.pem"))
        async with upstream.serve(serving(upstream, HELLO), tls=context) as url:
            fault = await fault_of(wire, url)
        assert (fault.kind, fault.detail) == (FaultKind.CONNECTION, "the TLS handshake failed")
        assert upstream.requests == []

    async def test_server_that_speaks_no_tls(self, wire: HttpWire, upstream: Upstream) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HELLO)
            await upstream.note_end(reader)

        async with upstream.serve(handle) as url:
            fault = await fault_of(wire, url.replace("http:", "https:"))
        assert (fault.kind, fault.detail) == (FaultKind.CONNECTION, "the TLS handshake failed")

    async def test_handshake_that_never_ends(self, wire: HttpWire, upstream: Upstream) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await upstream.note_end(reader)

        async with upstream.serve(handle) as url:
            fault = await fault_of(wire, url.replace("http:", "https:"), connect=0.1)
        assert (fault.kind, fault.detail) == (FaultKind.CONNECTION, "no connection within the connect timeout")


def self_signed_certificate(path: Path) -> Path:
    pytest.importorskip("cryptography", reason="cryptography, which makes the certificate, is not installed")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def gzipped(body: bytes) -> bytes:
    return OK + f"content-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class TestBody:
    @pytest.mark.parametrize(
        "answer",
        [
            HELLO,
            CHUNKED + chunk(b"hel") + chunk(b"lo") + b"0\r\n\r\n",
            OK + b"connection: close\r\n\r\nhello",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
            gzipped(gzip.compress(b"hello", mtime=0)),
            b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
        ],
        ids=["length", "chunked", "close", "1.0", "gzip", "continue"],
    )
    async def test_whole(self, wire: HttpWire, upstream: Upstream, answer: bytes) -> None:
        async with upstream.serve(answering(upstream, answer)) as url:
            assert await fetch(wire, url) == b"hello"

    @pytest.mark.parametrize("answer", [OK + b"content-length: 0\r\n\r\n", CHUNKED + b"0\r\n\r\n", OK + b"\r\n"])
    async def test_empty(self, wire: HttpWire, upstream: Upstream, answer: bytes) -> None:
        async with upstream.serve(answering(upstream, answer)) as url:
            assert await fetch(wire, url) == b""

    async def test_pieces_come_as_they_arrive(self, wire: HttpWire, upstream: Upstream) -> None:
        go_on = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await upstream.read_request(reader)
            writer.write(CHUNKED + chunk(b"one"))
            await go_on.wait()
            writer.write(chunk(b"two") + b"0\r\n\r\n")
            await upstream.note_end(reader)

        async with upstream.serve(handle) as url, response_to(wire, url) as response:
            pieces = response.chunks()
            assert await anext(pieces) == b"one"
            go_on.set()
            assert [piece async for piece in pieces] == [b"two"]

    @pytest.mark.parametrize("then", [None, reset], ids=["end", "reset"])
    @pytest.mark.parametrize(
        "answer",
        [OK + b"content-length: 50\r\n\r\nhello", CHUNKED + chunk(b"hello"), CHUNKED + b"20\r\nhello"],
        ids=["short", "unterminated", "within a chunk"],
    )
    async def test_cut(
        self,
        wire: HttpWire,
        upstream: Upstream,
        answer: bytes,
        then: Callable[[asyncio.StreamWriter], None] | None,
    ) -> None:
        async with upstream.serve(answering(upstream, answer, then=then)) as url:
            assert (await fault_of(wire, url)).kind is FaultKind.STREAM_CUT

    async def test_what_came_before_the_cut_is_delivered(self, wire: HttpWire, upstream: Upstream) -> None:
        async with (
            upstream.serve(answering(upstream, CHUNKED + chunk(b"hello"), then=reset)) as url,
            response_to(wire, url) as response,
        ):
            pieces = response.chunks()
            assert await anext(pieces) == b"hello"
            with pytest.raises(ProviderFault) as caught:
                await anext(pieces)
        assert caught.value.kind is FaultKind.STREAM_CUT

    @pytest.mark.parametrize(
        "answer",
        [
            gzipped(b'{"a": "not gzip at all"}'),
            gzipped(gzip.compress(b"hello", mtime=0)[:-8] + b"\x00" * 8),
            OK + b"content-encoding: deflate\r\ncontent-length: 5\r\n\r\nhello",
            CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
            CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
            CHUNKED + b"5\r\nhello world\r\n0\r\n\r\n",
        ],
        ids=["no gzip", "gzip checksum", "no deflate", "no chunk size", "negative chunk", "chunk too long"],
    )
    async def test_lies_about_the_body(self, wire: HttpWire, upstream: Upstream, answer: bytes) -> None:
        async with upstream.serve(answering(upstream, answer, then=lambda writer: None)) as url:
            assert (await fault_of(wire, url)).kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)

    async def test_stall(self, wire: HttpWire, upstream: Upstream) -> None:
        async with upstream.serve(staying(upstream, CHUNKED + chunk(b"hello"))) as url:
            fault = await fault_of(wire, url, total=0.1)
            await until(lambda: upstream.gone_at)
        assert fault.kind is FaultKind.TIMEOUT

    def test_failure_of_any_other_kind_is_a_cut(self) -> None:
        assert body_fault(OSError("gone")).kind is FaultKind.STREAM_CUT

    async def test_longer_than_memory_should_hold(
        self, wire: HttpWire, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wire_module, "MAX_BODY_BYTES", 100_000)
        bomb = zlib.compress(b"x" * 50_000_000)
        answer = OK + f"content-encoding: deflate\r\ncontent-length: {len(bomb)}\r\n\r\n".encode() + bomb
        async with upstream.serve(answering(upstream, answer)) as url:
            assert (await fault_of(wire, url)).kind is FaultKind.MALFORMED_REPLY

    async def test_join_counts_the_opening(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"de", b"f"):
                yield piece

        assert await join_chunks(pieces(), b"abc") == b"abcdef"
        monkeypatch.setattr(wire_module, "MAX_BODY_BYTES", 5)
        with pytest.raises(ProviderFault):
            await join_chunks(pieces(), b"abc")


class TestConnections:
    async def test_one_for_calls_in_a_row(self, wire: HttpWire, upstream: Upstream) -> None:
        async with upstream.serve(serving(upstream, HELLO)) as url:
            assert [await fetch(wire, url), await fetch(wire, url)] == [b"hello", b"hello"]
        assert (upstream.connections, len(upstream.requests)) == (1, 2)

    async def test_one_more_for_calls_at_once(self, wire: HttpWire, upstream: Upstream) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await upstream.read_request(reader)
            await until(lambda: len(upstream.requests) == 90)
            writer.write(HELLO)

        async with upstream.serve(handle) as url:
            answers = await asyncio.gather(*(fetch(wire, url) for _ in range(90)))
        assert answers == [b"hello"] * 90, "no call waits for another's connection"

    @pytest.mark.parametrize("read_first", [False, True], ids=["untouched", "begun"])
    async def test_leaving_early_closes_within_200_ms(
        self, wire: HttpWire, upstream: Upstream, read_first: bool
    ) -> None:
        async with upstream.serve(staying(upstream, CHUNKED + chunk(b"hello"))) as url:
            async with response_to(wire, url) as response:
                if read_first:
                    assert await anext(aiter(response.chunks())) == b"hello"
            left_at = time.monotonic()
            await until(lambda: upstream.gone_at)
        assert upstream.gone_at[0] - left_at < 0.2

    async def test_failure_inside_closes_too(self, wire: HttpWire, upstream: Upstream) -> None:
        async with upstream.serve(staying(upstream, CHUNKED + chunk(b"hello"))) as url:
            with pytest.raises(KeyError):
                async with response_to(wire, url):
                    raise KeyError("anything")
            await until(lambda: upstream.gone_at, seconds=0.2)

    async def test_connection_left_early_is_not_used_again(self, wire: HttpWire, upstream: Upstream) -> None:
        size = 8_000_000
        answer = OK + f"content-length: {size}\r\n\r\n".encode() + b"x" * size
        async with upstream.serve(serving(upstream, answer)) as url:
            async with response_to(wire, url):
                pass
            assert len(await fetch(wire, url)) == size
        assert upstream.connections == 2

    async def test_close_closes_idle_connections(self, upstream: Upstream) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await upstream.read_request(reader)
            writer.write(HELLO)
            await upstream.note_end(reader)

        wire = HttpWire()
        async with upstream.serve(handle) as url:
            await fetch(wire, url)
            assert upstream.gone_at == []
            await wire.close()
            await until(lambda: upstream.gone_at)
            await wire.close()


class TestManners:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_redirects_are_not_followed(self, wire: HttpWire, upstream: Upstream, status: int) -> None:
        elsewhere = Upstream()
        async with elsewhere.serve(serving(elsewhere, HELLO)) as other_url:
            answer = f"HTTP/1.1 {status} Moved\r\nlocation: {other_url}/\r\ncontent-length: 0\r\n\r\n".encode()
            async with upstream.serve(serving(upstream, answer)) as url, response_to(wire, url) as response:
                assert response.status == status
        assert elsewhere.connections == 0

    async def test_proxies_of_the_environment_are_ignored(
        self, wire: HttpWire, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = Upstream()
        async with proxy.serve(serving(proxy, HELLO)) as proxy_url, upstream.serve(serving(upstream, HELLO)) as url:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy_url)
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            assert await fetch(wire, url) == b"hello"
        assert (proxy.connections, upstream.connections) == (0, 1)

    async def test_keys_of_a_netrc_file_are_ignored(
        self, wire: HttpWire, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        async with (
            upstream.serve(serving(upstream, HELLO)) as url,
            response_to(wire, url, PreparedRequest(url, {}, b"{}")) as response,
        ):
            await response.whole()
        assert b"authorization" not in upstream.requests[0].lower()

    async def test_cookies_are_not_kept(self, wire: HttpWire, upstream: Upstream) -> None:
        answer = HELLO.replace(b"\r\n\r\n", b"\r\nset-cookie: id=7; path=/\r\n\r\n")
        async with upstream.serve(serving(upstream, answer)) as url:
            by_name = url.replace("127.0.0.1", "localhost")
            await fetch(wire, by_name)
            await fetch(wire, by_name)
        assert all(b"cookie" not in request.lower() for request in upstream.requests)

    async def test_request_is_sent_as_prepared(self, wire: HttpWire, upstream: Upstream) -> None:
        async with upstream.serve(serving(upstream, HELLO)) as url:
            await fetch(wire, url)
        head, body = upstream.requests[0].split(b"\r\n\r\n", 1)
        assert head.startswith(b"POST /v1/answer?key=secret HTTP/1.1\r\n")
        assert b"authorization: bearer secret" in head.lower()
        assert b"user-agent" not in head.lower()
        assert body == b'{"prompt":"secret words"}'

    async def test_header_names_ignore_case(self, wire: HttpWire, upstream: Upstream) -> None:
        answer = HELLO.replace(b"\r\n\r\n", b"\r\nReTry-AfTer: 7\r\n\r\n")
        async with upstream.serve(serving(upstream, answer)) as url, response_to(wire, url) as response:
            assert response.headers.get("retry-after") == "7"
            assert response.headers.get("Retry-After") == "7"

    @pytest.mark.parametrize("status", [200, 204, 400, 429, 500, 529, 599])
    async def test_any_status_is_handed_on(self, wire: HttpWire, upstream: Upstream, status: int) -> None:
        answer = f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode()
        async with upstream.serve(serving(upstream, answer)) as url, response_to(wire, url) as response:
            assert response.status == status
