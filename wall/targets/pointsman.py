"""pointsman over gRPC, with the stock stubs: no retries, no folding but our own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from pointsman.v1 import answer_pb2, completion_pb2, router_service_pb2, router_service_pb2_grpc
from wall.asks import Ask, Failover
from wall.log import Outcome, Seam, Status, WallLog
from wall.policy import deployments_for
from wall.targets.cable import Cable
from wall.targets.target import Ability, Patience
from wall.texts import prompt

_CHANNELS = 4
"""A connection carries at most a hundred calls at a time."""

_MODES = {
    Failover.TERMINATE: answer_pb2.STREAM_FAILOVER_TERMINATE,
    Failover.CONTINUE: answer_pb2.STREAM_FAILOVER_CONTINUE,
    Failover.RESTART: answer_pb2.STREAM_FAILOVER_RESTART,
}
_TOOL = completion_pb2.Tool(name="weather", description="Tells the weather.")
_TOOL.parameters.update({"type": "object", "properties": {"city": {"type": "string"}}})


class Pointsman:
    """A running server. Deployments are those of `wall.policy`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channels = [self._open(address) for _ in range(_CHANNELS)]
        self._turns = cycle(self._channels)

    @property
    def abilities(self) -> frozenset[Ability]:
        """All of them."""
        return frozenset(Ability)

    async def close(self) -> None:
        """Closes all connections."""
        for channel in self._channels:
            await channel.close()

    async def ready(self) -> None:
        """Connects, so that the first call does not have to."""
        for channel in self._channels:
            await channel.channel_ready()

    async def ask(self, ask: Ask, scenario: str, log: WallLog) -> Outcome:
        """One call."""
        outcome = Outcome(ask, log.now())
        if ask.loses_network:
            await self._lose(ask, scenario, outcome, log)
            return outcome
        try:
            await self._call(next(self._turns), ask, scenario, outcome, Patience(outcome, log))
        except grpc.aio.AioRpcError as error:
            _failed(outcome, error)
        if outcome.status is not Status.LEFT:
            outcome.ended_at = log.now()
        return outcome

    def _open(self, address: str) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        return grpc.aio.insecure_channel(address, options=options)

    async def _call(
        self, channel: grpc.aio.Channel, ask: Ask, scenario: str, outcome: Outcome, patience: Patience
    ) -> None:
        stub: Any = router_service_pb2_grpc.RouterServiceStub(channel)
        completion = _completion(ask, scenario)
        if ask.stream:
            request: Any = router_service_pb2.StreamCompleteRequest(
                completion=completion, failover=_MODES[ask.failover]
            )
            call = stub.StreamComplete(request, timeout=ask.deadline_seconds)
            work = asyncio.ensure_future(_read(call, outcome, patience))
        else:
            request = router_service_pb2.CompleteRequest(completion=completion)
            call = stub.Complete(request, timeout=ask.deadline_seconds)
            work = asyncio.ensure_future(_take(call, outcome, patience))
        await _until_left(work, call, ask, patience)

    async def _lose(self, ask: Ask, scenario: str, outcome: Outcome, log: WallLog) -> None:
        """A caller whose network goes silent after the first text; it is never heard of again."""
        host, _, port = self._address.rpartition(":")
        async with Cable(host, int(port)) as cable, self._open(f"127.0.0.1:{cable.port}") as channel:
            patience = Patience(outcome, log)
            calling = asyncio.ensure_future(self._call(channel, ask, scenario, outcome, patience))
            begun = asyncio.ensure_future(patience.begun.wait())
            await asyncio.wait([calling, begun], return_when=asyncio.FIRST_COMPLETED)
            cable.silence()
            patience.leave()
            await asyncio.sleep(ask.reader.stops_for_seconds)
            for task in (calling, begun):
                task.cancel()
            await asyncio.wait([calling, begun])


async def _until_left(work: asyncio.Future[None], call: Any, ask: Ask, patience: Patience) -> None:
    try:
        await asyncio.wait_for(asyncio.shield(work), ask.reader.leaves_after_seconds)
    except TimeoutError:
        if not work.done():
            patience.leave()
            call.cancel()
            work.cancel()
    except asyncio.CancelledError:
        call.cancel()
        work.cancel()
        raise
    finally:
        await asyncio.wait([work])
    if not work.cancelled() and not patience.has_left:
        work.result()


def _completion(ask: Ask, scenario: str) -> completion_pb2.CompletionSpec:
    part = completion_pb2.Part(text=prompt(scenario, ask.lane, ask.number))
    spec = completion_pb2.CompletionSpec(
        messages=[completion_pb2.Message(role=completion_pb2.ROLE_USER, parts=[part])],
        tier=completion_pb2.TIER_STANDARD,
    )
    spec.constraints.allowed_deployments.extend(deployments_for(scenario, ask.lane, alone=ask.alone))
    if ask.offers_tool:
        spec.generation.tools.append(_TOOL)
    return spec


async def _take(call: Any, outcome: Outcome, patience: Patience) -> None:
    answer = await call
    text = _text_of(answer)
    patience.took(text)
    _completed(outcome, answer)


async def _read(call: Any, outcome: Outcome, patience: Patience) -> None:
    async for event in call:
        kind = event.WhichOneof("event")
        if outcome.status is Status.SERVED:
            outcome.after_terminal += 1
        elif kind == "delta":
            _delta(event.delta, outcome, patience)
        elif kind == "failover":
            _seam(event.failover, outcome)
        elif kind == "completed":
            outcome.whole_text = _text_of(event.completed)
            _completed(outcome, event.completed)
        if not await patience.before_next():
            call.cancel()
            return


def _delta(delta: answer_pb2.Delta, outcome: Outcome, patience: Patience) -> None:
    if delta.WhichOneof("content") == "text":
        patience.took(delta.text)
    elif delta.WhichOneof("content") == "tool_call":
        outcome.arguments += delta.tool_call.arguments_json


def _seam(failover: answer_pb2.Failover, outcome: Outcome) -> None:
    mode = answer_pb2.StreamFailover.Name(failover.mode).removeprefix("STREAM_FAILOVER_").lower()
    outcome.seams.append(Seam(mode, len(outcome.text), failover.characters_kept))
    outcome.text = outcome.text[: failover.characters_kept]
    if not failover.characters_kept:
        outcome.arguments = ""


def _text_of(answer: answer_pb2.CompleteResponse) -> str:
    return "".join(part.text for part in answer.message.parts)


def _completed(outcome: Outcome, answer: answer_pb2.CompleteResponse) -> None:
    outcome.status, outcome.codes = Status.SERVED, frozenset({"OK"})
    outcome.terminals += 1
    outcome.finish = answer_pb2.FinishReason.Name(answer.finish_reason).removeprefix("FINISH_REASON_").lower()
    outcome.warnings = tuple(warning.code for warning in answer.warnings)
    outcome.usage_output_tokens = answer.usage.output_tokens
    if not outcome.arguments:
        outcome.arguments = "".join(part.tool_call.arguments_json for part in answer.message.parts)


def _failed(outcome: Outcome, error: grpc.aio.AioRpcError) -> None:
    begun = bool(outcome.text or outcome.arguments)
    outcome.terminals += 1
    outcome.status = Status.INTERRUPTED if begun else Status.FAILED
    outcome.codes = frozenset({error.code().name})
    metadata = dict(error.trailing_metadata() or ())
    outcome.error_text = f"{error.details()} {metadata}"
    packed = metadata.get("grpc-status-details-bin")
    if isinstance(packed, bytes):
        _read_details(status_pb2.Status.FromString(packed).details, outcome)


def _read_details(details: Sequence[Any], outcome: Outcome) -> None:
    for detail in details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            outcome.reason = info.reason
            outcome.error_text += str(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            outcome.retry_after_seconds = retry.retry_delay.ToNanoseconds() / 1e9
