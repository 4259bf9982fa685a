"""Trains everything that the judge knows, and writes it as the data file that ships with the package.

Run as `make train`, or as `python -m training.judge ROUTING_FOLDER OUT`. The same folder, labelled requests and seed
give the same file. What it is worth on requests it has not seen goes into the file's record.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from training import outcomes
from training.compose import RUBRIC, Labelled, Surroundings, compose, read_labelled, read_surroundings
from training.rubric import (
    COPIES,
    FOLDS,
    Views,
    exported,
    requests_of,
    train_ask_model,
    train_last_model,
    train_tier_model,
)
from training.sparse import Floats, matrix, vocabulary, whole_numbers

from pointsman_server.decision.ask import take_apart
from pointsman_server.decision.judge import Judge
from pointsman_server.decision.outcome_features import outcome_features
from pointsman_server.decision.tasks import task_features

SEED = 7
FORMAT = 1
ROOT = Path(__file__).parent.parent
PROSE = ("docs/*.md", "protos/pointsman/v1/*.proto", "server/pointsman_server/*/*.py")
"""Files of the project whose pieces serve as further pasted material."""

_LAST_MODELS = 2
_CALIBRATION_REQUESTS = 150
_LEAST_TASK_DOCUMENTS = 12
_LARGEST_TASK = 49
_LEAST_TASK_WEIGHT = 3
_FAMILIAR_TREES = 60
_TEMPERATURES = np.linspace(0.6, 2.5, 39)
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Fold:
    """Requests that the models of the other folds have not seen."""

    views: Views
    tiers: Floats
    labelled: Sequence[Labelled]
    texts: Sequence[str]


def train(folder: Path) -> dict[str, Any]:
    """The content of the data file."""
    labelled = read_labelled()
    around = read_surroundings(prose=sorted(file for pattern in PROSE for file in ROOT.glob(pattern)))
    folds = folds_of(labelled, around)
    last, scaler, temperature, report = _train_last(folds)
    ask = train_ask_model(labelled, around, SEED + FOLDS)
    tier = train_tier_model(_together([fold.views for fold in folds]), np.concatenate([fold.tiers for fold in folds]))
    data = {
        "format": FORMAT,
        "wording": exported(ask, tier),
        "rubric": _exported_last(last, scaler, temperature),
        "tasks": _train_tasks(labelled),
        "outcomes": _train_outcomes(folder, labelled, around, report),
    }
    data["calibration"] = _calibration(Judge.load(data), labelled, around)
    data["record"] = {"seed": SEED, "trained_on": _digests(folder), "labelled": len(labelled), "held_out": report}
    return data


def folds_of(labelled: Sequence[Labelled], around: Surroundings) -> list[Fold]:
    """Composed requests in folds over asks, passages and wrappers, each read by a model that has not seen it."""
    order = list(range(len(labelled)))
    random.Random(SEED).shuffle(order)  # noqa: S311 - no secret is made
    fold_of = {place: number % FOLDS for number, place in enumerate(order)}
    folds = []
    for number in range(FOLDS):
        seen = [one for place, one in enumerate(labelled) if fold_of[place] != number]
        unseen = [one for place, one in enumerate(labelled) if fold_of[place] == number]
        ask = train_ask_model(seen, around.part(lambda place, own=number: place % FOLDS != own), SEED + number)
        requests = requests_of(
            unseen, around.part(lambda place, own=number: place % FOLDS == own), SEED + 100 + number, COPIES
        )
        tiers = np.array([request.labelled.tier for request, _ in requests])
        views = Views.of([segments for _, segments in requests], ask)
        composed = [request for request, _ in requests]
        folds.append(Fold(views, tiers, [one.labelled for one in composed], [one.text for one in composed]))
        _say(f"fold {number + 1} of {FOLDS}: the ask is found by {len(ask.known)} features")
    return folds


def _together(views: Sequence[Views]) -> Views:
    return Views(
        asking=[one for view in views for one in view.asking],
        likeliest=[one for view in views for one in view.likeliest],
        everything=[one for view in views for one in view.everything],
        shares=[one for view in views for one in view.shares],
        counts=np.concatenate([view.counts for view in views]),
    )


def _train_last(folds: Sequence[Fold]) -> tuple[list[Any], StandardScaler, float, dict[str, Any]]:
    """The last model, the standardisation of its inputs, its temperature, and how well it does on unseen requests."""
    inputs = [unseen_inputs(folds, number) for number in range(len(folds))]
    scaler = StandardScaler().fit(np.concatenate(inputs))
    standard = [scaler.transform(one) for one in inputs]
    logs, tiers = [], np.concatenate([fold.tiers for fold in folds])
    for number, own in enumerate(standard):
        others = [place for place in range(len(folds)) if place != number]
        taught = np.concatenate([standard[place] for place in others])
        models = _last_models(taught, np.concatenate([folds[place].tiers for place in others]))
        logs.append(_mean_log(models, own))
    unseen = np.concatenate(logs)
    temperature = float(min(_TEMPERATURES, key=lambda one: _loss(unseen / one, tiers)))
    report = {"composed_requests": len(tiers), **_recalls(unseen, tiers)}
    _say(f"tiers of unseen requests: {report}")
    return _last_models(np.concatenate(standard), tiers), scaler, temperature, {"rubric": report}


def unseen_inputs(folds: Sequence[Fold], number: int) -> Floats:
    """What the words say of the requests of this fold, by models of the others."""
    others = [fold for place, fold in enumerate(folds) if place != number]
    tier = train_tier_model(_together([fold.views for fold in others]), np.concatenate([fold.tiers for fold in others]))
    return folds[number].views.inputs(tier)


def _last_models(inputs: Floats, tiers: Floats) -> list[Any]:
    return [train_last_model(inputs, tiers, SEED + number) for number in range(_LAST_MODELS)]


def _mean_log(models: Sequence[Any], inputs: Floats) -> Floats:
    return np.asarray(np.mean([np.log(np.maximum(model.predict_proba(inputs), 1e-9)) for model in models], axis=0))


def _loss(logs: Floats, tiers: Floats) -> float:
    shifted = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return float(-shifted[np.arange(len(tiers)), tiers.astype(int)].mean())


def _recalls(logs: Floats, tiers: Floats) -> dict[str, float]:
    chosen = logs.argmax(axis=1)
    recalls = {
        name: round(float((chosen[tiers == number] == number).mean()), _DIGITS)
        for number, name in enumerate(("simple", "medium", "complex"))
    }
    return {"right": round(float((chosen == tiers).mean()), _DIGITS), **recalls}


def _exported_last(models: Sequence[Any], scaler: StandardScaler, temperature: float) -> dict[str, Any]:
    """Several networks side by side are one network: their units together, their outputs averaged."""
    hidden, outputs = [], [[0.0, list[float]()] for _ in range(3)]
    for model in models:
        (first, second), (first_bias, second_bias) = model.coefs_, model.intercepts_
        hidden += [
            [_round(bias), [_round(weight) for weight in first[:, unit]]] for unit, bias in enumerate(first_bias)
        ]
        for tier in range(3):
            outputs[tier][0] += float(second_bias[tier]) / len(models)
            outputs[tier][1] += [_round(weight / len(models)) for weight in second[:, tier]]
    return {
        "means": [_round(mean) for mean in scaler.mean_],
        "scales": [_round(scale) for scale in scaler.scale_],
        "hidden": hidden,
        "outputs": [[_round(bias), weights] for bias, weights in outputs],
        "temperature": temperature,
    }


def _train_tasks(labelled: Sequence[Labelled]) -> dict[str, Any]:
    documents = [dict.fromkeys(task_features(_words(one.ask)), 1.0) for one in labelled]
    known = vocabulary(documents, _LEAST_TASK_DOCUMENTS)
    model = LogisticRegression(C=0.5, max_iter=200, tol=1e-5)
    model.fit(matrix(documents, known), [one.task for one in labelled])
    weights, unit = whole_numbers(model.coef_.T, _LARGEST_TASK)
    rows = {}
    for name, number in known.items():
        places = np.flatnonzero(np.abs(weights[number]) >= _LEAST_TASK_WEIGHT)
        flat = [int(value) for place in places for value in (place, weights[number][place])]
        if flat:
            rows[name] = flat
    return {
        "types": list(model.classes_),
        "bias": [_round(bias) for bias in model.intercept_],
        "unit": unit,
        "rows": rows,
    }


def _words(text: str) -> list[str]:
    return [word for segment in take_apart(text) for word in segment.words]


def _train_outcomes(
    folder: Path, labelled: Sequence[Labelled], around: Surroundings, report: dict[str, Any]
) -> dict[str, Any]:
    data = outcomes.load(folder)
    targets = outcomes.targets_of(data)
    report["outcomes"] = outcomes.held_out_report(data, targets, SEED, FOLDS)
    fitted = outcomes.fit(data, targets, np.arange(len(data.gap)), SEED)
    fitted.boosters["familiar"] = _familiar_forest(data.features, labelled, around)
    _say(f"outcomes of unseen prompts: {report['outcomes']['apgr']}")
    exported_outcomes = outcomes.export(fitted, data.features)
    del exported_outcomes["features"]
    return exported_outcomes


def _familiar_forest(known: Floats, labelled: Sequence[Labelled], around: Surroundings) -> lgb.Booster:
    """Tells prompts of the recorded outcomes from the labelled requests, of which no outcomes are known."""
    rng = random.Random(SEED)  # noqa: S311 - no secret is made
    others = np.array([outcome_features(compose(one, around, rng, plain=rng.random() < 0.5).text) for one in labelled])
    label = np.concatenate([np.ones(len(known)), np.zeros(len(others))])
    weight = np.concatenate([np.full(len(known), len(others) / len(known)), np.ones(len(others))])
    parameters = {**outcomes.PARAMETERS, "objective": "binary", "learning_rate": 0.1, "seed": SEED}
    rows = lgb.Dataset(np.vstack([known, others]), label, weight=weight, params={"max_bin": 63, "verbose": -1})
    return lgb.train(parameters, rows, _FAMILIAR_TREES)


def _calibration(judge: Judge, labelled: Sequence[Labelled], around: Surroundings) -> list[list[float]]:
    """How the judge sees a mixture of requests: what the dial is solved on."""
    rng = random.Random(SEED + 1)  # noqa: S311 - no secret is made
    requests = [compose(one, around, rng) for one in rng.sample(list(labelled), _CALIBRATION_REQUESTS)]
    judged = [judge.judge(request.text) for request in requests]
    return [[round(one.difficulty, 3), round(one.discrimination, 3), one.tier.value] for one in judged]


def _digests(folder: Path) -> dict[str, str]:
    files = [folder / "items.parquet", folder / "scores.parquet", *sorted(RUBRIC.glob("*.jsonl"))]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _round(value: float) -> float:
    return round(float(value), _DIGITS)


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Trains from the routing folder and writes the data file."""
    if len(arguments) != 2:
        print("usage: python -m training.judge ROUTING_FOLDER OUT", file=sys.stderr)
        return 2
    data = train(Path(arguments[0]))
    out = Path(arguments[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    _say(f"{out}: {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
