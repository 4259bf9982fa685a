from __future__ import annotations

import pytest
import structlog

from kit.boards import OPEN_SECONDS, SHARED_ACCOUNT, Board, half_opened, opened
from kit.catalog import deployment
from pointsman_server.domain.faults import FAULT_RULES, FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.execution.observations import HALF_LIFE_SECONDS, VIEW_SECONDS

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.fixture
def board() -> Board:
    return Board()


class TestReport:
    def test_of_one_never_called(self, board: Board) -> None:
        report = board.report("nobody")
        assert (report.breaker, report.out_seconds, report.observed, report.error_rate) == (CLOSED, 0.0, None, 0.0)

    def test_of_an_open_one(self, board: Board) -> None:
        opened(board).clock.advance(10)
        report = board.report()
        assert (report.breaker, report.half_open_seconds, report.cooldown_seconds) == (OPEN, 20.0, 0.0)
        assert report.out_seconds == 20.0
        board.clock.advance(100)
        assert board.report().half_open_seconds == 0.0

    def test_of_one_that_is_tried(self, board: Board) -> None:
        half_opened(board)
        assert (board.state(), board.report().half_open_seconds) == (HALF_OPEN, 0.0)

    def test_of_one_that_cools(self, board: Board) -> None:
        board.limited(45.0)
        report = board.report()
        assert (report.breaker, report.half_open_seconds, report.cooldown_seconds) == (CLOSED, 0.0, 45.0)
        assert report.out_seconds == 45.0
        board.clock.advance(50)
        assert board.report().cooldown_seconds == 0.0

    def test_what_was_observed(self, board: Board) -> None:
        board.succeed(seconds=0.2, times=3)
        board.fail()
        report = board.report()
        assert report.error_rate == 0.25
        assert report.observed is not None
        assert report.observed.first_token_p50_seconds == pytest.approx(0.2, rel=0.12)


class TestReset:
    def test_it_closes_the_breaker_and_forgets_its_doubling(self, board: Board) -> None:
        opened(board)
        for _ in range(4):
            board.clock.advance(board.back_in())
            board.fail()
        with structlog.testing.capture_logs() as logs:
            board.health.reset("d")
        assert [(log["event"], log["reason"]) for log in logs] == [("breaker_closed", "an operator's reset")]
        assert (board.state(), board.why()) == (CLOSED, None)
        assert opened(board).back_in() == OPEN_SECONDS

    def test_it_ends_a_cooldown_and_forgets_its_doubling(self, board: Board) -> None:
        for _ in range(4):
            board.limited()
            board.clock.advance(board.back_in() - 0.5)
            board.health.reset("d")
            assert board.why() is None
        board.limited()
        assert board.back_in() == 1.0

    def test_it_brings_all_deployments_of_the_account_back(self) -> None:
        board = Board(*SHARED_ACCOUNT)
        board.limited(None, FaultKind.AUTH)
        board.health.reset("e")
        assert [board.why(name) for name in "def"] == [None, None, None]
        with structlog.testing.capture_logs() as logs:
            board.limited(None, FaultKind.AUTH)
        assert board.back_in() == 30.0
        assert [log["event"] for log in logs] == ["provider_key_refused"]

    def test_who_was_never_called_is_none_the_worse(self, board: Board) -> None:
        board.health.reset("nobody")
        assert board.transitions == []
        board.succeed()
        board.health.reset("d")
        assert board.transitions == []


class TestObservations:
    ONE = deployment("d")

    def expected(self, board: Board) -> float:
        return board.health.view().first_token_seconds(self.ONE)

    def test_one_answer_moves_the_expectation_a_little(self, board: Board) -> None:
        board.succeed(seconds=0.2)
        assert self.expected(board) == pytest.approx((5 * 1.0 + 0.2) / 6, rel=0.01)

    def test_many_replace_it(self, board: Board) -> None:
        board.succeed(seconds=0.2, times=300)
        assert self.expected(board) == pytest.approx(0.2, rel=0.2)

    def test_without_a_latency_the_expectation_stays(self, board: Board) -> None:
        board.succeed()
        assert self.expected(board) == 1.0
        assert board.health.view().observed["d"].attempts == 1.0

    def test_a_cancelled_attempt_is_not_seen(self, board: Board) -> None:
        board.begin().released()
        assert board.health.view().observed == {}

    def test_it_is_seen_while_somebody_is_ill(self, board: Board) -> None:
        board.succeed(seconds=0.2)
        opened(board, "e")
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
        board.fail(name="f")
        second = board.health.view().observed
        assert [second[name].failures for name in "df"] == pytest.approx([2.0, 1.0], rel=0.01)
        assert second["e"] is first["e"]
        board.clock.advance(VIEW_SECONDS / 2)
        third = board.health.view().observed
        assert all(third[name].failures < second[name].failures for name in "def")

    def test_attempts_in_a_row_put_off_nobodys_fading(self, board: Board) -> None:
        board.fail(name="e")
        board.health.view()
        for _ in range(10):
            board.clock.advance(VIEW_SECONDS / 2)
            board.succeed()
            seen = board.health.view().observed
        assert seen["e"].failures == pytest.approx(0.5 ** (5 * VIEW_SECONDS / HALF_LIFE_SECONDS), rel=1e-6)

    def test_quantiles_of_the_answers_and_how_many_there_are(self, board: Board) -> None:
        assert board.health.first_token_quantile_seconds("d", 0.9) is None
        assert board.health.answers("d") == 0.0
        board.succeed(seconds=0.2, times=90)
        board.succeed(seconds=5.0, times=10)
        board.succeed(seconds=None)
        assert board.health.answers("d") == 100.0
        assert board.health.first_token_quantile_seconds("d", 0.5) == pytest.approx(0.2, rel=0.12)
        assert board.health.first_token_quantile_seconds("d", 0.99) == pytest.approx(5.0, rel=0.12)
        board.clock.advance(HALF_LIFE_SECONDS)
        assert board.health.answers("d") == pytest.approx(50.0)

    def test_whole_answers_alone_have_no_quantile(self, board: Board) -> None:
        board.succeed(seconds=None)
        assert (board.health.answers("d"), board.health.first_token_quantile_seconds("d", 0.9)) == (0.0, None)
