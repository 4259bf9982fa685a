"""How well a model is expected to answer a request."""

from __future__ import annotations

import math

from pointsman_server.domain.catalog import Model
from pointsman_server.domain.experience import Experience
from pointsman_server.domain.plan import Complexity

_LEAST, _MOST = 0.001, 0.999


def expected_quality(model: Model, complexity: Complexity, experience: Experience) -> float:
    """Probability of a good answer, 0..1, corrected by what callers' verdicts taught."""
    expected = _calibrated_quality(model, complexity)
    if expected is None:
        expected = quality_at(model.quality, complexity.difficulty, complexity.discrimination)
    return experience.corrected(model.id, expected) if experience.verdicts else expected


def _calibrated_quality(model: Model, complexity: Complexity) -> float | None:
    """What a tenant's outcomes say of the model's tier, moved by as much as the model differs from its tier.

    None where there is no map for such a request. The log-odds of the map at the request's score are those of the
    tier's mean model; another's are further by the discrimination times the distance of their abilities.
    """
    known = model.calibrated
    found = known.map_for(complexity.task.value) if known else None
    if known is None or found is None:
        return None
    of_tier = log_odds(found.at(complexity.score))
    return _share(of_tier + complexity.discrimination * known.above_tier)


def quality_at(quality: float, difficulty: float, discrimination: float) -> float:
    """The chance that a model of this quality answers a request of this difficulty well.

    The two-parameter item response (A. Birnbaum, 1968): discrimination times the distance of the model's ability,
    the log-odds of its `quality`, from the difficulty are the log-odds of success. At difficulty 0 and
    discrimination 1 it is the `quality` itself.
    """
    return _share(discrimination * (log_odds(quality) - difficulty))


def log_odds(share: float) -> float:
    """The log-odds of a share; of a `quality`, the ability. Shares near 0 and 1 are taken to be less near."""
    bounded = min(max(share, _LEAST), _MOST)
    return math.log(bounded / (1.0 - bounded))


def _share(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))
