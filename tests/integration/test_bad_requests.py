"""Requests that are wrong: each gets its code and details, says nothing of its input, and leaves the server well."""

from __future__ import annotations

import asyncio
import math
import struct
import zlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from kit.running import MODEL, RichError, compile_for_test, connected, router, running_service, spec, user
from kit.upstream import HELLO, Script, Upstream, json_script, running_upstream
from pointsman.v1 import completion_pb2 as pb
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest
from pointsman_server.domain.catalog import Snapshot

CANARY = "canary-7c1f"
"""Part of every bad text; it must never come back."""


def snapshot_for(base_url: str) -> Snapshot:
    """A seeing model, a blind one with a small window, and one whose provider has no key."""
    return compile_for_test(
        {
            "providers": {
                "up": {"dialect": "openai_chat", "base_url": base_url},
                "keyless": {"dialect": "openai_chat", "base_url": base_url, "api_key": "${NO_SUCH_KEY}"},
            },
            "models": {
                "seeing": MODEL,
                "blind": {
                    **MODEL,
                    "capabilities": ["streaming"],
                    "context_window_tokens": 2_000,
                    "max_output_tokens": 500,
                },
            },
            "deployments": {
                "seeing-up": {"provider": "up", "model": "seeing", "model_name": "m-1"},
                "blind-up": {"provider": "up", "model": "blind", "model_name": "m-1"},
                "keyless-up": {"provider": "keyless", "model": "seeing", "model_name": "m-1"},
            },
            "aliases": {"sharp": "seeing-up"},
        }
    )


class House:
    """A running service with its provider."""

    def __init__(self, channel: grpc.aio.Channel, upstream: Upstream) -> None:
        self.channel = channel
        self.upstream = upstream
        self.router = router(channel)

    async def refuses(self, request: CompleteRequest, **call: Any) -> RichError:
        """The error this request gets, after proof that the server is still well and called nobody for it."""
        calls = self.upstream.calls
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.router.Complete(request, **call)
        assert self.upstream.calls == calls
        await self.is_well()
        error = RichError(caught.value)
        assert CANARY not in error.everything()
        assert "Traceback" not in error.everything()
        return error

    async def is_well(self) -> None:
        """A healthy call succeeds."""
        answer = await self.router.Complete(CompleteRequest(completion=spec()), timeout=10)
        assert answer.message.parts[0].text == "Hello world"


@pytest.fixture
async def house() -> AsyncGenerator[House, None]:
    async with (
        running_upstream(json_script(HELLO)) as upstream,
        running_service(snapshot_for(upstream.base_url)) as service,
        connected(service, **{"grpc.max_send_message_length": -1}) as channel,
    ):
        yield House(channel, upstream)


def request(**fields: Any) -> CompleteRequest:
    return CompleteRequest(completion=spec(CANARY, **fields))


def of_messages(*messages: pb.Message) -> CompleteRequest:
    return CompleteRequest(completion=pb.CompletionSpec(messages=messages))


def of_parts(*parts: pb.Part, role: pb.Role.ValueType = pb.ROLE_USER) -> CompleteRequest:
    return of_messages(pb.Message(role=role, parts=parts))


def of_generation(**fields: Any) -> CompleteRequest:
    return request(generation=pb.GenerationConfig(**fields))


def as_struct(**fields: Any) -> Struct:
    result = Struct()
    result.update(fields)
    return result


def png(size: int = 8) -> bytes:
    """A real PNG of one colour."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + b"\x80" * size for _ in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b"")


def result_of(call_id: str) -> pb.Message:
    return pb.Message(role=pb.ROLE_TOOL, parts=[pb.Part(tool_result=pb.ToolResult(tool_call_id=call_id, text="x"))])


def calls_of(*call_ids: str) -> pb.Message:
    parts = [pb.Part(tool_call=pb.ToolCall(id=call_id, name="f", arguments_json="{}")) for call_id in call_ids]
    return pb.Message(role=pb.ROLE_ASSISTANT, parts=parts)


RECURSIVE = {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}
BAD_TOOL = "completion.generation.tools[0].parameters"

INVALID: dict[str, tuple[Callable[[], CompleteRequest], list[str]]] = {
    "1 zero bytes": (CompleteRequest, ["completion"]),
    "2 no messages": (lambda: of_messages(), ["completion.messages"]),
    "3 unset content": (lambda: of_parts(pb.Part()), ["completion.messages[0].parts[0].content"]),
    "4 no role": (lambda: of_parts(pb.Part(text="x"), role=pb.ROLE_UNSPECIFIED), ["completion.messages[0].role"]),
    "4 unknown role": (
        lambda: of_messages(pb.Message.FromString(b"\x08\x63\x12\x03\x0a\x01x")),
        ["completion.messages[0].role"],
    ),
    "5 white space": (lambda: of_parts(pb.Part(text=" \n\t")), ["completion.messages[0].parts"]),
    "5 zero width": (lambda: of_parts(pb.Part(text="\u200b\u200d\ufeff\u2060")), ["completion.messages[0].parts"]),
    "11 ten thousand messages": (lambda: of_messages(*[user("x")] * 10_000), ["completion.messages"]),
    "16 newline in an id": (lambda: request(session_id=f"{CANARY}\n"), ["completion.session_id"]),
    "16 control in an id": (lambda: request(request_id=f"{CANARY}\x07"), ["completion.request_id"]),
    "16 long id": (lambda: request(request_id=CANARY * 1000), ["completion.request_id"]),
    "16 path": (lambda: request(deployment=f"../{CANARY}"), ["completion.deployment"]),
    "16 escape": (lambda: request(deployment=f"%00{CANARY}"), ["completion.deployment"]),
    "16 quote": (lambda: request(deployment=f"{CANARY}'--"), ["completion.deployment"]),
    "17 case": (lambda: request(deployment="Sharp"), ["completion.deployment"]),
    "17 look-alike": (lambda: request(deployment="sh\u0430rp"), ["completion.deployment"]),
    "18 negative": (lambda: of_generation(max_output_tokens=-1), ["completion.generation.max_output_tokens"]),
    "18 zero": (lambda: of_generation(max_output_tokens=0), ["completion.generation.max_output_tokens"]),
    "19 nan": (lambda: of_generation(temperature=math.nan), ["completion.generation.temperature"]),
    "19 infinity": (lambda: of_generation(temperature=math.inf), ["completion.generation.temperature"]),
    "19 minus infinity": (lambda: of_generation(temperature=-math.inf), ["completion.generation.temperature"]),
    "19 too cold": (lambda: of_generation(temperature=-0.1), ["completion.generation.temperature"]),
    "19 too hot": (lambda: of_generation(temperature=2.1), ["completion.generation.temperature"]),
    "19 top_p 0": (lambda: of_generation(top_p=0.0), ["completion.generation.top_p"]),
    "19 top_p 1.5": (lambda: of_generation(top_p=1.5), ["completion.generation.top_p"]),
    "20 many stops": (
        lambda: of_generation(stop_sequences=[str(n) for n in range(10_000)]),
        ["completion.generation.stop_sequences"],
    ),
    "20 empty stop": (lambda: of_generation(stop_sequences=[""]), ["completion.generation.stop_sequences[0]"]),
    "26 broken image": (
        lambda: of_parts(pb.Part(image=pb.Image(data=png()[:40], media_type="image/png"))),
        ["completion.messages[0].parts[0].image.data"],
    ),
    "26 another type": (
        lambda: of_parts(pb.Part(image=pb.Image(data=png(), media_type="image/jpeg"))),
        ["completion.messages[0].parts[0].image.data"],
    ),
    "27 no schema": (
        lambda: of_generation(tools=[pb.Tool(name="f", parameters=as_struct(type="nonsense"))]),
        [BAD_TOOL],
    ),
    "27 recursive": (lambda: of_generation(tools=[pb.Tool(name="f", parameters=as_struct(**RECURSIVE))]), [BAD_TOOL]),
    "27 one megabyte": (
        lambda: of_generation(tools=[pb.Tool(name="f", parameters=as_struct(description="x" * 1_000_000))]),
        [BAD_TOOL],
    ),
    "28 result of nothing": (
        lambda: of_messages(user("x"), result_of("nobody")),
        ["completion.messages[1].parts[0].tool_result.tool_call_id"],
    ),
    "28 repeated call": (
        lambda: of_messages(user("x"), calls_of("a", "a"), result_of("a")),
        ["completion.messages[1].parts[1].tool_call.id"],
    ),
    "28 answered twice": (
        lambda: of_messages(user("x"), calls_of("a"), result_of("a"), result_of("a")),
        ["completion.messages[3].parts[0].tool_result.tool_call_id"],
    ),
    "latency of nothing": (
        lambda: request(constraints=pb.RoutingConstraints(max_first_token_latency=Duration(seconds=-1))),
        ["completion.constraints.max_first_token_latency"],
    ),
    "bias": (lambda: request(quality_bias=math.nan), ["completion.quality_bias"]),
    "label key": (lambda: request(labels={f"{CANARY} A": "x"}), ["completion.labels[0].key"]),
    "system only": (lambda: of_parts(pb.Part(text="x"), role=pb.ROLE_SYSTEM), ["completion.messages"]),
    "image from the model": (
        lambda: of_parts(pb.Part(image=pb.Image(data=png(), media_type="image/png")), role=pb.ROLE_ASSISTANT),
        ["completion.messages[0].parts[0].image"],
    ),
    "tool choice": (
        lambda: of_generation(tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NAMED, name="g")),
        ["completion.generation.tool_choice.name"],
    ),
}


@pytest.mark.parametrize("row", INVALID)
async def test_invalid_fields_are_named(house: House, row: str) -> None:
    build, fields = INVALID[row]
    error = await house.refuses(build())
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert error.fields == fields


CONFLICTING: dict[str, tuple[Callable[[], CompleteRequest], str]] = {
    "21 temperature and top_p": (lambda: of_generation(temperature=0.5, top_p=0.5), "completion.generation.top_p"),
    "21 pinned and denied": (
        lambda: request(deployment="sharp", constraints=pb.RoutingConstraints(denied_deployments=["sharp"])),
        "completion.deployment",
    ),
    "21 pinned and not allowed": (
        lambda: request(deployment="sharp", constraints=pb.RoutingConstraints(allowed_deployments=["blind-up"])),
        "completion.deployment",
    ),
}


@pytest.mark.parametrize("row", CONFLICTING)
async def test_conflicts_are_named(house: House, row: str) -> None:
    build, field = CONFLICTING[row]
    error = await house.refuses(build())
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONFLICTING_FIELDS")
    assert error.fields == [field]


async def test_row_18_too_many_output_tokens_are_clamped_with_a_warning(house: House) -> None:
    answer = await house.router.Complete(
        request(deployment="sharp", generation=pb.GenerationConfig(max_output_tokens=2**31 - 1))
    )
    assert house.upstream.bodies[-1]["max_tokens"] == 4_000
    assert "max_output_tokens_clamped" in [warning.code for warning in answer.warnings]


@pytest.mark.parametrize("name", [CANARY, "zz"])
async def test_row_22_unknown_deployment(house: House, name: str) -> None:
    error = await house.refuses(request(deployment=name))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_NOT_FOUND")


async def test_row_24_longer_than_every_window(house: House) -> None:
    error = await house.refuses(CompleteRequest(completion=spec(f"{CANARY} " * 60_000)))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_OVERFLOW")
    assert error.fields == ["completion.messages"]
    assert error.details["ErrorInfo"].metadata["largestWindowTokens"] == "100000"
    assert int(error.details["ErrorInfo"].metadata["inputTokens"]) > 100_000


async def test_row_25_fits_only_one_window(house: House) -> None:
    decision = (await house.router.Route(RouteRequest(completion=spec("word " * 3_000)))).decision
    assert decision.chosen.deployment == "seeing-up"
    assert decision.exact
    reasons = {excluded.deployment: excluded.reason for excluded in decision.excluded}
    assert reasons["blind-up"] == 6  # EXCLUSION_REASON_CONTEXT_WINDOW


async def test_row_26_image_for_a_blind_model(house: House) -> None:
    request = of_parts(pb.Part(text="what is it?"), pb.Part(image=pb.Image(data=png(), media_type="image/png")))
    request.completion.deployment = "blind-up"
    error = await house.refuses(request)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_CONTENT")
    assert error.fields == ["completion.deployment"]


async def test_a_provider_without_a_key_is_excluded_with_that_reason(house: House) -> None:
    error = await house.refuses(request(deployment="keyless-up"))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ELIGIBLE_DEPLOYMENT")
    violations = {v.subject: v for v in error.details["PreconditionFailure"].violations}
    assert violations["deployments/keyless-up"].type == "PROVIDER_UNUSABLE"
    assert "NO_SUCH_KEY" in violations["deployments/keyless-up"].description
    assert len(violations) == 3


@pytest.mark.parametrize("size_mb", [5, 50, 100])
async def test_row_12_too_large(house: House, size_mb: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.router.Complete(CompleteRequest(completion=spec("x" * (size_mb << 20))))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await house.is_well()


async def test_row_13_gzip_bomb(house: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.router.Complete(
            CompleteRequest(completion=spec("x" * (100 << 20))), compression=grpc.Compression.Gzip
        )
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await house.is_well()


@pytest.mark.parametrize("text", ["a" * 1_000_000, "\U0001f469\u200d\U0001f680" * 90_000], ids=["letter", "emoji"])
async def test_row_14_a_megabyte_of_one_character(house: House, text: str) -> None:
    try:
        await house.router.Complete(CompleteRequest(completion=spec(text)))
    except grpc.aio.AioRpcError as error:
        assert RichError(error).reason == "CONTEXT_OVERFLOW"  # noqa: PT017 - either outcome is right
    await house.is_well()


async def test_row_15_odd_characters_reach_the_model_unchanged(house: House) -> None:
    odd = "a\x00b\x1b[31mc\u202ed\\ud800e"
    await house.router.Complete(CompleteRequest(completion=spec(odd)))
    assert house.upstream.bodies[-1]["messages"][0]["content"] in (odd, [{"type": "text", "text": odd}])


def raw(channel: grpc.aio.Channel, method: str = "/pointsman.v1.RouterService/Complete") -> Any:
    return channel.unary_unary(method, request_serializer=None, response_deserializer=None)


def nested(depth: int) -> bytes:
    """A message nested this deep; group markers keep it short."""
    return b"\x0b" * depth


async def raw_refusal(house: House, body: bytes) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(house.channel)(body)
    await house.is_well()
    return RichError(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"\xff\xff\xff", b"\x0a\xff\x01x", nested(5_000), b"\x0a\x05\x0a\x03\x12\x05\x0a", b"\x0a\x04\x1a\x02\xc3\x28"],
    ids=["garbage", "truncated", "deep", "cut", "bad UTF-8"],
)
async def test_rows_8_and_9_malformed_bytes(house: House, body: bytes) -> None:
    error = await raw_refusal(house, body)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert "DecodeError" not in error.everything()


async def test_row_6_unknown_fields_are_ignored(house: House) -> None:
    body = CompleteRequest(completion=spec()).SerializeToString() + b"\xfa\x7f" + b"\x80\x80\xc0\x01" + b"x" * (3 << 20)
    await raw(house.channel)(body)


async def test_row_7_wrong_wire_type_counts_as_unset(house: House) -> None:
    error = await raw_refusal(house, b"\x08\x01")
    assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["completion"])


async def test_row_10_two_million_empty_messages(house: House) -> None:
    inside = b"\x0a\x00" * 2_000_000
    body = b"\x0a" + _varint(len(inside)) + inside
    error = await raw_refusal(house, body)
    assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["completion.messages"])


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize("method", ["/pointsman.v1.RouterService/Nothing", "/no.such.Service/Call"])
async def test_row_34_unknown_method(house: House, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(house.channel, method)(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await house.is_well()


@pytest.mark.parametrize(
    "metadata", [[("x-long", "v" * 17_000)], [(f"x-{n}", "v") for n in range(300)]], ids=["17 kB", "300 keys"]
)
async def test_row_35_too_much_metadata(house: House, metadata: list[tuple[str, str]]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.router.Complete(CompleteRequest(completion=spec()), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "v" * 20 not in (caught.value.details() or "")
    await house.is_well()


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001])
async def test_rows_36_and_37_no_time(house: House, seconds: float) -> None:
    calls = house.upstream.calls
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.router.Complete(CompleteRequest(completion=spec()), timeout=seconds)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.sleep(0.05)
    assert house.upstream.calls == calls
    await house.is_well()


@pytest.mark.parametrize("deadline_seconds", [None, 1e9])
async def test_row_38_the_servers_cap_ends_calls_without_a_deadline(deadline_seconds: float | None) -> None:
    async with (
        running_upstream(Script(status=0, end="stall")) as upstream,
        running_service(snapshot_for(upstream.base_url), unary_timeout_seconds=0.3) as service,
        connected(service) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(
                router(channel).Complete(CompleteRequest(completion=spec()), timeout=deadline_seconds), 5
            )
        error = RichError(caught.value)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details["ErrorInfo"].metadata["step"] == "dispatch"
