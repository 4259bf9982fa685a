from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.boards import UNAVAILABLE, Board
from kit.catalog import deployment
from kit.clock import FakeClock
from kit.properties import examples
from pointsman_server.domain.faults import FAULT_RULES, FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.plan import ExclusionReason, Rejection
from pointsman_server.domain.resilience import BreakerPolicy
from pointsman_server.execution.health import Admission

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
ACCOUNT = [FaultKind.AUTH, FaultKind.QUOTA]


@dataclass
class Outage:
    """A primary that is down from 60 s to 120 s, one request every 4 s, and a second deployment that always answers."""

    offset_seconds: float
    tries_at_once: int
    board: Board = field(default_factory=lambda: Board(clock=FakeClock(monotonic=0.0)))
    on_primary: list[float] = field(default_factory=list)
    answered_by: list[tuple[float, str]] = field(default_factory=list)

    def is_down(self) -> bool:
        return 60.0 <= self.board.clock.monotonic() < 120.0

    def run(self, seconds: float = 400.0) -> Outage:
        self.board.clock.advance(self.offset_seconds)
        while self.board.clock.monotonic() < seconds:
            self.answered_by.append((self.board.clock.monotonic(), self.request()))
            self.board.clock.advance(4.0)
        return self

    def request(self) -> str:
        for _ in range(self.tries_at_once):
            asked = self.board.ask("d")
            if isinstance(asked, Rejection):
                break
            if not self.is_down():
                asked.succeeded(0.2)
                return "d"
            self.on_primary.append(self.board.clock.monotonic())
            asked.failed(UNAVAILABLE)
        self.board.succeed("e", 0.4)
        return "e"


@pytest.mark.parametrize("tries_at_once", [1, 2, 3])
@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
def test_an_outage_of_a_minute_costs_few_attempts_and_is_over_soon(offset: float, tries_at_once: int) -> None:
    outage = Outage(offset, tries_at_once).run()
    assert len([at for at, _ in outage.answered_by if 60 <= at < 120]) == 15
    assert len(outage.on_primary) <= 6
    back_at = min(at for at, name in outage.answered_by if at >= 120 and name == "d")
    assert back_at - 120 <= 30
    assert {name for at, name in outage.answered_by if at >= back_at} == {"d"}


@dataclass
class Begun:
    """An attempt in the plain words below."""

    at: float
    breaker_time: int


class Model:
    """The same in the plainest words, to compare with: one deployment alone, whose faults never come from a caller."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.policy = BreakerPolicy()
        self.state = CLOSED
        self.breaker_time = 0
        """How often the breaker changed."""
        self.open_until = 0.0
        self.failed_probes = 0
        self.in_a_row = 0
        self.lately: list[tuple[int, bool]] = []
        self.probing = False
        self.cool = {"own": [0.0, 0], "account": [0.0, 0]}
        """Until when, and the how manieth in a row."""

    def why(self) -> ExclusionReason | None:
        if (self.state is OPEN and self.now < self.open_until) or (self.state is HALF_OPEN and self.probing):
            return ExclusionReason.BREAKER_OPEN
        return ExclusionReason.COOLDOWN if any(self.now < until for until, _ in self.cool.values()) else None

    def begin(self) -> Begun | None:
        if self.why() is not None:
            return None
        if self.state is OPEN:
            self.become(HALF_OPEN)
        self.probing = self.state is HALF_OPEN
        return Begun(self.now, self.breaker_time)

    def become(self, state: BreakerState) -> None:
        self.state, self.probing = state, False
        self.breaker_time += 1
        if state is OPEN:
            seconds = min(30.0 * 2 ** max(0, self.failed_probes - 1), 300.0)
            self.open_until = self.now + seconds
        if state is CLOSED:
            self.failed_probes, self.in_a_row, self.lately = 0, 0, []

    def succeed(self, attempt: Begun) -> None:
        for pause in self.cool.values():
            if attempt.at >= pause[0]:
                pause[1] = 0
        if attempt.breaker_time == self.breaker_time:
            self.in_a_row = 0
            if self.state is HALF_OPEN:
                self.become(CLOSED)
            else:
                self.count(failed=False)

    def fail(self, attempt: Begun, kind: FaultKind, wish: float | None) -> None:
        if FAULT_RULES[kind].cools_down:
            self.rest(attempt, kind, wish)
        if not FAULT_RULES[kind].counts_for_breaker:
            self.release(attempt)
        elif attempt.breaker_time != self.breaker_time:
            pass
        elif self.state is HALF_OPEN:
            self.failed_probes += 1
            self.become(OPEN)
        else:
            self.in_a_row += 1
            if self.in_a_row >= 5:
                self.become(OPEN)
            else:
                self.count(failed=True)

    def release(self, attempt: Begun) -> None:
        if attempt.breaker_time == self.breaker_time:
            self.probing = False

    def rest(self, attempt: Begun, kind: FaultKind, wish: float | None) -> None:
        is_account = kind in ACCOUNT
        pause = self.cool["account" if is_account else "own"]
        if attempt.at >= pause[0]:
            pause[1] += 1
        first, longest = (30.0, 600.0) if is_account else (1.0, 60.0)
        seconds = min(first * 2 ** max(0, pause[1] - 1), longest)
        if wish is not None:
            seconds = max(seconds, wish) if is_account else wish
        pause[0] = max(pause[0], self.now + min(seconds, 3_600.0))

    def count(self, *, failed: bool) -> None:
        second = math.floor(self.now)
        self.lately = [(at, bad) for at, bad in self.lately if second - at < 30] + [(second, failed)]
        failures = sum(bad for _, bad in self.lately)
        if len(self.lately) >= 10 and failures / len(self.lately) >= 0.5:
            self.become(OPEN)


Happening = tuple[str, int] | tuple[str, int, FaultKind, float | None] | float
"""An attempt of the list that is under way ends, or one begins; or so many seconds pass."""

_place = st.integers(0, 7)
happenings: st.SearchStrategy[list[Happening]] = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["begin", "begin", "succeed", "release"]), _place),
        st.tuples(
            st.just("fail"),
            _place,
            st.sampled_from((FaultKind.UNAVAILABLE, FaultKind.TIMEOUT, *FaultKind)),
            st.sampled_from((None, None, 0.0, 16.0, 10_000.0)),
        ),
        # Powers of two, which add up exactly: what is compared is not the rounding.
        st.sampled_from((0.5, 1.0, 4.0, 32.0, 128.0, 4_096.0)),
    ),
    max_size=120,
)


@examples(400)
@given(happenings)
def test_any_history_is_judged_as_the_plain_words_say(history: list[Happening]) -> None:
    board, model = Board(deployment("d")), Model()
    running: list[tuple[Admission, Begun]] = []
    for happening in history:
        if isinstance(happening, float):
            board.clock.advance(happening)
            model.now += happening
        elif happening[0] == "begin":
            asked, begun = board.ask(), model.begin()
            assert isinstance(asked, Admission) == (begun is not None)
            if isinstance(asked, Admission) and begun is not None:
                running.append((asked, begun))
        elif running:
            end_one(happening, *running.pop(happening[1] % len(running)), model)
        assert (board.state(), board.why()) == (model.state, model.why())


def end_one(happening: tuple[object, ...], admission: Admission, begun: Begun, model: Model) -> None:
    match happening:
        case ("succeed", _):
            admission.succeeded(None)
            model.succeed(begun)
        case ("release", _):
            admission.released()
            model.release(begun)
        case (_, _, FaultKind() as kind, (float() | None) as wish):
            admission.failed(ProviderFault(kind, "x", retry_after_seconds=wish))
            model.fail(begun, kind, wish)
