"""The journey of texts that become vectors: the rooms of a completion, with several calls where one is too small.

Guard → Prepare → Decide → Reserve → Dispatch (batch by batch) → Settle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pointsman_server.decision.embedding_choice import EmbeddingPlan, choose_embedding, facts_of_embedding
from pointsman_server.domain.call import Attempt, AttemptOutcome, Call, Completion, Decision
from pointsman_server.domain.errors import DeadlineExceeded, Step
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.ports import CallWatch, Clock, Ids, Ledger, Operation, Telemetry, TokenCounter
from pointsman_server.domain.reply import Usage
from pointsman_server.domain.request import EmbeddingInput
from pointsman_server.execution.agenda import busy_rejection
from pointsman_server.execution.batches import Batches
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.governing import Governing, used_tokens, with_rejections
from pointsman_server.execution.guarding import Guards
from pointsman_server.execution.pipeline import Memory
from pointsman_server.execution.sizing import size_texts
from pointsman_server.execution.text_guarding import guard_texts
from pointsman_server.execution.watching import watching


class EmbeddingPipeline:
    """Decides, calls and accounts. One for the process; holds no state of a call."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        memory: Memory,
        governing: Governing,
        guards: Guards,
        ledger: Ledger,
        telemetry: Telemetry,
        counter: TokenCounter,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._dispatcher = dispatcher
        self._memory = memory
        self._governing = governing
        self._guards = guards
        self._ledger = ledger
        self._telemetry = telemetry
        self._counter = counter
        self._clock = clock
        self._ids = ids

    async def embed(self, call: Call) -> Completion:
        """The vectors of `call.embedding`, one for each text and in their order, in the completion's `reply`.

        Raises what a completion raises, of which `AttemptsFailed` tells of the batch that failed.
        """
        with watching(self._telemetry, call, Operation.EMBED) as watch:
            await self._governing.admit(call, answers=True)
            return await self._made(*await guard_texts(self._guards, call, _wanted(call)), watch)

    async def embed_for(self, call: Call) -> Completion:
        """The same on behalf of a call that was let in and guarded already; raises no less."""
        with watching(self._telemetry, call, Operation.EMBED) as watch:
            return await self._made(call, _wanted(call), watch)

    async def _made(self, call: Call, wanted: EmbeddingInput, watch: CallWatch) -> Completion:
        decision, plan = await self._decide(call, wanted)
        watch.decided(decision)
        completion = await self._answer(call, wanted, decision, plan, watch)
        watch.completed(completion)
        return completion

    async def _decide(self, call: Call, wanted: EmbeddingInput) -> tuple[Decision, EmbeddingPlan]:
        started_at = self._clock.monotonic()
        sizes = await size_texts(call, wanted.texts, self._counter)
        view, busy = self._memory.health.view(), self._memory.places.full
        view = with_rejections(view, {name: busy_rejection(name) for name in busy})
        circumstances = Circumstances(
            facts=self._governing.facts(facts_of_embedding(call.request), call),
            tokens=sizes[0],
            health=self._governing.view(view, call),
            tenant=call.tenant,
        )
        plan = choose_embedding(circumstances, sizes, wanted.dimensions, call.snapshot)
        if self._clock.monotonic() >= call.deadline:
            raise DeadlineExceeded(Step.DECIDE)
        return Decision(self._ids.new("dec"), plan.route, self._clock.monotonic() - started_at), plan

    async def _answer(
        self, call: Call, wanted: EmbeddingInput, decision: Decision, plan: EmbeddingPlan, watch: CallWatch
    ) -> Completion:
        worst_cost = max(candidate.worst_cost_micro_usd for candidate in plan.route.candidates)
        charge = await self._governing.charge(call, decision)
        batches = Batches(self._dispatcher, call, wanted, plan, watch)
        try:
            async with self._ledger.reserve(call, worst_cost) as reservation:
                try:
                    records = await batches.ask_all(reservation)
                except BaseException:
                    reservation.settle(batches.attempts)
                    raise
                reservation.settle(batches.attempts)
        finally:
            charge.correct(used_tokens(batches.attempts, plan.route.input_tokens.tokens))
        return _settle(call, decision, records, batches.attempts)


def _wanted(call: Call) -> EmbeddingInput:
    if call.embedding is None or not call.embedding.texts:
        raise ValueError("a call for vectors has at least one text")
    return call.embedding


def _settle(
    call: Call, decision: Decision, records: Sequence[DispatchRecord], attempts: Sequence[Attempt]
) -> Completion:
    last = records[-1]
    if last.reply is None or last.answered_by is None:
        raise AssertionError("dispatch ends with vectors or an exception")
    answers = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.SUCCEEDED]
    usage = Usage(
        input_tokens=sum(one.usage.input_tokens or 0 for one in answers),
        cached_input_tokens=sum(one.usage.cached_input_tokens for one in answers),
        output_tokens=0,
    )
    vectors = tuple(vector for record in records if record.reply for vector in record.reply.vectors)
    return Completion(
        request_id=call.request_id,
        decision=decision,
        answered_by=last.answered_by,
        reply=replace(last.reply, vectors=vectors, usage=usage),
        usage=usage,
        estimated=any(one.estimated for one in answers),
        cost_micro_usd=sum(one.cost_micro_usd for one in attempts),
        attempts=tuple(attempts),
        warnings=(),
        redactions=call.guarded.redactions,
    )
