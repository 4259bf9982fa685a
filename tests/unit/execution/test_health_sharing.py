from __future__ import annotations

import pytest

from kit.boards import OPEN_SECONDS, SHARED_ACCOUNT, UNAVAILABLE, Board, flap, half_opened, opened
from kit.catalog import deployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState, HealthNews, NewsKind
from pointsman_server.domain.plan import ExclusionReason, Rejection
from pointsman_server.execution.cooldown import MAX_COOLDOWN_SECONDS

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.fixture
def board() -> Board:
    return Board()


class TestNews:
    """What one board tells another."""

    @pytest.fixture
    def told(self, board: Board) -> list[HealthNews]:
        told: list[HealthNews] = []
        board.health.share_with(told.append)
        return told

    def test_an_opening_a_failed_probe_and_a_closing_are_told(self, board: Board, told: list[HealthNews]) -> None:
        half_opened(board).failed(UNAVAILABLE)
        board.clock.advance(OPEN_SECONDS)
        board.succeed()
        assert told == [
            HealthNews("d", NewsKind.OPENED, 30.0),
            HealthNews("d", NewsKind.OPENED, 30.0, failed_probes=1),
            HealthNews("d", NewsKind.CLOSED),
        ]

    def test_an_opening_by_rate_says_so(self, board: Board, told: list[HealthNews]) -> None:
        flap(board, "d")
        assert told == [HealthNews("d", NewsKind.OPENED, 30.0, by_rate=True)]

    def test_a_cooldown_is_told_when_it_is_extended_by_much(self, board: Board, told: list[HealthNews]) -> None:
        attempts = [board.begin() for _ in range(4)]
        for attempt, wish in zip(attempts, (20.0, 20.3, 5.0, 40.0), strict=True):
            attempt.failed(ProviderFault(FaultKind.RATE_LIMITED, "x", retry_after_seconds=wish))
        assert told == [HealthNews("d", NewsKind.COOLED, 20.0), HealthNews("d", NewsKind.COOLED, 40.0)]

    def test_that_of_an_account_is_told_of_all_its_deployments_once(self) -> None:
        board, told = Board(*SHARED_ACCOUNT), list[HealthNews]()
        board.health.share_with(told.append)
        board.fail(3, ProviderFault(FaultKind.AUTH, "x"))
        assert told == [HealthNews(name, NewsKind.COOLED, 30.0, account="acme") for name in "de"]

    def test_a_reset_is_told(self, board: Board, told: list[HealthNews]) -> None:
        opened(board)
        board.health.reset("d")
        assert told[1:] == [HealthNews("d", NewsKind.RESET)]

    def test_what_is_adopted_is_not_told_on(self, board: Board, told: list[HealthNews]) -> None:
        for kind in (NewsKind.OPENED, NewsKind.CLOSED, NewsKind.COOLED, NewsKind.RESET):
            board.health.adopt(HealthNews("d", kind, 10.0))
        assert told == []
        assert board.transitions == [("d", CLOSED, OPEN), ("d", OPEN, CLOSED)]


class TestAdoption:
    def hear(self, board: Board, kind: NewsKind, seconds: float = 0.0, **more: object) -> None:
        board.health.adopt(HealthNews("d", kind, seconds, **more))  # type: ignore[arg-type]

    def test_of_one_never_called(self, board: Board) -> None:
        self.hear(board, NewsKind.OPENED, 12.0)
        assert (board.why(), board.back_in()) == (ExclusionReason.BREAKER_OPEN, 12.0)
        assert "another replica" in board.detail()

    def test_a_closing(self, board: Board) -> None:
        opened(board)
        self.hear(board, NewsKind.CLOSED)
        assert board.state() is CLOSED
        self.hear(board, NewsKind.CLOSED)
        assert len(board.transitions) == 2

    def test_a_cooldown_extends_and_never_shortens(self, board: Board) -> None:
        board.limited(20.0)
        self.hear(board, NewsKind.COOLED, 5.0)
        assert board.back_in() == 20.0
        self.hear(board, NewsKind.COOLED, 50.0)
        assert board.back_in() == 50.0
        self.hear(board, NewsKind.COOLED, 1e9)
        assert board.back_in() == MAX_COOLDOWN_SECONDS

    def test_the_cooldown_of_an_account_holds_for_all_who_belong_to_it(self) -> None:
        board = Board(*SHARED_ACCOUNT)
        self.hear(board, NewsKind.COOLED, 30.0, account="acme")
        assert board.detail("d") == "its provider account is out of service; next try in 30 s"
        assert isinstance(board.ask("e"), Rejection)
        self.hear(board, NewsKind.RESET)
        assert [board.why("d"), board.why("e")] == [None, None]

    def test_a_reset(self, board: Board) -> None:
        opened(board)
        board.limited(50.0, name="e")
        for name in "de":
            board.health.adopt(HealthNews(name, NewsKind.RESET))
        assert [board.why("d"), board.why("e")] == [None, None]

    def test_experience_of_our_own_that_is_newer_goes_before(self, board: Board) -> None:
        board.clock.advance(100)
        opened(board)
        board.clock.advance(5)
        self.hear(board, NewsKind.CLOSED, age_seconds=6.0)
        assert board.state() is OPEN
        self.hear(board, NewsKind.CLOSED, age_seconds=4.0)
        assert board.state() is CLOSED
        self.hear(board, NewsKind.OPENED, 20.0, age_seconds=1.0)
        assert board.state() is CLOSED

    def test_an_opening_by_rate_keeps_to_the_half_of_the_group(self) -> None:
        board = Board(deployment("d"), deployment("e"))
        self.hear(board, NewsKind.OPENED, 20.0, by_rate=True)
        assert board.state() is CLOSED, "before the first call nobody knows the group"
        opened(board, "e")
        self.hear(board, NewsKind.OPENED, 20.0, by_rate=True)
        assert board.state() is CLOSED
        self.hear(board, NewsKind.OPENED, 20.0)
        assert board.state() is OPEN

    def test_an_opening_by_rate_is_adopted_where_there_is_room(self, board: Board) -> None:
        board.succeed("e")
        self.hear(board, NewsKind.OPENED, 20.0, by_rate=True)
        assert board.state() is OPEN
