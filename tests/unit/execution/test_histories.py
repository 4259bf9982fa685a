"""Many calls at once and one after the other, random callers, providers in changing moods, in virtual time.

What is checked at every step stands in kit/reference.py and kit/persistence.py, what every call is promised in
kit/promises.py. Set TEST_HISTORIES to play more of them, TEST_HISTORY_SEED to play one again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import pytest
import structlog

from kit.clock import in_virtual_time
from kit.histories import play, plot
from kit.promises import HEDGE
from kit.stage import Stage
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.errors import (
    AnswerInvalid,
    AttemptsFailed,
    DeadlineExceeded,
    NobodyHealthy,
    Overloaded,
    StreamInterrupted,
)
from pointsman_server.domain.faults import FaultKind

HISTORIES = int(os.environ.get("TEST_HISTORIES", "10000"))
REPLAYED = os.environ.get("TEST_HISTORY_SEED")

pytestmark = pytest.mark.slow

_CHUNKS = 40
_SEEDS = [range(chunk, HISTORIES, _CHUNKS) for chunk in range(_CHUNKS)] if REPLAYED is None else [[int(REPLAYED)]]


def history(seed: int) -> Stage:
    """Plays the history with this seed; what goes wrong in it is told with the seed."""
    try:
        return in_virtual_time(play(plot(seed)))
    except Exception as error:
        raise AssertionError(f"TEST_HISTORY_SEED={seed} plays this again: {error}") from error


@pytest.fixture(autouse=True)
def _silent_log() -> Iterable[None]:
    """Thousands of breakers open here; nobody reads of it."""
    with structlog.testing.capture_logs():
        yield


@pytest.mark.parametrize("seeds", _SEEDS, ids=lambda seeds: f"from-{seeds[0]}")
def test_every_history_keeps_every_promise(seeds: Iterable[int]) -> None:
    for seed in seeds:
        history(seed)


def test_the_same_seed_is_the_same_history() -> None:
    for seed in range(50):
        assert history(seed).referee.log == history(seed).referee.log


def test_histories_come_to_everything_that_is_promised_about() -> None:
    """What never happens is never checked either."""
    happened: Counter[object] = Counter()
    for seed in range(600):
        stage = history(seed)
        happened["opened by rate"] += stage.referee.openings_by_rate
        happened["opened"] += stage.referee.openings
        happened["hedge won"] += sum(stage.telemetry.hedges)
        for call in stage.calls:
            happened["left" if call.left else type(call.error)] += 1
            happened.update(attempt.purpose for attempt in call.attempts)
            happened.update(one.fault.kind for one in call.record.attempts if one.fault is not None)
    ends = (AnswerInvalid, AttemptsFailed, DeadlineExceeded, NobodyHealthy, Overloaded, StreamInterrupted, type(None))
    favours = {AttemptPurpose.ESCALATION, AttemptPurpose.CROSS_CHECK}  # asked beside an answer, not by a dispatch
    purposes = [purpose for purpose in AttemptPurpose if purpose not in favours]
    expected = (*ends, *purposes, *FaultKind, "left", "opened", "opened by rate", "hedge won")
    assert [one for one in expected if happened[one] < 5] == []
    assert happened[HEDGE] >= 50
