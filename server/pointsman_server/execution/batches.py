"""The calls that many texts make: one dispatch for each batch, some at a time, with one account for all."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

from pointsman_server.decision.embedding_choice import EmbeddingPlan, worst_cost_micro_usd
from pointsman_server.decision.tokens import tokens_for
from pointsman_server.domain.call import Attempt, Call
from pointsman_server.domain.plan import RoutePlan, TokenEstimate
from pointsman_server.domain.ports import CallWatch, Reservation
from pointsman_server.domain.request import EmbeddingInput
from pointsman_server.execution.course import Cover
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord

BATCHES_AT_ONCE = 4
"""So many batches of one call are asked for at the same time; fewer where a deployment takes fewer calls."""


class Batches:
    """The batches of one call. `attempts` are those of all of them, in the order in which they ended."""

    def __init__(
        self, dispatcher: Dispatcher, call: Call, wanted: EmbeddingInput, plan: EmbeddingPlan, watch: CallWatch
    ) -> None:
        self.attempts: list[Attempt] = []
        self._dispatcher = dispatcher
        self._call = call
        self._wanted = wanted
        self._plan = plan
        self._watch = watch
        self._places = asyncio.Semaphore(_at_once(plan))

    async def ask_all(self, reservation: Reservation) -> list[DispatchRecord]:
        """The batches' records in order. The first that fails ends all, with what `Dispatcher.run` raises.

        The first batch goes alone: whoever cannot take it need not be sent the others, and a deployment whose breaker
        lets one call through to try is tried with one.
        """
        routes = [self._route(number) for number in range(len(self._plan.batches))]
        money = _Money([max(one.worst_cost_micro_usd for one in route.candidates) for route in routes], reservation)
        first = await self._ask(0, routes[0], money.of(0))
        try:
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(self._ask(number, route, money.of(number)))
                    for number, route in enumerate(routes[1:], start=1)
                ]
        except BaseExceptionGroup as failures:
            error = failures.exceptions[0]
            raise error from error.__cause__
        return [first, *(task.result() for task in others)]

    def _route(self, number: int) -> RoutePlan:
        batch, route = self._plan.batches[number], self._plan.route
        candidates = tuple(
            one._replace(worst_cost_micro_usd=worst_cost_micro_usd(one.deployment, batch)) for one in route.candidates
        )
        return replace(route, candidates=candidates, input_tokens=batch.tokens)

    async def _ask(self, number: int, route: RoutePlan, cover: Cover) -> DispatchRecord:
        batch = self._plan.batches[number]
        texts = self._wanted.texts[batch.start : batch.end]
        call = replace(self._call, embedding=replace(self._wanted, texts=texts))
        record = DispatchRecord(of_call=self.attempts)
        async with self._places:
            running = self._dispatcher.run(call, route, record, self._watch, cover, stream=False)
            async with aclosing(running) as events:
                async for _ in events:
                    raise AssertionError("nothing comes before the end where nothing is streamed")
        self._count(record, batch.tokens)
        return record

    def _count(self, record: DispatchRecord, counted: TokenEstimate) -> None:
        """Puts our own count where the provider gave none: at once, for whatever becomes of the other batches."""
        told = record.attempts[-1]
        if told.usage.input_tokens is not None and not told.usage.implausible:
            return
        usage = replace(told.usage, input_tokens=tokens_for(told.deployment, counted).tokens, billed_input_tokens=None)
        cost = told.deployment.model.price.cost_micro_usd(usage)
        filled = replace(told, usage=usage, cost_micro_usd=cost, estimated=True)
        record.attempts[-1] = filled
        self.attempts[:] = [filled if one is told else one for one in self.attempts]


class _Money:
    """What the batches of one call may cost together; each asks for more by itself, one after the other."""

    def __init__(self, worst_costs_micro_usd: list[int], reservation: Reservation) -> None:
        self._worst_costs_micro_usd = worst_costs_micro_usd
        self._reservation = reservation
        self._turn = asyncio.Lock()

    def of(self, number: int) -> Cover:
        """Sets money aside for this batch."""

        async def cover(cost_micro_usd: int) -> None:
            async with self._turn:
                known = self._worst_costs_micro_usd[number]
                self._worst_costs_micro_usd[number] = max(known, cost_micro_usd)
                await self._reservation.cover(sum(self._worst_costs_micro_usd))

        return cover


def _at_once(plan: EmbeddingPlan) -> int:
    limits = [one.deployment.max_concurrent_calls for one in plan.route.candidates]
    return min([BATCHES_AT_ONCE, *(limit for limit in limits if limit)])
