"""Whole requests out of labelled asks: wrapped, with material pasted before or after, written carelessly.

What is put around an ask must not change its tier; a model that learns from many such requests learns that it does
not. The place of the ask in the text is known, so that a model can also learn to find it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUBRIC = Path(__file__).parent / "rubric"
_WRAPPED_SHARE = 0.4
_SIGNS = ("😊", "🙏", "!!!", "😅", "🔥", "...", "🤔", "❤️")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One labelled ask. `before` and `after` are set where it was written together with its surroundings."""

    ask: str
    tier: int
    """0 simple, 1 medium, 2 complex."""
    mark: str
    task: str
    language: str
    kind: str
    source: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Composed:
    """A request as it would be sent, and where in it the ask stands."""

    text: str
    start: int
    end: int
    labelled: Labelled


@dataclass(slots=True)
class Surroundings:
    """What can be put around an ask: passages by kind, and wrappers by place."""

    material: Sequence[dict[str, str]]
    wrappers: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def part(self, keep: Callable[[int], bool]) -> Surroundings:
        """Those whose number is kept; so that what a model is tested with was not there when it learned."""
        return Surroundings(
            [one for number, one in enumerate(self.material) if keep(number)],
            {place: [one for n, one in enumerate(all_) if keep(n)] for place, all_ in self.wrappers.items()},
        )


def read_labelled(folder: Path = RUBRIC) -> list[Labelled]:
    """All labelled asks of the folder."""
    files = sorted(file for file in folder.glob("*.jsonl") if file.stem not in ("material", "wrappers"))
    return [_labelled(line, file.stem) for file in files for line in _lines(file)]


def read_surroundings(folder: Path = RUBRIC, prose: Iterable[Path] = ()) -> Surroundings:
    """The passages and wrappers of the folder, and pieces of other files as further passages."""
    wrappers: dict[str, list[dict[str, str]]] = {}
    for wrapper in _lines(folder / "wrappers.jsonl"):
        wrappers.setdefault(wrapper["where"], []).append(wrapper)
    return Surroundings([*_lines(folder / "material.jsonl"), *_pieces_of(prose)], wrappers)


def compose(labelled: Labelled, around: Surroundings, rng: random.Random, *, plain: bool = False) -> Composed:
    """One request around this ask; `plain` leaves out all that it can do without."""
    ask = labelled.ask if plain or rng.random() > 0.25 else _carelessly(labelled.ask, rng)
    before, after = labelled.before, labelled.after
    if labelled.kind:
        before, after = _with_material(labelled, around, rng)
    elif not plain and rng.random() < 0.3 and not (before or after):
        before, after = _in_frame(labelled.language, around, rng, "")
    if not plain and rng.random() < _WRAPPED_SHARE:
        before = _pick(around.wrappers["prefix"], labelled.language, rng) + rng.choice((" ", "\n", "\n\n")) + before
    if not plain and rng.random() < _WRAPPED_SHARE:
        after += rng.choice((" ", "\n", "\n\n")) + _pick(around.wrappers["suffix"], labelled.language, rng)
    return Composed(before + ask + after, len(before), len(before) + len(ask), labelled)


def _labelled(line: dict[str, Any], source: str) -> Labelled:
    return Labelled(
        ask=line["ask"],
        tier="SMC".index(line["mark"][0]),
        mark=line["mark"],
        task=line["task"],
        language=line["lang"],
        kind=line.get("kind", ""),
        source=source,
        before=line.get("before", ""),
        after=line.get("after", ""),
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _pieces_of(files: Iterable[Path]) -> list[dict[str, str]]:
    rng = random.Random(1)  # noqa: S311 - no secret is made
    pieces = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        start = text.rfind("\n", 0, rng.randrange(max(1, len(text) - 300))) + 1
        kind = "article" if file.suffix == ".md" else "code"
        pieces.append({"kind": kind, "lang": "en", "text": text[start : start + rng.randrange(150, 1_500)]})
    return pieces


def _with_material(labelled: Labelled, around: Surroundings, rng: random.Random) -> tuple[str, str]:
    material = _material(labelled, around.material, rng)
    way = rng.random()
    if way < 0.4:
        return _in_frame(labelled.language, around, rng, material)
    lead_in = ""
    if rng.random() < 0.45:
        lead_in = _pick(around.wrappers["lead_in"], labelled.language, rng) + rng.choice(("\n", " ", "\n\n"))
    if way < 0.75:
        return "", rng.choice(("\n", "\n\n", " ", "\n---\n")) + lead_in + material
    return lead_in + material + rng.choice(("\n", "\n\n", "\n---\n")), ""


def _material(labelled: Labelled, all_material: Sequence[dict[str, str]], rng: random.Random) -> str:
    of_kind = [one for one in all_material if one["kind"] == labelled.kind] or list(all_material)
    in_language = [one for one in of_kind if one["lang"] == labelled.language]
    text = rng.choice(in_language if in_language and rng.random() < 0.7 else of_kind)["text"]
    if rng.random() < 0.25:
        text += "\n\n" + rng.choice(all_material)["text"]
    if len(text) > 400 and rng.random() < 0.3:
        start = rng.randrange(len(text) // 2)
        text = text[start : start + rng.randrange(200, len(text))]
    return text


def _in_frame(language: str, around: Surroundings, rng: random.Random, material: str) -> tuple[str, str]:
    frames = [one for one in around.wrappers["frame"] if ("{material}" in one["text"]) is bool(material)]
    before, _, after = _pick(frames, language, rng).partition("{ask}")
    return before.replace("{material}", material), after.replace("{material}", material)


def _pick(wrappers: Sequence[dict[str, str]], language: str, rng: random.Random) -> str:
    own = [one for one in wrappers if one["lang"] == language]
    return rng.choice(own if own and rng.random() < 0.75 else wrappers)["text"]


def _carelessly(text: str, rng: random.Random) -> str:
    way = rng.random()
    if way < 0.3:
        text = text.lower()
    elif way < 0.4:
        text = text.upper()
    if rng.random() < 0.3:
        text = re.sub(r"[.,;:!?]", "", text)
    if rng.random() < 0.4:
        text = _with_slips(text, rng)
    if rng.random() < 0.3:
        text = f"{text} {rng.choice(_SIGNS)}"
    return text.replace(" ", "  ") if rng.random() < 0.15 else text


def _with_slips(text: str, rng: random.Random) -> str:
    letters = list(text)
    for _ in range(max(1, len(letters) // 40)):
        place = rng.randrange(len(letters))
        if not letters[place].isalpha():
            continue
        way = rng.random()
        if way < 0.35:
            letters[place] = ""
        elif way < 0.65 and place + 1 < len(letters):
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
        else:
            letters[place] *= 2
    return "".join(letters)
