"""Connections that break, servers that refuse, and certificates for tests."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Cable:
    """Carries bytes between a client and a server until it is cut; `carried` is set once a streamed word passed."""

    def __init__(self) -> None:
        self.target = ""
        self.carried = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    @asynccontextmanager
    async def to(cls, target: str) -> AsyncIterator[Cable]:
        """A cable to a server."""
        cable = cls()
        host, port = target.split(":")

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            cable._writers += [writer, far_writer]
            await asyncio.gather(cable._carry(reader, far_writer), cable._carry(far_reader, writer))

        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        cable.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield cable
        server.close()
        cable.cut()

    def cut(self) -> None:
        """Breaks all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                if b"Once" in data:  # time for the word to be read
                    asyncio.get_running_loop().call_later(0.1, self.carried.set)


@contextmanager
def refusing_server(frame: bytes) -> Iterator[tuple[str, list[int]]]:
    """Speaks just enough HTTP/2 to answer each request with this frame, or else by closing the connection."""
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, frame, seen), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, frame: bytes, seen: list[int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                _refuse_all(connection, frame, seen)


def _refuse_all(connection: socket.socket, frame: bytes, seen: list[int]) -> None:
    settings, settings_taken = b"\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\x01\0\0\0\0"
    connection.sendall(settings)
    reader = connection.makefile("rb")
    reader.read(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    while len(header := reader.read(9)) == 9:
        reader.read(int.from_bytes(header[:3], "big"))
        kind, flags, stream_id = header[3], header[4], header[5:9]
        if kind == 4 and not flags & 1:
            connection.sendall(settings_taken)
        if kind == 1:
            seen.append(struct.unpack(">I", stream_id)[0])
            if not frame:
                return
            connection.sendall(frame % stream_id)


def user_timeouts_ms(target: str) -> set[int]:
    """The TCP_USER_TIMEOUT of this process's connections to a target, in milliseconds."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
            if is_tcp and connection.getpeername()[1] == int(target.rpartition(":")[2]):
                found.add(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


def self_signed() -> tuple[bytes, bytes]:
    """A certificate for 127.0.0.1 and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
