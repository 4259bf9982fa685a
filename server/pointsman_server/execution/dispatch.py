"""The only loop over attempts: retry, fallback, hedge, failover, repair, until an answer stands or nobody is left."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from pointsman_server.domain.call import AttemptPurpose, Call, FailedOver, Relay
from pointsman_server.domain.errors import BudgetExceeded, DeadlineExceeded, LedgerUnavailable
from pointsman_server.domain.plan import RoutePlan
from pointsman_server.domain.ports import AnswerChecker, CallWatch, Clock, ProviderAdapter, TokenCounter
from pointsman_server.execution.agenda import Doorkeepers
from pointsman_server.execution.course import Course, Cover
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.journal import Equipment


class Dispatcher:
    """Asks the candidates of a plan. One for the process; `record` belongs to one call."""

    def __init__(
        self,
        adapters: Mapping[str, ProviderAdapter],
        keepers: Doorkeepers,
        checker: AnswerChecker,
        counter: TokenCounter,
        clock: Clock,
    ) -> None:
        self._equipment = Equipment(adapters, keepers, checker, counter, clock)

    async def run(
        self,
        call: Call,
        plan: RoutePlan,
        record: DispatchRecord,
        watch: CallWatch,
        cover: Cover,
        *,
        stream: bool,
        favour: AttemptPurpose | None = None,
    ) -> AsyncGenerator[Relay | FailedOver, None]:
        """The answer as it comes (nothing but its end when not streaming); `record` tells the rest.

        `cover` sets money aside for all attempts together; the first one's is set aside beforehand, unless it is a
        `favour`: one attempt for this purpose and no more, beside an answer that stands already.
        Raises `AttemptsFailed`, `StreamInterrupted`, `AnswerInvalid`, `DeadlineExceeded`, what `cover` raises or, when
        not one attempt could be made, `Overloaded` or `NobodyHealthy`.
        """
        course = Course(call, plan, record, watch, cover, self._equipment, stream=stream, favour=favour)
        try:
            while (turn := await course.next_turn()) is not None:
                begun = await course.begin(turn)
                if begun is not None:
                    async for event in course.relay(begun):
                        yield event
                if record.reply is not None:
                    return
                if not course.goes_on:
                    break
            raise await course.failure() from course.last_fault
        except (BudgetExceeded, LedgerUnavailable) as error:
            raise await course.unaffordable(error) from error
        except DeadlineExceeded as error:
            error.attempts = record.failures
            raise
        finally:
            await course.end_all()
