"""A small network as one compiled function.

Its source is written from the weights when they are loaded: every unit is one line of multiplications by constants,
which takes well under half the time of going through lists of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Layer = Sequence[tuple[float, Sequence[float]]]
"""Of each unit the bias and the weights."""

Network = Callable[..., tuple[float, ...]]
"""Takes the inputs one by one and gives the totals of the outputs."""


def compiled(hidden: Layer, outputs: Layer) -> Network:
    """The network of one hidden layer of rectified units. ValueError where weights and inputs do not match."""
    inputs = [f"i{number}" for number in range(len(hidden[0][1]))]
    units = [f"h{number}" for number in range(len(hidden))]
    lines = [f"def network({', '.join(inputs)}):"]
    for unit, (bias, weights) in zip(units, hidden, strict=True):
        lines.append(f"    {unit} = {_total(bias, weights, inputs)}")
        lines.append(f"    if {unit} < 0.0: {unit} = 0.0")
    lines.append(f"    return {', '.join([_total(bias, weights, units) for bias, weights in outputs])},")
    namespace: dict[str, Network] = {}
    exec("\n".join(lines), {"__builtins__": {}}, namespace)  # noqa: S102 - names made here and numbers, nothing else
    return namespace["network"]


def _total(bias: float, weights: Sequence[float], names: Sequence[str]) -> str:
    products = [f"{float(weight)!r} * {name}" for weight, name in zip(weights, names, strict=True)]
    return " + ".join([repr(float(bias)), *products])
