"""Reports of several runs side by side, as tables in Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wall.scenario import Setting, Verdict

_SETTING = ("seed", "scale", "many")
_LEAST_SCENARIOS = 3
"""What is looked at in fewer scenarios has no line of its own in the second table."""

_LONGEST_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Run:
    """A report as it was written: whose it is, how the run was done, and its scenarios by id."""

    target: str
    setting: Setting
    scenarios: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, file: Path) -> Run:
        """Raises `ValueError` for what is no report of the wall, `OSError` when it cannot be read."""
        try:
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            (about,) = (row for row in rows if row["kind"] == "run")
            scenarios = {row["id"]: row for row in rows if row["kind"] == "scenario"}
            return cls(about["target"], Setting(**{name: about[name] for name in _SETTING}), scenarios)
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{file} is no report of the wall; name a file that --output wrote") from error

    def counts(self) -> Counter[str]:
        """Scenarios by verdict."""
        return Counter(row["verdict"] for row in self.scenarios.values())

    def findings(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """All findings with their scenario's id."""
        for id, row in self.scenarios.items():
            for finding in row["findings"]:
                yield id, finding


def compare(files: Sequence[Path]) -> str:
    """What the runs found, by scenario and by what was looked at, and everything that was broken.

    Raises `ValueError` when the runs were done in different ways, `OSError` for files that cannot be read.
    """
    runs = [Run.read(file) for file in files]
    if any(run.setting != runs[0].setting for run in runs):
        told = "; ".join(f"{run.target}: {_told(run.setting)}" for run in runs)
        raise ValueError(f"these runs cannot be compared, as they differ in their options: {told}")
    parts = [_told(runs[0].setting).capitalize() + ".", _by_scenario(runs), _by_name(runs)]
    return "\n\n".join([*parts, *(_broken(run) for run in runs)]) + "\n"


def _told(setting: Setting) -> str:
    return f"seed {setting.seed}, durations x {setting.scale:g}, {setting.many:,} random calls each"


def _by_scenario(runs: Sequence[Run]) -> str:
    ids = sorted({id for run in runs for id in run.scenarios})
    rows = [[id, _title(runs, id), *(_cell(run.scenarios.get(id)) for run in runs)] for id in ids]
    total = ["", "scenarios kept, of those judged", *(f"{_share(run.counts())}" for run in runs)]
    return _table(["", "what happens", *(run.target for run in runs)], [*rows, total])


def _title(runs: Iterable[Run], id: str) -> str:
    return next(str(run.scenarios[id]["title"]) for run in runs if id in run.scenarios)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not run"
    counts = Counter(finding["verdict"] for finding in row["findings"])
    broken = counts[Verdict.BROKEN.value]
    return f"**broken** {broken} of {broken + counts[Verdict.KEPT.value]}" if broken else str(row["verdict"])


def _by_name(runs: Sequence[Run]) -> str:
    found = [_verdicts_by_name(run) for run in runs]
    names = {name: None for counts in found for name in counts}
    often = [name for name in names if any(counts.get(name, Counter()).total() >= _LEAST_SCENARIOS for counts in found)]
    rows = [[name, *(_share(counts.get(name, Counter())) for counts in found)] for name in often]
    return _table(["scenarios in which it was kept, of those judged", *(run.target for run in runs)], rows)


def _verdicts_by_name(run: Run) -> dict[str, Counter[str]]:
    verdicts: dict[str, dict[str, str]] = {}
    for id, finding in run.findings():
        mine = verdicts.setdefault(finding["name"], {})
        worse = Verdict.BROKEN.value in (finding["verdict"], mine.get(id))
        mine[id] = Verdict.BROKEN.value if worse else finding["verdict"]
    return {name: Counter(by_id.values()) for name, by_id in verdicts.items()}


def _share(counts: Counter[str]) -> str:
    judged = counts[Verdict.KEPT.value] + counts[Verdict.BROKEN.value]
    return f"{counts[Verdict.KEPT.value]} of {judged}" if judged else Verdict.NOT_APPLICABLE.value


def _broken(run: Run) -> str:
    lines = [f"Broken by {run.target}:", ""]
    for id, finding in run.findings():
        if finding["verdict"] == Verdict.BROKEN.value:
            lines.append(f"- {id}, {finding['name']}: {_short(finding['measured'])}; expected {finding['expected']}")
    return "\n".join(lines if len(lines) > 2 else [f"Broken by {run.target}: nothing."])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_CHARACTERS else f"{text[:_LONGEST_CHARACTERS]}…"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
