"""A health board with a clock that tests control, and attempts that end as tests say."""

from __future__ import annotations

from kit.catalog import deployment, provider, snapshot
from kit.clock import FakeClock
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState, HealthReport
from pointsman_server.domain.plan import ExclusionReason, Rejection
from pointsman_server.domain.request import Tier
from pointsman_server.domain.resilience import BreakerPolicy, Resilience
from pointsman_server.execution.health import Admission, HealthBoard

OPEN_SECONDS = BreakerPolicy().open_seconds

UNAVAILABLE = ProviderFault(FaultKind.UNAVAILABLE, "down")

SHARED_ACCOUNT = (
    deployment("d", provider=provider("acme")),
    deployment("e", provider=provider("acme"), of={"tier": Tier.LIGHT}),
    deployment("f", provider=provider("other")),
)
"""Two deployments with the same key, and one with another."""

Transition = tuple[str, BreakerState, BreakerState]


class Board:
    """A board whose policy has these deployments (`d` and others of the same tier unless told otherwise)."""

    def __init__(
        self, *deployments: Deployment, policy: BreakerPolicy | None = None, clock: FakeClock | None = None
    ) -> None:
        self.clock = clock or FakeClock()
        self.transitions: list[Transition] = []
        self.health = HealthBoard(self.clock, lambda *transition: self.transitions.append(transition))
        self.follow(*(deployments or [deployment(name) for name in "defgh"]), policy=policy or BreakerPolicy())

    def follow(self, *deployments: Deployment, policy: BreakerPolicy) -> None:
        """From now on this is the policy."""
        self.snapshot = snapshot(*deployments, resilience=Resilience(breaker=policy))

    def ask(self, name: str = "d") -> Admission | Rejection:
        """Asks for an attempt."""
        return self.health.admit(self.snapshot.deployments[name], self.snapshot)

    def begin(self, name: str = "d") -> Admission:
        """An attempt that must be admitted."""
        admitted = self.ask(name)
        assert isinstance(admitted, Admission), admitted
        return admitted

    def succeed(self, name: str = "d", seconds: float | None = None, times: int = 1) -> None:
        """Attempts that begin and give their answers."""
        for _ in range(times):
            self.begin(name).succeeded(seconds)

    def fail(self, times: int = 1, fault: ProviderFault = UNAVAILABLE, name: str = "d") -> None:
        """Attempts that begin together and then fail, one after the other."""
        for attempt in [self.begin(name) for _ in range(times)]:
            attempt.failed(fault)

    def limited(self, seconds: float | None = None, kind: FaultKind = FaultKind.RATE_LIMITED, name: str = "d") -> None:
        """An attempt that the provider does not serve, with the time it names."""
        self.fail(1, ProviderFault(kind, "limited", retry_after_seconds=seconds), name)

    def why(self, name: str = "d") -> ExclusionReason | None:
        """Why the deployment is not listed as available."""
        rejection = self.health.view().unavailable(name)
        return None if rejection is None else rejection.reason

    def detail(self, name: str = "d") -> str:
        """The same in words."""
        rejection = self.health.view().unavailable(name)
        assert rejection is not None
        return rejection.detail

    def back_in(self, name: str = "d") -> float:
        """In how many seconds it is available again."""
        return self.health.view().retry_after_seconds([name])

    def report(self, name: str = "d") -> HealthReport:
        """What operators are told."""
        return self.health.report(name)

    def state(self, name: str = "d") -> BreakerState:
        """The breaker's state."""
        return self.report(name).breaker


def opened(board: Board, name: str = "d") -> Board:
    """The board, after this deployment failed until its breaker opened."""
    board.fail(5, name=name)
    assert board.state(name) is BreakerState.OPEN
    return board


def half_opened(board: Board) -> Admission:
    """The probe of a breaker whose time is over."""
    opened(board).clock.advance(OPEN_SECONDS)
    return board.begin()


def flap(board: Board, name: str, rounds: int = 10) -> None:
    """Every other attempt fails, for as long as there are any."""
    for _ in range(rounds):
        if board.why(name) is None:
            board.succeed(name)
        if board.why(name) is None:
            board.fail(name=name)
