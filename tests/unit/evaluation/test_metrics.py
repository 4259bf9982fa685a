from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pointsman_server.evaluation.metrics import (
    Floats,
    Pair,
    apgr,
    apgr_interval,
    cpt,
    saved_at,
    share_reaching,
    trade_off,
)

WEAK = np.array([0.0, 0.0, 1.0, 1.0])
STRONG = np.array([1.0, 1.0, 1.0, 1.0])
CHEAP, DEAR = np.full(4, 1.0), np.full(4, 5.0)
PAIR = Pair(WEAK, STRONG, CHEAP, DEAR)

PERFECT = np.array([4.0, 3.0, 2.0, 1.0])

SIZES = st.integers(1, 30)
OUTCOMES = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats, Floats]:
    """A ranking with ties, and the scores of a weak and a strong model of which the strong one is better."""
    size = draw(SIZES)
    ranking = draw(arrays.arrays(np.float64, size, elements=st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9])))
    weak = draw(arrays.arrays(np.float64, size, elements=OUTCOMES))
    strong = draw(arrays.arrays(np.float64, size, elements=OUTCOMES))
    strong[draw(st.integers(0, size - 1))] = 1.0
    if strong.sum() <= weak.sum():
        weak, strong = np.zeros(size), strong
    return ranking, weak, strong


def priced(weak: Floats, strong: Floats) -> Pair:
    return Pair(weak, strong, np.ones(len(weak)), np.full(len(weak), 5.0))


def test_a_perfect_order_by_hand() -> None:
    # PGR is 0, 1/2, 1, 1, 1 at 0, 1/4, 1/2, 3/4, 1: areas 1/16 + 3/16 + 1/4 + 1/4.
    assert apgr(PERFECT, WEAK, STRONG) == pytest.approx(0.75)


def test_the_inverse_order_by_hand() -> None:
    # PGR is 0, 0, 0, 1/2, 1: areas 1/16 + 3/16.
    assert apgr(-PERFECT, WEAK, STRONG) == pytest.approx(0.25)


def test_all_tied_is_the_lot() -> None:
    assert apgr(np.zeros(4), WEAK, STRONG) == pytest.approx(0.5)
    curve = trade_off(np.zeros(4), PAIR)
    assert cpt(curve, 0.8) == pytest.approx(0.8)
    assert curve.share.tolist() == [0.0, 1.0]


def test_a_partial_tie_is_the_mean_of_its_orders() -> None:
    tied = apgr(np.array([2.0, 1.0, 1.0, 0.0]), WEAK, STRONG)
    orders = [apgr(np.array([4.0, 3.0, 2.0, 1.0]), WEAK, STRONG), apgr(np.array([4.0, 2.0, 3.0, 1.0]), WEAK, STRONG)]
    assert tied == pytest.approx(sum(order for order in orders if order is not None) / 2)


def test_thresholds_and_savings_by_hand() -> None:
    curve = trade_off(PERFECT, PAIR)
    assert cpt(curve, 0.5) == pytest.approx(0.25)
    assert cpt(curve, 0.8) == pytest.approx(0.4)
    # 95 % of a quality of 1 needs 0.45 of the prompts: cost 1 + 0.45 * 4 of 5.
    assert saved_at(curve, 0.95) == pytest.approx(1 - 2.8 / 5)


def test_quality_that_the_weak_model_has_needs_nobody_else() -> None:
    curve = trade_off(PERFECT, PAIR)
    assert share_reaching(curve, 0.5) == 0.0
    assert saved_at(curve, 0.5) == pytest.approx(0.8)


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    assert apgr(PERFECT, STRONG, STRONG) is None
    assert apgr(PERFECT, STRONG, WEAK) is None
    assert cpt(trade_off(PERFECT, Pair(STRONG, WEAK, CHEAP, DEAR)), 0.5) is None
    assert apgr_interval(PERFECT, STRONG, STRONG, resamples=20) is None


def test_the_interval_holds_the_estimate_and_repeats() -> None:
    dice = np.random.default_rng(3)
    ranking = dice.random(300)
    strong = np.ones(300)
    weak = (dice.random(300) > ranking).astype(np.float64)
    found = apgr_interval(ranking, weak, strong, resamples=200)
    estimate = apgr(ranking, weak, strong)
    assert found is not None
    assert estimate is not None
    assert 0.5 < found.low < estimate < found.high
    assert found == apgr_interval(ranking, weak, strong, resamples=200)


@given(cases())
def test_the_oracle_is_at_least_as_good_as_any(case: tuple[Floats, Floats, Floats]) -> None:
    ranking, weak, strong = case
    area, best = apgr(ranking, weak, strong), apgr(strong - weak, weak, strong)
    assert area is not None
    assert best is not None
    assert best >= area - 1e-9


@given(cases())
def test_turning_the_order_mirrors_the_area(case: tuple[Floats, Floats, Floats]) -> None:
    ranking, weak, strong = case
    area, turned = apgr(ranking, weak, strong), apgr(-ranking, weak, strong)
    assert area is not None
    assert turned == pytest.approx(1 - area)


@given(cases())
def test_the_area_is_that_under_the_curve(case: tuple[Floats, Floats, Floats]) -> None:
    ranking, weak, strong = case
    curve = trade_off(ranking, priced(weak, strong))
    recovered = (curve.quality - curve.quality[0]) / (curve.quality[-1] - curve.quality[0])
    assert apgr(ranking, weak, strong) == pytest.approx(float(np.trapezoid(recovered, curve.share)))


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(case: tuple[Floats, Floats, Floats], dice: object) -> None:
    ranking, weak, strong = case
    order = np.arange(len(ranking))
    dice.shuffle(order)  # type: ignore[attr-defined]  # a random.Random
    assert apgr(ranking[order], weak[order], strong[order]) == pytest.approx(apgr(ranking, weak, strong))


@given(cases(), st.floats(0.01, 1.0))
def test_a_threshold_has_the_quality_it_is_asked_for(case: tuple[Floats, Floats, Floats], recovered: float) -> None:
    ranking, weak, strong = case
    curve = trade_off(ranking, priced(weak, strong))
    share = cpt(curve, recovered)
    assert share is not None
    wanted = curve.quality[0] + recovered * (curve.quality[-1] - curve.quality[0])
    assert np.interp(share, curve.share, curve.quality) >= wanted - 1e-9
