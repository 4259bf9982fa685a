from __future__ import annotations

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kit.boards import SHARED_ACCOUNT, Board
from kit.catalog import deployment, provider
from kit.properties import examples
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.plan import ExclusionReason, Rejection
from pointsman_server.domain.resilience import BreakerPolicy
from pointsman_server.execution.cooldown import MAX_COOLDOWN_SECONDS

ACCOUNT = [FaultKind.AUTH, FaultKind.QUOTA]


@pytest.fixture
def board() -> Board:
    return Board()


class TestCooldown:
    def test_the_providers_wish_is_kept(self, board: Board) -> None:
        board.limited(7.0)
        assert board.why() is ExclusionReason.COOLDOWN
        assert board.detail() == "its provider wants to be left alone for another 7 s"
        assert board.back_in() == 7.0
        assert board.why("e") is None
        board.clock.advance(7.0)
        assert board.why() is None

    def test_without_a_wish_it_doubles(self, board: Board) -> None:
        waits = []
        for _ in range(8):
            board.limited()
            waits.append(board.back_in())
            board.clock.advance(waits[-1])
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
        board.succeed()
        board.limited()
        assert board.back_in() == 1.0

    def test_many_at_once_are_one(self, board: Board) -> None:
        board.fail(50, ProviderFault(FaultKind.RATE_LIMITED, "x"))
        assert board.back_in() == 1.0

    def test_it_is_extended_never_shortened(self, board: Board) -> None:
        attempts = [board.begin() for _ in range(4)]
        left = []
        for attempt, wish in zip(attempts, (20.0, 5.0, 30.0, None), strict=True):
            attempt.failed(ProviderFault(FaultKind.RATE_LIMITED, "x", retry_after_seconds=wish))
            left.append(board.back_in())
        assert left == [20.0, 20.0, 30.0, 30.0]

    def test_no_wish_goes_beyond_an_hour(self, board: Board) -> None:
        board.limited(86_400.0)
        board.limited(86_400.0, FaultKind.QUOTA, name="e")
        assert (board.back_in(), board.back_in("e")) == (MAX_COOLDOWN_SECONDS, MAX_COOLDOWN_SECONDS)

    @pytest.mark.parametrize("seconds", [0.0, -5.0])
    def test_who_may_come_back_at_once_is_not_kept_out(self, board: Board, seconds: float) -> None:
        board.limited(seconds)
        assert board.why() is None

    def test_a_call_that_began_before_and_succeeds_does_not_end_it(self, board: Board) -> None:
        early = board.begin()
        board.limited(20.0)
        early.succeeded(0.1)
        assert board.why() is ExclusionReason.COOLDOWN

    @examples(100)
    @given(st.lists(st.tuples(st.sampled_from(FaultKind), st.none() | st.floats(0.0, 5_000.0)), max_size=20))
    def test_no_fault_and_no_success_shortens_it(self, faults: list[tuple[FaultKind, float | None]]) -> None:
        board = Board()
        attempts = [board.begin() for _ in range(2 * len(faults))]
        last = 0.0
        for kind, seconds in faults:
            attempts.pop().failed(ProviderFault(kind, "x", retry_after_seconds=seconds))
            attempts.pop().succeeded(None)
            left = board.report().cooldown_seconds
            assert last <= left <= MAX_COOLDOWN_SECONDS
            last = left


class TestAccounts:
    @pytest.fixture
    def board(self) -> Board:
        return Board(*SHARED_ACCOUNT)

    @pytest.mark.parametrize(
        ("kind", "event", "trouble"),
        [
            (FaultKind.AUTH, "provider_key_refused", "its provider refuses the key"),
            (FaultKind.QUOTA, "provider_quota_used_up", "the quota of its provider account is used up"),
        ],
    )
    def test_all_its_deployments_cool(self, board: Board, kind: FaultKind, event: str, trouble: str) -> None:
        with structlog.testing.capture_logs() as logs:
            board.limited(None, kind)
        assert [board.why(name) for name in "def"] == [ExclusionReason.COOLDOWN, ExclusionReason.COOLDOWN, None]
        assert board.detail("e") == f"{trouble}; next try in 30 s"
        assert logs == [{"event": event, "log_level": "error", "provider": "acme"}]

    def test_those_who_were_well_a_moment_ago_too(self, board: Board) -> None:
        board.succeed("e")
        assert board.why("e") is None
        board.limited(None, FaultKind.AUTH)
        assert board.why("e") is ExclusionReason.COOLDOWN

    @pytest.mark.parametrize("kind", ACCOUNT)
    def test_it_doubles_up_to_ten_minutes_and_is_told_once(self, board: Board, kind: FaultKind) -> None:
        waits = []
        with structlog.testing.capture_logs() as logs:
            for place in range(7):
                name = "de"[place % 2]
                board.limited(None, kind, name)
                waits.append(board.back_in(name))
                board.clock.advance(waits[-1])
        assert waits == [30, 60, 120, 240, 480, 600, 600]
        assert [log["event"] for log in logs if log["log_level"] == "error"] == [
            {FaultKind.AUTH: "provider_key_refused", FaultKind.QUOTA: "provider_quota_used_up"}[kind]
        ]

    def test_an_answer_of_any_of_its_deployments_ends_the_outage(self, board: Board) -> None:
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                board.limited(None, FaultKind.AUTH)
                assert board.back_in("e") == 30.0
                board.clock.advance(30.0)
                board.succeed("e")
        assert [log["event"] for log in logs] == ["provider_key_refused"] * 2

    def test_a_longer_wish_is_kept(self, board: Board) -> None:
        board.limited(45.0, FaultKind.QUOTA)
        assert board.back_in("e") == 45.0

    def test_of_two_cooldowns_the_longer_one_is_told(self, board: Board) -> None:
        attempts = [board.begin("e"), board.begin("e")]
        attempts[0].failed(ProviderFault(FaultKind.RATE_LIMITED, "x", retry_after_seconds=40.0))
        attempts[1].failed(ProviderFault(FaultKind.AUTH, "x"))
        assert board.detail("e") == "its provider wants to be left alone for another 40 s"
        assert board.detail("d") == "its provider refuses the key; next try in 30 s"

    def test_a_deployment_that_joins_the_account_cools_with_it(self, board: Board) -> None:
        board.succeed("f")
        board.limited(None, FaultKind.AUTH)
        moved = deployment("f", provider=provider("acme"))
        board.follow(*SHARED_ACCOUNT[:2], moved, deployment("g", provider=provider("acme")), policy=BreakerPolicy())
        for name in "fg":
            assert isinstance(board.ask(name), Rejection)
            assert board.why(name) is ExclusionReason.COOLDOWN

    def test_a_deployment_that_left_the_account_is_free_of_it(self, board: Board) -> None:
        board.succeed("e")
        board.limited(None, FaultKind.AUTH)
        board.follow(SHARED_ACCOUNT[0], deployment("e", provider=provider("new")), policy=BreakerPolicy())
        board.succeed("e")
        assert [board.why("d"), board.why("e")] == [ExclusionReason.COOLDOWN, None]

    def test_a_sibling_that_moved_in_before_it_was_called_cools_too(self, board: Board) -> None:
        board.succeed("f")
        board.follow(*SHARED_ACCOUNT[:2], deployment("f", provider=provider("acme")), policy=BreakerPolicy())
        board.limited(None, FaultKind.AUTH)
        assert board.why("f") is ExclusionReason.COOLDOWN
