"""The serving process from its start to its end: what it says, what it keeps to itself, and how it goes down."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.command_line import COMMAND, environment
from kit.running import MODEL, RichError, router, spec, user
from kit.upstream import HELLO, Script, Upstream, chunk, json_script, running_upstream, sse_script
from pointsman.v1 import completion_pb2
from pointsman.v1.router_service_pb2 import CompleteRequest, StreamCompleteRequest

CANARY = "canary-prompt-41f7"
WHISPER = "canary-provider-words-9e0c"
KEY = "sk-planted-key-77d2"
MOST_IDLE_BYTES = 300_000_000
MOST_START_SECONDS = 15.0


@dataclass
class Server:
    """A serving process."""

    process: Process
    address: str
    said: str
    log_file: Path
    channel: Any
    router: Any = field(init=False)

    def __post_init__(self) -> None:
        self.router = router(self.channel)

    async def health(self) -> Any:
        """What it says of its health."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)).status

    async def is_draining(self) -> None:
        """Returns when it says that it is going down."""
        for _ in range(500):
            if await self.health() == health_pb2.HealthCheckResponse.NOT_SERVING:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it does not say that it is going down")

    async def ended(self, within_seconds: float) -> int:
        """The exit code; it must end in time."""
        return await asyncio.wait_for(self.process.wait(), within_seconds)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def events(self) -> list[str]:
        """The events of its log."""
        return [line["event"] for line in self.log]


@asynccontextmanager
async def serving(
    directory: Path, policy: Mapping[str, Any] | None = None, **environ: str
) -> AsyncGenerator[Server, None]:
    """A server in a process of its own; without a policy it chooses one itself."""
    arguments = ["serve", "--grpc-address", "127.0.0.1:0"]
    if policy is not None:
        (directory / "policy.yaml").write_text(json.dumps(policy))
        arguments += ["--policy", "policy.yaml"]
    log_file = directory / "log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, stdout=PIPE, stderr=log, cwd=directory, env=environment(**environ)
        )
    try:
        assert process.stdout is not None
        said = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert said.startswith("pointsman listens on "), log_file.read_text()
        address = said.split()[3].rstrip(";")
        async with grpc.aio.insecure_channel(address) as channel:
            yield Server(process, address, said, log_file, channel)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def policy_for(upstream: Upstream, **provider: Any) -> dict[str, Any]:
    """One deployment of one provider."""
    return {
        "version": 1,
        "providers": {"up": {"dialect": "openai_chat", "base_url": upstream.base_url, **provider}},
        "models": {"m": MODEL},
        "deployments": {"only": {"provider": "up", "model": "m", "model_name": "m-1"}},
    }


ONCE = {"resilience": {"retries": {"attempts_per_deployment": 1}}}
"""Nobody is asked twice."""


def slow_answer(seconds: float) -> Script:
    """An answer whose second half comes later."""
    script = sse_script(chunk("Hello"), chunk(" world"), chunk(finish="stop"))
    first, *rest = script.pieces
    (_, second), *others = rest
    return Script(script.status, script.headers, [first, (seconds, second), *others])


ENDLESS = sse_script(chunk("Hello"), end="stall", done=False)


async def begun_stream(server: Server) -> Any:
    """A stream whose first piece has come."""
    events = aiter(server.router.StreamComplete(StreamCompleteRequest(completion=spec())))
    while (event := await anext(events)).WhichOneof("event") != "delta":
        pass
    assert event.delta.text == "Hello"
    return events


@pytest.mark.slow
class TestStart:
    async def test_without_a_key_it_says_plainly_that_it_is_simulated(self, tmp_path: Path) -> None:
        async with serving(tmp_path) as server:
            answer = await server.router.Complete(CompleteRequest(completion=spec()), timeout=20)
            (told,) = [line for line in server.log if line["event"] == "simulated_providers"]
            assert (told["level"], told["provider"]) == ("warning", "simulated")
            assert told["message"] == "answers come from the built-in simulator, not from a language model"
            assert "ANTHROPIC_API_KEY" in told["remedy"]
            assert [attempt.provider for attempt in answer.attempts] == ["simulated"]
            assert "simulated" in [warning.code for warning in answer.warnings]

    async def test_it_is_quick_and_small(self, tmp_path: Path) -> None:
        started_at = time.monotonic()
        async with serving(tmp_path) as server:
            await server.router.Complete(CompleteRequest(completion=spec()), timeout=20)
            assert time.monotonic() - started_at < MOST_START_SECONDS
            assert psutil.Process(server.process.pid).memory_info().rss < MOST_IDLE_BYTES


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_lets_running_calls_end(self, tmp_path: Path, number: signal.Signals) -> None:
        async with running_upstream(slow_answer(1.5)) as upstream, serving(tmp_path, policy_for(upstream)) as server:
            assert await server.health() == health_pb2.HealthCheckResponse.SERVING
            stream = await begun_stream(server)
            server.process.send_signal(number)
            await server.is_draining()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.router.Complete(CompleteRequest(completion=spec()))
            refused = RichError(caught.value)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            rest = [event async for event in stream]
            assert rest[-1].completed.message.parts[0].text == "Hello world"
            assert await server.ended(within_seconds=10) == 0
            events = [event for event in server.events() if event != "call_refused"]
            assert events == ["control_changed", "serving", "insecure_mode", "draining", "closed"]
            assert upstream.calls == 1

    async def test_a_second_signal_does_not_wait(self, tmp_path: Path) -> None:
        async with running_upstream(ENDLESS) as upstream, serving(tmp_path, policy_for(upstream)) as server:
            stream = await begun_stream(server)
            server.process.send_signal(signal.SIGTERM)
            await server.is_draining()
            server.process.send_signal(signal.SIGTERM)
            assert await server.ended(within_seconds=10) == 0
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await anext(stream)
            assert "forced_to_end" in server.events()

    async def test_the_grace_period_is_kept(self, tmp_path: Path) -> None:
        async with (
            running_upstream(ENDLESS) as upstream,
            serving(tmp_path, policy_for(upstream), POINTSMAN_DRAIN_GRACE_SECONDS="0.5") as server,
        ):
            await begun_stream(server)
            server.process.terminate()
            assert await server.ended(within_seconds=10) == 0
            assert server.events()[-1] == "closed"

    async def test_an_idle_server_ends_at_once(self, tmp_path: Path) -> None:
        async with running_upstream(json_script(HELLO)) as upstream, serving(tmp_path, policy_for(upstream)) as server:
            stub: Any = health_pb2_grpc.HealthStub(server.channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            server.process.terminate()
            assert await server.ended(within_seconds=10) == 0


async def test_its_log_keeps_prompts_keys_and_providers_words_to_itself(tmp_path: Path) -> None:
    whispering = {"error": {"message": f"{WHISPER}: {CANARY}", "type": "t", "code": "c"}}
    scripts = (json_script(HELLO), json_script(whispering, 400), json_script(whispering, 500), slow_answer(0.0))
    async with (
        running_upstream(*scripts) as upstream,
        serving(tmp_path, ONCE | policy_for(upstream, api_key="${UP_KEY}"), UP_KEY=KEY) as server,
    ):
        question = CompleteRequest(completion=spec(CANARY, end_user=CANARY, labels={"team": CANARY}))
        await server.router.Complete(question, metadata=[("authorization", f"Bearer {CANARY}")])
        wrong = CompleteRequest(completion=completion_pb2.CompletionSpec(messages=[user(CANARY)], deployment=CANARY))
        malformed = server.channel.unary_unary("/pointsman.v1.RouterService/Complete", None, None)
        for call in (
            server.router.Complete(question),
            server.router.Complete(question),
            server.router.Complete(wrong),
            malformed(CANARY.encode()),
            server.router.Complete(CompleteRequest(completion=spec(CANARY, session_id=f"{CANARY}\n"))),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert CANARY not in RichError(caught.value).everything()
        stream = server.router.StreamComplete(StreamCompleteRequest(completion=spec(CANARY)))
        assert [event async for event in stream][-1].completed.message.parts[0].text == "Hello world"
        server.process.terminate()
        assert await server.ended(within_seconds=10) == 0
        log = server.log_file.read_text()
        assert upstream.headers[0]["authorization"] == f"Bearer {KEY}"
        for secret in (CANARY, WHISPER, KEY, upstream.base_url):
            assert secret not in log
        assert server.events().count("call_refused") == 5
