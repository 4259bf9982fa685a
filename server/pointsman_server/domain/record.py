"""A decision as it is kept: everything it depended on and what came of it, without a word of the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.plan import ExclusionReason, RoutePlan


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """A plan by ids: candidates best first with their scores and expected costs, and the excluded with reasons."""

    ranked: tuple[tuple[str, float, int], ...] = ()
    excluded: tuple[tuple[str, ExclusionReason], ...] = ()
    refusal: str = ""
    """The name of the error when nobody might answer."""

    @property
    def chosen(self) -> str:
        """The id of the pick, "" for a refusal."""
        return self.ranked[0][0] if self.ranked else ""

    @property
    def expected_cost_micro_usd(self) -> int:
        """The pick's expected cost, 0 for a refusal."""
        return self.ranked[0][2] if self.ranked else 0


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision. `decided_at` is in seconds since the Unix epoch."""

    decision_id: str
    request_id: str
    decided_at: float
    policy_version: str
    circumstances: Circumstances
    outcome: PlanSummary


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy as it is kept: with what else shaped it, so that it can be compiled to the same again.

    `unusable` are the providers that could not be called, by id with the reason; `priced_on` is the day whose prices
    were in force. `calibration` is the text of the calibration file, "" without one. `cost_weights` are kept because
    they follow from data that comes with the package and changes with it. The text holds no secrets: a policy has
    references to keys only.
    """

    version: str
    text: str
    file: str
    priced_on: date
    unusable: Mapping[str, str] = field(default_factory=dict)
    calibration: str = ""
    cost_weights: tuple[float, ...] = ()


def summarise(plan: RoutePlan) -> PlanSummary:
    """What is kept of a plan."""
    return PlanSummary(
        ranked=tuple((one.deployment.id, one.score, one.expected_cost_micro_usd) for one in plan.candidates),
        excluded=tuple((rejection.deployment_id, rejection.reason) for rejection in plan.rejections),
    )
