"""Asking others about an answer that stands: a cheap model for comparison, a stronger one where confidence is low.

Both are favours: each is one attempt, inside the call's reservation and deadline, and whatever becomes of it, the
answer that stands is there to be given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog

from pointsman_server.decision.agreement import agreement
from pointsman_server.domain.call import Attempt, AttemptPurpose, Call, Completion, Warning
from pointsman_server.domain.errors import RouterError
from pointsman_server.domain.message import ToolCallPart
from pointsman_server.domain.plan import Candidate
from pointsman_server.domain.ports import CallWatch, Clock, Reservation
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.prepare import cost_cap_micro_usd
from pointsman_server.execution.warnings import about_escalation

ANSWER_SECONDS = 0.25
"""What is kept of the call's time for passing on the answer that stands."""

_LOG = structlog.stdlib.get_logger("pointsman.confidence")


@dataclass(frozen=True, slots=True)
class Standing:
    """A whole answer that could be given, and what it takes to ask others.

    `attempts` are all of the call so far, as the ledger will have them; it grows. `settle` makes an answer of what a
    dispatch came to, `judge` states the confidence in it, given how much another model agrees.
    """

    call: Call
    completion: Completion
    attempts: list[Attempt]
    watch: CallWatch
    reservation: Reservation
    settle: Callable[[DispatchRecord], Awaitable[Completion]]
    judge: Callable[[Completion, float | None], Completion]

    @property
    def cost_micro_usd(self) -> int:
        """What was spent so far."""
        return sum(one.cost_micro_usd for one in self.attempts)


class SecondOpinions:
    """Does what the policy's `confidence` section asks for. One for the process; holds no state of a call."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock

    async def best(self, standing: Standing) -> Completion:
        """The answer to be given, with its confidence, the cost of all attempts, and its own attempt at the end."""
        first = standing.completion
        _enter(first, standing)
        if not _can_be_doubted(standing):
            return standing.judge(first, None)
        other = await self._compared(standing)
        first = standing.judge(first, _agreement(first, other))
        stronger = await self._stronger(standing, first)
        if stronger is not None:
            stronger = standing.judge(stronger, _agreement(stronger, other))
            if _score(stronger) >= _score(first):
                return _with_account(replace(stronger, warnings=_warnings(first, stronger)), standing)
        return _with_account(first, standing)

    async def _compared(self, standing: Standing) -> Completion | None:
        """Another model's answer to the same."""
        policy = standing.call.snapshot.confidence
        if not policy.cross_checks(standing.call.request.labels) or not standing.completion.reply.text.strip():
            return None
        own_model = standing.completion.answered_by.deployment.model.id
        others = tuple(
            one
            for one in self._askable(standing)
            if one.deployment.id == policy.cross_check_with and one.deployment.model.id != own_model
        )
        return await self._ask(standing, others, AttemptPurpose.CROSS_CHECK)

    async def _stronger(self, standing: Standing, first: Completion) -> Completion | None:
        """The answer of the plan's next candidate of a higher tier, where the first one's confidence is too low."""
        threshold = standing.call.snapshot.confidence.escalate_below
        request = standing.call.request
        if threshold is None or _score(first) >= threshold or request.deployment or request.tier is not None:
            return None
        tier = first.answered_by.deployment.model.tier
        stronger = tuple(one for one in self._askable(standing) if one.deployment.model.tier > tier)
        return await self._ask(standing, stronger, AttemptPurpose.ESCALATION)

    def _askable(self, standing: Standing) -> Iterator[Candidate]:
        """Candidates that were not asked yet, and for which time and the call's own cost cap suffice."""
        call, first = standing.call, standing.completion
        asked = {one.deployment.id for one in standing.attempts}
        cap = cost_cap_micro_usd(call)
        left_seconds = call.deadline - ANSWER_SECONDS - self._clock.monotonic()
        for one in first.decision.plan.candidates:
            writing_seconds = (first.usage.output_tokens or 0) / one.deployment.expected_tokens_per_second
            is_slow = one.expected_first_token_seconds + writing_seconds > left_seconds
            is_dear = cap is not None and standing.cost_micro_usd + one.worst_cost_micro_usd > cap
            if not (one.deployment.id in asked or one.deployment.is_last_resort or is_slow or is_dear):
                yield one

    async def _ask(
        self, standing: Standing, candidates: tuple[Candidate, ...], purpose: AttemptPurpose
    ) -> Completion | None:
        """The answer of the first of these that can be asked, None where none came; no more than one is asked."""
        if not candidates:
            return None
        call = replace(standing.call, deadline=standing.call.deadline - ANSWER_SECONDS)
        plan = replace(standing.completion.decision.plan, candidates=candidates)
        record, spent_micro_usd = DispatchRecord(of_call=standing.attempts), standing.cost_micro_usd

        async def cover(cost_micro_usd: int) -> None:
            await standing.reservation.cover(spent_micro_usd + cost_micro_usd)

        running = self._dispatcher.run(call, plan, record, standing.watch, cover, stream=False, favour=purpose)
        try:
            async with aclosing(running) as events:
                async for _ in events:
                    raise AssertionError("nothing comes before the end where nothing is streamed")
            completion = await standing.settle(record)
        except RouterError:
            return None
        except Exception as error:
            # Its type alone: what an exception says may quote the answer.
            _LOG.error("second_opinion_failed", request_id=call.request_id, error=type(error).__name__)
            return None
        _enter(completion, standing)
        return completion


def _can_be_doubted(standing: Standing) -> bool:
    """Calls of tools are for the caller to carry out; what answers without a model comes when others could not."""
    completion = standing.completion
    calls_tools = any(isinstance(part, ToolCallPart) for part in completion.reply.parts)
    return not calls_tools and not completion.answered_by.deployment.is_last_resort


def _agreement(completion: Completion, other: Completion | None) -> float | None:
    return None if other is None else agreement(completion.reply.text, other.reply.text)


def _score(completion: Completion) -> float:
    if completion.confidence is None:
        raise AssertionError("an answer is judged before it is compared")
    return completion.confidence.score


def _enter(completion: Completion, standing: Standing) -> None:
    """Puts counts that the provider left out into the account, for whatever becomes of the call."""
    filled = completion.attempts[-1]
    if filled.estimated is not completion.estimated:
        filled = replace(filled, estimated=completion.estimated)
    told = standing.attempts[-1]
    if filled.deployment is not told.deployment:
        raise AssertionError("the attempt that answered ended last")
    standing.attempts[-1] = filled


def _with_account(completion: Completion, standing: Standing) -> Completion:
    attempts = list(standing.attempts)
    answering = completion.answered_by.deployment.id
    last = max(place for place, one in enumerate(attempts) if one.deployment.id == answering)
    attempts.append(attempts.pop(last))
    return replace(completion, attempts=tuple(attempts), cost_micro_usd=standing.cost_micro_usd)


def _warnings(first: Completion, stronger: Completion) -> tuple[Warning, ...]:
    return (*stronger.warnings, about_escalation(first.answered_by.deployment, stronger.answered_by.deployment))
