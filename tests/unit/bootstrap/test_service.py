from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import structlog

from kit.running import apart, connected, one_deployment_each, router, running_service, spec
from kit.upstream import HELLO, json_script, running_upstream
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest
from pointsman_server.adapters.stores.decision_file import read_decisions, read_policy_record
from pointsman_server.bootstrap.policies import shipped_policy
from pointsman_server.bootstrap.service import Service
from pointsman_server.config.policy_file import load_policy
from pointsman_server.config.settings import Address, Settings
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.record import PolicyRecord


def demo() -> Snapshot:
    return load_policy(shipped_policy("demo"), {}).snapshot


def demo_record() -> PolicyRecord:
    return load_policy(shipped_policy("demo"), {}).record


def settings(**changes: Any) -> Settings:
    return replace(Settings(), **{**apart(), **changes})


async def test_it_serves_from_start_to_close() -> None:
    async with running_upstream(json_script(HELLO)) as upstream:
        service = Service(settings(), one_deployment_each({"one": upstream.base_url}))
        assert service.port == 0
        with structlog.testing.capture_logs() as logs:
            await service.start()
            assert service.port > 0
            async with connected(service) as channel:
                answer = await router(channel).Complete(CompleteRequest(completion=spec("a canary prompt")))
            await service.drain()
            await service.close()
    assert answer.message.parts[0].text == "Hello world"
    assert [line["event"] for line in logs] == ["serving", "insecure_mode", "draining", "closed"]
    assert logs[0]["deployments"] == 1
    assert logs[0]["grpc_address"].endswith(f":{service.port}")
    assert "canary" not in str(logs)
    assert upstream.base_url not in str(logs)


async def test_a_simulated_policy_says_so_and_answers() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running_service(demo()) as service, connected(service) as channel:
            answer = await router(channel).Complete(CompleteRequest(completion=spec()))
    assert "simulated" in [warning.code for warning in answer.warnings]
    assert {attempt.provider for attempt in answer.attempts} == {"simulated"}
    (told,) = [line for line in logs if line["event"] == "simulated_providers"]
    assert told["log_level"] == "warning"
    assert "not from a language model" in told["message"]


async def test_a_real_policy_starts_no_simulator() -> None:
    with structlog.testing.capture_logs() as logs:
        async with running_service(one_deployment_each({"one": "http://127.0.0.1:1/v1"})):
            pass
    assert "simulated_providers" not in [line["event"] for line in logs]


async def test_a_provider_that_cannot_be_called_is_named_with_its_reason() -> None:
    policy = load_policy(shipped_policy("default"), {}).snapshot
    with structlog.testing.capture_logs() as logs:
        async with running_service(policy) as service, connected(service) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await router(channel).Route(RouteRequest(completion=spec(deployment="claude-sonnet")))
    left_out = {line["provider"]: line["reason"] for line in logs if line["event"] == "provider_left_out"}
    assert "ANTHROPIC_API_KEY" in left_out["anthropic"]


async def test_an_address_that_is_taken_leaves_nothing_behind() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        service = Service(settings(grpc_address=Address("127.0.0.1", other.getsockname()[1])), demo())
        with pytest.raises(OSError, match="another server"):
            await service.start()
        await service.close()


async def test_an_address_that_is_taken_opens_no_state(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Address("127.0.0.1", other.getsockname()[1])
        service = Service(settings(grpc_address=taken, state_dir=str(tmp_path / "var")), demo(), demo_record())
        with pytest.raises(OSError, match="another server"):
            await service.start()
        await service.close()
    assert not (tmp_path / "var" / "decisions.jsonl").exists()


async def test_who_listens_keeps_its_state(tmp_path: Path) -> None:
    service = Service(settings(state_dir=str(tmp_path / "var")), demo(), demo_record())
    await service.start()
    async with connected(service) as channel:
        await router(channel).Route(RouteRequest(completion=spec()))
    await service.close()
    assert len(list(read_decisions(tmp_path / "var"))) == 1
    assert read_policy_record(tmp_path / "var", demo().version) == demo_record()


async def test_what_never_started_can_be_drained_and_closed() -> None:
    service = Service(settings(), demo())
    await service.drain()
    await service.close()


async def test_limits_come_from_the_settings() -> None:
    async with (
        running_service(one_deployment_each({"one": "http://127.0.0.1:1/v1"}), reflection=False) as service,
        connected(service) as channel,
    ):
        reflect: Any = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", None, None
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflect(iter([b""])).read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class TestHttp:
    async def test_a_chosen_address_that_is_taken_is_an_error(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = Address("127.0.0.1", other.getsockname()[1])
            service = Service(settings(http_address=taken), demo())
            with pytest.raises(OSError, match=f"cannot listen on {taken} for HTTP"):
                await service.start()
            await service.close()

    async def test_the_usual_one_that_is_taken_is_done_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            usual = Address("127.0.0.1", other.getsockname()[1])
            monkeypatch.setattr("pointsman_server.bootstrap.service.USUAL_HTTP_ADDRESS", usual)
            with structlog.testing.capture_logs() as logs:
                async with running_service(demo(), http_address=usual) as service, connected(service) as channel:
                    answer = await router(channel).Complete(CompleteRequest(completion=spec()))
        assert answer.message.parts[0].text
        (told,) = [line for line in logs if line["event"] == "http_not_served"]
        assert "POINTSMAN_HTTP_ADDRESS" in told["remedy"]

    async def test_readiness_ends_with_draining(self) -> None:
        async with running_service(demo()) as service:
            url = f"http://127.0.0.1:{service.http_port}/readyz"
            async with aiohttp.ClientSession() as session:
                async with session.get(url) as answer:
                    assert answer.status == 200
                await service.drain()
                async with session.get(url) as answer:
                    assert (answer.status, (await answer.json())["reason"]) == (503, "draining")
