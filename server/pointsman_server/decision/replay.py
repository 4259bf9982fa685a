"""Decides recorded decisions again: under the same policy, which must give the same, or under another."""

from __future__ import annotations

from dataclasses import dataclass, field

from pointsman_server.decision.engine import decide
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.errors import RouterError
from pointsman_server.domain.record import DecisionRecord, PlanSummary, summarise


def decide_again(record: DecisionRecord, snapshot: Snapshot) -> PlanSummary:
    """What comes of the recorded circumstances under this policy."""
    try:
        return summarise(decide(record.circumstances, snapshot))
    except RouterError as error:
        return PlanSummary(refusal=type(error).__name__)


@dataclass(slots=True)
class Comparison:
    """What would have been different under another policy, summed over decisions."""

    decisions: int = 0
    same: int = 0
    newly_refused: int = 0
    newly_answered: int = 0
    cost_before_micro_usd: int = 0
    cost_after_micro_usd: int = 0
    moves: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often the pick moved from one deployment to another; "" stands for a refusal."""

    def add(self, before: PlanSummary, after: PlanSummary) -> None:
        """Takes in one decision. Costs count where both would have answered."""
        self.decisions += 1
        self.same += before == after
        self.newly_refused += bool(before.chosen and not after.chosen)
        self.newly_answered += bool(after.chosen and not before.chosen)
        if before.chosen and after.chosen:
            self.cost_before_micro_usd += before.expected_cost_micro_usd
            self.cost_after_micro_usd += after.expected_cost_micro_usd
        if before.chosen != after.chosen:
            move = (before.chosen, after.chosen)
            self.moves[move] = self.moves.get(move, 0) + 1
