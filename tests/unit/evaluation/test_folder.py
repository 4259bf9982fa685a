from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from kit.routing_folder import MIDDLE, STRONG, WEAK, Prompt, varied_prompts, write_folder
from pointsman_server.evaluation.folder import read_folder
from pointsman_server.evaluation.problems import DataError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    data = read_folder(write_folder(tmp_path, [Prompt("Who?", 0), Prompt("Why?" * 10, 2, "other", "part")]))
    assert [(item.source, item.subset, item.prompt) for item in data.items] == [
        ("exam", "all", "Who?"),
        ("other", "part", "Why?" * 10),
    ]
    assert data.items[1].labels == {"tier_claude35": "complex"}
    assert data.scores[MIDDLE].tolist() == [1.0, 0.0]
    assert data.digest == hashlib.sha256((tmp_path / "items.parquet").read_bytes()).hexdigest()
    assert data.guessed_answers == 0.0


def test_costs_are_tokens_times_prices(tmp_path: Path) -> None:
    data = read_folder(write_folder(tmp_path, [Prompt("x" * 400, 0)]))
    # 400 characters in and out are 100 tokens each.
    assert data.costs[WEAK].tolist() == [pytest.approx((100 * 0.25 + 100 * 1.25) / 1e6)]


def test_a_model_without_a_price_has_no_cost(tmp_path: Path) -> None:
    data = read_folder(write_folder(tmp_path, [Prompt("x", 0)], {WEAK: (1.0, 1.0)}))
    assert math.isnan(data.cost(STRONG, [0])[0])
    assert STRONG not in data.costs


def test_places_with_all_models(tmp_path: Path) -> None:
    data = read_folder(write_folder(tmp_path, varied_prompts(4)))
    data.scores[WEAK][2] = np.nan
    assert data.places_with((WEAK, STRONG)) == [0, 1, 3]
    assert data.places_with((WEAK, "another")) == []


def test_the_halves_are_fixed_and_about_equal(tmp_path: Path) -> None:
    data = read_folder(write_folder(tmp_path, varied_prompts(120)))
    assert 40 < sum(data.first_half) < 80
    assert list(data.first_half) == [item.in_first_half for item in data.items]


@pytest.mark.parametrize("name", ["items.parquet", "scores.parquet", "models.csv"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    (write_folder(tmp_path, varied_prompts(3)) / name).unlink()
    with pytest.raises(DataError, match=name):
        read_folder(tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path, varied_prompts(3)) / "scores.parquet").write_text("item_id,score\n")
    with pytest.raises(DataError, match=r"scores\.parquet: cannot be read as Parquet"):
        read_folder(tmp_path)


def test_an_absent_column_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, varied_prompts(3))
    (tmp_path / "items.parquet").write_bytes((tmp_path / "scores.parquet").read_bytes())
    with pytest.raises(DataError, match=r"items\.parquet: lacks the columns prompt, split_group, strong_model"):
        read_folder(tmp_path)


def test_prices_must_be_numbers(tmp_path: Path) -> None:
    write_folder(tmp_path, varied_prompts(3))
    (tmp_path / "models.csv").write_text("model,usd_per_mtok_in,usd_per_mtok_out\nx,cheap,1\n")
    with pytest.raises(DataError, match=r"models\.csv: needs the columns"):
        read_folder(tmp_path)


def test_no_prompts_is_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path, varied_prompts(3))
    full = (tmp_path / "items.parquet").read_bytes()
    assert full
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    parquet.write_table(parquet.read_table(tmp_path / "items.parquet").slice(0, 0), tmp_path / "items.parquet")
    with pytest.raises(DataError, match="there are no prompts in it"):
        read_folder(tmp_path)
