"""What hurt the users of other gateways' guards and caches must not happen here: one test for each public report."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from kit.upstream import HELLO, Script, Upstream, chunk, json_script, running_upstream, sse_script
from pointsman.v1 import answer_pb2, completion_pb2, embedding_service_pb2, embedding_service_pb2_grpc
from pointsman.v1.router_service_pb2 import CompleteRequest, StreamCompleteRequest
from pointsman_server.adapters.guards.sensitive import PatternScanner

ADDRESS = "eve.adams@quarrymail.net"
SAYS_IT = f"Write to {ADDRESS}, she knows."
SECONDS = 20


@asynccontextmanager
async def serving(upstream: Upstream, changes: Mapping[str, Any], **settings: Any) -> AsyncGenerator[Any, None]:
    """A channel to a service over this provider."""
    policy = load_for_test(
        {
            "providers": {"p": {"dialect": "openai_chat", "base_url": upstream.base_url}},
            "models": {
                "m": MODEL,
                "v": {
                    "kind": "embedding",
                    "context_window_tokens": 8_000,
                    "dimensions": 8,
                    "price": [{"input_usd_per_mtok": 1}],
                },
            },
            "deployments": {
                "d": {"provider": "p", "model": "m", "model_name": "m-1"},
                "e": {"provider": "p", "model": "v", "model_name": "v-1"},
            },
            **changes,
        }
    )
    async with running_service(policy, **settings) as service, connected(service) as channel:
        yield channel


async def test_litellm_30728_a_guard_that_cannot_look_lets_nothing_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PatternScanner, text: str) -> Sequence[Any]:
        raise RuntimeError(f"the analyser is down: {text}")

    monkeypatch.setattr(PatternScanner, "scan", fail)
    async with running_upstream(json_script(HELLO)) as upstream, serving(upstream, {}) as channel:
        embedding: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
        stream = router(channel).StreamComplete(StreamCompleteRequest(completion=spec()), timeout=SECONDS)
        for call in (
            router(channel).Complete(CompleteRequest(completion=spec()), timeout=SECONDS),
            stream.read(),
            embedding.Embed(embedding_service_pb2.EmbedRequest(inputs=["text"]), timeout=SECONDS),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                await call
            error = RichError(caught.value)
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "GUARD_UNAVAILABLE")
            assert "analyser" not in error.everything()
        assert upstream.calls == 0


def _reasoning(text: str) -> dict[str, Any]:
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"reasoning_content": text}}]}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(sse_script(chunk(SAYS_IT), chunk(finish="stop")), id="at once"),
        pytest.param(sse_script(*map(chunk, SAYS_IT), chunk(finish="stop")), id="letter by letter"),
        pytest.param(sse_script(*map(_reasoning, SAYS_IT), chunk("Done."), chunk(finish="stop")), id="as reasoning"),
        pytest.param(
            json_script(
                {
                    **HELLO,
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": SAYS_IT}, "finish_reason": "stop"}
                    ],
                }
            ),
            id="whole, to a stream",
        ),
    ],
)
async def test_litellm_38721_streamed_answers_are_guarded_in_every_shape(answer: Script) -> None:
    guarded = {"safety": {"sensitive_data": {"answers": "mask"}}}
    async with running_upstream(answer) as upstream, serving(upstream, guarded) as channel:
        call = router(channel).StreamComplete(StreamCompleteRequest(completion=spec()), timeout=SECONDS)
        events = [event async for event in call]
    assert ADDRESS.encode() not in b"".join(event.SerializeToString() for event in events)
    told = "".join(event.delta.text + event.delta.reasoning.text for event in events if event.HasField("delta"))
    assert "Write to [EMAIL], she knows." in told
    assert {one.type: one.count for one in events[-1].completed.redactions} == {"EMAIL": 1}


async def test_bifrost_2791_the_same_request_is_found_again_in_whatever_order_it_is_written(tmp_path: Path) -> None:
    def asked(names: Sequence[str]) -> CompleteRequest:
        schema = Struct()
        schema.update({"type": "object", "properties": {name: {"type": "string"} for name in names}})
        tool = completion_pb2.Tool(name="look", parameters=schema)
        generation = completion_pb2.GenerationConfig(tools=[tool], temperature=0.5)
        return CompleteRequest(completion=spec(generation=generation))

    store = {"database_url": f"sqlite:///{tmp_path / 'shared.db'}"}
    caching = {"cache": {"mode": "read_write"}}
    found: list[answer_pb2.CompleteResponse] = []
    async with running_upstream(json_script(HELLO)) as upstream:
        for names in (["b", "a", "c"], ["c", "b", "a"], ["a", "b", "c"]):
            # A new process each time: what it remembers is in the database alone.
            async with serving(upstream, caching, **store) as channel:
                found.append(await router(channel).Complete(asked(names), timeout=SECONDS))
        assert upstream.calls == 1
    outcomes = [answer_pb2.CACHE_OUTCOME_MISS, answer_pb2.CACHE_OUTCOME_HIT_EXACT, answer_pb2.CACHE_OUTCOME_HIT_EXACT]
    assert [one.cache for one in found] == outcomes
