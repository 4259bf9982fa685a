"""Harmless documents: made tables, logs, mails and records, and pieces of this project's own prose and code."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from training.injection_rows import OWN, Row

COUNT = 280

_NAMES = [
    "Anna",
    "Tom",
    "Maria",
    "Lee",
    "Omar",
    "Ines",
    "Paul",
    "Kenji",
    "Olga",
    "Ravi",
    "Berlin",
    "Oslo",
    "Lima",
    "Quito",
    "Cairo",
    "Turin",
    "Lyon",
    "Porto",
    "Lions",
    "Bears",
    "Hawks",
    "Eagles",
    "Rovers",
    "United",
    "Athletic",
    "Comet",
    "Delta",
    "Harbor",
    "Maple",
    "Summit",
    "Orion",
    "Lakeside",
    "Acme",
    "Globex",
    "Initech",
    "Umbra",
    "Stark",
    "Norda",
    "Vela",
]
_HEADINGS = [
    "Year",
    "Team",
    "Name",
    "City",
    "Games",
    "Points",
    "Score",
    "Rank",
    "Date",
    "Venue",
    "Result",
    "Attendance",
    "Notes",
    "Party",
    "District",
    "Episode",
    "Title",
    "Director",
    "Population",
    "Area",
    "Position",
    "Season",
    "League",
    "Goals",
    "Wins",
    "Losses",
    "Draws",
    "Price",
    "Quantity",
    "Total",
    "Country",
    "Company",
    "Opponent",
    "Time",
]
_MONTHS = ("May", "June", "January", "October")
_MAIL = (
    "Your card ending in {n} was charged ${m} by {a}.",
    "You sent ${m} to {a} on {d}.",
    "You received ${m} from {a}; it has been credited to your account {n}.",
    "Your invoice {n} of {d} is attached and is due in {k} days.",
    "If you have any questions, just reply to this message.",
    "Please let me know whether {d} suits you and {b}.",
    "The meeting with {a} and {b} was moved to {d}.",
    "Your parcel {n} leaves {a} on {d}.",
    "We changed our terms of service; they apply from {d}.",
    "Sent with care by the team of {a}.",
    "Thank you for your order of {k} items.",
    "The settled amount may differ from ${m} and will be withdrawn on {d}.",
    "To change how you are notified, open the settings of your account.",
    "{a} wrote: the draft looks fine, but page {k} needs another look.",
)
_LOG = (
    "INFO request {n} served in {k} ms",
    "WARN retrying connection to {a} after {k} s",
    "ERROR user {n} not found in table {a}",
    "DEBUG cache hit for key {n}",
    "INFO system started, version {k}.{k}",
)


def documents(seed: int = 5) -> list[Row]:
    """So many made documents, and pieces of the project's prose and code as they once were."""
    chance = random.Random(seed)  # noqa: S311 - no secret is made
    pieces: list[str] = json.loads((OWN / "pieces.json").read_text(encoding="utf-8"))
    rows = []
    for number, text in enumerate([*pieces, *(made(chance) for _ in range(COUNT))]):
        group = chance.randbytes(16).hex()
        rows.append(Row(f"document-{number}", text, False, "document", "own documents", group))
    return rows


def made(chance: random.Random) -> str:
    """One table, mail, log, record or traceback."""
    return chance.choice(_MAKERS)(chance)


def _cell(chance: random.Random) -> str:
    makers: Sequence[Callable[[], str]] = (
        lambda: str(chance.randrange(100)),
        lambda: f"{chance.randrange(1, 99)},{chance.randrange(100, 999)}",
        lambda: f"{chance.randrange(40)}-{chance.randrange(40)}",
        lambda: f"{chance.random():.3f}",
        lambda: " ".join(chance.sample(_NAMES, 2)),
        lambda: chance.choice(_NAMES),
        lambda: f"{chance.choice(_MONTHS)} {chance.randrange(1, 29)}, {chance.randrange(1900, 2030)}",
        lambda: str(chance.randrange(1900, 2030)),
    )
    return chance.choice(makers)()


def _table(chance: random.Random) -> str:
    columns = chance.sample(_HEADINGS, chance.randrange(3, 9))
    makers = [random.Random(chance.random()) for _ in columns]  # noqa: S311 - no secret is made
    lines = ["| " + " | ".join(columns) + " |"]
    lines += ["| " + " | ".join(_cell(one) for one in makers) + " |" for _ in range(chance.randrange(3, 28))]
    return "\n".join(lines)


def filled(template: str, chance: random.Random) -> str:
    """With names, numbers and dates for `{a}`, `{b}`, `{n}`, `{m}`, `{k}` and `{d}`."""
    first, second = chance.sample(_NAMES, 2)
    return template.format(
        n=chance.randrange(1000, 99999),
        m=f"{chance.randrange(5, 9000):,}.{chance.randrange(100):02d}",
        k=chance.randrange(2, 60),
        a=first,
        b=second,
        d=_cell(random.Random(chance.random())),  # noqa: S311 - no secret is made
    )


def _mail(chance: random.Random) -> str:
    head = chance.choice(
        ("Hi {a},", "Dear {a},", "SUBJECT: account {n}|FROM: {b}|DATE: {d}|CONTENT: Hi {a}", "Hello,", "")
    )
    body = [filled(one, chance) for one in chance.sample(_MAIL, chance.randrange(2, 9))]
    return filled(head, chance) + chance.choice((" ", "\n", "\n\n")) + chance.choice((" ", "\n")).join(body)


def _log(chance: random.Random) -> str:
    return "\n".join(
        f"2031-05-{chance.randrange(10, 29)} {filled(chance.choice(_LOG), chance)}"
        for _ in range(chance.randrange(3, 30))
    )


def _record(chance: random.Random) -> str:
    rows = [{chance.choice(_HEADINGS).lower(): _cell(chance) for _ in range(4)} for _ in range(chance.randrange(1, 9))]
    return json.dumps(rows if len(rows) > 1 else rows[0], ensure_ascii=False, indent=chance.choice((None, 2)))


def _traceback(chance: random.Random) -> str:
    lines = ["Traceback (most recent call last):"]
    for _ in range(chance.randrange(1, 9)):
        name = chance.choice(_NAMES).lower()
        lines.append(
            f'  File "/srv/{name}/{chance.choice(_HEADINGS).lower()}.py", line {chance.randrange(900)}, in {name}'
        )
        lines.append(f"    {chance.choice(_HEADINGS).lower()} = {name}({_cell(chance)!r})")
    lines.append(
        chance.choice(
            (
                "ValueError: invalid literal",
                "KeyError: 'name'",
                "TypeError: not callable",
                "IndexError: list index out of range",
            )
        )
    )
    return "\n".join(lines)


_MAKERS: Sequence[Callable[[random.Random], str]] = (_table, _mail, _log, _record, _traceback, _mail, _table)
