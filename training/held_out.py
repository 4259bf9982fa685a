"""Writes what the judge says of the routing prompts when its forests have not seen them.

The shipped forests were trained on all of these prompts, so judging them says nothing. Here each prompt is judged with
forests of the other folds; whole MMLU subjects are left out together. Everything else of the judge is as shipped: it
was not trained on outcomes. Run as `python -m training.held_out ROUTING_FOLDER OUT.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from training import outcomes
from training.outcome_report import folds_of

from pointsman_server.decision.judge import Judge, Outcome
from pointsman_server.decision.learned import learned
from pointsman_server.evaluation.judging import Verdict, write_predictions

FOLDS = 5
SEED = 1


class _Unseen:
    """Stands where the forests stand, with what forests of other folds said."""

    def __init__(self, judge: Judge, said: dict[str, Outcome]) -> None:
        self._familiar = judge.outcomes
        self._said = said

    def judge(self, text: str) -> Outcome:
        return self._said[text]._replace(familiar=self._familiar.judge(text).familiar)


def held_out_verdicts(folder: Path) -> tuple[list[str], list[Verdict]]:
    """The ids of the prompts and what is said of them."""
    data = outcomes.load(folder)
    targets = outcomes.targets_of(data)
    fold = folds_of(data, FOLDS, SEED)
    need, cheap, strong = (np.zeros(len(data.gap)) for _ in range(3))
    for number in range(FOLDS):
        held = np.flatnonzero(fold == number)
        fitted = outcomes.fit(data, targets, np.flatnonzero(fold != number), SEED)
        inputs = outcomes.logits(fitted.boosters, data.features[held])
        need[held] = fitted.boosters["need"].predict(data.features[held])
        cheap[held] = inputs @ np.array(fitted.abilities["cheap"])
        strong[held] = inputs @ np.array(fitted.abilities["strong"])
    rank = np.argsort(np.argsort(need)) / len(need)
    said = {
        prompt: Outcome(float(rank[place]), float(cheap[place]), float(strong[place]), 0.0)
        for place, prompt in enumerate(data.prompts)
    }
    judge = Judge.load(learned())
    unseen = replace(judge, outcomes=_Unseen(judge, said))  # type: ignore[arg-type]
    judged = [unseen.judge(prompt) for prompt in data.prompts]
    verdicts = [Verdict(one.score, one.tier, one.task.value, one.difficulty, one.discrimination) for one in judged]
    return [str(one) for one in pd.read_parquet(folder / "items.parquet")["item_id"]], verdicts


def main(arguments: Sequence[str]) -> int:
    """Writes the file."""
    if len(arguments) != 2:
        print("usage: python -m training.held_out ROUTING_FOLDER OUT.csv", file=sys.stderr)
        return 2
    ids, verdicts = held_out_verdicts(Path(arguments[0]))
    write_predictions(Path(arguments[1]), ids, verdicts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
