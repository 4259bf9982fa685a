"""What only a real connection shows: deadlines, lost and refused connections, TLS, back-pressure, threads."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from kit.client_backends import Answers, GrpcBackend, ScriptedRouter, grpc_backend, serving
from kit.client_callers import CALLERS, caller_of
from kit.connections import Cable, refusing_server, self_signed, user_timeouts_ms
from pointsman.v1 import answer_pb2, router_service_pb2_grpc
from pointsman.v1.completion_pb2 import Message
from pointsman.v1.router_service_pb2 import CompleteRequest
from pointsman_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    PointsmanError,
    RetryPolicy,
    StreamInterrupted,
    Unavailable,
    assistant,
)

QUICKLY = RetryPolicy(max_attempts=3, first_delay_seconds=0.01)


def answer(text: str) -> Answers:
    return Answers(answer_pb2.CompleteResponse(request_id="r1", message=assistant(text)))


def delta(text: str) -> answer_pb2.StreamCompleteResponse:
    return answer_pb2.StreamCompleteResponse(delta=answer_pb2.Delta(text=text))


class Patient(ScriptedRouter):
    """Never ends a call by itself: streams a word and waits. Counts what came and what was given up."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()
        self.given_up = asyncio.Event()

    async def Complete(self, request: Any, context: Any) -> Any:
        await self._wait()

    async def StreamComplete(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await context.write(delta("Once"))
        await self._wait()

    async def _wait(self) -> None:
        self.came.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.set()


@pytest.fixture
async def backend() -> AsyncIterator[GrpcBackend]:
    async with grpc_backend() as running:
        yield running


@pytest.fixture
async def patient() -> AsyncIterator[tuple[str, Patient]]:
    servicer = Patient()
    async with serving(servicer) as target:
        yield target, servicer


@contextmanager
def unused_address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"


forms = pytest.mark.parametrize("form", CALLERS)


class TestDeadlines:
    @forms
    async def test_end_a_call_in_time(self, patient: tuple[str, Patient], form: str) -> None:
        target, servicer = patient
        async with caller_of(form, target) as caller:
            with pytest.raises(DeadlineExceeded) as raised:
                await caller.complete("x", timeout_seconds=0.2, request_id="r7")
        assert (raised.value.reason, raised.value.step, raised.value.request_id) == ("", "", "r7")
        await asyncio.wait_for(servicer.given_up.wait(), 5)

    @forms
    async def test_end_a_stream_in_time_and_leave_what_came(self, patient: tuple[str, Patient], form: str) -> None:
        target, _ = patient
        async with caller_of(form, target) as caller:
            reading = await caller.read("x", timeout_seconds=0.2)
        assert isinstance(reading.error, DeadlineExceeded)
        assert reading.partial_text == "Once"


class TestConnections:
    @forms
    async def test_nobody_there(self, form: str) -> None:
        with unused_address() as target:
            async with caller_of(form, target, retry=QUICKLY) as caller:
                with pytest.raises(Unavailable) as raised:
                    await caller.complete("x")
        assert (raised.value.reason, raised.value.code) == ("", grpc.StatusCode.UNAVAILABLE)

    @forms
    @pytest.mark.parametrize("rpc", ["complete", "read"])
    async def test_a_server_that_comes_up_late_is_still_asked(self, form: str, rpc: str) -> None:
        with unused_address() as target:
            pass
        patience = RetryPolicy(max_attempts=100, first_delay_seconds=0.05, longest_delay_seconds=0.05)
        async with caller_of(form, target, retry=patience) as caller:
            call = asyncio.create_task(getattr(caller, rpc)("x", timeout_seconds=20))
            await asyncio.sleep(0.3)
            router = ScriptedRouter()
            router.scenes.append(answer("here"))
            async with serving(router, target):
                got = await call
        assert (got.text if rpc == "complete" else got.answer.text) == "here"
        assert len(router.received) == 1

    @forms
    @pytest.mark.parametrize(
        ("frame", "attempts"),
        [
            pytest.param(b"\0\0\x04\x03\0%b\0\0\0\x07", 3, id="stream refused"),
            pytest.param(b"\0\0\x04\x03\0%b\0\0\0\x02", 1, id="stream broken"),
            pytest.param(b"", 1, id="connection closed"),
        ],
    )
    async def test_only_what_was_never_processed_is_repeated(self, form: str, frame: bytes, attempts: int) -> None:
        with refusing_server(frame) as (target, seen):
            async with caller_of(form, target, retry=QUICKLY) as caller:
                with pytest.raises(PointsmanError):
                    await caller.complete("x")
        assert len(seen) == attempts

    @forms
    async def test_a_server_that_dies_in_the_middle(self, form: str) -> None:
        servicer = Patient()
        async with serving(servicer) as target, Cable.to(target) as cable, caller_of(form, cable.target) as caller:
            reading = asyncio.create_task(caller.read("x"))
            await asyncio.wait_for(cable.carried.wait(), 5)
            cable.cut()
            error = (await reading).error
        assert isinstance(error, StreamInterrupted)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "")
        assert error.partial_text == "Once"

    @forms
    async def test_a_message_may_be_large(self, form: str) -> None:
        router = ScriptedRouter()
        router.scenes.append(answer("é" * 4_000_000))
        async with serving(router) as target, caller_of(form, target) as caller:
            assert len((await caller.complete("x")).text) == 4_000_000

    @pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc and TCP_USER_TIMEOUT")
    async def test_sent_bytes_are_acknowledged_in_time_or_the_connection_is_dead(self, backend: GrpcBackend) -> None:
        backend.play(answer("a"))
        async with backend.async_client() as client:
            await client.complete("x")
            assert user_timeouts_ms(backend.target) == {20_000}


class TestGivingUp:
    async def test_cancelling_a_task_cancels_the_call(self, patient: tuple[str, Patient]) -> None:
        target, servicer = patient
        async with AsyncClient(target) as client:
            task = asyncio.create_task(client.complete("x"))
            await asyncio.wait_for(servicer.came.wait(), 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(servicer.given_up.wait(), 5)

    async def test_cancelling_a_task_cancels_its_stream(self, patient: tuple[str, Patient]) -> None:
        target, servicer = patient
        async with AsyncClient(target) as client:
            stream = client.stream("x")
            task = asyncio.create_task(stream.finish())
            await asyncio.wait_for(servicer.came.wait(), 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(servicer.given_up.wait(), 5)

    @forms
    async def test_closing_the_client_ends_its_calls(self, patient: tuple[str, Patient], form: str) -> None:
        target, servicer = patient
        async with caller_of(form, target) as caller:
            call = asyncio.create_task(caller.complete("x"))
            await asyncio.wait_for(servicer.came.wait(), 5)
            await caller.close()
            with pytest.raises(Cancelled):
                await call

    @forms
    async def test_closing_the_client_ends_its_streams(self, patient: tuple[str, Patient], form: str) -> None:
        target, servicer = patient
        async with caller_of(form, target) as caller:
            reading = asyncio.create_task(caller.read("x"))
            await asyncio.wait_for(servicer.came.wait(), 5)
            await caller.close()
            assert isinstance((await reading).error, Cancelled)

    async def test_closing_a_stream_from_another_thread(self, patient: tuple[str, Patient]) -> None:
        target, servicer = patient
        with Client(target) as client:
            stream = client.stream("x")
            reading = asyncio.create_task(asyncio.to_thread(stream.finish))
            await asyncio.wait_for(servicer.came.wait(), 5)
            stream.close()
            with pytest.raises(Cancelled):
                await reading
            with pytest.raises(Cancelled):
                next(stream)

    async def test_closing_a_stream_from_another_task(self, patient: tuple[str, Patient]) -> None:
        target, servicer = patient
        async with AsyncClient(target) as client:
            stream = client.stream("x")
            reading = asyncio.create_task(stream.finish())
            await asyncio.wait_for(servicer.came.wait(), 5)
            await stream.close()
            with pytest.raises(Cancelled):
                await reading
            with pytest.raises(Cancelled):
                await anext(stream)

    async def test_a_stream_that_nobody_holds_is_given_up(self, patient: tuple[str, Patient]) -> None:
        target, servicer = patient
        async with AsyncClient(target) as client:
            stream = client.stream("x")
            await anext(stream)
            del stream
            gc.collect()
            await asyncio.wait_for(servicer.given_up.wait(), 5)

    async def test_a_stream_that_is_never_read_costs_nothing(self, backend: GrpcBackend) -> None:
        async with backend.async_client() as client:
            client.stream("x")
            await client.stream("x").close()
        with backend.client() as sync_client:
            sync_client.stream("x").close()
        assert backend.received == []


class TestRawStubs:
    async def test_the_other_ways_to_call_carry_the_key_too(self, backend: GrpcBackend) -> None:
        backend.play(answer("one"), answer("two"))

        def ask() -> list[str]:
            with backend.client(api_key="k") as client:
                response, call = client.router.Complete.with_call(CompleteRequest())
                later = client.router.Complete.future(CompleteRequest())
                assert call.code() is grpc.StatusCode.OK
                return [reply.message.parts[0].text for reply in (response, later.result())]

        assert await asyncio.to_thread(ask) == ["one", "two"]
        assert [call.metadata["authorization"] for call in backend.received] == ["Bearer k", "Bearer k"]
        assert all((call.seconds or 999) < 61 for call in backend.received)


class TestNewerServers:
    @forms
    async def test_events_of_a_later_contract_are_passed_over(self, form: str) -> None:
        whole = answer_pb2.CompleteResponse(message=assistant("Once"))
        later = answer_pb2.StreamCompleteResponse.FromString(b"\xfa\x06\x02hi")

        class Newer(ScriptedRouter):
            async def StreamComplete(self, request: Any, context: Any) -> None:  # type: ignore[override]
                await context.write(later)
                await context.write(delta("Once"))
                await context.write(answer_pb2.StreamCompleteResponse(completed=whole))

        async with serving(Newer()) as target, caller_of(form, target) as caller:
            reading = await caller.read("x")
        assert reading.error is None
        assert len(reading.events) == 2


class TestManyAtOnce:
    async def test_one_sync_client_serves_many_threads(self, backend: GrpcBackend) -> None:
        backend.play(*(answer("same") for _ in range(200)))
        with backend.client() as client, ThreadPoolExecutor(16) as pool:
            started = threading.Barrier(16)

            def ask(number: int) -> str:
                if number < 16:
                    started.wait(10)
                if number % 2:
                    return client.complete("x").text
                return "".join(client.stream("x").text_deltas())

            loop = asyncio.get_running_loop()
            texts = await asyncio.gather(*(loop.run_in_executor(pool, ask, number) for number in range(200)))
        assert set(texts) == {"same"}
        assert len({call.request.completion.request_id for call in backend.received}) == 200

    def test_an_async_client_is_made_before_the_loop_runs(self) -> None:
        client = AsyncClient("localhost:1")

        async def ask() -> str:
            async with grpc_backend() as backend:
                backend.play(answer("late"))
                async with AsyncClient(backend.target) as early, client:
                    return (await early.complete("x")).text

        assert asyncio.run(ask()) == "late"


class TestBackPressure:
    @forms
    async def test_a_reader_that_stops_stops_the_server(self, form: str) -> None:
        """Small messages: without the channel's options a server runs ahead by a hundred thousand of them."""
        servicer = Endless()
        async with serving(servicer) as target, caller_of(form, target) as caller:
            stream = caller.client.stream("x")
            await (anext(stream) if form == "async" else asyncio.to_thread(next, stream))
            before = -1
            while servicer.written != before:
                before = servicer.written
                await asyncio.sleep(0.2)
            closing = stream.close()
            if closing is not None:
                await closing
        assert servicer.written < 20_000


class Endless(ScriptedRouter):
    """Streams as fast as it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    async def StreamComplete(self, request: Any, context: Any) -> None:  # type: ignore[override]
        piece = delta("x" * 16)
        while self.written < 150_000:
            await context.write(piece)
            self.written += 1


class TestTls:
    @forms
    async def test_is_spoken_with_given_roots(self, form: str) -> None:
        certificate, key = self_signed()
        router = ScriptedRouter()
        router.scenes.append(answer("sealed"))
        server = grpc.aio.server()
        router_service_pb2_grpc.add_RouterServiceServicer_to_server(router, server)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
        await server.start()
        try:
            trusting = grpc.ssl_channel_credentials(certificate)
            async with caller_of(form, f"127.0.0.1:{port}", credentials=trusting, api_key="k") as caller:
                assert (await caller.complete("x")).text == "sealed"
            async with caller_of(form, f"127.0.0.1:{port}", credentials=grpc.ssl_channel_credentials()) as caller:
                with pytest.raises(Unavailable):
                    await caller.complete("x", timeout_seconds=5)
        finally:
            await server.stop(None)
        assert router.received[0].metadata["authorization"] == "Bearer k"


def test_partial_answers_of_an_interruption_are_messages() -> None:
    assert isinstance(StreamInterrupted("x").partial, Message)
