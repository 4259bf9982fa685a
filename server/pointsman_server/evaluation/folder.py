"""Reads a folder of recorded outcomes: what which model achieved on which prompt, and what models cost."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pointsman_server.evaluation.metrics import Floats, Pair
from pointsman_server.evaluation.problems import DataError

ITEMS_FILE, SCORES_FILE, PRICES_FILE = "items.parquet", "scores.parquet", "models.csv"

LABEL_COLUMNS = ("tier_consensus", "tier_claude3", "tier_claude35", "tier_llama31", "tier_gpt")
_ITEM_COLUMNS = (
    "item_id",
    "subset",
    "split_group",
    "prompt",
    "weak_model",
    "strong_model",
    "weak_score",
    "strong_score",
)
_SCORE_COLUMNS = ("item_id", "model", "score", "out_chars", "in_tokens", "out_tokens")
_PRICE_COLUMNS = ("model", "usd_per_mtok_in", "usd_per_mtok_out")

CHARS_PER_TOKEN = 4.0
"""Of English text, where the tokens of a prompt or an answer are not recorded."""

TYPICAL_ANSWER_CHARS = 800.0
"""Where no answer in the folder has a recorded length."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with its pair of models; `labels` are the recorded tiers by column, only those that are known."""

    id: str
    source: str
    subset: str
    prompt: str
    weak_model: str
    strong_model: str
    labels: Mapping[str, str]

    @property
    def in_first_half(self) -> bool:
        """A fixed half of all prompts, chosen by a digest of the id."""
        return hashlib.sha256(self.id.encode()).digest()[0] % 2 == 0


@dataclass(frozen=True)
class RoutingData:
    """A folder's content. Arrays run along `items`; NaN where a model was not asked."""

    items: Sequence[Item]
    weak: Floats
    strong: Floats
    scores: Mapping[str, Floats]
    """By model, 0..1."""
    costs: Mapping[str, Floats]
    """By model with a price, in USD; estimated from lengths where no tokens are recorded."""
    guessed_answers: float
    """The share of outcomes whose answer has no recorded length."""
    digest: str
    """SHA-256 of the items' file."""

    @cached_property
    def first_half(self) -> Sequence[bool]:
        """Which items are in the fixed half."""
        return [item.in_first_half for item in self.items]

    def canonical(self, places: Sequence[int]) -> Pair:
        """What the items' own two models achieved and cost; all of them must have the same two."""
        first = self.items[places[0]]
        return Pair(
            self.weak[places],
            self.strong[places],
            self.cost(first.weak_model, places),
            self.cost(first.strong_model, places),
        )

    def pair(self, weak_model: str, strong_model: str, places: Sequence[int]) -> Pair:
        """What any two models achieved and cost there."""
        return Pair(
            self.scores[weak_model][places],
            self.scores[strong_model][places],
            self.cost(weak_model, places),
            self.cost(strong_model, places),
        )

    def cost(self, model: str, places: Sequence[int]) -> Floats:
        """The model's cost there in USD; NaN without a price."""
        known = self.costs.get(model)
        return np.full(len(places), np.nan) if known is None else known[places]

    def places_with(self, models: Sequence[str]) -> list[int]:
        """The items on which all of these models were asked."""
        if any(model not in self.scores for model in models):
            return []
        known = np.all([~np.isnan(self.scores[model]) for model in models], axis=0)
        return [int(place) for place in np.flatnonzero(known)]


def read_folder(folder: Path) -> RoutingData:
    """Reads it all; raises `DataError` if a file is absent, unreadable or lacks a column."""
    rows = _rows(folder / ITEMS_FILE, _ITEM_COLUMNS)
    if not rows:
        raise DataError(f"{folder / ITEMS_FILE}: there are no prompts in it")
    items = [_item(row) for row in rows]
    scores, costs, guessed = _outcomes(folder, items)
    return RoutingData(
        items=items,
        weak=np.array([row["weak_score"] for row in rows], dtype=np.float64),
        strong=np.array([row["strong_score"] for row in rows], dtype=np.float64),
        scores=scores,
        costs=costs,
        guessed_answers=guessed,
        digest=hashlib.sha256((folder / ITEMS_FILE).read_bytes()).hexdigest(),
    )


def _rows(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    parquet: Any = import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as Parquet; name a folder with {ITEMS_FILE} in it") from error
    absent = sorted(set(columns) - set(table.column_names))
    if absent:
        raise DataError(f"{file}: lacks the columns {', '.join(absent)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _item(row: Mapping[str, Any]) -> Item:
    return Item(
        id=row["item_id"],
        source=row["split_group"],
        subset=row["subset"] or "",
        prompt=row["prompt"],
        weak_model=row["weak_model"],
        strong_model=row["strong_model"],
        labels={column: row[column] for column in LABEL_COLUMNS if row.get(column)},
    )


def _outcomes(folder: Path, items: Sequence[Item]) -> tuple[dict[str, Floats], dict[str, Floats], float]:
    places = {item.id: place for place, item in enumerate(items)}
    rows = [row for row in _rows(folder / SCORES_FILE, _SCORE_COLUMNS) if row["item_id"] in places]
    prices = _prices(folder / PRICES_FILE)
    lengths = [row["out_chars"] for row in rows if _known(row["out_chars"])]
    typical = float(np.median(lengths)) if lengths else TYPICAL_ANSWER_CHARS
    scores: dict[str, Floats] = {}
    costs: dict[str, Floats] = {}
    for row in rows:
        model, place = row["model"], places[row["item_id"]]
        _column(scores, model, len(items))[place] = row["score"]
        if model in prices:
            tokens_in, tokens_out = _tokens(row, items[place].prompt, typical)
            price_in, price_out = prices[model]
            _column(costs, model, len(items))[place] = (tokens_in * price_in + tokens_out * price_out) / 1e6
    guessed = sum(not (_known(row["out_tokens"]) or _known(row["out_chars"])) for row in rows)
    return scores, costs, guessed / max(len(rows), 1)


def _column(columns: dict[str, Floats], model: str, length: int) -> Floats:
    if model not in columns:
        columns[model] = np.full(length, np.nan)
    return columns[model]


def _known(value: float | None) -> bool:
    return value is not None and value == value


def _tokens(row: Mapping[str, Any], prompt: str, typical_chars: float) -> tuple[float, float]:
    chars = row["out_chars"] if _known(row["out_chars"]) else typical_chars
    tokens_in = row["in_tokens"] if _known(row["in_tokens"]) else len(prompt) / CHARS_PER_TOKEN
    return tokens_in, row["out_tokens"] if _known(row["out_tokens"]) else chars / CHARS_PER_TOKEN


def _prices(file: Path) -> dict[str, tuple[float, float]]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        model, price_in, price_out = _PRICE_COLUMNS
        return {row[model]: (float(row[price_in]), float(row[price_out])) for row in rows}
    except OSError as error:
        raise DataError(f"{file}: cannot be read; it is to hold the columns {', '.join(_PRICE_COLUMNS)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: needs the columns {', '.join(_PRICE_COLUMNS)}; prices are numbers") from error
