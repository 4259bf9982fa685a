from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import deployment
from kit.clock import FakeClock
from kit.properties import examples
from pointsman_server.domain.faults import FAULT_RULES, FaultKind, ProviderFault
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.execution.health import (
    COOLDOWN_SECONDS,
    FAILURES_TO_OPEN,
    MAX_COOLDOWN_SECONDS,
    OPEN_SECONDS,
    VIEW_SECONDS,
    HealthBoard,
)
from pointsman_server.execution.observations import HALF_LIFE_SECONDS

UNAVAILABLE = ProviderFault(FaultKind.UNAVAILABLE, "down")
BLAMELESS = sorted((kind for kind, rule in FAULT_RULES.items() if not rule.counts_for_breaker), key=str)
BLAMED = sorted((kind for kind, rule in FAULT_RULES.items() if rule.counts_for_breaker), key=str)


class Board:
    """A health board with its clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.health = HealthBoard(self.clock)

    def fail(self, times: int = 1, fault: ProviderFault = UNAVAILABLE, name: str = "d") -> None:
        for _ in range(times):
            self.health.failed(name, fault)

    def limited(self, seconds: float | None, kind: FaultKind = FaultKind.RATE_LIMITED) -> None:
        self.health.failed("d", ProviderFault(kind, "limited", retry_after_seconds=seconds))

    def why(self, name: str = "d") -> ExclusionReason | None:
        rejection = self.health.view().unavailable(name)
        return None if rejection is None else rejection.reason

    def back_in(self) -> float:
        return self.health.view().retry_after_seconds(["d"])


@pytest.fixture
def board() -> Board:
    return Board()


class TestBreaker:
    def test_it_opens_after_so_many_failures_in_a_row(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN - 1)
        assert board.why() is None
        board.fail()
        assert board.why() is ExclusionReason.BREAKER_OPEN
        assert board.why("another") is None

    def test_a_success_between_begins_the_count_anew(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN - 1)
        board.health.succeeded("d", 0.1)
        board.fail(FAILURES_TO_OPEN - 1)
        assert board.why() is None

    @pytest.mark.parametrize("kind", BLAMED)
    def test_every_fault_of_the_deployment_counts(self, board: Board, kind: FaultKind) -> None:
        board.fail(FAILURES_TO_OPEN, ProviderFault(kind, "x"))
        assert board.why() is ExclusionReason.BREAKER_OPEN

    @pytest.mark.parametrize("kind", BLAMELESS)
    def test_what_the_caller_caused_does_not_count(self, board: Board, kind: FaultKind) -> None:
        board.fail(3 * FAILURES_TO_OPEN, ProviderFault(kind, "x"))
        assert board.why() is None

    def test_it_lets_calls_through_after_its_time(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN)
        assert board.back_in() == OPEN_SECONDS
        board.clock.advance(OPEN_SECONDS - 0.5)
        assert board.why() is ExclusionReason.BREAKER_OPEN
        assert board.back_in() == pytest.approx(0.5)
        board.clock.advance(0.5)
        assert board.why() is None

    @pytest.mark.parametrize("seconds", [-3_600.0, 3_600.0])
    def test_the_wall_clock_has_no_say(self, board: Board, seconds: float) -> None:
        board.fail(FAILURES_TO_OPEN)
        board.clock.now_seconds += seconds
        board.clock.advance(OPEN_SECONDS - 1)
        assert board.why() is ExclusionReason.BREAKER_OPEN
        board.clock.advance(1)
        assert board.why() is None

    def test_a_failed_trial_opens_it_for_its_whole_time(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN)
        board.clock.advance(OPEN_SECONDS)
        assert board.why() is None
        board.fail()
        assert board.back_in() == OPEN_SECONDS

    def test_a_successful_trial_closes_it(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN)
        board.clock.advance(OPEN_SECONDS)
        assert board.why() is None
        board.health.succeeded("d", None)
        board.fail(FAILURES_TO_OPEN - 1)
        assert board.why() is None
        board.fail()
        assert board.why() is ExclusionReason.BREAKER_OPEN

    def test_a_call_that_began_before_and_fails_late_keeps_it_open(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN)
        board.clock.advance(40)
        board.fail()
        assert board.back_in() == OPEN_SECONDS

    def test_it_says_why_in_numbers(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN)
        board.clock.advance(20)
        rejection = board.health.view().unavailable("d")
        assert rejection is not None
        assert rejection.detail == "its breaker is open after 5 failures in a row; next try in 40 s"


class TestCooldown:
    def test_the_providers_wish_is_kept(self, board: Board) -> None:
        board.limited(7.0)
        assert board.why() is ExclusionReason.COOLDOWN
        assert board.back_in() == 7.0
        board.clock.advance(7.0)
        assert board.why() is None

    @pytest.mark.parametrize(("kind", "seconds"), sorted(COOLDOWN_SECONDS.items(), key=str))
    def test_some_faults_cool_down_without_a_wish(self, board: Board, kind: FaultKind, seconds: float) -> None:
        board.limited(None, kind)
        assert board.back_in() == seconds

    def test_a_limit_without_a_time_does_not(self, board: Board) -> None:
        board.limited(None)
        assert board.why() is None

    def test_it_is_extended_never_shortened(self, board: Board) -> None:
        board.limited(20.0)
        board.limited(5.0)
        assert board.back_in() == 20.0
        board.limited(30.0)
        assert board.back_in() == 30.0

    def test_no_wish_goes_beyond_an_hour(self, board: Board) -> None:
        board.limited(86_400.0)
        assert board.back_in() == MAX_COOLDOWN_SECONDS

    def test_a_call_that_began_before_and_succeeds_does_not_end_it(self, board: Board) -> None:
        board.limited(20.0)
        board.health.succeeded("d", 0.1)
        assert board.why() is ExclusionReason.COOLDOWN

    def test_a_breaker_that_opened_as_well_goes_first(self, board: Board) -> None:
        board.fail(FAILURES_TO_OPEN, ProviderFault(FaultKind.AUTH, "no", retry_after_seconds=90.0))
        assert board.why() is ExclusionReason.BREAKER_OPEN
        board.clock.advance(OPEN_SECONDS)
        assert board.why() is ExclusionReason.COOLDOWN
        board.clock.advance(30.0)
        assert board.why() is None

    def test_it_says_how_long(self, board: Board) -> None:
        board.limited(12.0)
        rejection = board.health.view().unavailable("d")
        assert rejection is not None
        assert rejection.detail == "its provider wants to be left alone for another 12 s"


class TestObservations:
    ONE = deployment("d")

    def expected(self, board: Board) -> float:
        return board.health.view().first_token_seconds(self.ONE)

    def test_one_answer_moves_the_expectation_a_little(self, board: Board) -> None:
        board.health.succeeded("d", 0.2)
        assert self.expected(board) == pytest.approx((5 * 1.0 + 0.2) / 6, rel=0.01)

    def test_many_replace_it(self, board: Board) -> None:
        for _ in range(300):
            board.health.succeeded("d", 0.2)
        assert self.expected(board) == pytest.approx(0.2, rel=0.2)

    def test_without_a_latency_the_expectation_stays(self, board: Board) -> None:
        board.health.succeeded("d", None)
        assert self.expected(board) == 1.0
        assert board.health.view().observed["d"].attempts == 1.0

    def test_nothing_seen_is_nothing_listed(self, board: Board) -> None:
        assert board.health.view().observed == {}

    def test_it_is_seen_while_somebody_is_ill(self, board: Board) -> None:
        board.health.succeeded("d", 0.2)
        board.fail(FAILURES_TO_OPEN, name="e")
        assert self.expected(board) < 1.0
        assert board.why("e") is ExclusionReason.BREAKER_OPEN

    @pytest.mark.parametrize("kind", FaultKind)
    def test_faults_of_the_deployment_raise_its_error_rate_and_others_do_not(
        self, board: Board, kind: FaultKind
    ) -> None:
        board.fail(3, ProviderFault(kind, "x"))
        rule = FAULT_RULES[kind]
        blamed = rule.counts_for_breaker or rule.cools_down
        assert board.health.view().error_rate("d") == pytest.approx(3 / 13 if blamed else 0.0)

    def test_what_is_new_is_seen_at_once_and_what_is_old_fades_by_and_by(self, board: Board) -> None:
        board.fail()
        first = board.health.view()
        board.clock.advance(VIEW_SECONDS / 2)
        assert board.health.view().observed is first.observed
        board.clock.advance(HALF_LIFE_SECONDS)
        assert board.health.view().observed["d"].failures == pytest.approx(0.5, rel=0.01)
        board.fail()
        assert board.health.view().observed["d"].failures == pytest.approx(1.5, rel=0.01)

    def test_an_attempt_renews_its_own_deployment_and_leaves_the_others_to_their_time(self, board: Board) -> None:
        board.fail(name="d")
        board.fail(name="e")
        first = board.health.view().observed
        board.clock.advance(VIEW_SECONDS / 2)
        board.fail(name="d")
        board.fail(name="new")
        second = board.health.view().observed
        assert [second[name].failures for name in ("d", "new")] == pytest.approx([2.0, 1.0], rel=0.01)
        assert second["e"] is first["e"]
        board.clock.advance(VIEW_SECONDS / 2)
        third = board.health.view().observed
        assert all(third[name].failures < second[name].failures for name in ("d", "e", "new"))

    def test_attempts_in_a_row_put_off_nobodys_fading(self, board: Board) -> None:
        board.fail(name="e")
        board.health.view()
        for _ in range(10):
            board.clock.advance(VIEW_SECONDS / 2)
            board.fail(name="d")
            seen = board.health.view().observed
        assert seen["e"].failures == pytest.approx(0.5 ** (5 * VIEW_SECONDS / HALF_LIFE_SECONDS), rel=1e-6)

    def test_a_view_holds_still(self, board: Board) -> None:
        board.fail()
        view = board.health.view()
        before = str(view)
        board.fail(9)
        board.health.succeeded("d", 3.0)
        assert str(view) == before


class Model:
    """The same in the plainest words, to compare with."""

    def __init__(self) -> None:
        self.now = 0.0
        self.failures = 0
        self.open_until: float | None = None
        self.on_trial = False
        self.cool_until = 0.0

    def fail(self, kind: FaultKind, seconds: float | None) -> None:
        if FAULT_RULES[kind].cools_down:
            wish = COOLDOWN_SECONDS.get(kind, 0.0) if seconds is None else seconds
            self.cool_until = max(self.cool_until, self.now + min(wish, MAX_COOLDOWN_SECONDS))
        if FAULT_RULES[kind].counts_for_breaker:
            self.failures += 1
            if self.failures >= FAILURES_TO_OPEN or self.on_trial or self.open_until is not None:
                self.open_until, self.on_trial = self.now + OPEN_SECONDS, False

    def succeed(self) -> None:
        self.failures, self.open_until, self.on_trial = 0, None, False

    def why(self) -> ExclusionReason | None:
        if self.open_until is not None:
            if self.now < self.open_until:
                return ExclusionReason.BREAKER_OPEN
            self.open_until, self.on_trial = None, True
        return ExclusionReason.COOLDOWN if self.now < self.cool_until else None


Happening = tuple[FaultKind, float | None] | float | str
"""A failure, the passing of so many seconds, a success, or a look at the board."""

happenings: st.SearchStrategy[list[Happening]] = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from((FaultKind.UNAVAILABLE, FaultKind.UNAVAILABLE, *FaultKind)),
            st.sampled_from((None, None, 0.0, 16.0, 128.0, 10_000.0)),
        ),
        # Powers of two, which add up exactly: what is compared is not the rounding.
        st.sampled_from((1.0, 16.0, 64.0, 4_096.0)),
        st.just("success"),
        st.just("look"),
    ),
    max_size=40,
)


@examples(200)
@given(happenings)
def test_any_history_is_judged_as_the_plain_words_say(
    history: list[tuple[FaultKind, float | None] | float | str],
) -> None:
    board, model = Board(), Model()
    board.clock.monotonic_seconds = 0.0
    for happening in history:
        match happening:
            case (kind, seconds):
                board.health.failed("d", ProviderFault(kind, "x", retry_after_seconds=seconds))
                model.fail(kind, seconds)
            case float():
                board.clock.advance(happening)
                model.now += happening
            case "success":
                board.health.succeeded("d", None)
                model.succeed()
        if isinstance(happening, str):
            assert board.why() is model.why()
    assert board.why() is model.why()
