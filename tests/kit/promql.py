"""Which labels a PromQL expression's result has, and whether it asks for some that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    LabelModifierType,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorMatchCardinality,
    VectorSelector,
    parse,
)

Labels = frozenset[str]


class PromqlError(Exception):
    """What an expression asks for that does not exist."""


def labels_of(
    expression: str, series: Mapping[str, Labels], values: Mapping[str, frozenset[str]] = MappingProxyType({})
) -> Labels:
    """The labels of the result, where `series` says which labels the selectable series have.

    `values` are all that the labels named there can have. Raises PromqlError for a series, label or value that does
    not exist, and ValueError for what is no PromQL.
    """
    return _Reader(series, values).read(parse(expression))


class _Reader:
    def __init__(self, series: Mapping[str, Labels], values: Mapping[str, frozenset[str]]) -> None:
        self._series = series
        self._values = values

    def read(self, expression: Expr) -> Labels:
        match expression:
            case VectorSelector():
                return self._selected(expression)
            case MatrixSelector():
                return self._selected(expression.vector_selector)
            case ParenExpr() | UnaryExpr() | SubqueryExpr():
                return self.read(expression.expr)
            case Call():
                return self._called(expression)
            case AggregateExpr():
                return self._aggregated(expression)
            case BinaryExpr():
                return self._combined(expression)
            case NumberLiteral() | StringLiteral():
                return frozenset()
        raise PromqlError(f"{type(expression).__name__} is nothing this reader knows")

    def _selected(self, selector: VectorSelector) -> Labels:
        name = selector.name or "without a name"
        if name not in self._series:
            raise PromqlError(f"there is no series {name}")
        for matcher in selector.matchers.matchers:
            _demand([matcher.name], self._series[name], name)
            strange = set(matcher.value.split("|")) - self._values.get(
                matcher.name, frozenset(matcher.value.split("|"))
            )
            if strange:
                raise PromqlError(f"{matcher.name} of {name} is never {', '.join(sorted(strange))}")
        return self._series[name]

    def _called(self, call: Call) -> Labels:
        labels: Labels = frozenset().union(*(self.read(argument) for argument in call.args))
        if call.func.name == "histogram_quantile":
            _demand(["le"], labels, "histogram_quantile")
            return labels - {"le"}
        return labels

    def _aggregated(self, aggregation: AggregateExpr) -> Labels:
        inner = self.read(aggregation.expr)
        operation = str(aggregation.op)
        if aggregation.modifier is None:
            return inner if operation in ("topk", "bottomk") else frozenset()
        labels = frozenset(aggregation.modifier.labels)
        _demand(labels, inner, operation)
        if operation in ("topk", "bottomk"):
            return inner
        return labels if aggregation.modifier.type == AggModifierType.By else inner - labels

    def _combined(self, operation: BinaryExpr) -> Labels:
        left, right = self.read(operation.lhs), self.read(operation.rhs)
        name, modifier = str(operation.op), operation.modifier
        scalar = isinstance(operation.lhs, NumberLiteral) or isinstance(operation.rhs, NumberLiteral)
        if modifier is None or modifier.matching is None:
            if not scalar and left and right and left != right:
                raise PromqlError(f"the sides of {name} differ in {sorted(left ^ right)}, so they never match")
            return left or right
        matched = frozenset(modifier.matching.labels)
        _demand(matched, left & right, name)
        if modifier.card == VectorMatchCardinality.ManyToOne:
            _demand(modifier.group_labels or (), right, name)
            return left | frozenset(modifier.group_labels or ())
        if name in ("and", "unless", "or"):
            return left
        return matched if modifier.matching.type == LabelModifierType.Include else left - matched


def _demand(wanted: Iterable[str], there: Labels, where: str) -> None:
    missing = sorted(set(wanted) - there)
    if missing:
        raise PromqlError(f"{where} has no label {', '.join(missing)}; it has {', '.join(sorted(there))}")
