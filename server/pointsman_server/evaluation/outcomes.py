"""Reads a tenant's own outcomes: what a tier made of a request, as somebody judged it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.judging import Judge, judge_text, tier_named
from pointsman_server.evaluation.problems import DataError

_NEEDED = (
    "`tier` (light, standard or advanced), `outcome` (0 to 1), and `score` (0 to 1) or `prompt`; "
    "`request_id`, `task`, `model` and `cost_micro_usd` may follow"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answered request: its complexity score and task type, which tier answered, and how well (0..1).

    Outcomes of the same request on several tiers share `request`. `cost_micro_usd` is None where it is not known.
    """

    request: str
    score: float
    task: str
    tier: Tier
    outcome: float
    model: str = ""
    cost_micro_usd: float | None = None


def read_outcomes(file: Path, judge: Judge) -> list[Outcome]:
    """Reads CSV, or JSON with one object a line; prompts without a score are judged. Raises `DataError`."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text; name a .csv or .jsonl file") from error
    outcomes = []
    for line, row in _rows(file, text):
        try:
            outcomes.append(_outcome(line, row, judge))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file}, line {line}: needs {_NEEDED}") from error
    if not outcomes:
        raise DataError(f"{file}: there are no outcomes in it")
    return outcomes


def _rows(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if file.suffix.lower() == ".csv":
        reader = csv.DictReader(StringIO(text, newline=""))
        for row in reader:
            yield reader.line_num, row
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: is not a JSON object; name a .csv or .jsonl file") from error


def _outcome(line: int, row: Mapping[str, Any], judge: Judge) -> Outcome:
    prompt, score, task = str(row.get("prompt") or ""), row.get("score"), str(row.get("task") or "")
    if score in (None, ""):
        if not prompt:
            raise KeyError("score")
        verdict = judge_text(judge, prompt)
        score, task = verdict.score, task or verdict.task
    tier, cost = tier_named(row["tier"]), row.get("cost_micro_usd")
    if tier is None:
        raise ValueError
    return Outcome(
        request=str(row.get("request_id") or "") or _name(prompt, line),
        score=_share(score),
        task=task.strip().lower(),
        tier=tier,
        outcome=_share(row["outcome"]),
        model=str(row.get("model") or ""),
        cost_micro_usd=None if cost in (None, "") else _amount(cost),
    )


def _name(prompt: str, line: int) -> str:
    """The same prompt is the same request, whoever answered it."""
    return hashlib.sha256(prompt.encode()).hexdigest() if prompt else f"line {line}"


def _share(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def _amount(value: Any) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number
