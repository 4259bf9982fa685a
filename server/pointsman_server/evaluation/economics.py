"""Three models at a time: thresholds fixed on one half of the prompts, what they cost and keep on the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointsman_server.evaluation.figures import blind_mix_cost
from pointsman_server.evaluation.folder import RoutingData
from pointsman_server.evaluation.metrics import Floats

KEPT_TARGETS = (0.95, 0.96, 0.97, 0.98)
"""Parts of the strongest model's quality that thresholds are solved for."""

TRIPLES: Mapping[str, tuple[str, str, str]] = {
    "claude 3 haiku / 3.5 haiku / 3.5 sonnet": (
        "claude-3-haiku-20240307",
        "claude-3-5-haiku-20241022",
        "claude-3-5-sonnet-20241022",
    ),
    "claude 3 haiku / sonnet / opus": (
        "claude-3-haiku-20240307",
        "claude-3-sonnet-20240229",
        "claude-3-opus-20240229",
    ),
    "llama 3.1 8b / 70b / 405b": ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct", "Llama-3.1-405B-Inst"),
}
"""Light, standard and advanced model of one family."""

LEAST_PROMPTS = 40

_CUTS = 101
"""How many places of a threshold are tried, evenly spread over the scores of the half it is fixed on."""

_TOLERANCE = 1e-9

Choices = NDArray[np.intp]
"""The chosen model of each prompt: 0 light, 1 standard, 2 advanced."""


class Outcomes(NamedTuple):
    """Quality and cost of three models on the same prompts: arrays of shape (3, prompts), weakest model first."""

    quality: Floats
    cost: Floats

    def at(self, places: NDArray[np.bool_]) -> Outcomes:
        """Those of some of the prompts."""
        return Outcomes(self.quality[:, places], self.cost[:, places])


class Thresholds(NamedTuple):
    """From the first score on the standard model answers, from the second on the advanced one."""

    standard_from: float
    advanced_from: float

    def choose(self, scores: Floats) -> Choices:
        """The model for each score."""
        return (scores >= self.standard_from).astype(np.intp) + (scores >= self.advanced_from)


@dataclass(frozen=True, slots=True)
class ThreeTiers:
    """What a way of choosing gives. Quality and savings against always the strongest; shares weakest model first.

    `adequate` is the share of prompts on which the chosen model did as well as the strongest. `blind_saved` is what
    the cheapest lot between the models of the same quality saves; None if no lot has that quality.
    """

    triple: str
    chosen_by: str
    kept_target: float | None
    prompts: int
    quality: float
    saved: float
    adequate: float
    blind_saved: float | None
    shares: tuple[float, float, float]


def measure_triples(data: RoutingData, ranking: Floats, lengths: Floats) -> Iterator[ThreeTiers]:
    """For every triple with prices and enough prompts: the router at every target, prompt length, and the oracle."""
    half = np.array(data.first_half)
    for name, models in TRIPLES.items():
        places = data.places_with(models)
        if len(places) < LEAST_PROMPTS or not _are_priced(data, models, places):
            continue
        outcomes = Outcomes(
            np.array([data.scores[model][places] for model in models]),
            np.array([data.costs[model][places] for model in models]),
        )
        for kept in KEPT_TARGETS:
            chosen = choose_across(ranking[places], outcomes, half[places], kept)
            yield weigh(name, "router", kept, outcomes, chosen)
        for kept in KEPT_TARGETS[:2]:
            chosen = choose_across(lengths[places], outcomes, half[places], kept)
            yield weigh(name, "prompt length", kept, outcomes, chosen)
        yield weigh(name, "oracle", None, outcomes, oracle_choices(outcomes))


def _are_priced(data: RoutingData, models: Sequence[str], places: Sequence[int]) -> bool:
    costs = [data.cost(model, places) for model in models]
    return not np.isnan(costs).any() and float(costs[-1].sum()) > 0


def choose_across(scores: Floats, outcomes: Outcomes, half: NDArray[np.bool_], kept: float) -> Choices:
    """Each half by the thresholds that were fixed on the other."""
    chosen = np.zeros(len(scores), dtype=np.intp)
    for measured in (half, ~half):
        thresholds = fix_thresholds(scores[~measured], outcomes.at(~measured), kept)
        chosen[measured] = thresholds.choose(scores[measured])
    return chosen


def fix_thresholds(scores: Floats, outcomes: Outcomes, kept: float) -> Thresholds:
    """The cheapest thresholds that keep this part of the strongest model's quality on these prompts.

    Always the strongest is among what is tried, so there is always an answer.
    """
    cuts = np.unique(np.append(np.quantile(scores, np.linspace(0, 1, _CUTS)), np.inf))
    below = np.searchsorted(np.sort(scores), cuts, side="left")
    order = np.argsort(scores, kind="stable")
    quality, cost = (_totals(values[:, order], below) for values in outcomes)
    target = kept * outcomes.quality[2].sum() - _TOLERANCE
    cost[(quality < target) | (below[:, None] > below[None, :])] = np.inf
    standard, advanced = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return Thresholds(float(cuts[standard]), float(cuts[advanced]))


def _totals(ordered: Floats, below: NDArray[np.intp]) -> Floats:
    """The sum over all prompts for each (standard, advanced) pair of cuts; `ordered` goes by rising score."""
    light, standard, advanced = np.concatenate((np.zeros((3, 1)), np.cumsum(ordered, axis=1)), axis=1)[:, below]
    whole = ordered[2].sum()
    return np.asarray((light - standard)[:, None] + (standard - advanced)[None, :] + whole)


def oracle_choices(outcomes: Outcomes) -> Choices:
    """The cheapest model that does as well as the strongest, seen afterwards."""
    cost = np.where(outcomes.quality >= outcomes.quality[2], outcomes.cost, np.inf)
    return np.asarray(np.argmin(cost, axis=0))


def weigh(name: str, chosen_by: str, kept: float | None, outcomes: Outcomes, chosen: Choices) -> ThreeTiers:
    """What these choices give, beside the blind mix of the same quality."""
    prompts = np.arange(len(chosen))
    quality, cost = outcomes.quality[chosen, prompts], outcomes.cost[chosen, prompts]
    strongest, most = float(outcomes.quality[2].mean()), float(outcomes.cost[2].mean())
    mixed = blind_mix_cost(_means(outcomes.quality), _means(outcomes.cost), float(quality.mean()))
    light, standard, advanced = (np.bincount(chosen, minlength=3) / len(chosen)).tolist()
    return ThreeTiers(
        triple=name,
        chosen_by=chosen_by,
        kept_target=kept,
        prompts=len(chosen),
        quality=float(quality.mean()) / (strongest or 1.0),
        saved=1 - float(cost.mean()) / most,
        adequate=float((quality >= outcomes.quality[2]).mean()),
        blind_saved=None if mixed is None else 1 - mixed / most,
        shares=(light, standard, advanced),
    )


def _means(values: Floats) -> Sequence[float]:
    means: list[float] = values.mean(axis=1).tolist()
    return means
