from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.network import compiled

INPUTS, UNITS, OUTPUTS = 3, 4, 2
weight = st.floats(-100, 100)


def layer(units: int, inputs: int) -> st.SearchStrategy[list[tuple[float, list[float]]]]:
    return st.lists(
        st.tuples(weight, st.lists(weight, min_size=inputs, max_size=inputs)), min_size=units, max_size=units
    )


@examples(100)
@given(layer(UNITS, INPUTS), layer(OUTPUTS, UNITS), st.lists(weight, min_size=INPUTS, max_size=INPUTS))
def test_it_gives_what_multiplying_lists_gives(
    hidden: list[tuple[float, list[float]]], outputs: list[tuple[float, list[float]]], inputs: list[float]
) -> None:
    def totals(layer: list[tuple[float, list[float]]], values: list[float]) -> list[float]:
        return [bias + sum(w * value for w, value in zip(weights, values, strict=True)) for bias, weights in layer]

    expected = totals(outputs, [max(0.0, total) for total in totals(hidden, inputs)])
    assert compiled(hidden, outputs)(*inputs) == pytest.approx(expected, abs=1e-6)


def test_one_output_is_a_tuple_too() -> None:
    assert compiled([(1.0, [2.0])], [(0.5, [3.0])])(4.0) == (27.5,)


@pytest.mark.parametrize(
    ("hidden", "outputs"), [([(0.0, [1.0]), (0.0, [1.0, 2.0])], []), ([(0.0, [1.0])], [(0.0, [])])]
)
def test_weights_that_do_not_match_are_refused(
    hidden: list[tuple[float, list[float]]], outputs: list[tuple[float, list[float]]]
) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        compiled(hidden, outputs)


def test_a_weight_that_is_no_number_is_refused() -> None:
    bad: list[tuple[float, list[float]]] = [(0.0, ["__import__('os')"])]  # type: ignore[list-item]
    with pytest.raises(ValueError, match="could not convert"):
        compiled(bad, [])
