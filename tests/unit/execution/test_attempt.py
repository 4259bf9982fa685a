from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kit.catalog import deployment, price, request, user
from kit.clock import LoopClock, in_virtual_time
from kit.scripted import END, PING, Hang, ScriptedAdapter, Step, Wait, answers, says, used
from pointsman_server.domain.call import Attempt, AttemptOutcome, AttemptPurpose, FailoverMode
from pointsman_server.domain.catalog import Timeouts
from pointsman_server.domain.errors import DeadlineExceeded
from pointsman_server.domain.errors import Step as Journey
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    Identified,
    OpaqueDelta,
    ReasoningDelta,
    Reply,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from pointsman_server.domain.request import GenerationConfig
from pointsman_server.execution.attempt import (
    AFTER_END_SECONDS,
    BACKSTOP_SECONDS,
    RATE_WINDOW_SECONDS,
    Assignment,
    RunningAttempt,
    may_be_slow,
)

TIMEOUTS = Timeouts(first_token_seconds=10.0, idle_seconds=4.0, total_seconds=60.0)


@dataclass
class Ran:
    """What came of an attempt, and when."""

    adapter: ScriptedAdapter
    batches: list[Sequence[ReplyEvent]] = field(default_factory=list)
    error: Exception | None = None
    seconds: float = 0.0
    accounted: Attempt | None = None
    reply: Reply | None = None

    @property
    def fault(self) -> tuple[FaultKind, str]:
        """Kind and words of the fault that ended it."""
        assert isinstance(self.error, ProviderFault)
        return self.error.kind, self.error.detail

    @property
    def account(self) -> Attempt:
        """The account of the attempt, taken at its end."""
        assert self.accounted is not None
        return self.accounted

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        assert self.reply is not None
        return self.reply.text


def assignment(
    *, stream: bool = True, allowed: float = 60.0, deadline: float = 1e6, patience: float = 10.0, **changes: Any
) -> Assignment:
    fields: dict[str, Any] = {
        "deployment": deployment("d", of={"price": price(per_request_micro_usd=5)}, timeouts=TIMEOUTS),
        "purpose": AttemptPurpose.FIRST,
        "messages": request().messages,
        "generation": GenerationConfig(),
        "max_output_tokens": 77,
        "headers": {},
    }
    times = {"stream": stream, "allowed_seconds": allowed, "patience_seconds": patience, "deadline": deadline}
    return Assignment(**{**fields, **times, **changes})


def run(*steps: Step, **changes: Any) -> Ran:
    ran = Ran(ScriptedAdapter(steps))

    async def go() -> None:
        attempt = RunningAttempt(assignment(**changes), ran.adapter, LoopClock())
        try:
            batch: Sequence[ReplyEvent] | None = await attempt.begin()
            while batch is not None:
                ran.batches.append(batch)
                batch = await attempt.next()
        except (ProviderFault, DeadlineExceeded, RuntimeError) as error:
            ran.error = error
        await attempt.close()
        ran.seconds = asyncio.get_running_loop().time()
        outcome = AttemptOutcome.SUCCEEDED if ran.error is None else AttemptOutcome.FAILED
        ran.accounted = attempt.account(outcome, ran.error if isinstance(ran.error, ProviderFault) else None)
        ran.reply = attempt.builder.build()
        assert ran.adapter.open_exchanges == 0

    in_virtual_time(go())
    return ran


def pings(count: int, seconds: float) -> list[Step]:
    steps: list[Step] = [Wait(seconds), PING]
    return steps * count


class TestCall:
    def test_the_adapter_gets_what_it_needs(self) -> None:
        messages, generation = (user("hi"),), GenerationConfig(seed=3)
        headers = {"traceparent": "t"}
        ran = run(*answers("Hello"), allowed=20.0, messages=messages, generation=generation, headers=headers)
        (sent,) = ran.adapter.calls
        assert sent.deployment.id == "d"
        assert (sent.messages, sent.generation) == (messages, generation)
        assert (sent.max_output_tokens, sent.stream, sent.headers) == (77, True, {"traceparent": "t"})
        assert sent.timeout_seconds == 20.0 + BACKSTOP_SECONDS

    def test_batches_come_as_the_network_delivered_them_from_the_first_content_on(self) -> None:
        ran = run(PING, used(1, 0), says("Hel"), PING, says("lo"), END)
        assert ran.error is None
        assert ran.batches == [[*used(1, 0), *says("Hel")], PING, says("lo"), END]
        assert ran.text == "Hello"


class TestFirstToken:
    def test_it_must_come_in_time(self) -> None:
        ran = run(Wait(11.0), *answers("late"))
        assert ran.fault == (FaultKind.TIMEOUT, "no content within the time allowed")
        assert ran.seconds == 10.0

    def test_pings_do_not_help(self) -> None:
        ran = run(*pings(20, 1.0), *answers("late"))
        assert ran.fault[0] is FaultKind.TIMEOUT
        assert ran.seconds == 10.0

    @pytest.mark.parametrize(
        "event",
        [
            UsageReport(Usage(1)),
            Identified("r", "m"),
            CitationFound(Citation(url="u")),
        ],
        ids=lambda event: type(event).__name__,
    )
    def test_what_is_not_content_does_not_help(self, event: ReplyEvent) -> None:
        ran = run(Wait(6.0), (event,), Wait(6.0), *answers("late"))
        assert ran.fault[0] is FaultKind.TIMEOUT
        assert ran.seconds == 10.0
        assert ran.batches == []

    def test_it_is_measured(self) -> None:
        ran = run(Wait(1.5), PING, Wait(1.0), says("a"), Wait(3.0), END)
        assert ran.account.first_token_seconds == 2.5
        assert ran.account.latency_seconds == 5.5

    def test_a_whole_answer_has_none(self) -> None:
        ran = run(Wait(2.0), *answers("a"), stream=False)
        assert ran.account.first_token_seconds is None

    def test_an_answer_without_content_has_none(self) -> None:
        assert run(Wait(1.0), (Finished(FinishReason.LENGTH),)).account.first_token_seconds is None


class TestIdle:
    def test_the_next_content_must_come_in_time(self) -> None:
        ran = run(says("a"), Wait(4.5), says("b"), END)
        assert ran.fault == (FaultKind.STREAM_CUT, "the stream stood still for longer than idle_seconds")
        assert ran.seconds == 4.0

    def test_pings_do_not_help(self) -> None:
        ran = run(Wait(2.0), says("a"), *pings(10, 1.0), END)
        assert ran.fault[0] is FaultKind.STREAM_CUT
        assert ran.seconds == 6.0

    @pytest.mark.parametrize(
        "delta",
        [TextDelta(1, "b"), ReasoningDelta(1, "b"), ToolCallDelta(1, "i"), OpaqueDelta(1, "d", "k", "{}")],
        ids=lambda delta: type(delta).__name__,
    )
    def test_slow_but_alive_is_well(self, delta: ReplyEvent) -> None:
        slow: list[Step] = [Wait(3.9), (delta,)]
        ran = run(says("a"), *slow * 3, END)
        assert ran.error is None
        assert ran.seconds == pytest.approx(11.7)

    def test_a_silent_connection_is_given_up(self) -> None:
        ran = run(says("a"), Hang())
        assert ran.fault[0] is FaultKind.STREAM_CUT
        assert ran.seconds == 4.0

    def test_a_whole_answer_may_take_its_time(self) -> None:
        ran = run(Wait(30.0), says("a"), Wait(20.0), END, stream=False)
        assert ran.error is None
        assert ran.seconds == 50.0


class TestTotal:
    def test_a_stream_that_never_ends_is_ended(self) -> None:
        endless: list[Step] = [says("a"), Wait(1.0)]
        ran = run(*endless * 200, allowed=30.0)
        assert ran.fault == (FaultKind.STREAM_CUT, "the answer was not whole within the time allowed")
        assert ran.seconds == 30.0

    def test_a_whole_answer_must_come_within_it(self) -> None:
        ran = run(Hang(), stream=False, allowed=30.0)
        assert ran.fault == (FaultKind.TIMEOUT, "no content within the time allowed")
        assert ran.seconds == 30.0

    @pytest.mark.parametrize("steps", [(Hang(),), (says("a"), Hang())], ids=["before content", "after content"])
    @pytest.mark.parametrize("stream", [True, False])
    def test_the_callers_deadline_is_not_the_providers_fault(self, steps: tuple[Step, ...], stream: bool) -> None:
        ran = run(*steps, stream=stream, allowed=3.0, deadline=3.0)
        assert isinstance(ran.error, DeadlineExceeded)
        assert ran.error.step is Journey.DISPATCH
        assert ran.seconds == 3.0


class TestAfterEnd:
    def test_the_last_counts_are_waited_for(self) -> None:
        ran = run(says("a"), END, Wait(0.9), used(3, 4), Wait(0.9))
        assert ran.error is None
        assert ran.account.usage == Usage(3, output_tokens=4)

    def test_a_whole_answer_has_no_timers_between_its_pieces(self) -> None:
        ran = run(Wait(30.0), says("a"), Wait(20.0), END, Hang(), stream=False)
        assert (ran.error, ran.batches) == (None, [[*says("a"), *END]])
        assert ran.seconds == 50.0 + AFTER_END_SECONDS

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_connection_that_stays_open_does_not_hold_up_the_answer(self, stream: bool) -> None:
        ran = run(Wait(2.0), says("a"), END, Hang(), stream=stream)
        assert (ran.error, ran.text) == (None, "a")
        assert ran.seconds == 2.0 + AFTER_END_SECONDS

    def test_neither_do_pings(self) -> None:
        ran = run(says("a"), END, *pings(20, 0.3))
        assert ran.error is None
        assert ran.seconds == AFTER_END_SECONDS

    def test_the_callers_deadline_comes_too_late_to_matter(self) -> None:
        ran = run(says("a"), END, Hang(), allowed=0.5, deadline=0.5)
        assert (ran.error, ran.seconds) == (None, 0.5)


class TestEnd:
    def test_an_answer_without_its_end_is_cut(self) -> None:
        ran = run(says("Hello"))
        assert ran.fault == (FaultKind.STREAM_CUT, "the answer ended without the provider's end marker")

    def test_nothing_at_all_is_cut(self) -> None:
        assert run().fault[0] is FaultKind.STREAM_CUT

    @pytest.mark.parametrize(
        "reason",
        [FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.ERROR, FinishReason.UNKNOWN],
        ids=lambda reason: reason.value,
    )
    def test_an_answer_without_content_is_empty(self, reason: FinishReason) -> None:
        ran = run((Finished(reason),))
        assert ran.fault == (FaultKind.EMPTY_REPLY, "the provider gave an empty answer")

    @pytest.mark.parametrize(
        "reason",
        [
            FinishReason.LENGTH,
            FinishReason.CONTENT_FILTER,
            FinishReason.REFUSAL,
            FinishReason.PAUSE,
        ],
        ids=lambda reason: reason.value,
    )
    def test_some_ends_explain_why_there_is_none(self, reason: FinishReason) -> None:
        assert run((Finished(reason),)).error is None

    def test_a_fault_of_the_adapter_passes_through(self) -> None:
        fault = ProviderFault(FaultKind.RATE_LIMITED, "slow down", retry_after_seconds=2.0)
        ran = run(says("a"), fault)
        assert ran.fault == (FaultKind.RATE_LIMITED, "slow down")
        assert isinstance(ran.error, ProviderFault)
        assert ran.error.retry_after_seconds == 2.0

    def test_an_error_in_the_adapter_passes_through(self) -> None:
        assert isinstance(run(RuntimeError("bug")).error, RuntimeError)


class TestAccount:
    def test_the_reported_usage_is_priced(self) -> None:
        account = run(*answers("a")).account
        assert (account.deployment.id, account.outcome, account.fault) == ("d", AttemptOutcome.SUCCEEDED, None)
        assert account.usage == Usage(100, output_tokens=50)
        assert account.cost_micro_usd == 205

    @pytest.mark.parametrize(("tokens", "cost"), [((30, None), 35), ((None, 5), 15), ((None, None), 0)])
    def test_what_is_not_reported_costs_nothing(self, tokens: tuple[int | None, int | None], cost: int) -> None:
        account = run(says("a"), used(*tokens)).account
        assert account.outcome is AttemptOutcome.FAILED
        assert account.cost_micro_usd == cost

    def test_a_fault_is_kept(self) -> None:
        ran = run(ProviderFault(FaultKind.CONNECTION, "x"))
        assert ran.account.fault is ran.error
        assert ran.account.cost_micro_usd == 0


class TestSlowReaders:
    """What passes while nobody asks for more is not the provider's time."""

    @staticmethod
    def read_slowly(*steps: Step, pause: float, **changes: Any) -> tuple[str, float]:
        adapter = ScriptedAdapter(steps)

        async def go() -> tuple[str, float]:
            attempt = RunningAttempt(assignment(**changes), adapter, LoopClock())
            batch: Sequence[ReplyEvent] | None = await attempt.begin()
            while batch is not None:
                await asyncio.sleep(pause)
                batch = await attempt.next()
            await attempt.close()
            return attempt.builder.build().text, asyncio.get_running_loop().time()

        return in_virtual_time(go())

    def test_a_pause_longer_than_idle_seconds_hurts_nobody(self) -> None:
        text, seconds = self.read_slowly(says("a"), Wait(1.0), says("b"), Wait(3.9), says("c"), END, pause=6.0)
        assert (text, seconds) == ("abc", 4 * 6.0 + 4.9)

    def test_nor_does_it_make_a_stream_slow(self) -> None:
        pieces: list[Step] = [says("x" * 8), Wait(2.0)]
        text, _ = self.read_slowly(*pieces * 10, END, pause=3.0, deployment=TestPace.CREEPING, may_be_slow=False)
        assert text == "x" * 80

    def test_silence_that_follows_still_counts(self) -> None:
        with pytest.raises(ProviderFault, match="stood still"):
            self.read_slowly(says("a"), Wait(4.5), says("b"), END, pause=6.0)

    def test_pings_still_do_not_help(self) -> None:
        with pytest.raises(ProviderFault, match="stood still"):
            self.read_slowly(says("a"), *pings(20, 1.0), END, pause=0.5)


class TestPace:
    CREEPING = deployment("d", timeouts=replace(TIMEOUTS, least_tokens_per_second=1.0))

    def creep(self, characters: int, **changes: Any) -> Ran:
        """So many characters every two seconds, for half a minute."""
        slow: list[Step] = [says("x" * characters), Wait(2.0)]
        return run(*slow * 15, END, deployment=self.CREEPING, **changes)

    def test_a_stream_that_creeps_is_given_up(self) -> None:
        ran = self.creep(7, may_be_slow=False)
        assert ran.fault == (FaultKind.TOO_SLOW, "the stream brings less than least_tokens_per_second")
        assert ran.seconds == RATE_WINDOW_SECONDS

    def test_one_that_is_fast_enough_is_not(self) -> None:
        assert self.creep(8, may_be_slow=False).error is None

    def test_nor_one_that_may_be_slow(self) -> None:
        assert self.creep(1).error is None

    def test_nor_a_deployment_without_a_least_pace(self) -> None:
        slow: list[Step] = [says("x"), Wait(3.0)]
        assert run(*slow * 15, END, may_be_slow=False).error is None

    def test_arguments_and_reasoning_count(self) -> None:
        pieces = (
            (ToolCallDelta("t", arguments_json="x" * 8),),
            (ReasoningDelta("r", "x" * 8),),
            (TextDelta(0, "x" * 8),),
        )
        steps: list[Step] = [step for piece in pieces for step in (piece, Wait(2.0))]
        assert run(*steps * 5, END, deployment=self.CREEPING, may_be_slow=False).error is None

    def test_an_answer_that_came_late_but_whole_is_taken(self) -> None:
        ran = run(
            says("a"),
            Wait(3.9),
            says("b"),
            Wait(3.9),
            says("c"),
            Wait(3.9),
            END,
            deployment=self.CREEPING,
            may_be_slow=False,
        )
        assert (ran.error, ran.text) == (None, "abc")

    @pytest.mark.parametrize(
        ("failover", "least", "expected"),
        [
            (FailoverMode.TERMINATE, 1.0, True),
            (FailoverMode.CONTINUE, 1.0, False),
            (FailoverMode.RESTART, 1.0, False),
            (FailoverMode.CONTINUE, 0.0, True),
        ],
    )
    def test_slowness_matters_where_somebody_could_take_over(
        self, failover: FailoverMode, least: float, expected: bool
    ) -> None:
        one = deployment("d", timeouts=replace(TIMEOUTS, least_tokens_per_second=least))
        assert may_be_slow(one, failover) is expected


def test_leaving_in_the_middle_closes_the_adapters_generator() -> None:
    adapter = ScriptedAdapter([says("a"), says("b"), Hang()])

    async def go() -> None:
        attempt = RunningAttempt(assignment(), adapter, LoopClock())
        await attempt.begin()
        assert adapter.open_exchanges == 1
        await attempt.close()
        assert adapter.open_exchanges == 0
        await attempt.close()

    in_virtual_time(go())
