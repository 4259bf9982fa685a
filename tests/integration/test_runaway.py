"""Providers that never stop: what callers are told ends at the limit, and what they spend within the budget."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc

from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from kit.upstream import chunk, running_upstream, sse_script
from pointsman.v1 import answer_pb2
from pointsman.v1.router_service_pb2 import StreamCompleteRequest
from pointsman_server.execution.allowance import MARGIN_TOKENS

CALLS = 50
LIMIT_TOKENS = 2_000
BUDGET_MICRO_USD = 1_000_000
NETWORK_TOKENS = 500
"""What may come together with the piece that is cut."""

PRICE = [{"input_usd_per_mtok": "10", "output_usd_per_mtok": "100"}]
"""A call may cost 0.20 USD and a bit: the budget is for four."""


async def ask(stub: Any) -> answer_pb2.CompleteResponse | RichError:
    """The end of a stream that is to repeat something for ever."""
    asked = spec("Repeat forever: again")
    asked.generation.max_output_tokens = LIMIT_TOKENS
    try:
        events = [event async for event in stub.StreamComplete(StreamCompleteRequest(completion=asked), timeout=30)]
    except grpc.RpcError as error:
        return RichError(error)
    said = "".join(event.delta.text for event in events if event.WhichOneof("event") == "delta")
    completed: answer_pb2.CompleteResponse = events[-1].completed
    assert completed.message.parts[0].text == said
    return completed


async def test_fifty_that_repeat_for_ever_spend_no_more_than_the_budget() -> None:
    said = sse_script(*[chunk("again " * 10)] * 600, end="stall", done=False)
    forever = replace(said, pieces=[(0.002, piece) for _, piece in said.pieces])
    async with running_upstream(forever) as upstream:
        policy = load_for_test(
            {
                "providers": {"p": {"dialect": "openai_chat", "base_url": upstream.base_url}},
                "models": {"m": {**MODEL, "price": PRICE}},
                "deployments": {"d": {"provider": "p", "model": "m", "model_name": "m-1"}},
                "tenants": {"local": {"budgets": [{"name": "all", "period": "day", "limit_usd": 1}]}},
            }
        )
        async with running_service(policy) as service, connected(service) as channel:
            ends = await asyncio.gather(*(ask(router(channel)) for _ in range(CALLS)))
        await asyncio.wait_for(upstream.nobody_connected.wait(), 10)
    answered = [end for end in ends if isinstance(end, answer_pb2.CompleteResponse)]
    refused = [end for end in ends if isinstance(end, RichError)]
    assert answered
    assert {end.reason for end in refused} == {"BUDGET_EXCEEDED"}
    for end in answered:
        assert end.finish_reason == answer_pb2.FINISH_REASON_LENGTH
        assert LIMIT_TOKENS + MARGIN_TOKENS < end.usage.output_tokens <= LIMIT_TOKENS + MARGIN_TOKENS + NETWORK_TOKENS
        assert end.usage.estimated
        assert [warning.code for warning in end.warnings] == ["cut_at_cap"]
    assert sum(end.usage.cost_micro_usd for end in answered) <= BUDGET_MICRO_USD
