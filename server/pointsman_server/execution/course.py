"""The course of one call through its attempts: what each is asked, what the caller is told, what follows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose, Call, FailedOver, FailoverMode, Relay
from pointsman_server.domain.errors import (
    AnswerInvalid,
    AttemptsFailed,
    BudgetExceeded,
    LedgerUnavailable,
    RouterError,
    StreamInterrupted,
)
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import TextPart
from pointsman_server.domain.plan import Candidate, RoutePlan
from pointsman_server.domain.ports import CallWatch, Operation
from pointsman_server.domain.reply import CONTENT_DELTAS, ContentDelta, Reply, ReplyBuilder, ReplyEvent, merge_deltas
from pointsman_server.execution.agenda import Agenda, Turn
from pointsman_server.execution.attempt import RunningAttempt
from pointsman_server.execution.briefing import Briefing
from pointsman_server.execution.continuation import may_continue, open_seam, says_nothing
from pointsman_server.execution.continued import ContinuedAnswer
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.hedging import Racer, hedge_delay_seconds, race
from pointsman_server.execution.journal import Equipment, Journal
from pointsman_server.execution.packing import Packing
from pointsman_server.execution.prepare import get_ready
from pointsman_server.execution.repair import needs_check
from pointsman_server.execution.settle import count_output_tokens

_NOT_JSON_ALONE = "(root): the answer stands in a code fence, which is no part of JSON"


Cover = Callable[[int], Awaitable[None]]
"""Sets aside what a call may cost in all, in micro-USD; raises `BudgetExceeded` or `LedgerUnavailable`."""


class Begun(NamedTuple):
    """An attempt that has its first content, or all of it when it does not stream, with what came so far."""

    attempt: RunningAttempt
    events: Sequence[ReplyEvent]


class Invalid(NamedTuple):
    """An answer that does not fit the request's schema."""

    candidate: Candidate
    reply: Reply
    violations: tuple[str, ...]


class Course:
    """The state of one dispatch: what the caller was sent of the answer, and by whom."""

    def __init__(
        self,
        call: Call,
        plan: RoutePlan,
        record: DispatchRecord,
        watch: CallWatch,
        cover: Cover,
        equipment: Equipment,
        *,
        stream: bool,
        favour: AttemptPurpose | None = None,
    ) -> None:
        self.last_fault: ProviderFault | None = None
        self._favour = favour
        self._call = call
        self._record = record
        self._watch = watch
        self._cover = cover
        self._equipment = equipment
        self._stream = stream
        self._agenda = Agenda(
            call, plan, record.attempts, equipment.keepers, equipment.clock, _operation(call, stream=stream)
        )
        self._journal = Journal(call, plan, record, watch, equipment)
        packing = Packing(call, equipment.counter, record.packed)
        self._briefing = Briefing(call, self._agenda, packing, equipment.clock, stream=stream)
        self._teller: RunningAttempt | None = None
        self._told = ReplyBuilder()
        self._kept: Reply | None = None
        self._continued: ContinuedAnswer | None = None
        self._invalid: Invalid | None = None
        if favour is None:
            equipment.keepers.retries.called()
            equipment.keepers.hedges.called()

    async def next_turn(self) -> Turn | None:
        """Who is asked next, None when nobody can be."""
        if self._invalid is not None:
            return self._agenda.same(self._invalid.candidate, AttemptPurpose.REPAIR)
        return await self._agenda.next(AttemptPurpose.CONTINUATION if self._kept is not None else self._favour)

    async def begin(self, turn: Turn) -> Begun | None:
        """Starts an attempt and waits until it has something to say; None when it failed, and its hedge with it.

        Raises what `cover` raises, when no money can be set aside for it.
        """
        await self._make_ready(turn)
        lead = self._start(turn)
        delay_seconds = None
        may_hedge = self._stream and turn.purpose in (AttemptPurpose.FIRST, AttemptPurpose.FALLBACK)
        if may_hedge and self._equipment.keepers.may_hedge(self._call.tenant):
            policy = self._call.snapshot.resilience.hedging
            delay_seconds = hedge_delay_seconds(policy, self._equipment.keepers.health, lead.deployment)
        if delay_seconds is None:
            return await self._until_content(lead)
        return await self._hedged(lead, delay_seconds)

    async def relay(self, begun: Begun) -> AsyncGenerator[Relay | FailedOver, None]:
        """What the caller is told of this attempt, to its end; the record has the answer when it was a good one."""
        attempt, events = begun
        try:
            if self._stream:
                for event in self._tell(attempt, events):
                    yield event
                async for event in self._tell_rest(attempt):
                    yield event
            reply = self._finished(attempt)
            if self._teller is not None and self._teller is not attempt:
                # It had nothing to add, or nothing at all to say: what is shown of another's answer may not stand.
                yield self._moved_to(attempt, self._teller)
        except ProviderFault as fault:
            await self._failed(attempt, fault)
            return
        self._record.answered_by, self._record.cut_at = self._journal.turn_of(attempt).candidate, attempt.cut_at
        await self._journal.end(attempt, AttemptOutcome.SUCCEEDED)
        self._record.reply, self._record.own = reply, attempt.builder.build() if self._continued else reply

    @property
    def goes_on(self) -> bool:
        """Whether another attempt may follow the one that failed last."""
        if self._favour is not None:
            return False
        if self._invalid is not None:
            return not self._stream and self._repairs == 0
        # Of two that raced, the one that failed first may have said that nobody else needs to be asked.
        if any(one.fault is not None and not one.fault.rule.try_next for one in self._record.attempts):
            return False
        if self._teller is None or self._call.failover is FailoverMode.RESTART:
            return True
        if self._call.failover is FailoverMode.TERMINATE:
            return False
        return self._kept is not None or says_nothing(self._told.build())

    async def failure(self) -> RouterError:
        """What the caller is told when no answer stands."""
        if not self._record.attempts:
            return self._agenda.nobody(sheds=self._favour is None)
        if self._invalid is not None:
            return await self._answer_invalid(self._invalid)
        if self._teller is not None:
            tokens = await self._count(self._told.build())
            return StreamInterrupted(self._record.failures, tokens, self._record.cost_micro_usd)
        waits = [a.fault.retry_after_seconds for a in self._record.attempts if a.fault and a.fault.retry_after_seconds]
        return AttemptsFailed(self._record.failures, min(waits, default=None))

    async def unaffordable(self, error: RouterError) -> RouterError:
        """What the caller is told when there was no money for another attempt: what it has of an answer goes first."""
        if self._teller is None and self._invalid is None:
            return error
        return await self.failure()

    async def end_all(self) -> None:
        """Hangs up on whatever still runs."""
        await self._journal.end_all()

    @property
    def _repairs(self) -> int:
        return sum(attempt.purpose is AttemptPurpose.REPAIR for attempt in self._record.attempts)

    async def _make_ready(self, turn: Turn) -> None:
        """Does for an attempt what has to be waited for; the turn is given up when that comes to nothing."""
        try:
            await self._afford(turn)
            invalid = self._invalid.reply if self._invalid is not None else None
            await self._briefing.get_ready(turn, self._kept, invalid)
        except BaseException:
            self._agenda.give_up(turn)
            raise

    async def _afford(self, turn: Turn) -> None:
        """Sets money aside for one more attempt beside those that were billed and those that run."""
        if not self._record.attempts and not self._record.asking and self._favour is None:
            return
        worst_micro_usd = turn.candidate.worst_cost_micro_usd
        if turn.purpose is AttemptPurpose.REPAIR:
            # It reads the invalid answer as well, which is at most as long as the longest one and priced no higher.
            worst_micro_usd *= 2
        await self._cover(self._record.cost_micro_usd + self._journal.worst_cost_micro_usd + worst_micro_usd)

    def _start(self, turn: Turn) -> RunningAttempt:
        watch = self._journal.watch(turn)
        self._continued = None
        if turn.purpose is AttemptPurpose.CONTINUATION and self._kept is not None:
            seam = open_seam(self._call.request, self._kept, turn.candidate.deployment)
            self._continued = ContinuedAnswer(self._kept, seam)
            work = self._briefing.continuation(turn, watch.headers, self._kept)
        elif turn.purpose is AttemptPurpose.REPAIR and self._invalid is not None:
            work = self._briefing.repair(turn, watch.headers, self._invalid.reply, self._invalid.violations)
        else:
            work = self._briefing.first(turn, watch.headers)
        return self._journal.start(turn, watch, work)

    async def _until_content(self, attempt: RunningAttempt) -> Begun | None:
        try:
            return Begun(attempt, await attempt.begin())
        except ProviderFault as fault:
            await self._failed(attempt, fault)
            return None

    async def _hedged(self, lead: RunningAttempt, delay_seconds: float) -> Begun | None:
        begun: list[Begun] = []

        def racer(attempt: RunningAttempt) -> Racer:
            async def run() -> bool:
                came = await self._until_content(attempt)
                begun.extend([came] if came is not None else [])
                return came is not None

            return run

        async def second() -> Racer | None:
            turn = self._agenda.hedge()
            if turn is None:
                return None
            try:
                await self._make_ready(turn)
            except (BudgetExceeded, LedgerUnavailable):
                return None  # company is a favour: for want of money the lead goes on alone
            if begun:
                self._agenda.give_up(turn)
                return None
            return racer(self._start(turn))

        if not await race(racer(lead), delay_seconds, second, self._equipment.keepers.telemetry):
            return None
        await self._journal.end_all(but=begun[0].attempt)
        return begun[0]

    def _tell(self, attempt: RunningAttempt, events: Sequence[ReplyEvent]) -> Iterator[Relay | FailedOver]:
        if self._continued is not None:
            return self._say(attempt, self._continued.builder, self._continued.take(events))
        return self._say(attempt, attempt.builder, _deltas_of(events))

    async def _tell_rest(self, attempt: RunningAttempt) -> AsyncGenerator[Relay | FailedOver, None]:
        if attempt.stream:
            while (events := await attempt.next()) is not None:
                for event in self._tell(attempt, events):
                    yield event
        if self._continued is not None:
            for event in self._say(attempt, self._continued.builder, self._continued.end()):
                yield event

    def _say(
        self, attempt: RunningAttempt, builder: ReplyBuilder, deltas: Sequence[ContentDelta]
    ) -> Iterator[Relay | FailedOver]:
        if not deltas:
            return
        if self._teller is not attempt:
            if self._teller is None:
                self._watch.first_content()
            else:
                yield self._moved_to(attempt, self._teller)
            self._teller, self._told = attempt, builder
        yield Relay(tuple((builder.index_of(delta.key), delta) for delta in deltas))

    def _moved_to(self, attempt: RunningAttempt, teller: RunningAttempt) -> FailedOver:
        kept = len(self._kept.text) if self._kept is not None else 0
        return FailedOver(teller.deployment.id, attempt.deployment.id, self._call.failover, kept)

    def _finished(self, attempt: RunningAttempt) -> Reply:
        """The whole answer; raises `ProviderFault` ANSWER_INVALID when it does not fit the request's schema."""
        reply = attempt.builder.build()
        if self._continued is not None:
            whole = self._continued.builder.build()
            return replace(reply, parts=whole.parts, citations=whole.citations)
        schema = self._call.request.generation.response_schema
        if schema is None or not needs_check(self._call.request, reply):
            return reply
        checked = self._equipment.checker.check(schema, reply.text)
        violations = checked.violations
        if self._stream and checked.normalised_text != reply.text:
            violations = (*violations, _NOT_JSON_ALONE)
        if violations:
            self._invalid = Invalid(self._journal.turn_of(attempt).candidate, reply, violations)
            raise ProviderFault(FaultKind.ANSWER_INVALID, "the answer does not fit the response_schema")
        self._record.schema_checked = checked.schema_checked
        return reply if self._stream else _with_text(reply, checked.normalised_text)

    async def _failed(self, attempt: RunningAttempt, fault: ProviderFault) -> None:
        self.last_fault = fault
        await self._journal.end(attempt, AttemptOutcome.FAILED, fault)
        self._agenda.failed(attempt.deployment, fault)
        if self._teller is attempt and self._call.failover is FailoverMode.CONTINUE:
            told = self._told.build()
            self._kept = told if may_continue(self._call.request, told) else None
            if self._kept is not None:
                self._record.kept_from.append(self._record.attempts[-1])

    async def _answer_invalid(self, invalid: Invalid) -> AnswerInvalid:
        return AnswerInvalid(
            self._record.failures,
            text=invalid.reply.text,
            violations=invalid.violations,
            output_tokens=await self._count(invalid.reply),
            cost_micro_usd=self._record.cost_micro_usd,
            streamed=self._stream,
        )

    async def _count(self, reply: Reply) -> int:
        await get_ready(self._equipment.counter)
        return count_output_tokens(reply, self._equipment.counter)


def _operation(call: Call, *, stream: bool) -> Operation:
    if call.embedding is not None:
        return Operation.EMBED
    return Operation.STREAM_COMPLETE if stream else Operation.COMPLETE


def _deltas_of(events: Sequence[ReplyEvent]) -> list[ContentDelta]:
    merged = merge_deltas(events) if len(events) > 1 else events
    return [event for event in merged if isinstance(event, CONTENT_DELTAS)]


def _with_text(reply: Reply, text: str) -> Reply:
    """The answer with this text in place of its own, where its first text stands, when that differs."""
    if text == reply.text:
        return reply
    texts = [place for place, part in enumerate(reply.parts) if isinstance(part, TextPart)]
    parts = tuple(
        TextPart(text) if place == texts[0] else part
        for place, part in enumerate(reply.parts)
        if place not in texts[1:]
    )
    # The places of sources counted from where something was taken out.
    unplaced = tuple(replace(citation, start_index=-1, end_index=-1) for citation in reply.citations)
    return replace(reply, parts=parts, citations=unplaced)
