"""The server as other people's clients see it: health, reflection, stock stubs, grpcurl; and a stream is its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from kit.other_clients import ROOT, commands_of, generate_stubs, grpcurl
from kit.running import connected, one_deployment_each, router, running_service, spec
from kit.upstream import HELLO, json_script, running_upstream
from pointsman.v1 import (
    admin_service_pb2,
    answer_pb2,
    completion_pb2,
    embedding_service_pb2,
    feedback_service_pb2,
    router_service_pb2,
)
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.bootstrap.policies import shipped_policy
from pointsman_server.bootstrap.service import Service
from pointsman_server.config.policy_file import load_policy
from pointsman_server.domain.catalog import Snapshot

FILES: tuple[FileDescriptor, ...] = (
    router_service_pb2.DESCRIPTOR,
    embedding_service_pb2.DESCRIPTOR,
    feedback_service_pb2.DESCRIPTOR,
    admin_service_pb2.DESCRIPTOR,
)
SERVICES: dict[str, ServiceDescriptor] = {
    service.full_name: service for file in FILES for service in file.services_by_name.values()
}
ROUTER = "pointsman.v1.RouterService"
ADMIN = "pointsman.v1.AdminService"
SERVED = {ROUTER, "pointsman.v1.EmbeddingService", "pointsman.v1.FeedbackService", ADMIN}
METHODS = [method for one in SERVICES.values() for method in one.methods]
LIBRARY = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
STATUS = health_pb2.HealthCheckResponse


@cache
def demo() -> Snapshot:
    return load_policy(shipped_policy("demo"), {}).snapshot


@dataclass
class House:
    """A running server with the demonstration policy, and a channel to it."""

    service: Service
    channel: Any
    router: Any

    async def health(self, name: str) -> Any:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status


@pytest.fixture
async def house() -> AsyncGenerator[House, None]:
    async with running_service(demo()) as service, connected(service) as channel:
        yield House(service, channel, router(channel))


class TestHealth:
    @pytest.mark.parametrize("name", ["", *sorted(SERVED)])
    async def test_what_is_served_is_well(self, house: House, name: str) -> None:
        assert await house.health(name) == STATUS.SERVING

    @pytest.mark.parametrize("name", ["no.such.Service", *(name for name in SERVICES if name not in SERVED)])
    async def test_what_is_not_served_has_no_health(self, house: House, name: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await house.health(name)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    async def test_it_can_be_watched(self, house: House) -> None:
        stub: Any = health_pb2_grpc.HealthStub(house.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == STATUS.SERVING
        draining = asyncio.create_task(house.service.drain())
        assert (await watch.read()).status == STATUS.NOT_SERVING
        await draining

    async def test_a_watch_of_what_is_not_served_says_so(self, house: House) -> None:
        stub: Any = health_pb2_grpc.HealthStub(house.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="no.such.Service"))
        assert (await watch.read()).status == STATUS.SERVICE_UNKNOWN


class TestReflection:
    async def test_it_lists_and_describes_every_service(self, house: House) -> None:
        names, files = await asyncio.to_thread(reflected, house.service.port)
        assert set(names) == set(SERVICES) | LIBRARY
        for name, service in SERVICES.items():
            here = descriptor_pb2.FileDescriptorProto()
            service.file.CopyToProto(here)
            assert files[name] == here


def reflected(port: int) -> tuple[Sequence[str], dict[str, descriptor_pb2.FileDescriptorProto]]:
    """What a client learns that has nothing but the library's own reflection."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = database.get_services()
        pool = DescriptorPool(database)
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        for name in names:
            service = pool.FindServiceByName(name)
            files[name] = descriptor_pb2.FileDescriptorProto()
            service.file.CopyToProto(files[name])
            for method in service.methods:
                assert method.input_type.full_name
                assert method.output_type.full_name
    return names, files


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_every_method_of_the_contract_is_served(house: House, method: MethodDescriptor) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = house.channel.unary_stream(path)(b"", timeout=20)
    with suppress(grpc.aio.AioRpcError):
        assert [answer async for answer in call]
    assert await call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)


QUESTION = "Why do noble gases hardly react? Answer with one tool call if you have a tool."


def question_for(name: str) -> completion_pb2.CompletionSpec:
    """What this deployment can do at most: reasoning, tools, or plain text."""
    capabilities = {capability.name for capability in demo().deployments[name].model.capabilities}
    generation = completion_pb2.GenerationConfig(max_output_tokens=3_000)
    if "REASONING" in capabilities:
        generation.reasoning_effort = completion_pb2.REASONING_EFFORT_LOW
    if "TOOLS" in capabilities:
        tool = generation.tools.add(name="look_up", description="Looks something up.")
        tool.parameters.update({"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]})
    return spec(QUESTION, deployment=name, generation=generation)


def fold(deltas: Sequence[answer_pb2.Delta]) -> list[completion_pb2.Part]:
    """The parts that the pieces make up, by nothing but what the contract says of them."""
    parts: list[completion_pb2.Part] = []
    for delta in deltas:
        while len(parts) <= delta.part_index:
            parts.append(completion_pb2.Part())
        part = parts[delta.part_index]
        part.signature += delta.signature
        match delta.WhichOneof("content"):
            case "text":
                part.text += delta.text
            case "reasoning":
                part.reasoning.text += delta.reasoning.text
                part.reasoning.redacted = part.reasoning.redacted or delta.reasoning.redacted
            case "tool_call":
                part.tool_call.id = part.tool_call.id or delta.tool_call.id
                part.tool_call.name = part.tool_call.name or delta.tool_call.name
                part.tool_call.arguments_json += delta.tool_call.arguments_json
            case "opaque":
                part.opaque.CopyFrom(delta.opaque)
    return parts


def without_ids(message: completion_pb2.Message) -> completion_pb2.Message:
    """Two calls of a tool have two ids; everything else of two answers to one question is to be the same."""
    same = completion_pb2.Message()
    same.CopyFrom(message)
    for part in same.parts:
        if part.HasField("tool_call"):
            part.tool_call.id = "id"
    return same


@pytest.mark.parametrize("name", sorted(demo().answering))
async def test_a_stream_folds_into_the_whole_answer(house: House, name: str) -> None:
    question = question_for(name)
    whole = await house.router.Complete(CompleteRequest(completion=question))
    events = [event async for event in house.router.StreamComplete(StreamCompleteRequest(completion=question))]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "decision"
    assert kinds[-1] == "completed"
    streamed = events[-1].completed
    assert fold([event.delta for event in events if event.WhichOneof("event") == "delta"]) == list(
        streamed.message.parts
    )
    assert [event.warning for event in events if event.WhichOneof("event") == "warning"] == list(streamed.warnings)
    assert events[0].decision == streamed.decision
    assert without_ids(streamed.message) == without_ids(whole.message)
    assert (streamed.finish_reason, streamed.usage) == (whole.finish_reason, whole.usage)
    assert list(streamed.citations) == list(whole.citations)
    assert [(one.deployment, one.provider, one.outcome) for one in streamed.attempts] == [
        (name, "simulated", answer_pb2.ATTEMPT_OUTCOME_SUCCEEDED)
    ]


STOCK_CLIENT = """
import sys
import grpc
from pointsman.v1 import completion_pb2, router_service_pb2, router_service_pb2_grpc

assert router_service_pb2.__file__.startswith(sys.argv[2]), router_service_pb2.__file__
completion = completion_pb2.CompletionSpec(
    messages=[completion_pb2.Message(role=completion_pb2.ROLE_USER, parts=[completion_pb2.Part(text="Hello?")])]
)
with grpc.insecure_channel(sys.argv[1]) as channel:
    router = router_service_pb2_grpc.RouterServiceStub(channel)
    route = router.Route(router_service_pb2.RouteRequest(completion=completion), timeout=20)
    whole = router.Complete(router_service_pb2.CompleteRequest(completion=completion), timeout=20)
    stream = router.StreamComplete(router_service_pb2.StreamCompleteRequest(completion=completion), timeout=20)
    text = "".join(event.delta.text for event in stream)
    assert route.decision.chosen == whole.decision.chosen
    assert text == whole.message.parts[0].text
    try:
        router.Complete(router_service_pb2.CompleteRequest(), timeout=20)
    except grpc.RpcError as error:
        print(error.code().name)
"""


@pytest.mark.slow
async def test_stock_stubs_generated_afresh_can_call_it(house: House, tmp_path: Path) -> None:
    interpreter = await asyncio.to_thread(generate_stubs, tmp_path)
    arguments = [str(interpreter), "-c", STOCK_CLIENT, f"127.0.0.1:{house.service.port}", str(tmp_path)]
    code, output = await run(*arguments, PYTHONPATH=str(tmp_path))
    assert (code, output.strip()) == (0, "INVALID_ARGUMENT"), output


async def run(*command: str, **environ: str) -> tuple[int, str]:
    """Exit code and output of a program that talks to the server in this process."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode is not None
    return process.returncode, output.decode()


def documents_of(output: str) -> list[dict[str, Any]]:
    """The JSON documents that follow each other in a text."""
    decoder, found = json.JSONDecoder(), []
    rest = output.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_readmes_grpcurl_commands_work_as_printed(house: House) -> None:
    program = str(await asyncio.to_thread(grpcurl))
    outputs: dict[str, str] = {}
    for arguments in commands_of(ROOT / "README.md", "grpcurl"):
        here = [argument.replace("localhost:50051", f"localhost:{house.service.port}") for argument in arguments]
        assert here != arguments, "the command names no address"
        code, outputs[arguments[-1]] = await run(program, *here, HOME="/nonexistent")
        assert code == 0, f"grpcurl {' '.join(arguments)}: {outputs[arguments[-1]]}"
    assert set(outputs["list"].split()) == set(SERVICES) | LIBRARY
    for rpc in ("Route", "Complete", "StreamComplete"):
        assert f"rpc {rpc} (" in outputs[ROUTER]
    (route,) = documents_of(outputs[f"{ROUTER}/Route"])
    (whole,) = documents_of(outputs[f"{ROUTER}/Complete"])
    events = documents_of(outputs[f"{ROUTER}/StreamComplete"])
    assert route["decision"]["chosen"]["provider"] == "simulated"
    text = "".join(event["delta"]["text"] for event in events if "delta" in event)
    assert text == whole["message"]["parts"][0]["text"] == events[-1]["completed"]["message"]["parts"][0]["text"]


async def test_the_decision_spends_nothing(house: House) -> None:
    answers = [await house.router.Route(RouteRequest(completion=spec())) for _ in range(2)]
    assert answers[0].decision.chosen == answers[1].decision.chosen
    assert answers[0].decision.decision_id != answers[1].decision.decision_id


async def test_the_provider_gets_the_trace_context_and_nothing_else_of_the_caller() -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = [("traceparent", traceparent), ("authorization", "Bearer callers-own"), ("x-team", "callers-own")]
    async with (
        running_upstream(json_script(HELLO)) as upstream,
        running_service(one_deployment_each({"one": upstream.base_url})) as service,
        connected(service) as channel,
    ):
        await router(channel).Complete(CompleteRequest(completion=spec()), metadata=metadata)
    (headers,) = upstream.headers
    assert headers["traceparent"] == traceparent
    assert "callers-own" not in str(headers)
