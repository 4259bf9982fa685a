from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.resilience import BreakerPolicy
from pointsman_server.execution.breaker import PROBE_SECONDS, Breaker

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
POLICY = BreakerPolicy()


class Tried:
    """A breaker with its time; attempts end at once unless told otherwise."""

    def __init__(self, policy: BreakerPolicy = POLICY) -> None:
        self.policy = policy
        self.now = 1_000.0
        self.moves: list[tuple[BreakerState, BreakerState, str]] = []
        self.breaker = Breaker("d", lambda *move: self.moves.append(move))
        self.others_allow = True

    def begin(self) -> int:
        """An attempt; returns what names its time."""
        assert self.breaker.refusal(self.now) is None
        self.breaker.let_pass(self.now)
        return self.breaker.generation

    def end(self, generation: int, *, failed: bool) -> None:
        verdict = self.breaker.fail if failed else self.breaker.succeed
        verdict(generation, self.policy, self.now, lambda: self.others_allow)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.end(self.begin(), failed=True)

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.end(self.begin(), failed=False)

    def opened(self, by_rate: bool = False) -> Tried:
        """The same, open."""
        if by_rate:
            self.succeed()
            self.alternate(5)
        else:
            self.fail(self.policy.failures_in_a_row)
        assert self.breaker.state is OPEN
        return self

    def alternate(self, times: int) -> None:
        """So many failures, each after a success except for the first."""
        for place in range(times):
            if place:
                self.succeed()
            self.fail()

    def open_seconds(self) -> float:
        assert self.breaker.state is OPEN
        return self.breaker.open_until - self.now

    def wait(self) -> None:
        """Its time passes."""
        self.now = self.breaker.open_until

    def refusal(self) -> str:
        refused = self.breaker.refusal(self.now)
        assert refused is not None
        return refused[0]


@pytest.fixture
def tried() -> Tried:
    return Tried()


class TestFailuresInARow:
    def test_it_opens_after_so_many(self, tried: Tried) -> None:
        tried.fail(4)
        assert tried.breaker.state is CLOSED
        tried.fail()
        assert tried.moves == [(CLOSED, OPEN, "5 failures in a row")]
        assert not tried.breaker.opened_by_rate

    def test_a_success_between_begins_the_count_anew(self, tried: Tried) -> None:
        tried.fail(4)
        tried.succeed()
        tried.fail(4)
        assert tried.breaker.state is CLOSED

    def test_they_open_it_whatever_the_others_are_like(self, tried: Tried) -> None:
        tried.others_allow = False
        tried.fail(5)
        assert tried.breaker.state is OPEN

    def test_a_stricter_policy_counts_what_happened_before(self, tried: Tried) -> None:
        tried.fail(3)
        tried.policy = BreakerPolicy(failures_in_a_row=2)
        tried.fail()
        assert tried.moves == [(CLOSED, OPEN, "4 failures in a row")]

    def test_one_can_be_enough(self) -> None:
        assert Tried(BreakerPolicy(failures_in_a_row=1)).opened().moves == [(CLOSED, OPEN, "a failure")]


class TestFailureRate:
    def test_it_opens_when_half_of_the_attempts_failed(self, tried: Tried) -> None:
        tried.succeed()
        tried.alternate(4)
        assert tried.breaker.state is CLOSED  # 4 of 8
        tried.succeed()
        tried.fail()
        assert tried.moves == [(CLOSED, OPEN, "5 of 10 attempts failed in 30 s")]
        assert tried.breaker.opened_by_rate

    def test_few_attempts_say_nothing(self, tried: Tried) -> None:
        tried.alternate(5)  # 5 of 9
        assert tried.breaker.state is CLOSED
        tried.succeed()  # 5 of 10
        assert tried.breaker.state is OPEN

    def test_a_smaller_share_is_borne(self, tried: Tried) -> None:
        for _ in range(200):
            tried.succeed(2)
            tried.fail()
            tried.now += 0.1
        assert tried.breaker.state is CLOSED

    def test_attempts_of_long_ago_do_not_count(self, tried: Tried) -> None:
        tried.succeed(5)
        tried.alternate(4)
        tried.now += POLICY.window_seconds
        tried.alternate(4)
        assert tried.breaker.state is CLOSED

    def test_success_alone_never_opens_it(self, tried: Tried) -> None:
        tried.policy = BreakerPolicy(least_attempts=1, failure_share=0.01)
        tried.succeed(100)
        assert tried.breaker.state is CLOSED

    def test_the_others_may_keep_it_closed_for_as_long_as_they_need_it(self, tried: Tried) -> None:
        tried.others_allow = False
        tried.alternate(20)
        assert tried.breaker.state is CLOSED
        tried.others_allow = True
        tried.succeed()
        assert tried.breaker.state is OPEN

    def test_another_window_begins_to_count_anew(self, tried: Tried) -> None:
        tried.succeed(5)
        tried.alternate(4)
        tried.policy = BreakerPolicy(window_seconds=10.0)
        tried.succeed()
        tried.fail()
        assert tried.breaker.state is CLOSED

    def test_after_it_closed_the_count_begins_anew(self, tried: Tried) -> None:
        tried.opened(by_rate=True).wait()
        tried.succeed()
        tried.alternate(4)
        assert tried.breaker.state is CLOSED
        assert not tried.breaker.opened_by_rate


class TestProbes:
    def test_nobody_passes_before_the_time_is_over(self, tried: Tried) -> None:
        tried.opened()
        tried.now += 10.0
        assert tried.breaker.refusal(tried.now) == (
            "its breaker is open after 5 failures in a row; next try in 20 s",
            20.0,
        )
        tried.now += 20.0
        assert tried.breaker.refusal(tried.now) is None
        assert tried.breaker.state is OPEN, "a look changes nothing"

    def test_one_passes_then(self, tried: Tried) -> None:
        tried.opened().wait()
        tried.begin()
        assert tried.breaker.refusal(tried.now) == (
            "its breaker is half open: one call is under way to try it",
            PROBE_SECONDS,
        )
        assert tried.moves[1:] == [(OPEN, HALF_OPEN, "its time is over")]

    def test_a_probe_without_a_verdict_gives_its_place_to_the_next(self, tried: Tried) -> None:
        tried.opened().wait()
        tried.breaker.release(tried.begin())
        assert tried.breaker.state is HALF_OPEN
        tried.succeed()
        assert tried.breaker.state is CLOSED

    def test_a_successful_probe_closes_it(self, tried: Tried) -> None:
        tried.opened().wait()
        tried.succeed()
        assert tried.moves[2:] == [(HALF_OPEN, CLOSED, "a successful probe")]
        tried.fail(4)
        assert tried.breaker.state is CLOSED

    def test_failed_probes_wait_longer_and_longer(self, tried: Tried) -> None:
        tried.opened()
        waits = [tried.open_seconds()]
        for _ in range(7):
            tried.wait()
            tried.fail()
            waits.append(tried.open_seconds())
        assert waits == [30, 30, 60, 120, 240, 300, 300, 300]
        assert tried.moves[-1] == (HALF_OPEN, OPEN, "a failed probe")

    def test_a_success_forgets_how_often_it_failed(self, tried: Tried) -> None:
        tried.opened()
        for _ in range(4):
            tried.wait()
            tried.fail()
        tried.wait()
        tried.succeed()
        assert tried.opened().open_seconds() == 30

    def test_a_thousand_failed_probes_wait_as_long_as_the_longest(self, tried: Tried) -> None:
        tried.opened()
        for _ in range(1_100):
            tried.wait()
            tried.fail()
        assert tried.open_seconds() == 300

    def test_the_longest_time_is_the_first_one_too_where_it_is_shorter(self) -> None:
        assert Tried(BreakerPolicy(open_seconds=30, longest_open_seconds=10)).opened().open_seconds() == 10


class TestLateEnds:
    """Attempts that began in a time that is over."""

    def test_a_success_closes_nothing(self, tried: Tried) -> None:
        early = tried.begin()
        tried.opened()
        tried.end(early, failed=False)
        assert tried.breaker.state is OPEN
        tried.wait()
        tried.begin()
        tried.end(early, failed=False)
        assert tried.breaker.state is HALF_OPEN

    def test_a_failure_lengthens_nothing(self, tried: Tried) -> None:
        early = tried.begin()
        tried.opened()
        tried.now += 10.0
        tried.end(early, failed=True)
        assert tried.open_seconds() == 20
        tried.wait()
        tried.begin()
        tried.end(early, failed=True)
        assert tried.breaker.state is HALF_OPEN

    def test_a_failure_does_not_count_after_it_closed_again(self, tried: Tried) -> None:
        early = [tried.begin() for _ in range(10)]
        tried.opened().wait()
        tried.succeed()
        for generation in early:
            tried.end(generation, failed=True)
        assert tried.breaker.state is CLOSED

    def test_a_release_frees_no_place_of_another(self, tried: Tried) -> None:
        early = tried.begin()
        tried.opened().wait()
        tried.begin()
        tried.breaker.release(early)
        assert "one call is under way" in tried.refusal()


class TestReset:
    def test_an_open_one_closes_and_forgets(self, tried: Tried) -> None:
        tried.opened()
        for _ in range(3):
            tried.wait()
            tried.fail()
        tried.breaker.reset("an order", tried.now)
        assert tried.moves[-1] == (OPEN, CLOSED, "an order")
        assert tried.opened().open_seconds() == 30

    def test_a_probe_under_way_has_no_say_any_more(self, tried: Tried) -> None:
        tried.opened().wait()
        probe = tried.begin()
        tried.breaker.reset("an order", tried.now)
        tried.end(probe, failed=True)
        assert tried.breaker.state is CLOSED
        assert tried.moves[-1] == (HALF_OPEN, CLOSED, "an order")

    def test_a_closed_one_forgets_its_failures(self, tried: Tried) -> None:
        tried.succeed(5)
        tried.alternate(2)
        tried.fail(2)  # 4 of 10, 3 in a row
        early = tried.begin()
        tried.breaker.reset("an order", tried.now)
        tried.end(early, failed=True)
        tried.fail(4)
        assert tried.moves == []


class TestWordOfOthers:
    def test_it_opens_a_closed_one(self, tried: Tried) -> None:
        tried.breaker.open_for(7.0, 2, tried.now, by_rate=True)
        assert tried.open_seconds() == 7
        assert tried.breaker.opened_by_rate
        assert tried.moves == [(CLOSED, OPEN, "failures that another replica met")]
        tried.wait()
        tried.fail()  # the third failed probe of all
        assert tried.open_seconds() == 120

    def test_it_extends_an_open_one_and_never_shortens_it(self, tried: Tried) -> None:
        tried.opened()
        tried.breaker.open_for(20.0, 0, tried.now, by_rate=True)
        assert tried.open_seconds() == 30
        tried.breaker.open_for(40.0, 0, tried.now, by_rate=True)
        assert tried.open_seconds() == 40
        assert not tried.breaker.opened_by_rate
        assert len(tried.moves) == 1

    def test_a_probe_of_our_own_decides(self, tried: Tried) -> None:
        tried.opened().wait()
        probe = tried.begin()
        tried.breaker.open_for(40.0, 1, tried.now, by_rate=False)
        assert tried.breaker.state is HALF_OPEN
        tried.end(probe, failed=False)
        assert tried.breaker.state is CLOSED

    def test_a_half_open_one_without_a_probe_opens_again(self, tried: Tried) -> None:
        tried.opened().wait()
        tried.breaker.release(tried.begin())
        tried.breaker.open_for(40.0, 1, tried.now, by_rate=False)
        assert tried.open_seconds() == 40


@examples(200)
@given(
    st.lists(st.sampled_from(["begin", "succeed", "fail", "release", "wait", "tick"]), max_size=80),
    st.integers(1, 4),
)
def test_whatever_happens_one_probe_at_a_time(history: list[str], in_a_row: int) -> None:
    tried = Tried(BreakerPolicy(failures_in_a_row=in_a_row))
    running: list[int] = []
    for happening in history:
        if happening == "begin" and tried.breaker.refusal(tried.now) is None:
            running.append(tried.begin())
        elif happening == "wait" and tried.breaker.state is OPEN:
            tried.wait()
        elif happening == "tick":
            tried.now += 7.0
        elif happening == "release" and running:
            tried.breaker.release(running.pop(0))
        elif happening in ("succeed", "fail") and running:
            tried.end(running.pop(0), failed=happening == "fail")
        probes = running.count(tried.breaker.generation) if tried.breaker.state is HALF_OPEN else 0
        assert probes <= 1
        assert tried.breaker.is_probed == bool(probes)
    for before, after in zip(tried.moves, tried.moves[1:], strict=False):
        assert before[1] is after[0], "every transition begins where the last one ended"
