"""What a process remembers between calls, with lists where a real one writes files."""

from __future__ import annotations

from pointsman_server.domain.ports import Clock
from pointsman_server.domain.record import DecisionRecord
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution.admission import DeploymentPlaces
from pointsman_server.execution.decisions import DecisionBook
from pointsman_server.execution.feedback import FeedbackBook
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.pipeline import Memory
from pointsman_server.execution.sessions import SessionBook


class DecisionList:
    """Keeps decisions in order."""

    def __init__(self) -> None:
        self.kept: list[DecisionRecord] = []

    def append(self, record: DecisionRecord) -> None:
        """See `DecisionLog.append`."""
        self.kept.append(record)


class VerdictList:
    """Keeps verdicts in order."""

    def __init__(self) -> None:
        self.kept: list[Verdict] = []

    def append(self, verdict: Verdict) -> None:
        """See `VerdictLog.append`."""
        self.kept.append(verdict)


class Remembered:
    """An empty memory, its parts and its logs at hand."""

    def __init__(self, clock: Clock) -> None:
        self.decided, self.judged = DecisionList(), VerdictList()
        self.health = HealthBoard(clock)
        self.sessions = SessionBook(clock)
        self.feedback = FeedbackBook(clock, self.judged)
        self.decisions = DecisionBook(clock)
        self.places = DeploymentPlaces()
        self.memory = Memory(self.health, self.places, self.sessions, self.feedback, self.decisions, self.decided)
