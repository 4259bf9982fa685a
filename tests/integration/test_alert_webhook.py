"""Budgets that are used up tell a webhook so, once, however many processes share them."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.hooks import Receiver, receiving
from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from kit.upstream import HELLO, json_script, running_upstream
from pointsman.v1.router_service_pb2 import CompleteRequest

CALL_COST_MICRO_USD = 10_000
SECRET = "correct-horse-battery"


def policy(base_url: str, receiver: Receiver) -> Any:
    """Ten calls a month."""
    price = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0, "per_request_usd": CALL_COST_MICRO_USD / 1e6}
    return load_for_test(
        {
            "providers": {"up": {"dialect": "openai_chat", "base_url": base_url}},
            "models": {"m": {**MODEL, "price": [price]}},
            "deployments": {"only": {"provider": "up", "model": "m", "model_name": "m-1"}},
            "tenant_defaults": {
                "budgets": [{"name": "ten", "period": "month", "limit_usd": 10 * CALL_COST_MICRO_USD / 1e6}]
            },
            "alerts": {"webhook": {"url": "${HOOK}", "secret": "${HOOK_SECRET}"}},
        },
        {"HOOK": receiver.url, "HOOK_SECRET": SECRET},
    )


async def test_two_replicas_tell_of_each_threshold_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/pointsman.db"
    async with receiving() as receiver, running_upstream(json_script(HELLO)) as up, AsyncExitStack() as stack:
        loaded = policy(up.base_url, receiver)
        stubs = []
        for number in range(2):
            state = str(tmp_path / f"state-{number}")
            service = await stack.enter_async_context(running_service(loaded, database_url=url, state_dir=state))
            stubs.append(router(await stack.enter_async_context(connected(service))))
        for number in range(8):
            await stubs[number % 2].Complete(CompleteRequest(completion=spec()), timeout=20)
        await receiver.have(1)
        for number in range(2):
            await stubs[number % 2].Complete(CompleteRequest(completion=spec()), timeout=20)
        for stub in stubs:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Complete(CompleteRequest(completion=spec()), timeout=20)
            assert RichError(caught.value).reason == "BUDGET_EXCEEDED"
        await receiver.have(2)
    # All servers have ended, and had sent by then whatever they had to say.
    told = [one.content for one in receiver.received]
    assert [one["threshold"] for one in told] == [80, 100]
    assert [one["used_micro_usd"] for one in told] == [8 * CALL_COST_MICRO_USD, 10 * CALL_COST_MICRO_USD]
    assert {(one["event"], one["tenant"], one["budget"], one["limit_micro_usd"]) for one in told} == {
        ("budget_alert", "local", "ten", 10 * CALL_COST_MICRO_USD)
    }
    for one in receiver.received:
        moment, _, digest = one.headers["pointsman-signature"].partition(",")
        signed = moment.removeprefix("t=").encode() + b"." + one.body
        assert digest == "v1=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


async def test_calls_do_not_wait_for_a_silent_receiver(tmp_path: Path) -> None:
    async with receiving() as receiver, running_upstream(json_script(HELLO)) as up:
        receiver.open.clear()
        loaded = policy(up.base_url, receiver)
        async with running_service(loaded, state_dir=str(tmp_path)) as service, connected(service) as channel:
            for _ in range(10):
                await router(channel).Complete(CompleteRequest(completion=spec()), timeout=5)
            await receiver.have(1)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await router(channel).Complete(CompleteRequest(completion=spec()), timeout=5)
            assert RichError(caught.value).reason == "BUDGET_EXCEEDED"
            receiver.open.set()
            await receiver.have(2)
