"""What our judge says of prompts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.plan import Complexity
from pointsman_server.domain.request import CompletionRequest, Tier
from pointsman_server.evaluation.problems import DataError

TIER_NAMES: Mapping[Tier, str] = {Tier.LIGHT: "simple", Tier.STANDARD: "medium", Tier.ADVANCED: "complex"}
"""What the rubric and the recorded labels call the tiers."""

_TIERS = {**{name: tier for tier, name in TIER_NAMES.items()}, **{tier.name.lower(): tier for tier in Tier}}

PREDICTION_COLUMNS = ("item_id", "score", "tier", "task", "difficulty", "discrimination")

_MOST_DIFFICULTY, _MOST_DISCRIMINATION = 50.0, 10.0

Judge = Callable[[CompletionRequest], Complexity]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's word on one prompt, cut down to what an evaluation needs; see `Complexity`."""

    score: float
    tier: Tier
    task: str = ""
    difficulty: float = 0.0
    discrimination: float = 1.0


def judge_text(judge: Judge, text: str, system: str = "") -> Verdict:
    """What the judge says of one user turn, with a system prompt if there is one."""
    turns = [Message(Role.USER, (TextPart(text),))]
    if system:
        turns.insert(0, Message(Role.SYSTEM, (TextPart(system),)))
    judged = judge(CompletionRequest(tuple(turns)))
    return Verdict(judged.score, judged.tier, judged.task.value, judged.difficulty, judged.discrimination)


def tier_named(name: str) -> Tier | None:
    """The tier by either of its names: simple or light, medium or standard, complex or advanced."""
    return _TIERS.get(name.strip().lower())


def write_predictions(file: Path, ids: Sequence[str], verdicts: Sequence[Verdict]) -> None:
    """Writes one line per item, without prompts."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(PREDICTION_COLUMNS)
        for item_id, verdict in zip(ids, verdicts, strict=True):
            tier, item = TIER_NAMES[verdict.tier], (verdict.difficulty, verdict.discrimination)
            rows.writerow((item_id, verdict.score, tier, verdict.task, *item))


def read_predictions(file: Path, ids: Sequence[str]) -> list[Verdict]:
    """Reads what `write_predictions` wrote, in the order of `ids`; raises `DataError` if one of them is absent.

    Without task, difficulty and discrimination all prompts are taken to be of no known type and middling.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            found = {row["item_id"]: _verdict(row) for row in csv.DictReader(lines)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: needs the columns item_id, score (0 to 1) and tier; task, difficulty (-50 to 50) and "
            "discrimination (0 to 10) may follow"
        ) from error
    absent = sum(item_id not in found for item_id in ids)
    if absent:
        raise DataError(f"{file}: has no score for {absent} of {len(ids)} prompts")
    return [found[item_id] for item_id in ids]


def _verdict(row: Mapping[str, str]) -> Verdict:
    tier, score = tier_named(row["tier"]), float(row["score"])
    if tier is None or not 0 <= score <= 1:
        raise ValueError
    difficulty, discrimination = float(row.get("difficulty") or 0.0), float(row.get("discrimination") or 1.0)
    if not (abs(difficulty) <= _MOST_DIFFICULTY and 0 <= discrimination <= _MOST_DISCRIMINATION):
        raise ValueError
    return Verdict(score, tier, row.get("task") or "", difficulty, discrimination)
