"""How much the judge is moved by edits that should not move it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pointsman_server.evaluation.edits import EDITS, Edit
from pointsman_server.evaluation.figures import rank_correlation
from pointsman_server.evaluation.judging import Judge, Verdict, judge_text


class Prompt(NamedTuple):
    """A user turn and its system prompt, if any."""

    text: str
    system: str = ""


@dataclass(frozen=True, slots=True)
class Robustness:
    """What one edit did to the prompts it applies to; the correlation is that of the scores' ranks."""

    edit: str
    prompts: int
    tiers_changed: float
    rank_correlation: float | None


def measure_robustness(judge: Judge, prompts: Sequence[Prompt]) -> list[Robustness]:
    """One line for each edit that applies to any of the prompts, then one for all edits together."""
    before = [judge_text(judge, prompt.text, prompt.system) for prompt in prompts]
    lines, all_pairs = [], []
    for name, edit in EDITS.items():
        pairs = _judged_pairs(judge, edit, prompts, before)
        all_pairs += pairs
        if pairs:
            lines.append(_line(name, pairs))
    return [*lines, _line("all edits", all_pairs)] if all_pairs else lines


def _judged_pairs(
    judge: Judge, edit: Edit, prompts: Sequence[Prompt], before: Sequence[Verdict]
) -> list[tuple[Verdict, Verdict]]:
    pairs = []
    for prompt, verdict in zip(prompts, before, strict=True):
        edited = edit(prompt.text)
        if edited is not None:
            system = "\n".join(filter(None, (edited.system, prompt.system)))
            pairs.append((verdict, judge_text(judge, edited.text, system)))
    return pairs


def _line(name: str, pairs: Sequence[tuple[Verdict, Verdict]]) -> Robustness:
    changed = sum(before.tier is not after.tier for before, after in pairs)
    correlation = rank_correlation([before.score for before, _ in pairs], [after.score for _, after in pairs])
    return Robustness(name, len(pairs), changed / len(pairs), correlation)
