"""Trains the second look at the tier, and writes it as the data file that ships with the package.

Run as `python -m training.second_look OUT`, after the judge is trained. It needs the sentence encoder of the extra
`second-look`. What it learns from is what the judge's models say of requests that they had not seen, and the vectors
of these.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier
from training.compose import RUBRIC, read_labelled, read_surroundings
from training.judge import PROSE, ROOT, SEED, Fold, folds_of, unseen_inputs
from training.sparse import Floats, whole_numbers

from pointsman_server.adapters.embedders.sentence_encoder import SentenceEncoder
from pointsman_server.decision.encoder import ENCODER
from pointsman_server.decision.judge import LOOKED_AT_AGAIN_BELOW, looked_at
from pointsman_server.decision.rubric import Rubric
from pointsman_server.decision.wording import asking_shares

FORMAT = 1

_MODELS = 3
_UNITS = 64
_PENALTY = 0.5
_ROUNDS = 10
_MEANING_SCALE = 5.0
_LARGEST_WEIGHT = 999
_AT_ONCE = 64
_DIMENSIONS = 512
_TEMPERATURES = np.linspace(0.6, 2.5, 39)
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Examples:
    """What is known of requests, and their tiers: by words, and by the meanings of what is looked at of them."""

    evidence: Floats
    meanings: Floats
    tiers: Floats


def train() -> dict[str, Any]:
    """The content of the data file."""
    around = read_surroundings(prose=sorted(file for pattern in PROSE for file in ROOT.glob(pattern)))
    folds = folds_of(read_labelled(), around)
    examples = [_examples(folds, number) for number in range(len(folds))]
    means, scales = _standard(examples)
    logs = []
    for number, own in enumerate(examples):
        others = [one for place, one in enumerate(examples) if place != number]
        logs.append(_logs(_fitted(others, means, scales), own, means, scales))
    unseen, tiers = np.concatenate(logs), np.concatenate([one.tiers for one in examples])
    temperature = float(min(_TEMPERATURES, key=lambda one: _loss(unseen / one, tiers)))
    report = _report(unseen, tiers, np.concatenate([one.evidence for one in examples]))
    print(f"tiers of unseen requests: {report}", flush=True)
    data = _exported(_fitted(examples, means, scales), means, scales, temperature)
    data["record"] = {
        "seed": SEED,
        "encoder": f"{ENCODER.package} {ENCODER.version}",
        "trained_on": _digests(),
        "requests": len(tiers),
        "held_out": report,
    }
    return data


def _examples(folds: Sequence[Fold], number: int) -> Examples:
    fold = folds[number]
    read = [
        looked_at(text, [place for place, share in enumerate(asking_shares(found.tolist())) if share])
        for text, (_, found) in zip(fold.texts, fold.views.shares, strict=True)
    ]
    meanings = np.hstack([_vectors(texts) for texts in zip(*read, strict=True)])
    print(f"fold {number + 1} of {len(folds)}: {len(read)} requests have vectors", flush=True)
    return Examples(unseen_inputs(folds, number), meanings, fold.tiers)


def _vectors(texts: Sequence[str]) -> Floats:
    """One row for each text; those of like length together, which takes less time."""
    encoder = _encoder()
    rows = np.zeros((len(texts), _DIMENSIONS))
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for begin in range(0, len(order), _AT_ONCE):
        places = order[begin : begin + _AT_ONCE]
        rows[places] = [np.frombuffer(one, "<f4") for one in encoder.encode([texts[place] for place in places])]
    return rows


@cache
def _encoder() -> SentenceEncoder:
    return SentenceEncoder(ENCODER)


def _standard(examples: Sequence[Examples]) -> tuple[Floats, Floats]:
    evidence = np.concatenate([one.evidence for one in examples])
    return evidence.mean(axis=0), evidence.std(axis=0)


def _inputs(one: Examples, means: Floats, scales: Floats) -> Floats:
    return np.hstack([(one.evidence - means) / scales, one.meanings * _MEANING_SCALE])


def _fitted(examples: Sequence[Examples], means: Floats, scales: Floats) -> list[MLPClassifier]:
    inputs = np.concatenate([_inputs(one, means, scales) for one in examples])
    tiers = np.concatenate([one.tiers for one in examples])
    return [
        MLPClassifier(
            (_UNITS,), alpha=_PENALTY, max_iter=_ROUNDS, tol=0.0, batch_size=128, random_state=SEED + number
        ).fit(inputs, tiers)
        for number in range(_MODELS)
    ]


def _logs(models: Sequence[MLPClassifier], one: Examples, means: Floats, scales: Floats) -> Floats:
    inputs = _inputs(one, means, scales)
    return np.asarray(np.mean([np.log(np.maximum(model.predict_proba(inputs), 1e-9)) for model in models], axis=0))


def _loss(logs: Floats, tiers: Floats) -> float:
    shifted = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return float(-shifted[np.arange(len(tiers)), tiers.astype(int)].mean())


def _report(logs: Floats, tiers: Floats, evidence: Floats) -> dict[str, float]:
    """How often both looks together are right: the second only where the first, as shipped, is in doubt."""
    shipped = json.loads((files("pointsman_server") / "data/judge.json").read_text(encoding="utf-8"))
    rubric = Rubric.load(shipped["rubric"])
    first = np.array([rubric.weigh(row) for row in evidence.tolist()])
    doubted = first.max(axis=1) < LOOKED_AT_AGAIN_BELOW
    chosen = np.where(doubted, logs.argmax(axis=1), first.argmax(axis=1))
    recalls = {
        name: _round((chosen[tiers == number] == number).mean())
        for number, name in enumerate(("simple", "medium", "complex"))
    }
    return {
        "looked_at_again": _round(doubted.mean()),
        "right_by_words": _round((first.argmax(axis=1) == tiers).mean()),
        "right": _round((chosen == tiers).mean()),
        **recalls,
    }


def _exported(models: Sequence[MLPClassifier], means: Floats, scales: Floats, temperature: float) -> dict[str, Any]:
    """Several networks side by side are one network: their units together, their outputs averaged."""
    hidden, unit = whole_numbers(np.hstack([model.coefs_[0] for model in models]), _LARGEST_WEIGHT)
    return {
        "format": FORMAT,
        "means": [_round(one) for one in means],
        "scales": [_round(one) for one in scales],
        "meaning_scale": _MEANING_SCALE,
        "hidden_unit": unit,
        "hidden": hidden.tolist(),
        "hidden_bias": [_round(one) for model in models for one in model.intercepts_[0]],
        "outputs": [[_round(one / len(models)) for one in row] for model in models for row in model.coefs_[1]],
        "output_bias": [_round(one) for one in np.mean([model.intercepts_[1] for model in models], axis=0)],
        "temperature": temperature,
    }


def _digests() -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(RUBRIC.glob("*.jsonl"))}


def _round(value: float) -> float:
    return round(float(value), _DIGITS)


def main(arguments: Sequence[str]) -> int:
    """Trains, and writes the data file."""
    if len(arguments) != 1:
        print("usage: python -m training.second_look OUT", file=sys.stderr)
        return 2
    out = Path(arguments[0])
    out.write_text(json.dumps(train(), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
