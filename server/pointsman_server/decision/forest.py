"""Gradient-boosted trees in plain Python, fast enough for every request.

Walking hundreds of trees node by node costs a Python step per node. This walks none: each leaf is a bit, sixteen bits
to a tree, all trees side by side in one big integer. A test that fails (`value > threshold`) rules out the leaves of
its left branch; the masks of all tests that fail for one feature are combined beforehand, so one search among the
feature's thresholds and one `&` settle all its tests in all trees. The lowest bit left in a tree is the leaf it
reaches. (Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression
trees", SIGIR 2015, here with whole forests in one integer.)

What the leaves are worth is added up without looking at them one by one, either. The first bits of all values are one
integer, the second bits another, and so on: how many of the leaves that were reached have the bit is one `&` and one
count. So all that is read are some long integers, where a table of values for each tree would be read all over memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any, NamedTuple

BITS_PER_TREE = 16
"""Most leaves of one tree."""

_LANE = (1 << BITS_PER_TREE) - 1

_Target = tuple[float, float, Sequence[Any]]
"""Bias, scale and trees."""


class Forest:
    """Several targets, each a sum of trees, that share one pass over the features.

    The data is a mapping: `thresholds` lists for each feature its distinct thresholds, ascending; `targets` maps a
    name to `bias`, `scale` and `trees`. A tree is a whole number (a leaf, worth that number times the scale) or
    `[feature, index of the threshold, left, right]`; a value up to the threshold goes left. Feature and threshold
    are indexes, leaves whole numbers, to keep the file small.
    """

    __slots__ = ("_columns", "_every_leaf", "_one_per_lane", "_sums", "names")

    def __init__(
        self, names: tuple[str, ...], thresholds: Sequence[Sequence[float]], targets: Sequence[_Target]
    ) -> None:
        self.names = names
        trees = [tree for target in targets for tree in target[2]]
        self._every_leaf = (1 << BITS_PER_TREE * len(trees)) - 1
        self._one_per_lane = self._every_leaf // _LANE
        self._columns = _columns(thresholds, trees, self._every_leaf)
        self._sums = _sums(targets)

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Forest:
        """The forest of this mapping. KeyError, IndexError, TypeError or ValueError where the shape is another."""
        targets = [(float(part["bias"]), float(part["scale"]), part["trees"]) for part in data["targets"].values()]
        if not any(trees for _, _, trees in targets):
            raise ValueError("targets: the forest has no tree; train it again")
        return cls(tuple(data["targets"]), data["thresholds"], targets)

    def raw_scores(self, features: Sequence[float]) -> list[float]:
        """The sum of every target, in the order of `names`."""
        # Most counts of most texts are 0 and fail no test, which the first threshold tells.
        failing = [
            masks[bisect_left(column, features[index])]
            for index, first, column, masks in self._columns
            if features[index] > first
        ]
        alive = reduce(and_, failing, self._every_leaf)
        # In each lane the two's complement isolates the lowest bit; a lane is never empty, so nothing is carried over.
        reached = alive & ((alive ^ self._every_leaf) + self._one_per_lane)
        return [one.of(reached >> one.first & one.lanes) for one in self._sums]

    def raw_score(self, features: Sequence[float]) -> float:
        """The sum of the first target."""
        return self.raw_scores(features)[0]


class _Sum(NamedTuple):
    """What the leaves of one target are worth. `planes` are the bits of the values, the highest first."""

    bias: float
    scale: float
    first: int
    lanes: int
    least: int
    planes: Sequence[int]

    def of(self, reached: int) -> float:
        total = 0
        for plane in self.planes:
            total += total + (reached & plane).bit_count()
        return self.bias + self.scale * (total + self.least)


def _sums(targets: Sequence[_Target]) -> list[_Sum]:
    sums = []
    first = 0
    for bias, scale, trees in targets:
        leaves = [leaf for place, tree in enumerate(trees) for leaf in _leaves(tree, place * BITS_PER_TREE)]
        least = min([worth for _, worth in leaves], default=0)
        planes = _planes([(bit, worth - least) for bit, worth in leaves])
        bits = BITS_PER_TREE * len(trees)
        sums.append(_Sum(bias, scale, first, (1 << bits) - 1, least * len(trees), planes))
        first += bits
    return sums


def _planes(leaves: Sequence[tuple[int, int]]) -> list[int]:
    highest = max([worth for _, worth in leaves], default=0).bit_length()
    return [sum([1 << bit for bit, worth in leaves if worth >> place & 1]) for place in reversed(range(highest))]


def _leaves(tree: Any, first_bit: int) -> list[tuple[int, int]]:
    """For each leaf its bit and its worth."""
    leaves: list[int] = []
    _collect_leaves(tree, leaves)
    if len(leaves) > BITS_PER_TREE:
        raise ValueError(f"trees: one has {len(leaves)} leaves; the most is {BITS_PER_TREE}")
    return list(enumerate(leaves, start=first_bit))


def _collect_leaves(node: Any, leaves: list[int]) -> None:
    if isinstance(node, list):
        _collect_leaves(node[2], leaves)
        _collect_leaves(node[3], leaves)
    else:
        leaves.append(int(node))


def _columns(
    thresholds: Sequence[Sequence[float]], trees: Sequence[Any], every_leaf: int
) -> list[tuple[int, float, list[float], list[int]]]:
    """For each feature in use: its index, its lowest threshold, all of them, and the leaves alive when n tests fail."""
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
        columns.append((index, column[0], list(column), masks))
    return columns


def _rule_out(node: Any, first_bit: int, ruled_out: list[list[int]]) -> int:
    """Note for each test the leaves of its left branch; returns the first bit after this node's leaves."""
    if not isinstance(node, list):
        return first_bit + 1
    feature, threshold, left, right = node
    middle = _rule_out(left, first_bit, ruled_out)
    ruled_out[feature][threshold] |= (1 << middle) - (1 << first_bit)
    return _rule_out(right, middle, ruled_out)
