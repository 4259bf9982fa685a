"""Gradient-boosted trees in plain Python, fast enough for every request.

Walking hundreds of trees node by node costs a Python step per node. This walks none: each leaf is a bit, sixteen bits
to a tree, all trees side by side in one big integer. A test that fails (`value > threshold`) rules out the leaves of
its left branch; the masks of all tests that fail for one feature are combined beforehand, so one search among the
feature's thresholds and one `&` settle all its tests in all trees. The lowest bit left in a tree is the leaf it
reaches. (Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression
trees", SIGIR 2015, here with whole forests in one integer.)
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from operator import getitem
from typing import Any

BITS_PER_TREE = 16
"""Most leaves of one tree."""

_LANE = (1 << BITS_PER_TREE) - 1


class Forest:
    """Several targets, each a sum of trees, that share one pass over the features.

    The data is a mapping: `thresholds` lists for each feature its distinct thresholds, ascending; `targets` maps a
    name to `bias`, `scale` and `trees`. A tree is a whole number (a leaf, worth that number times the scale) or
    `[feature, index of the threshold, left, right]`; a value up to the threshold goes left. Feature and threshold
    are indexes, leaves whole numbers, to keep the file small.
    """

    __slots__ = ("_columns", "_every_leaf", "_lanes", "_leaves", "_one_per_lane", "_targets", "names")

    def __init__(
        self, names: tuple[str, ...], thresholds: Sequence[Sequence[float]], targets: Sequence[_Target]
    ) -> None:
        self.names = names
        trees = [tree for target in targets for tree in target[2]]
        self._leaves = [_leaves_by_bit(tree) for tree in trees]
        self._every_leaf = (1 << BITS_PER_TREE * len(trees)) - 1
        self._one_per_lane = self._every_leaf // _LANE
        self._lanes = struct.Struct(f"<{len(trees)}H")
        self._columns = _columns(thresholds, trees, self._every_leaf)
        self._targets = _slices(targets)

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Forest:
        """The forest of this mapping. KeyError, IndexError, TypeError or ValueError where the shape is another."""
        targets = [(float(part["bias"]), float(part["scale"]), part["trees"]) for part in data["targets"].values()]
        if not any(trees for _, _, trees in targets):
            raise ValueError("targets: the forest has no tree; train it again")
        return cls(tuple(data["targets"]), data["thresholds"], targets)

    def raw_scores(self, features: Sequence[float]) -> list[float]:
        """The sum of every target, in the order of `names`."""
        alive = self._every_leaf
        for index, thresholds, masks in self._columns:
            alive &= masks[bisect_left(thresholds, features[index])]
        # In each lane the two's complement isolates the lowest bit; a lane is never empty, so nothing is carried over.
        lowest = alive & ((alive ^ self._every_leaf) + self._one_per_lane)
        worth = list(map(getitem, self._leaves, self._lanes.unpack(lowest.to_bytes(self._lanes.size, "little"))))
        return [bias + scale * sum(worth[first:end]) for bias, scale, first, end in self._targets]

    def raw_score(self, features: Sequence[float]) -> float:
        """The sum of the first target."""
        return self.raw_scores(features)[0]


_Target = tuple[float, float, Sequence[Any]]
"""Bias, scale and trees."""


def _leaves_by_bit(tree: Any) -> dict[int, int]:
    leaves: list[int] = []
    _collect_leaves(tree, leaves)
    if len(leaves) > BITS_PER_TREE:
        raise ValueError(f"trees: one has {len(leaves)} leaves; the most is {BITS_PER_TREE}")
    return {1 << position: leaf for position, leaf in enumerate(leaves)}


def _collect_leaves(node: Any, leaves: list[int]) -> None:
    if isinstance(node, list):
        _collect_leaves(node[2], leaves)
        _collect_leaves(node[3], leaves)
    else:
        leaves.append(int(node))


def _columns(
    thresholds: Sequence[Sequence[float]], trees: Sequence[Any], every_leaf: int
) -> list[tuple[int, list[float], list[int]]]:
    """For each feature in use: its index, its thresholds, and the leaves alive when the first n of its tests fail."""
    ruled_out = [[0] * len(column) for column in thresholds]
    for position, tree in enumerate(trees):
        _rule_out(tree, position * BITS_PER_TREE, ruled_out)
    columns = []
    for index, column in enumerate(thresholds):
        if not column:
            continue
        if list(column) != sorted(column):
            raise ValueError(f"thresholds: those of feature {index} are not in ascending order")
        masks = [every_leaf]
        for bits in ruled_out[index]:
            masks.append(masks[-1] & ~bits)
        columns.append((index, list(column), masks))
    return columns


def _rule_out(node: Any, first_bit: int, ruled_out: list[list[int]]) -> int:
    """Note for each test the leaves of its left branch; returns the first bit after this node's leaves."""
    if not isinstance(node, list):
        return first_bit + 1
    feature, threshold, left, right = node
    middle = _rule_out(left, first_bit, ruled_out)
    ruled_out[feature][threshold] |= (1 << middle) - (1 << first_bit)
    return _rule_out(right, middle, ruled_out)


def _slices(targets: Sequence[_Target]) -> list[tuple[float, float, int, int]]:
    slices = []
    first = 0
    for bias, scale, trees in targets:
        slices.append((bias, scale, first, first + len(trees)))
        first += len(trees)
    return slices
