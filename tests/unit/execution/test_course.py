"""What the caller is told when the answer moves to another deployment, in the cases that are easily forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kit.catalog import deployment
from kit.dispatching import Dispatched, dispatch
from kit.scripted import Hang, Step, Wait, answers, says
from pointsman_server.domain.call import FailedOver, FailoverMode
from pointsman_server.domain.catalog import Timeouts
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.reply import Finished, FinishReason

CONTINUE, RESTART = FailoverMode.CONTINUE, FailoverMode.RESTART
DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
TIMEOUTS = Timeouts(first_token_seconds=10.0, idle_seconds=4.0, least_tokens_per_second=1.0)
REFUSES: Sequence[Step] = ((Finished(FinishReason.REFUSAL, "refusal"),),)
CREEPS: Sequence[Step] = [step for n in range(20) for step in (says(f"{n} "), Wait(2.0))]


def streamed(first: Sequence[Step], second: Sequence[Step], failover: FailoverMode) -> Dispatched:
    both = [(deployment("a", timeouts=TIMEOUTS), first), (deployment("b", timeouts=TIMEOUTS), second)]
    return dispatch(both, stream=True, failover=failover)


def test_what_a_creeping_stream_brought_last_is_not_lost() -> None:
    ran = streamed(CREEPS, answers("and the rest"), CONTINUE)
    assert [attempt.fault and attempt.fault.kind for attempt in ran.record.attempts] == [FaultKind.TOO_SLOW, None]
    assert ran.failovers == [FailedOver("a", "b", CONTINUE, len("0 1 2 3 4 5 "))]
    pieces = [event for event in ran.events if not isinstance(event, FailedOver)]
    assert "".join(getattr(delta, "text", "") for event in pieces for _, delta in event.deltas) == ran.text
    assert ran.text == "0 1 2 3 4 5 and the rest"


@pytest.mark.parametrize(("failover", "kept"), [(RESTART, ""), (CONTINUE, "half")])
def test_an_answer_that_adds_nothing_is_told_as_a_move_too(failover: FailoverMode, kept: str) -> None:
    """Otherwise a caller who is told nothing shows half an answer of somebody else, and takes it for this one."""
    ran = streamed((says("half"), DOWN), REFUSES, failover)
    assert ran.text == kept
    assert ran.events[1:] == [FailedOver("a", "b", failover, len(kept))]


def test_one_that_falls_silent_in_the_middle_is_gone_on_from() -> None:
    assert streamed((says("One "), Hang()), answers("two"), CONTINUE).text == "One two"
