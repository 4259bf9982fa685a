from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.forest import BITS_PER_TREE, Forest

FEATURES = 4
THRESHOLDS = [[-1.0, 0.0, 0.5], [2.0, 3.0, 4.0], [0.1, 0.2, 0.3], [10.0, 20.0, 1e9]]


def leaf() -> st.SearchStrategy[int]:
    return st.integers(-100_000, 100_000)


def grown(children: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.builds(lambda *node: list(node), st.integers(0, FEATURES - 1), st.integers(0, 2), children, children)


def leaves_of(node: Any) -> int:
    return leaves_of(node[2]) + leaves_of(node[3]) if isinstance(node, list) else 1


def walked(node: Any, features: list[float]) -> int:
    """The slow way: from the root down, a value up to the threshold goes left."""
    while isinstance(node, list):
        feature, threshold, left, right = node
        node = left if features[feature] <= THRESHOLDS[feature][threshold] else right
    return int(node)


def data(**targets: list[Any]) -> dict[str, Any]:
    parts = {name: {"bias": 0.25, "scale": 0.001, "trees": trees} for name, trees in targets.items()}
    return {"thresholds": THRESHOLDS, "targets": parts}


trees = st.recursive(leaf(), grown, max_leaves=BITS_PER_TREE).filter(lambda tree: leaves_of(tree) <= BITS_PER_TREE)
values = st.one_of(st.sampled_from([value for column in THRESHOLDS for value in column]), st.floats(-50, 50))


@examples(100)
@given(
    first=st.lists(trees, min_size=1, max_size=8),
    second=st.lists(trees, max_size=3),
    features=st.lists(values, min_size=FEATURES, max_size=FEATURES),
)
def test_a_forest_equals_walking_its_trees(first: list[Any], second: list[Any], features: list[float]) -> None:
    forest = Forest.load(data(need=first, cheap=second))

    expected = [0.25 + 0.001 * sum([walked(tree, features) for tree in part]) for part in (first, second)]

    assert forest.names == ("need", "cheap")
    assert forest.raw_scores(features) == pytest.approx(expected)
    assert forest.raw_score(features) == pytest.approx(expected[0])


def test_a_value_equal_to_the_threshold_goes_left() -> None:
    forest = Forest.load(data(need=[[1, 0, 7, 9]]))

    assert forest.raw_score([0.0, 2.0, 0.0, 0.0]) == pytest.approx(0.257)
    assert forest.raw_score([0.0, 2.000001, 0.0, 0.0]) == pytest.approx(0.259)


def test_a_tree_with_more_leaves_than_bits_is_refused() -> None:
    tree: Any = 0
    for _ in range(BITS_PER_TREE):
        tree = [0, 0, tree, 1]

    with pytest.raises(ValueError, match="17 leaves; the most is 16"):
        Forest.load(data(need=[tree]))


def test_thresholds_out_of_order_are_refused() -> None:
    broken = data(need=[[1, 0, 7, 9]]) | {"thresholds": [[], [3.0, 2.0], [], []]}

    with pytest.raises(ValueError, match="feature 1 are not in ascending order"):
        Forest.load(broken)


def test_a_forest_without_trees_is_refused() -> None:
    with pytest.raises(ValueError, match="no tree"):
        Forest.load(data(need=[]))
