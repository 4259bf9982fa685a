"""The published client, in both forms, against a whole pointsman with providers that follow a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from kit.client_callers import CALLERS, Caller, caller_of
from kit.running import one_deployment_each, running_service
from kit.upstream import HELLO, Script, Upstream, chunk, json_script, running_upstream, sse_script
from pointsman_client import (
    DecisionExpired,
    DeploymentNotFound,
    InvalidRequest,
    NoEligibleDeployment,
    RequestNotFound,
    StreamInterrupted,
    Unavailable,
    assistant,
)

STREAM = (chunk("Hello"), chunk(" world"), chunk(finish="stop"))
CUT = sse_script(chunk("Good"), chunk(" bye"), end="reset", done=False)

pytestmark = pytest.mark.parametrize("form", CALLERS)


@asynccontextmanager
async def pointsman(form: str, *scripts: Script) -> AsyncIterator[tuple[Caller, list[Upstream]]]:
    """A caller of a pointsman with one provider for each script; the first is asked first."""
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(running_upstream(script)) for script in scripts]
        urls = {f"provider{place}": upstream.base_url for place, upstream in enumerate(upstreams)}
        service = await stack.enter_async_context(running_service(one_deployment_each(urls)))
        yield await stack.enter_async_context(caller_of(form, f"127.0.0.1:{service.port}")), upstreams


async def test_a_whole_answer(form: str) -> None:
    async with pointsman(form, json_script(HELLO)) as (caller, upstreams):
        answer = await caller.complete("Hi", request_id="order-7", temperature=0.2)
    assert (answer.text, answer.request_id, answer.decision.chosen.deployment) == (
        "Hello world",
        "order-7",
        "provider0",
    )
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 3)
    assert upstreams[0].bodies[0]["temperature"] == 0.2


async def test_a_stream_folds_into_its_answer(form: str) -> None:
    async with pointsman(form, sse_script(*STREAM)) as (caller, _):
        reading = await caller.read_text("Hi")
    assert "".join(reading.deltas) == "Hello world"
    assert reading.answer is not None
    assert reading.answer.message == assistant("Hello world")


async def test_a_decision(form: str) -> None:
    async with pointsman(form, json_script(HELLO)) as (caller, upstreams):
        decision = await caller.route("Hi")
    assert decision.deployment == "provider0"
    assert upstreams[0].calls == 0


async def test_a_decision_is_followed_and_its_answer_judged(form: str) -> None:
    async with pointsman(form, json_script(HELLO)) as (caller, _):
        decision = await caller.route("Hi")
        answer = await caller.complete("Hi", decision_id=decision.id)
        await caller.record_feedback(answer.request_id, 0.5)
        with pytest.raises(DecisionExpired) as expired:
            await caller.complete("Something else", decision_id=decision.id)
        with pytest.raises(RequestNotFound) as unknown:
            await caller.record_feedback("req_unknown", 0.5)
    assert answer.decision == decision.response.decision
    assert [item.subject for item in expired.value.precondition_violations] == ["decision_id"]
    assert unknown.value.request_id not in ("", "req_unknown")


async def test_an_interruption_carries_what_came_and_what_it_cost(form: str) -> None:
    async with pointsman(form, CUT) as (caller, _):
        error = (await caller.read("Hi")).error
    assert isinstance(error, StreamInterrupted)
    assert (error.partial_text, error.cost_micro_usd) == ("Good bye", 0)
    assert (error.output_tokens or 0) > 0
    assert error.request_id in error.message


async def test_a_restart_leaves_only_the_second_answer(form: str) -> None:
    async with pointsman(form, CUT, sse_script(*STREAM)) as (caller, _):
        reading = await caller.read("Hi", failover="restart")
    assert reading.error is None
    assert reading.answer is not None
    assert reading.answer.text == "Hello world"


async def test_failures_are_typed(form: str) -> None:
    async with pointsman(form, json_script({"error": {"message": "x"}}, 500)) as (caller, _):
        with pytest.raises(Unavailable) as failed:
            await caller.complete("Hi")
        with pytest.raises(DeploymentNotFound):
            await caller.complete("Hi", deployment="nobody")
        with pytest.raises(NoEligibleDeployment) as excluded:
            await caller.route("Hi", regions=["mars"])
        with pytest.raises(InvalidRequest) as invalid:
            await caller.complete("Hi", temperature=3)
    assert failed.value.metadata["attempts"] == ",".join(["provider0:unavailable"] * 3)
    assert [item.subject for item in excluded.value.precondition_violations] == ["deployments/provider0"]
    assert [item.field for item in invalid.value.field_violations] == ["completion.generation.temperature"]


async def test_giving_a_stream_up_reaches_the_provider(form: str) -> None:
    endless = Script(200, {"content-type": "text/event-stream"}, sse_script(chunk("Hello"), done=False).pieces, "stall")
    async with pointsman(form, endless) as (caller, upstreams):
        stream = await caller.leave_text_loop("Hi")
        async with asyncio.timeout(5):
            while upstreams[0].open_connections:  # noqa: ASYNC110 - closed by the server, in its own time
                await asyncio.sleep(0.005)
    assert stream.partial_text == "Hello"


async def test_a_server_that_takes_no_more_calls_is_asked_again(form: str) -> None:
    snapshot = one_deployment_each({"provider": "http://127.0.0.1:1/v1"})
    async with (
        running_service(snapshot, max_concurrent_calls=0) as service,
        caller_of(form, f"127.0.0.1:{service.port}") as caller,
    ):
        started = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as raised:
            await caller.complete("Hi", timeout_seconds=1.2)
        waited = asyncio.get_running_loop().time() - started
    assert (raised.value.reason, raised.value.code) == ("OVERLOADED", grpc.StatusCode.RESOURCE_EXHAUSTED)
    asked_for = raised.value.retry_delay_seconds or 99
    assert waited > min(asked_for, 1.0), "it waited as long as the server asked, or until its time was up"
