"""A second look at the tier: what the words say, weighed anew together with what the request means.

The meaning is a vector that a sentence encoder makes; texts that mean alike have vectors that are alike, in whatever
language and words. A small network of one hidden layer weighs it. Its numbers were learned; see `training/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointsman_server.decision.rubric import Probabilities, probabilities_of
from pointsman_server.domain.embedder import Vector

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SecondLook:
    """The network over vectors of `encoder.ENCODER`.

    `means` and `scales` are those of the evidence, `meaning_scale` is what the vectors' numbers are multiplied by.
    """

    means: Floats
    scales: Floats
    meaning_scale: float
    hidden: Floats
    hidden_bias: Floats
    outputs: Floats
    output_bias: Floats

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> SecondLook:
        """From the parsed data file, whose weights of the hidden layer are whole numbers of a unit."""
        return cls(
            means=np.array(data["means"]),
            scales=np.array(data["scales"]),
            meaning_scale=data["meaning_scale"],
            hidden=np.array(data["hidden"]) * data["hidden_unit"],
            hidden_bias=np.array(data["hidden_bias"]),
            outputs=np.array(data["outputs"]) / data["temperature"],
            output_bias=np.array(data["output_bias"]) / data["temperature"],
        )

    def judge(self, evidence: Sequence[float], meanings: Sequence[Vector]) -> Probabilities:
        """How probable each tier is, by the evidence of the words, the meaning of what asks and that of all."""
        words = (np.array(evidence) - self.means) / self.scales
        inputs = np.concatenate([words, np.frombuffer(b"".join(meanings), "<f4") * self.meaning_scale])
        units = np.maximum(inputs @ self.hidden + self.hidden_bias, 0.0)
        return probabilities_of((units @ self.outputs + self.output_bias).tolist())
