"""Harmless texts of many sorts, what users ask for next to them, and orders that do not belong there."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from training.injection_augment import own_rows, spelled_out
from training.injection_documents import documents, filled, made
from training.injection_rows import OWN, Row

EVERYDAY, ASKED, FANCIFUL, LONG, PLANTED, BURIED, EXAM = 700, 250, 700, 300, 600, 450, 1_500
"""How many texts of each sort there are."""

_LONGEST_EXAM, _LONGEST = 2_000, 3_600
_BURIED_KINDS = ("direct_injection", "indirect_injection", "prompt_extraction")
_ASKS = (
    "Summarise this: ",
    "Please translate the following into English:\n",
    "What does this mean?\n\n",
    "Can you proofread this for me? ",
    "Extract all dates and names.\n",
    "Explain the following to a beginner:\n",
    "Write a friendly reply to this:\n",
    "Shorten this text, please. ",
    "Is there anything unusual in here? ",
    "Turn this into a list of tasks:\n",
    "I got this today, what should I do?\n",
    "Answer the question at the end in one sentence.\n",
)
_SEPARATORS = (" ", "\n", "\n\n", " ", "\n- ")


def everyday(seed: int = 11) -> list[Row]:
    """Documents of many genres and languages, and what users ask of them; none is an attack."""
    chance = random.Random(seed)  # noqa: S311 - no secret is made
    return [
        *(_row(f"everyday-{number}", document(chance), "document", chance) for number in range(EVERYDAY)),
        *(_row(f"asked-{number}", _asked(chance), "asked", chance) for number in range(ASKED)),
        *(_row(f"fanciful-{number}", _fanciful(chance), "roleplay", chance) for number in range(FANCIFUL)),
        *(_row(f"long-{number}", _long(chance), "document", chance) for number in range(LONG)),
    ]


def planted(seed: int = 13) -> list[Row]:
    """Documents in which a task stands that has no business there: attacks, however innocent the task."""
    chance = random.Random(seed)  # noqa: S311 - no secret is made
    tasks: list[str] = json.loads((OWN / "tasks.json").read_text(encoding="utf-8"))
    plain = [row.text for row in documents()]
    rows = []
    for number in range(PLANTED):
        around = document(chance) if chance.random() < 0.5 else chance.choice(plain)
        text = _with(around, spelled_out(chance.choice(tasks), chance), chance)
        rows.append(_row(f"planted-{number}", text, "indirect_plain", chance)._replace(attack=True))
    return rows


def buried(seed: int = 17) -> list[Row]:
    """Own attacks somewhere in long documents that are harmless but for them."""
    chance = random.Random(seed)  # noqa: S311 - no secret is made
    attacks = [row for row in own_rows() if row.attack and row.kind in _BURIED_KINDS]
    rows = []
    for number in range(BURIED):
        attack = chance.choice(attacks)
        around = _long(chance) if chance.random() < 0.8 else document(chance)
        row = _row(f"buried-{number}", _with(around, attack.text, chance), "buried", chance)
        rows.append(row._replace(attack=True, group=attack.group))
    return rows


def exam_prompts(file: Path) -> list[Row]:
    """Questions of published tests as harmless turns of users: always the same ones of a file (parquet)."""
    parquet: Any = import_module("pyarrow.parquet")
    prompts = {text for text in parquet.read_table(file, columns=["prompt"])["prompt"].to_pylist()}
    digests = sorted((hashlib.sha256(text.encode()).hexdigest(), text) for text in prompts)
    short = [(digest, text) for digest, text in digests if len(text) <= _LONGEST_EXAM][:EXAM]
    return [Row(f"exam-{digest[:12]}", text, False, "exam", "exam prompts", digest[:32]) for digest, text in short]


def document(chance: random.Random) -> str:
    """Some sentences of one genre."""
    genres = _of("sentences")
    of_genre = genres[chance.choice(sorted(genres))]
    several = [filled(chance.choice(of_genre), chance) for _ in range(chance.randrange(2, 15))]
    return chance.choice(_SEPARATORS).join(dict.fromkeys(several))


def _long(chance: random.Random) -> str:
    return "\n\n".join(document(chance) for _ in range(chance.randrange(2, 9)))[:_LONGEST]


def _asked(chance: random.Random) -> str:
    about = document(chance) if chance.random() < 0.8 else made(chance)
    ask = chance.choice(_ASKS)
    return ask + about if chance.random() < 0.8 else f"{about}\n\n{ask.rstrip(': ')}"


def _fanciful(chance: random.Random) -> str:
    """A long request for fiction, a role play or a debate, as harmless as it may sound bold."""
    parts = (("openings", 1, 1), ("situations", 1, 4), ("requests", 1, 3), ("constraints", 0, 3))
    pools = _of("prompts")
    several = [one for part, least, most in parts for one in chance.sample(pools[part], chance.randint(least, most))]
    return chance.choice((" ", " ", "\n", "\n\n")).join(several)


def _with(around: str, task: str, chance: random.Random) -> str:
    breaks = [place + 1 for place, one in enumerate(around) if one in ".\n"]
    place = chance.choice((0, len(around), chance.choice([*breaks, 0])))
    gap = chance.choice((" ", "\n"))
    return f"{around[:place].rstrip()}{gap}{task}{gap}{around[place:].lstrip()}".strip()


def _row(name: str, text: str, kind: str, chance: random.Random) -> Row:
    return Row(name, text, False, kind, "own documents", chance.randbytes(16).hex())


@cache
def _of(name: str) -> dict[str, Sequence[str]]:
    found: dict[str, Sequence[str]] = json.loads((OWN / f"{name}.json").read_text(encoding="utf-8"))
    return found
