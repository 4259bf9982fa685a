from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman.v1.answer_pb2 import InvalidAnswer
from pointsman_server.domain.errors import AnswerInvalid, FailedAttempt
from pointsman_server.domain.faults import FaultKind
from pointsman_server.rpc.boundary import _LibraryStatus
from pointsman_server.rpc.invalid_answer import (
    MOST_DETAIL_BYTES,
    MOST_VIOLATION_BYTES,
    MOST_VIOLATIONS_BYTES,
    invalid_answer,
)
from pointsman_server.rpc.status import status_of

CLIENTS_LIMIT_BYTES = 8 * 1024


def test_what_fits_stays_whole() -> None:
    assert invalid_answer("{}", ["/a: b", "/c: d"]) == InvalidAnswer(text="{}", violations=["/a: b", "/c: d"])


def test_a_long_answer_is_cut_between_characters() -> None:
    detail = invalid_answer("€" * 10_000, [])
    assert detail.text == "€" * (MOST_DETAIL_BYTES // 3)


def test_long_violations_leave_room_for_the_answer() -> None:
    detail = invalid_answer("x" * 10_000, ["é" * 1_000] * 10)
    assert len(detail.violations) == MOST_VIOLATIONS_BYTES // MOST_VIOLATION_BYTES
    assert set(detail.violations) == {"é" * (MOST_VIOLATION_BYTES // 2)}
    assert len(detail.text) == MOST_DETAIL_BYTES - MOST_VIOLATIONS_BYTES


def test_what_cannot_be_encoded_is_marked() -> None:
    assert invalid_answer("a\ud800b", []).text == "a?b"


@examples(100)
@given(st.text(st.characters(), max_size=6_000), st.lists(st.text(max_size=500), max_size=12))
def test_it_is_a_beginning_and_within_its_size(text: str, violations: list[str]) -> None:
    detail = invalid_answer(text, violations)
    clean = text.encode("utf-8", "replace").decode()
    assert clean.startswith(detail.text)
    assert all(one.startswith(got) for one, got in zip(violations, detail.violations, strict=False))
    assert len(detail.text.encode()) + sum(len(one.encode()) for one in detail.violations) <= MOST_DETAIL_BYTES
    assert detail.text == clean or len(detail.SerializeToString()) > MOST_DETAIL_BYTES // 2


@asynccontextmanager
async def failing_with(status: grpc.Status) -> AsyncIterator[str]:
    async def refuse(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await context.abort_with_status(status)
        raise AssertionError

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", {"T": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize("character", ["a", "€", "😀", "\x00"])
async def test_the_largest_one_reaches_a_client(character: str) -> None:
    attempts = tuple(FailedAttempt("deployment-with-a-long-name" * 2, kind, "") for kind in [FaultKind.STREAM_CUT] * 8)
    error = AnswerInvalid(
        attempts,
        text=character * 2_000_000,
        violations=(character * 300,) * 10,
        output_tokens=10**9,
        cost_micro_usd=10**12,
        streamed=False,
    )
    status = _LibraryStatus(status_of(error), "r" * 128)
    sent_bytes = len(b64encode(dict(status.trailing_metadata)["grpc-status-details-bin"]))  # type: ignore[arg-type]
    assert sent_bytes + len(status.details) + 512 < CLIENTS_LIMIT_BYTES
    async with failing_with(status) as address, grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/t/T")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    rich = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert rich is not None
    detail = InvalidAnswer()
    assert [packed.Unpack(detail) for packed in rich.details] == [False, True]
    assert set(detail.text) == {character}
