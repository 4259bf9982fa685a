"""A small folder of recorded outcomes, for tests of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

WEAK, MIDDLE, STRONG = "claude-3-haiku-20240307", "claude-3-5-haiku-20241022", "claude-3-5-sonnet-20241022"

PRICES = {WEAK: (0.25, 1.25), MIDDLE: (0.8, 4.0), STRONG: (3.0, 15.0)}

TRUE_TIERS = ("simple", "medium", "complex")


@dataclass(frozen=True)
class Prompt:
    """A prompt that models from `needs` on (0 weak, 1 middle, 2 strong, 3 none) get right."""

    text: str
    needs: int
    source: str = "exam"
    subset: str = "all"


def write_folder(folder: Path, prompts: Sequence[Prompt], prices: Mapping[str, tuple[float, float]] = PRICES) -> Path:
    """Writes the three files and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    items, scores = [], []
    for number, prompt in enumerate(prompts):
        item_id = f"{prompt.source}:{number}"
        right = [float(prompt.needs <= strength) for strength in range(3)]
        items.append(
            {
                "item_id": item_id,
                "source": prompt.source,
                "subset": prompt.subset,
                "split_group": prompt.source,
                "prompt": prompt.text,
                "weak_model": WEAK,
                "strong_model": STRONG,
                "weak_score": right[0],
                "strong_score": right[2],
                "tier_claude35": TRUE_TIERS[prompt.needs] if prompt.needs < 3 else "unsolved",
            }
        )
        for model, score in zip((WEAK, MIDDLE, STRONG), right, strict=True):
            scores.append(
                {
                    "item_id": item_id,
                    "model": model,
                    "score": score,
                    "out_chars": 400.0,
                    "in_tokens": None,
                    "out_tokens": None,
                }
            )
    _write(folder / "items.parquet", items)
    _write(folder / "scores.parquet", scores)
    lines = [f"{model},{price_in},{price_out},test" for model, (price_in, price_out) in prices.items()]
    (folder / "models.csv").write_text(
        "\n".join(("model,usd_per_mtok_in,usd_per_mtok_out,price_source", *lines)) + "\n"
    )
    return folder


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(list(rows)), file)


def varied_prompts(count: int = 120, source: str = "exam") -> list[Prompt]:
    """Short easy, middling, and long hard prompts in turn, with a prompt that none gets right now and then."""
    kinds = (
        ("What is the capital of country number {}?", 0),
        ("Write a function that sorts the {} records by two keys and explain each step of it.", 1),
        (
            "Prove that the scheduler of {} nodes must keep consistency without a lock; derive the trade-offs, compare "
            "the algorithms under concurrent failures, and show a counterexample for each weaker assumption.",
            2,
        ),
    )
    prompts = []
    for number in range(count):
        text, needs = kinds[number % 3]
        prompts.append(Prompt(text.format(number), 3 if number % 17 == 0 else needs, source, f"part {number % 2}"))
    return prompts
