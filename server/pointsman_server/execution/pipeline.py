"""The journey of one call, room by room. The door (`rpc`) comes before it and relays what it gives.

Prepare → Decide → Reserve → Dispatch → Settle.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pointsman_server.decision.engine import decide
from pointsman_server.domain.call import Call, CallEvent, Completed, Completion, Decided, Decision
from pointsman_server.domain.errors import DeadlineExceeded, Step
from pointsman_server.domain.ports import Clock, Ids, Ledger, TokenCounter
from pointsman_server.execution.dispatch import Dispatcher, DispatchRecord
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.prepare import count_input, get_ready
from pointsman_server.execution.settle import has_gaps, settle


class Pipeline:
    """Decides, calls and accounts. One for the process; holds no state of a call."""

    def __init__(
        self, dispatcher: Dispatcher, health: HealthBoard, ledger: Ledger, counter: TokenCounter, clock: Clock, ids: Ids
    ) -> None:
        self._dispatcher = dispatcher
        self._health = health
        self._ledger = ledger
        self._counter = counter
        self._clock = clock
        self._ids = ids

    async def route(self, call: Call) -> Decision:
        """The decision alone: nothing is called, nothing is spent."""
        started_at = self._clock.monotonic()
        tokens = await count_input(call, self._counter)
        plan = decide(call.request, call.snapshot, self._health.view(), tokens)
        if self._clock.monotonic() >= call.deadline:
            raise DeadlineExceeded(Step.DECIDE)
        return Decision(self._ids.new("dec"), plan, self._clock.monotonic() - started_at)

    async def complete(self, call: Call) -> Completion:
        """The whole answer."""
        decision = await self.route(call)
        async with aclosing(self._answer(call, decision, stream=False)) as events:
            async for event in events:
                if isinstance(event, Completed):
                    return event.completion
        raise AssertionError("an answer ends with Completed or an exception")

    async def stream(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        """The decision, the answer piece by piece, and the whole answer at the end."""
        decision = await self.route(call)
        yield Decided(decision)
        async with aclosing(self._answer(call, decision, stream=True)) as events:
            async for event in events:
                yield event

    async def _answer(self, call: Call, decision: Decision, *, stream: bool) -> AsyncGenerator[CallEvent, None]:
        record = DispatchRecord()
        worst_cost = max(candidate.worst_cost_micro_usd for candidate in decision.plan.candidates)
        async with self._ledger.reserve(call.request_id, worst_cost) as reservation:
            try:
                async with aclosing(self._dispatcher.run(call, decision.plan, record, stream=stream)) as events:
                    async for event in events:
                        yield event
            except BaseException:
                reservation.settle(record.cost_micro_usd)
                raise
            completion = await self._settle(call, decision, record)
            reservation.settle(completion.cost_micro_usd)
        yield Completed(completion)

    async def _settle(self, call: Call, decision: Decision, record: DispatchRecord) -> Completion:
        if record.answered_by is None or record.reply is None:
            raise AssertionError("dispatch ends with an answer or an exception")
        if has_gaps(record.reply.usage):
            await get_ready(self._counter)
        return settle(call, decision, record.answered_by, record.reply, tuple(record.attempts), self._counter)
