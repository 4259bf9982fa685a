from __future__ import annotations

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kit.boards import OPEN_SECONDS, UNAVAILABLE, Board, flap, half_opened, opened
from kit.catalog import deployment
from kit.properties import examples
from pointsman_server.domain.faults import FAULT_RULES, FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.plan import ExclusionReason, Rejection
from pointsman_server.domain.request import Tier
from pointsman_server.domain.resilience import BreakerPolicy
from pointsman_server.execution.health import Admission, HealthBoard

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
BLAMED = sorted((kind for kind, rule in FAULT_RULES.items() if rule.counts_for_breaker), key=str)
INNOCENT = sorted(
    (kind for kind, rule in FAULT_RULES.items() if not rule.counts_for_breaker and not rule.cools_down), key=str
)


@pytest.fixture
def board() -> Board:
    return Board()


class TestView:
    def test_nothing_known_is_nothing_listed(self, board: Board) -> None:
        view = board.health.view()
        assert (view.rejections, view.back_in_seconds, view.observed) == ({}, {}, {})

    def test_an_open_breaker_says_why_in_numbers(self, board: Board) -> None:
        opened(board).clock.advance(10)
        assert board.why() is ExclusionReason.BREAKER_OPEN
        assert board.detail() == "its breaker is open after 5 failures in a row; next try in 20 s"
        assert board.back_in() == 20.0
        assert board.why("e") is None

    def test_a_look_changes_nothing(self, board: Board) -> None:
        opened(board).clock.advance(OPEN_SECONDS)
        for _ in range(3):
            assert board.why() is None
            assert board.state() is OPEN
        board.begin()
        assert isinstance(board.ask(), Rejection), "nor does it forget that only a probe may pass"

    def test_while_a_probe_is_under_way_it_is_not_available(self, board: Board) -> None:
        probe = half_opened(board)
        assert board.why() is ExclusionReason.BREAKER_OPEN
        assert board.detail() == "its breaker is half open: one call is under way to try it"
        assert board.back_in() > 0
        probe.released()
        assert board.why() is None

    def test_a_cooldown_behind_an_open_breaker_counts_for_the_time(self, board: Board) -> None:
        board.fail(5, ProviderFault(FaultKind.AUTH, "no", retry_after_seconds=90.0))
        assert board.why() is ExclusionReason.BREAKER_OPEN
        assert board.back_in() == 90.0
        board.clock.advance(OPEN_SECONDS)
        assert board.why() is ExclusionReason.COOLDOWN
        assert isinstance(board.ask(), Rejection)
        assert board.state() is OPEN, "who is cooling is not probed"
        board.clock.advance(60.0)
        assert board.why() is None

    def test_a_view_holds_still(self, board: Board) -> None:
        board.fail()
        view = board.health.view()
        before = str(view)
        board.fail(4)
        board.succeed("e", 3.0)
        assert str(view) == before


class TestAdmission:
    def test_a_healthy_deployment_takes_everybody(self, board: Board) -> None:
        for attempt in [board.begin() for _ in range(100)]:
            attempt.succeeded(0.1)
        assert board.state() is CLOSED

    def test_who_is_not_available_is_refused_with_the_same_words(self, board: Board) -> None:
        opened(board)
        board.limited(7.0, name="e")
        for name in "de":
            assert board.ask(name) == board.health.view().unavailable(name)

    @pytest.mark.parametrize("callers", [2, 100])
    def test_of_all_who_come_while_it_is_half_open_one_passes(self, board: Board, callers: int) -> None:
        opened(board).clock.advance(OPEN_SECONDS)
        asked = [board.ask() for _ in range(callers)]
        assert [isinstance(answer, Admission) for answer in asked] == [True] + [False] * (callers - 1)
        assert {answer.reason for answer in asked if isinstance(answer, Rejection)} == {ExclusionReason.BREAKER_OPEN}

    def test_a_successful_probe_lets_everybody_in_again(self, board: Board) -> None:
        half_opened(board).succeeded(None)
        assert board.state() is CLOSED
        assert [isinstance(board.ask(), Admission) for _ in range(3)] == [True] * 3

    def test_a_failed_probe_lets_nobody_in_for_its_whole_time(self, board: Board) -> None:
        half_opened(board).failed(UNAVAILABLE)
        assert board.back_in() == OPEN_SECONDS

    @pytest.mark.parametrize("kind", [*INNOCENT, FaultKind.RATE_LIMITED])
    def test_a_probe_that_proves_nothing_is_followed_by_the_next(self, board: Board, kind: FaultKind) -> None:
        half_opened(board).failed(ProviderFault(kind, "x"))
        board.clock.advance(1.0)
        assert board.state() is HALF_OPEN
        board.succeed()
        assert board.state() is CLOSED

    def test_an_attempt_ends_once(self, board: Board) -> None:
        probe = half_opened(board)
        probe.released()
        probe.succeeded(0.1)
        probe.failed(UNAVAILABLE)
        assert board.state() is HALF_OPEN
        second = board.begin()
        second.failed(UNAVAILABLE)
        second.released()
        second.succeeded(0.1)
        assert board.state() is OPEN
        assert board.report().observed is not None
        assert board.health.view().observed["d"].attempts == pytest.approx(6, rel=0.1)

    def test_a_late_success_closes_nothing_and_a_late_failure_lengthens_nothing(self, board: Board) -> None:
        early = [board.begin(), board.begin()]
        opened(board).clock.advance(10)
        early[0].succeeded(0.1)
        early[1].failed(UNAVAILABLE)
        assert board.back_in() == 20.0

    def test_what_is_learned_outlives_a_change_of_policy(self, board: Board) -> None:
        opened(board)
        board.follow(deployment("d"), policy=BreakerPolicy(open_seconds=1.0))
        assert board.back_in() == OPEN_SECONDS
        board.clock.advance(OPEN_SECONDS)
        board.fail()
        assert board.back_in() == 1.0


class TestBreaker:
    @pytest.mark.parametrize("kind", BLAMED)
    def test_every_fault_of_the_deployment_counts(self, board: Board, kind: FaultKind) -> None:
        board.fail(5, ProviderFault(kind, "x"))
        assert board.state() is OPEN

    @pytest.mark.parametrize("kind", INNOCENT)
    def test_what_the_caller_caused_touches_nothing(self, board: Board, kind: FaultKind) -> None:
        board.fail(4)
        before = board.report()
        board.fail(40, ProviderFault(kind, "x", retry_after_seconds=50.0))
        assert (board.state(), board.why(), board.report()) == (CLOSED, None, before)
        board.fail()
        assert board.state() is OPEN, "nor does it break a row of failures"

    def test_a_rate_limit_does_not_count(self, board: Board) -> None:
        board.fail(50, ProviderFault(FaultKind.RATE_LIMITED, "x"))
        assert board.state() is CLOSED

    @pytest.mark.parametrize("seconds", [-3_600.0, 3_600.0])
    def test_the_wall_clock_has_no_say(self, board: Board, seconds: float) -> None:
        opened(board)
        board.limited(50.0, name="e")
        board.clock.now_seconds += seconds
        board.clock.advance(OPEN_SECONDS - 1)
        assert (board.why(), board.back_in("e")) == (ExclusionReason.BREAKER_OPEN, 21.0)
        board.clock.now_seconds -= 2 * seconds
        board.clock.advance(1)
        assert board.why() is None

    def test_its_listener_and_the_log_hear_of_every_transition(self, board: Board) -> None:
        with structlog.testing.capture_logs() as logs:
            half_opened(board).succeeded(None)
        assert board.transitions == [("d", CLOSED, OPEN), ("d", OPEN, HALF_OPEN), ("d", HALF_OPEN, CLOSED)]
        assert [(log["event"], log["deployment"], log["reason"], log["log_level"]) for log in logs] == [
            ("breaker_opened", "d", "5 failures in a row", "warning"),
            ("breaker_half_open", "d", "its time is over", "info"),
            ("breaker_closed", "d", "a successful probe", "info"),
        ]

    def test_nobody_need_listen(self) -> None:
        board = Board()
        board.health = HealthBoard(board.clock)
        opened(board)


class TestRateInAGroup:
    @pytest.mark.parametrize(("size", "most"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)])
    def test_at_most_half_of_it_goes_out(self, size: int, most: int) -> None:
        names = "defgh"[:size]
        board = Board(*[deployment(name) for name in names])
        for _ in range(3):
            for name in names:
                flap(board, name)
        assert sum(board.state(name) is OPEN for name in names) == most

    def test_deployments_of_another_tier_are_another_group(self) -> None:
        board = Board(deployment("d"), deployment("e", of={"tier": Tier.LIGHT}))
        flap(board, "d")
        flap(board, "e")
        assert [board.state("d"), board.state("e")] == [OPEN, OPEN]

    def test_those_who_failed_in_a_row_count_as_out(self, board: Board) -> None:
        opened(board, "d")
        opened(board, "e")
        flap(board, "f")
        assert board.state("f") is CLOSED

    def test_by_failures_in_a_row_all_may_be_out(self, board: Board) -> None:
        for name in "defgh":
            opened(board, name)

    def test_who_is_half_open_is_still_out(self) -> None:
        board = Board(deployment("d"), deployment("e"))
        opened(board, "e").clock.advance(OPEN_SECONDS)
        board.begin("e")
        flap(board, "d")
        assert board.state("d") is CLOSED

    def test_a_deployment_that_left_the_policy_belongs_to_none(self, board: Board) -> None:
        late = [board.begin("d") for _ in range(10)]
        board.follow(deployment("e"), policy=BreakerPolicy(failures_in_a_row=100))
        gone = [board.begin("e")]
        for place, attempt in enumerate(late + gone):
            attempt.failed(UNAVAILABLE) if place % 2 else attempt.succeeded(None)
        assert board.state("d") is OPEN, "it is judged by the policy that it was admitted under"

    @examples(100)
    @given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=250))
    def test_always(self, size: int, history: list[tuple[int, bool]]) -> None:
        names = "defghi"[:size]
        policy = BreakerPolicy(failures_in_a_row=10_000, least_attempts=3)
        board = Board(*[deployment(name) for name in names], policy=policy)
        for place, failed in history:
            name = names[place % size]
            asked = board.ask(name)
            if isinstance(asked, Rejection):
                board.clock.advance(1.0)
            elif failed:
                asked.failed(UNAVAILABLE)
            else:
                asked.succeeded(None)
            assert sum(board.state(one) is not CLOSED for one in names) <= max(1, size // 2)
