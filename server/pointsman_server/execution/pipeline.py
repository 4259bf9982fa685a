"""The journey of one call, room by room. The door (`rpc`) comes before it and relays what it gives.

Prepare → Recall → Decide → Reserve → Dispatch → Settle.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from pointsman_server.decision.engine import decide
from pointsman_server.decision.facts import facts_of
from pointsman_server.domain.call import Attempt, Call, CallEvent, Completed, Completion, Decided, Decision
from pointsman_server.domain.errors import DeadlineExceeded, RouterError, Step
from pointsman_server.domain.experience import NO_EXPERIENCE, Lesson
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.message import Role
from pointsman_server.domain.plan import Complexity, TokenEstimate
from pointsman_server.domain.ports import (
    CallWatch,
    Clock,
    DecisionLog,
    Ids,
    Ledger,
    Operation,
    Reservation,
    Telemetry,
    TokenCounter,
)
from pointsman_server.domain.record import DecisionRecord, PlanSummary, summarise
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.execution.admission import DeploymentPlaces
from pointsman_server.execution.agenda import busy_rejection
from pointsman_server.execution.decisions import DecisionBook
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.feedback import FeedbackBook
from pointsman_server.execution.governing import Governing, used_tokens, with_rejections
from pointsman_server.execution.guarding import Guards, restored
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.prepare import count_exactly, count_input, get_ready
from pointsman_server.execution.prompting import with_template
from pointsman_server.execution.recall import Recall, Recalled, candidate_of, recalled_completion, replayed
from pointsman_server.execution.second_look import SecondLooks
from pointsman_server.execution.second_opinions import SecondOpinions, Standing
from pointsman_server.execution.sessions import SessionBook
from pointsman_server.execution.settle import has_gaps, settle
from pointsman_server.execution.trust import confidence_in
from pointsman_server.execution.watching import watching


@dataclass(frozen=True, slots=True)
class Memory:
    """What the process remembers between calls: it shapes decisions, and none of it is part of a call."""

    health: HealthBoard
    places: DeploymentPlaces
    sessions: SessionBook
    feedback: FeedbackBook
    decisions: DecisionBook
    log: DecisionLog


class Pipeline:
    """Decides, calls and accounts. One for the process; holds no state of a call."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        judge: Callable[[CompletionRequest], Complexity],
        memory: Memory,
        governing: Governing,
        guards: Guards,
        ledger: Ledger,
        telemetry: Telemetry,
        counter: TokenCounter,
        clock: Clock,
        ids: Ids,
        recall: Recall | None = None,
        second_look: SecondLooks | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._judge = judge
        self._second_look = second_look or SecondLooks()
        self._memory = memory
        self._governing = governing
        self._guards = guards
        self._ledger = ledger
        self._telemetry = telemetry
        self._counter = counter
        self._clock = clock
        self._ids = ids
        self._recall = recall or Recall(clock)
        self._second_opinions = SecondOpinions(dispatcher, clock)

    async def route(self, call: Call) -> Decision:
        """The decision alone: nothing is called, nothing is spent. It can be named by a later call."""
        with watching(self._telemetry, call, Operation.ROUTE) as watch:
            call = await self._let_in(call, answers=False)
            decision = await self._decide(call)
            watch.decided(decision)
        self._memory.decisions.keep(decision, call)
        return decision

    async def complete(self, call: Call) -> Completion:
        """The whole answer."""
        with watching(self._telemetry, call, Operation.COMPLETE) as watch:
            call = await self._let_in(call, answers=True)
            watch.prepared(call)
            decision, recalled = await self._recall_and_decide(call, watch)
            async with aclosing(self._answer(call, decision, recalled, watch, stream=False)) as events:
                async for event in events:
                    if isinstance(event, Completed):
                        return event.completion
        raise AssertionError("an answer ends with Completed or an exception")

    async def stream(self, call: Call) -> AsyncGenerator[CallEvent, None]:
        """The decision, the answer piece by piece, and the whole answer at the end.

        The decision is told with the first piece, so that a call that comes to nothing is an error and nothing else.
        """
        with watching(self._telemetry, call, Operation.STREAM_COMPLETE) as watch:
            call = await self._let_in(call, answers=True)
            watch.prepared(call)
            decision, recalled = await self._recall_and_decide(call, watch)
            told = False
            async with aclosing(self._answer(call, decision, recalled, watch, stream=True)) as events:
                async for event in events:
                    if not told:
                        told = True
                        yield Decided(decision)
                    yield event

    async def policy_of(self, decision_id: str, tenant: str) -> str:
        """The version of the policy that a decision was made under, "" if it is not known, or not this tenant's."""
        await self._memory.decisions.look_up(decision_id, tenant)
        return self._memory.decisions.policy_version_of(decision_id)

    async def _let_in(self, call: Call, *, answers: bool) -> Call:
        """The call as it may go on: admitted, with its template filled in, and as the guards leave it."""
        await self._governing.admit(call, answers=answers)
        return await self._guards.guard(with_template(call))

    async def _recall_and_decide(self, call: Call, watch: CallWatch) -> tuple[Decision, Recalled]:
        """A cached answer is only given where whoever gave it might give it today, well or not: nobody is asked."""
        recalled = await self._recall.find(call, usable=call.guarded.is_clean)
        decision = await self._follow_or_decide(call, asks=recalled.answer is None)
        if recalled.answer is not None and candidate_of(recalled, decision) is None:
            recalled = recalled.miss
            decision = await self._follow_or_decide(call)
        watch.decided(decision)
        return decision, recalled

    async def _follow_or_decide(self, call: Call, *, asks: bool = True) -> Decision:
        if call.decision_id:
            return self._memory.decisions.redeem(call, self._view(call, asks=asks))
        return await self._decide(call, asks=asks)

    def _view(self, call: Call, *, asks: bool) -> HealthView:
        view = self._memory.health.view()
        if asks:
            view = with_rejections(view, {name: busy_rejection(name) for name in self._memory.places.full})
        else:
            view = replace(view, rejections={})
        return self._governing.view(view, call)

    async def _decide(self, call: Call, *, asks: bool = True) -> Decision:
        started_at = self._clock.monotonic()
        tokens = await count_input(call, self._counter)
        if call.request.session_id and _goes_on(call):
            await self._memory.sessions.look_up(_session_of(call))
        complexity = self._judge(call.request)
        if call.snapshot.second_look:
            complexity = await self._second_look.judge(call.request, complexity)
        circumstances = self._circumstances(call, tokens, complexity, asks=asks)
        decision_id = self._ids.new("dec")
        try:
            plan = decide(circumstances, call.snapshot)
        except RouterError as error:
            self._record(call, decision_id, circumstances, PlanSummary(refusal=type(error).__name__))
            raise
        self._record(call, decision_id, circumstances, summarise(plan))
        if self._clock.monotonic() >= call.deadline:
            raise DeadlineExceeded(Step.DECIDE)
        return Decision(decision_id, plan, self._clock.monotonic() - started_at, circumstances.facts.template)

    def _circumstances(self, call: Call, tokens: TokenEstimate, complexity: Complexity, *, asks: bool) -> Circumstances:
        experience = NO_EXPERIENCE
        if call.snapshot.learn_from_feedback:
            experience = self._memory.feedback.experience(complexity.task, complexity.tier)
        return Circumstances(
            facts=self._governing.facts(facts_of(call.request, complexity), call),
            tokens=tokens,
            health=self._view(call, asks=asks),
            experience=experience,
            session_deployment_id=self._memory.sessions.last_deployment_id(_session_of(call)),
            tenant=call.tenant,
        )

    def _record(self, call: Call, decision_id: str, circumstances: Circumstances, outcome: PlanSummary) -> None:
        if not self._governing.is_recorded(call):
            return
        version = call.snapshot.version
        record = DecisionRecord(decision_id, call.request_id, self._clock.now(), version, circumstances, outcome)
        self._memory.log.append(record)

    def _answer(
        self, call: Call, decision: Decision, recalled: Recalled, watch: CallWatch, *, stream: bool
    ) -> AsyncGenerator[CallEvent, None]:
        if recalled.answer is not None:
            return self._repeat(call, decision, recalled, watch)
        return self._ask(call, decision, recalled, watch, stream=stream)

    async def _repeat(
        self, call: Call, decision: Decision, recalled: Recalled, watch: CallWatch
    ) -> AsyncGenerator[CallEvent, None]:
        completion = self._judged(call, recalled_completion(call, decision, recalled))
        yield replayed(completion.reply)
        self._learn(call, completion)
        watch.completed(completion)
        yield Completed(completion)

    async def _ask(
        self, call: Call, decision: Decision, recalled: Recalled, watch: CallWatch, *, stream: bool
    ) -> AsyncGenerator[CallEvent, None]:
        attempts: list[Attempt] = []
        record, restorer = DispatchRecord(of_call=attempts), self._guards.restorer(call)
        worst_cost = max(candidate.worst_cost_micro_usd for candidate in decision.plan.candidates)
        charge = await self._governing.charge(call, decision)
        used: Sequence[Attempt] = attempts
        try:
            async with self._ledger.reserve(call, worst_cost) as reservation:
                try:
                    running = self._dispatcher.run(call, decision.plan, record, watch, reservation.cover, stream=stream)
                    watched = self._governing.watched(running, call, lambda: record.asking) if stream else running
                    watched = watched if restorer is None else restored(watched, restorer)
                    async with aclosing(watched) as events:
                        async for event in events:
                            yield event
                    settled = await self._settle(call, decision, record)
                    settled = await self._second_opinion(call, settled, attempts, watch, reservation, stream=stream)
                except BaseException:
                    reservation.settle(attempts)
                    raise
                if recalled.outcome is not settled.cache:
                    settled = replace(settled, cache=recalled.outcome)
                completion = self._guards.told(call, settled, restorer)
                reservation.settle(completion.attempts, estimated=completion.estimated)
                used = completion.attempts
        finally:
            charge.correct(used_tokens(used, decision.plan.input_tokens.tokens))
        self._remember(call, completion)
        self._keep(call, recalled, settled)
        watch.completed(completion)
        yield Completed(completion)

    async def _settle(self, call: Call, decision: Decision, record: DispatchRecord) -> Completion:
        if record.own is None:
            raise AssertionError("dispatch ends with an answer or an exception")
        counted = decision.plan.input_tokens
        if has_gaps(record.own.usage):
            await get_ready(self._counter)
            if record.own.usage.input_tokens is None and not counted.exact:
                counted = await count_exactly(call.request, self._counter)
        return settle(call, decision, record, self._counter, counted)

    def _keep(self, call: Call, recalled: Recalled, settled: Completion) -> None:
        """Into the cache, if it is fit for others; what the policy does about such answers has no say in that."""
        self._recall.keep(call, recalled, settled, unless=lambda: not self._guards.is_fit_to_keep(call, settled.reply))

    def _remember(self, call: Call, completion: Completion) -> None:
        self._memory.sessions.answered(_session_of(call), completion.answered_by.deployment.id)
        self._learn(call, completion)

    def _learn(self, call: Call, completion: Completion) -> None:
        recorded = call.snapshot.traces_of(call.tenant).records_all
        self._memory.feedback.answered(call.request_id, call.tenant, _lesson_of(completion), is_recorded=recorded)

    async def _second_opinion(
        self,
        call: Call,
        settled: Completion,
        attempts: list[Attempt],
        watch: CallWatch,
        reservation: Reservation,
        *,
        stream: bool,
    ) -> Completion:
        """The answer with its confidence: this one, or a better one where the policy has others asked.

        What was streamed stands.
        """
        if stream or not call.snapshot.confidence.asks_others(call.request.labels):
            return self._judged(call, settled)
        settle, judge = partial(self._settle, call, settled.decision), partial(self._judged, call)
        standing = Standing(call, settled, attempts, watch, reservation, settle, judge)
        return await self._second_opinions.best(standing)

    def _judged(self, call: Call, completion: Completion, agreement: float | None = None) -> Completion:
        own = self._memory.feedback.own(call.tenant, _lesson_of(completion))
        return replace(completion, confidence=confidence_in(call, completion, own, agreement))


def _lesson_of(completion: Completion) -> Lesson:
    complexity = completion.decision.plan.complexity
    return Lesson(completion.answered_by.deployment.model.id, complexity.task, complexity.tier)


def _goes_on(call: Call) -> bool:
    """Whether the conversation had an answer before."""
    return any(message.role is Role.ASSISTANT for message in call.request.messages)


def _session_of(call: Call) -> str:
    """The conversation, which is the tenant's own; "" when the call is part of none."""
    return f"{call.tenant}/{call.request.session_id}" if call.request.session_id else ""
