"""Two models at a time: a folder's sources, their subsets, and mixes of sources, each with its figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from pointsman_server.evaluation.figures import blind_mix_cost
from pointsman_server.evaluation.folder import RoutingData
from pointsman_server.evaluation.metrics import (
    Floats,
    Interval,
    Pair,
    apgr,
    apgr_interval,
    cpt,
    saved_at,
    trade_off,
)

KEPT = 0.95
"""The part of the strong model's quality at which savings are told."""

LEAST_PROMPTS = 50
"""Subsets with fewer prompts are left out: their figures would be noise."""

MOST_PROMPTS_OF_A_SOURCE = 500
"""In a mix, so that no source drowns the others."""

MIXES: Mapping[str, tuple[str, str]] = {
    "claude-3-haiku / claude-3.5-sonnet": ("claude-3-haiku-20240307", "claude-3-5-sonnet-20241022"),
    "llama-3.1-8b / llama-3.1-70b": ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct"),
    "mixtral-8x7b / gpt-4": ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview"),
}
"""Pairs of models that several sources have in common."""

CURVE_POINTS = 41


class Kind(Enum):
    """What a slice is a part of."""

    SOURCE = "source"
    MIX = "mix"
    SUBSET = "subset"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some prompts on which one pair of models was asked."""

    name: str
    kind: Kind
    weak_model: str
    strong_model: str
    places: Sequence[int]
    pair: Pair


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What sending this share of the prompts to the strong model gives; cost and quality as shares of all strong."""

    share: float
    quality: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """The figures of one slice; None where they are not defined (no gap, no price, too little data)."""

    name: str
    kind: Kind
    prompts: int
    weak_model: str
    strong_model: str
    weak_quality: float
    strong_quality: float
    apgr: float | None
    apgr_interval: Interval | None
    cpt50: float | None
    cpt80: float | None
    saved: float | None
    blind_saved: float | None
    length_apgr: float | None
    length_saved: float | None
    oracle_apgr: float | None
    oracle_saved: float | None
    curve: Sequence[CurvePoint]


def sources(data: RoutingData) -> Iterator[Slice]:
    """One slice for each source and pair of models in it."""
    for (source, *_), places in _grouped(data, range(len(data.items)), by_subset=False).items():
        yield _canonical(data, source, Kind.SOURCE, places)


def subsets(data: RoutingData) -> Iterator[Slice]:
    """One slice for each subset that has enough prompts and is not a whole source."""
    sizes = {key: len(places) for key, places in _grouped(data, range(len(data.items)), by_subset=False).items()}
    for key, places in _grouped(data, range(len(data.items)), by_subset=True).items():
        if LEAST_PROMPTS <= len(places) < sizes[*key[:3], ""]:
            yield _canonical(data, f"{key[0]}: {key[3]}", Kind.SUBSET, places)


def mixes(data: RoutingData) -> Iterator[Slice]:
    """One slice for each pair of `MIXES` that at least two sources have, some prompts of each."""
    for name, (weak, strong) in MIXES.items():
        taken: dict[str, list[int]] = defaultdict(list)
        for place in data.places_with((weak, strong)):
            of_source = taken[data.items[place].source]
            if len(of_source) < MOST_PROMPTS_OF_A_SOURCE:
                of_source.append(place)
        if len(taken) > 1:
            places = [place for of_source in taken.values() for place in of_source]
            yield Slice(name, Kind.MIX, weak, strong, places, data.pair(weak, strong, places))


_Key = tuple[str, str, str, str]


def _grouped(data: RoutingData, places: Sequence[int], *, by_subset: bool) -> dict[_Key, list[int]]:
    grouped: dict[_Key, list[int]] = defaultdict(list)
    for place in places:
        item = data.items[place]
        grouped[item.source, item.weak_model, item.strong_model, item.subset if by_subset else ""].append(place)
    return grouped


def _canonical(data: RoutingData, name: str, kind: Kind, places: Sequence[int]) -> Slice:
    first = data.items[places[0]]
    return Slice(name, kind, first.weak_model, first.strong_model, places, data.canonical(places))


def measure_slice(part: Slice, ranking: Floats, lengths: Floats, *, resamples: int = 1_000) -> SliceFigures:
    """All figures of a slice; `ranking` and `lengths` are those of its prompts."""
    pair = part.pair
    curve = trade_off(ranking, pair)
    gains = pair.strong - pair.weak
    return SliceFigures(
        name=part.name,
        kind=part.kind,
        prompts=len(part.places),
        weak_model=part.weak_model,
        strong_model=part.strong_model,
        weak_quality=float(pair.weak.mean()),
        strong_quality=float(pair.strong.mean()),
        apgr=apgr(ranking, pair.weak, pair.strong),
        apgr_interval=apgr_interval(ranking, pair.weak, pair.strong, resamples=resamples),
        cpt50=cpt(curve, 0.5),
        cpt80=cpt(curve, 0.8),
        saved=_saved(pair, ranking),
        blind_saved=_blind_saved(pair),
        length_apgr=apgr(lengths, pair.weak, pair.strong),
        length_saved=_saved(pair, lengths),
        oracle_apgr=apgr(gains, pair.weak, pair.strong),
        oracle_saved=_saved(pair, gains),
        curve=_curve(ranking, pair),
    )


def is_priced(pair: Pair) -> bool:
    """Whether both models have a price and the strong one costs something, so that money can be told."""
    return not np.isnan(pair.weak_cost).any() and float(pair.strong_cost.sum()) > 0


def _saved(pair: Pair, ranking: Floats) -> float | None:
    return saved_at(trade_off(ranking, pair), KEPT) if is_priced(pair) else None


def _blind_saved(pair: Pair) -> float | None:
    if not is_priced(pair):
        return None
    qualities = [float(pair.weak.mean()), float(pair.strong.mean())]
    costs = [float(pair.weak_cost.mean()), float(pair.strong_cost.mean())]
    mixed = blind_mix_cost(qualities, costs, KEPT * qualities[1])
    return None if mixed is None else 1 - mixed / costs[1]


def _curve(ranking: Floats, pair: Pair) -> list[CurvePoint]:
    curve, priced = trade_off(ranking, pair), is_priced(pair)
    shares = np.linspace(0, 1, CURVE_POINTS)
    qualities = np.interp(shares, curve.share, curve.quality) / (curve.quality[-1] or 1.0)
    costs = np.interp(shares, curve.share, curve.cost) / (curve.cost[-1] or 1.0)
    return [
        CurvePoint(round(float(share), 4), round(float(quality), 4), round(float(cost), 4) if priced else None)
        for share, quality, cost in zip(shares, qualities, costs, strict=True)
    ]
