"""The chance that an answer is good: the calibrated expectation of the decision, moved by what the answer shows.

All evidence is in log-odds and adds up, as for independent evidence under Bayes' rule. Only the first two terms are
learned: the expectation from recorded outcomes, the history from callers' verdicts. The others are set by judgement,
small enough that history outweighs them where they are wrong; `docs/confidence.md` has a worked example.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pointsman_server.decision.quality import log_odds
from pointsman_server.domain.confidence import Confidence
from pointsman_server.domain.experience import NO_VERDICTS, PRIOR_VERDICTS, Verdicts
from pointsman_server.domain.plan import Factor
from pointsman_server.domain.reply import FinishReason

TYPICAL_CERTAINTY = 0.85
"""Mean probability of the tokens of an answer that says nothing in particular of its quality."""

MOST_CERTAINTY_SHIFT = 1.5
"""However sure a model is of its words: that they are right is another matter."""

FINISH_SHIFTS = {
    FinishReason.LENGTH: -1.0,
    FinishReason.CONTENT_FILTER: -3.0,
    FinishReason.REFUSAL: -3.0,
    FinishReason.PAUSE: -0.5,
    FinishReason.ERROR: -3.0,
    FinishReason.UNKNOWN: -0.5,
}
"""An answer that did not end by itself is less often a good one."""

REFUSAL_SHIFT, DOUBT_SHIFT = -2.0, -1.0
CITED_SHIFT, RELEVANT_SHIFT, UNCITED_SHIFT = 0.3, 0.4, -0.5
AGREEMENT_SHIFT = 1.2
"""Full agreement of two models adds this, full disagreement takes it away."""

REPAIR_SHIFT = -0.3

_BEGINNING_CHARACTERS = 200
_REFUSAL = re.compile(
    r"\bsorry\b.{0,60}\b(?:can't|cannot|unable)\b|\bas an ai\b"
    r"|\bi (?:can't|cannot|am unable to|won't) (?:help|assist|provide|answer|do that)\b|\bi'm unable to\b",
    re.DOTALL,
)
_DOUBT = re.compile(
    r"\bi (?:don't|do not) (?:know|have (?:enough|any) information)\b|\bi(?:'| a)m not (?:sure|certain)\b"
)
_CURLY = "\u2019"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an answer. None says that there is nothing to know.

    `expected_quality` is the candidate's; `own` are the tenant's verdicts on this model at such requests beyond those
    that the expectation holds already. `certainty` 0..1 is the mean probability of its tokens, or a match's quality.
    `documents` were given, of which those `cited` had these relevances. `agreement` 0..1 is another model's.
    """

    expected_quality: float
    finish_reason: FinishReason
    text: str
    own: Verdicts = NO_VERDICTS
    certainty: float | None = None
    documents: int = 0
    cited: tuple[float, ...] = ()
    other_sources: int = 0
    agreement: float | None = None
    repaired: bool = False


def confidence_of(evidence: Evidence) -> Confidence:
    """The confidence with its factors; those that are 0 are left out, but the first."""
    factors = tuple(_factors(evidence))
    total = sum(factor.value for factor in factors)
    return Confidence(1.0 / (1.0 + math.exp(-total)), factors)


def _factors(evidence: Evidence) -> Iterator[Factor]:
    expected = log_odds(evidence.expected_quality)
    yield Factor("expected_quality", expected)
    for name, value in (
        ("historical_accuracy", _history(evidence)),
        ("model_certainty", _certainty(evidence.certainty)),
        ("finish", FINISH_SHIFTS.get(evidence.finish_reason, 0.0)),
        ("wording", _wording(evidence.text)),
        ("sources", _sources(evidence)),
        ("cross_validation", 0.0 if evidence.agreement is None else AGREEMENT_SHIFT * (2 * evidence.agreement - 1)),
        ("repaired", REPAIR_SHIFT if evidence.repaired else 0.0),
    ):
        if value:
            yield Factor(name, value)


def _history(evidence: Evidence) -> float:
    """The posterior mean of a Beta prior around the expectation, worth `PRIOR_VERDICTS`, in log-odds to it."""
    total, weight = evidence.own
    if weight <= 0:
        return 0.0
    posterior = (PRIOR_VERDICTS * evidence.expected_quality + total) / (PRIOR_VERDICTS + weight)
    return log_odds(posterior) - log_odds(evidence.expected_quality)


def _certainty(certainty: float | None) -> float:
    if certainty is None:
        return 0.0
    shift = log_odds(certainty) - log_odds(TYPICAL_CERTAINTY)
    return max(-MOST_CERTAINTY_SHIFT, min(MOST_CERTAINTY_SHIFT, shift))


def _wording(text: str) -> float:
    beginning = text[:_BEGINNING_CHARACTERS].replace(_CURLY, "'").lower()
    if _REFUSAL.search(beginning):
        return REFUSAL_SHIFT
    return DOUBT_SHIFT if _DOUBT.search(beginning) else 0.0


def _sources(evidence: Evidence) -> float:
    if evidence.cited:
        return CITED_SHIFT + RELEVANT_SHIFT * sum(evidence.cited) / len(evidence.cited)
    if evidence.other_sources:
        return CITED_SHIFT
    return UNCITED_SHIFT if evidence.documents else 0.0
