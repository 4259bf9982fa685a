"""Train the outcome model: how much a prompt needs a strong model, and how likely each tier answers it well.

Three forests over `outcome_features` share one file. `need` is a regression on the strong panel's mean score minus
the weak panel's, the order by which prompts are sent to the strong model. `cheap` and `strong` are the panels' success
on the logit scale; every known model is a weighted sum of the three (its ability),
P(success | model) = sigmoid(a * cheap + b * strong + c * need + d).

Run as `python -m training.outcomes FOLDER OUT`, with the server's package on the path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
from training.outcome_report import held_out_report

from pointsman_server.decision.outcome_features import OUTCOME_FEATURE_NAMES, outcome_features

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.object_]

FORMAT = 1
TREES = {"need": 300, "cheap": 80, "strong": 80}
LEARNING_RATES = {"need": 0.03, "cheap": 0.06, "strong": 0.06}
SOURCE_WEIGHT_POWERS = {"need": 0.6, "cheap": 0.4, "strong": 0.4}
"""A source of n prompts weighs n to this power: 1 would let MMLU decide everything, 0 the smallest source's noise.
Calibration by source needs more weight on the small ones than ranking does."""

LEVELS = {"gsm8k": 0.16, "crux_eval": 0.30, "math_l5": 0.40, "mmlu_pro": 0.22}
"""Mean gain a source is set to, else that of its labels. Every source has another pair of models, and its mean gap
says as much of the pair as of the prompts. These lie between the gaps of the pairs run on several sources
(mixtral-8x7b to gpt-4: mmlu .14, gsm8k .21; claude-3-haiku to 3.5-sonnet: gsm8k .07, crux .23, math .39; llama-3.1
8b to 70b: gsm8k .11, mmlu_pro .18, math .22, crux .25), so that one score ranks a mixture for any of them."""

CHEAP_MODELS = (
    "claude-3-haiku-20240307",
    "gemma-2-9b-it",
    "gpt-3.5-turbo-0125",
    "llama-3.1-8b-instruct",
    "Meta-Llama-3-8B-Instruct",
    "mistral-7b-instruct-v0.3",
    "mixtral-8x7b-instruct-v0.1",
    "Mixtral-8x7B-Instruct-v0.1",
    "Qwen2-7B-Instruct",
    "qwen2.5-7b-instruct",
)
STRONG_MODELS = (
    "claude-3-5-sonnet-20240620",
    "claude-3-5-sonnet-20241022",
    "gemini-1.5-pro",
    "gemini-1.5-pro-002",
    "gpt-4-1106-preview",
    "gpt-4-turbo-2024-04-09",
    "gpt-4o-2024-05-13",
    "gpt-4o-2024-08-06",
    "llama-3.1-nemotron-51b-instruct",
    "llama-3.3-nemotron-super-49b-v1",
    "Llama-3.1-405B-Inst",
    "Mistral-Large-2",
)
"""Panels whose success is predicted: the same models for all sources, so that it means the same everywhere."""

_OLDER_HARNESS = frozenset({"mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview"})
_OWN_HARNESS = frozenset({"gsm8k", "llmrouter11"})
"""Sources whose own pair was asked in another way than the panel: its raw gap counts for half."""

_MODELS_FOR_PANELS = 20
"""Where fewer models ran, they lie too far apart: the reach of the panels is halved."""

_WEAK_REACH = 0.10
_STRONG_REACH = 0.08
PRIOR_ABILITY = (0.5, 0.5, 0.0, 0.0)
TIERS = ("cheap", "middle", "strong")
_ABILITY_FOLDS = 3
_LEAST_OUTCOMES = 100
_LEAF_SCALE = 1e-5
_LOGIT_LIMIT = 6.0
_KNOTS = 41
PARAMETERS: dict[str, Any] = {
    "num_leaves": 15,
    "min_child_samples": 30,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}


Ability = tuple[float, float, float, float]
"""Weights of the cheap logit, the strong logit, the need, and 1."""


@dataclass(frozen=True)
class Outcomes:
    """What a routing folder holds, one row per prompt; `scores` has a column per model, nan where it was not run."""

    features: Numbers
    prompts: list[str]
    source: Labels
    subset: Labels
    gap: Numbers
    own_pair: list[tuple[str, str]]
    scores: pd.DataFrame
    answer_chars: pd.DataFrame
    prices: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Targets:
    """What is fitted, one number per prompt: the comparable gain, and the mean scores of the outer panels."""

    need: Numbers
    cheap: Numbers
    strong: Numbers


@dataclass(frozen=True)
class Fitted:
    """The boosters of one training run and the abilities of tiers and models."""

    boosters: dict[str, lgb.Booster]
    abilities: dict[str, Ability]


def load(folder: Path) -> Outcomes:
    """Read a routing folder; FileNotFoundError if `items.parquet`, `scores.parquet` or `models.csv` is missing."""
    items = pd.read_parquet(folder / "items.parquet").reset_index(drop=True)
    long = pd.read_parquet(folder / "scores.parquet").astype({"model": str})
    prices = pd.read_csv(folder / "models.csv").set_index("model")[["usd_per_mtok_in", "usd_per_mtok_out"]]

    def wide(column: str) -> pd.DataFrame:
        table = long.pivot_table(index="item_id", columns="model", values=column, aggfunc="mean")
        return table.reindex(items["item_id"]).reset_index(drop=True)

    prompts = [str(prompt) for prompt in items["prompt"]]
    return Outcomes(
        features=np.array([outcome_features(prompt) for prompt in prompts], dtype=np.float64),
        prompts=prompts,
        source=items["split_group"].astype(str).to_numpy(dtype=object),
        subset=items["subset"].astype(str).to_numpy(dtype=object),
        gap=(items["strong_score"] - items["weak_score"]).to_numpy(dtype=np.float64),
        own_pair=list(zip(items["weak_model"].astype(str), items["strong_model"].astype(str), strict=True)),
        scores=wide("score"),
        answer_chars=wide("out_chars"),
        prices={str(model): (float(row.iloc[0]), float(row.iloc[1])) for model, row in prices.iterrows()},
    )


def targets_of(data: Outcomes) -> Targets:
    """Average several models of a tier, for one greedy run is a noisy label, and put the sources on one level."""
    count = len(data.gap)
    need, cheap, strong = np.zeros(count), np.zeros(count), np.zeros(count)
    for source in np.unique(data.source):
        rows = np.flatnonzero(data.source == source)
        weak_models, strong_models = _panels(data, rows)
        cheap[rows] = _panel_mean(data, rows, CHEAP_MODELS)
        strong[rows] = _panel_mean(data, rows, STRONG_MODELS)
        gain = (
            data.scores.loc[rows, strong_models].mean(axis=1) - data.scores.loc[rows, weak_models].mean(axis=1)
        ).to_numpy(dtype=np.float64)
        if source in _OWN_HARNESS:
            gain = 0.5 * (gain + data.gap[rows])
        need[rows] = gain - gain.mean() + LEVELS.get(source, gain.mean())
    return Targets(need, cheap, strong)


def _panel_mean(data: Outcomes, rows: npt.NDArray[np.int64], panel: Sequence[str]) -> Numbers:
    """Mean score of the panel's models that ran; GSM8K's older harness counts only where nothing else ran."""
    ran = [model for model in panel if data.scores.loc[rows, model].notna().any()]
    newer = [model for model in ran if model not in _OLDER_HARNESS]
    return np.asarray(data.scores.loc[rows, newer or ran].mean(axis=1), dtype=np.float64)


def _panels(data: Outcomes, rows: npt.NDArray[np.int64]) -> tuple[list[str], list[str]]:
    """The models near the source's own weak model, and those at or above its strong one."""
    ran = data.scores.loc[rows].dropna(axis=1, how="all").mean()
    weak_model, strong_model = data.own_pair[rows[0]]
    share = 1.0 if len(ran) >= _MODELS_FOR_PANELS else 0.5
    weak_models = [str(model) for model, mean in ran.items() if abs(mean - ran[weak_model]) < share * _WEAK_REACH]
    strong_models = [str(model) for model, mean in ran.items() if mean > ran[strong_model] - share * _STRONG_REACH]
    return weak_models, strong_models


def fit(data: Outcomes, targets: Targets, rows: npt.NDArray[np.int64], seed: int) -> Fitted:
    """Train the three forests and the abilities on these rows alone.

    The abilities are fitted to predictions for left-out rows: a forest is too sure of the rows it was grown on.
    """
    part = np.random.default_rng(seed).integers(0, _ABILITY_FOLDS, len(rows))
    inputs = np.zeros((len(rows), len(PRIOR_ABILITY)))
    for held in range(_ABILITY_FOLDS):
        boosters = fit_forests(data, targets, rows[part != held], seed)
        inputs[part == held] = logits(boosters, data.features[rows[part == held]])
    abilities = _abilities(data, targets, inputs, rows)
    return Fitted(fit_forests(data, targets, rows, seed), abilities)


def fit_forests(data: Outcomes, targets: Targets, rows: npt.NDArray[np.int64], seed: int) -> dict[str, lgb.Booster]:
    """One forest per target, on these rows alone."""
    _, inverse, sizes = np.unique(data.source[rows].astype(str), return_inverse=True, return_counts=True)
    boosters = {}
    for name, trees in TREES.items():
        objective = "regression" if name == "need" else "cross_entropy"
        speed = {"learning_rate": LEARNING_RATES[name], "seed": seed}
        label = getattr(targets, name)[rows]
        weights = sizes[inverse] ** (SOURCE_WEIGHT_POWERS[name] - 1.0)
        weights = weights / weights.mean()
        matrix = lgb.Dataset(data.features[rows], label, weight=weights, params={"max_bin": 63, "verbose": -1})
        boosters[name] = lgb.train({**PARAMETERS, "objective": objective, **speed}, matrix, trees)
    return boosters


def logits(boosters: Mapping[str, lgb.Booster], features: Numbers) -> Numbers:
    """Columns: cheap logit, strong logit, need, 1."""
    columns = [
        np.clip(boosters[name].predict(features, raw_score=True), -_LOGIT_LIMIT, _LOGIT_LIMIT)
        for name in ("cheap", "strong")
    ]
    return np.column_stack([*columns, boosters["need"].predict(features), np.ones(len(features))])


def _abilities(data: Outcomes, targets: Targets, inputs: Numbers, rows: npt.NDArray[np.int64]) -> dict[str, Ability]:
    """Of the two panels under their tier's name, and of every model with enough outcomes among these rows."""
    observed = {"cheap": targets.cheap, "strong": targets.strong}
    observed |= {str(model): data.scores[model].to_numpy() for model in data.scores.columns}
    abilities = {}
    for name, scores in observed.items():
        known = np.isfinite(scores[rows])
        if known.sum() >= _LEAST_OUTCOMES:
            abilities[name] = fit_ability(inputs[known], scores[rows][known])
    halves = np.mean([abilities["cheap"], abilities["strong"]], axis=0)
    abilities["middle"] = (float(halves[0]), float(halves[1]), float(halves[2]), float(halves[3]))
    return abilities


def fit_ability(inputs: Numbers, outcome: Numbers, steps: int = 15, ridge: float = 3.0) -> Ability:
    """Logistic regression by Newton's method, with a ridge towards half cheap, half strong, no offset."""
    prior = np.array(PRIOR_ABILITY)
    weights = prior.copy()
    penalty = ridge * np.diag([1.0, 1.0, 0.3, 0.1])
    for _ in range(steps):
        chance = sigmoid(inputs @ weights)
        slope = inputs.T @ (outcome - chance) - penalty @ (weights - prior)
        curve = (inputs * (chance * (1.0 - chance))[:, None]).T @ inputs + penalty
        weights = weights + np.linalg.solve(curve, slope)
    return float(weights[0]), float(weights[1]), float(weights[2]), float(weights[3])


def sigmoid(value: Numbers) -> Numbers:
    """The logistic function."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0))), dtype=np.float64)


def export(fitted: Fitted, features: Numbers) -> dict[str, Any]:
    """The trained data as plain JSON values, in the form `Forest.load` takes."""
    dumps = {name: booster.dump_model() for name, booster in fitted.boosters.items()}
    thresholds = _thresholds(dumps)
    targets = {name: _export_trees(dump, thresholds) for name, dump in dumps.items()}
    raw = fitted.boosters["need"].predict(features)
    abilities = {name: [round(value, 4) for value in weights] for name, weights in fitted.abilities.items()}
    knots = np.quantile(raw, np.linspace(0.0, 1.0, _KNOTS))
    return {
        "format": FORMAT,
        "features": list(OUTCOME_FEATURE_NAMES),
        "forest": {"thresholds": thresholds, "targets": targets},
        "need_knots": [round(float(knot), 6) for knot in knots],
        "tiers": {name: abilities[name] for name in TIERS},
        "models": {name: weights for name, weights in abilities.items() if name not in TIERS},
    }


def _tests(node: Mapping[str, Any]) -> list[tuple[int, float]]:
    if "split_feature" not in node:
        return []
    here = (int(node["split_feature"]), float(node["threshold"]))
    return [here, *_tests(node["left_child"]), *_tests(node["right_child"])]


def _thresholds(dumps: Mapping[str, Any]) -> list[list[float]]:
    """Unrounded: a threshold may lie next to a value that many prompts have, such as a third."""
    columns: list[set[float]] = [set() for _ in OUTCOME_FEATURE_NAMES]
    for dump in dumps.values():
        for tree in dump["tree_info"]:
            for feature, threshold in _tests(tree["tree_structure"]):
                columns[feature].add(threshold)
    return [sorted(column) for column in columns]


def _export_trees(dump: Mapping[str, Any], thresholds: Sequence[Sequence[float]]) -> dict[str, Any]:
    places = [{threshold: place for place, threshold in enumerate(column)} for column in thresholds]

    def export_node(node: Mapping[str, Any]) -> Any:
        if "split_feature" not in node:
            return round(float(node["leaf_value"]) / _LEAF_SCALE)
        feature = int(node["split_feature"])
        place = places[feature][float(node["threshold"])]
        return [feature, place, export_node(node["left_child"]), export_node(node["right_child"])]

    return {
        "bias": 0.0,
        "scale": _LEAF_SCALE,
        "trees": [export_node(tree["tree_structure"]) for tree in dump["tree_info"]],
    }


def train(folder: Path, seed: int, folds: int = 5) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trained data, and the report of a grouped cross-validation; the same folder and seed give the same data."""
    data = load(folder)
    targets = targets_of(data)
    report = held_out_report(data, targets, seed, folds) if folds > 1 else {}
    return export(fit(data, targets, np.arange(len(data.gap)), seed), data.features), report


def main(arguments: Sequence[str]) -> int:
    """Write the trained data to OUT and its held-out report beside it."""
    if len(arguments) != 2:
        print("usage: python -m training.outcomes FOLDER OUT", file=sys.stderr)
        return 2
    out = Path(arguments[1])
    trained, report = train(Path(arguments[0]), seed=1)
    out.write_text(json.dumps(trained, separators=(",", ":")) + "\n")
    out.with_suffix(".report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
