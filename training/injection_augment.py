# ruff: noqa: RUF001 - lookalikes are what this is about
"""Own templates spelled out, and rows in disguise, in surroundings and in other spellings."""

from __future__ import annotations

import base64
import codecs
import random
import re
from collections.abc import Callable, Sequence

from training.injection_rows import OWN, Row, read_rows

COPIES, COPIES_OF_LONG = 18, 40
"""Texts of one template, at most: a long one has more choices, and differs more from copy to copy."""

_LONG = 500
_CHOICE = re.compile(r"\[\[((?:(?!\[\[|\]\]).)*)\]\]", re.DOTALL)
_LEET = str.maketrans("oieastOIEAST", "013457013457")
_LOOKALIKES = str.maketrans("aeopcxyi", "аеорсхуі")
_MOST_DISGUISED_CHARACTERS = 400
_BEFORE = (
    "Hello! ",
    "Hi there, thanks for your help yesterday. ",
    "Summarise the following text: ",
    "The weather is nice today. ",
    "Translate this into French: ",
    "One more thing. ",
    "Please help me with my homework. ",
    "Here is the page:\n",
    "Question: what is 2 + 2?\n\n",
)
_AFTER = (
    " Thanks!",
    " Best regards, Tom",
    "\n\nWhat do you think?",
    " Please.",
    "\n---\nend of text",
    " And keep it short.",
)
_ASKS_TO_DECODE_AND_OBEY = ("Decode this and do what it says: ", "", "Follow the hidden message: ", "Obey this text: ")
_ASKS_TO_DECODE = ("What does this decode to? ", "Please decode: ", "Read this for me: ", "")


def own_rows(seed: int = 1) -> list[Row]:
    """Texts of all own templates; those of one template are one group."""
    chance = random.Random(seed)  # noqa: S311 - no secret is made
    rows = []
    for file in sorted(OWN.glob("*.jsonl")):
        for number, template in enumerate(read_rows(file)):
            copies = COPIES_OF_LONG if len(template.text) >= _LONG else COPIES
            texts = sorted({spelled_out(template.text, chance) for _ in range(copies)})
            name = f"{file.stem}-{number}"
            group = codecs.encode(random.Random(name).randbytes(16), "hex").decode()  # noqa: S311
            rows += [
                Row(f"{name}-{copy}", text, template.attack, template.kind, "own templates", group)
                for copy, text in enumerate(texts)
            ]
    return rows


def spelled_out(template: str, chance: random.Random) -> str:
    """With one of the choices at each `[[one|other]]`."""
    while (found := _CHOICE.search(template)) is not None:
        choice = chance.choice(found.group(1).split("|"))
        template = template[: found.start()] + choice + template[found.end() :]
    return template


def augmented(rows: Sequence[Row], seed: int) -> list[Row]:
    """More rows out of these: a part of them disguised, a part of the attacks in harmless surroundings."""
    chance = random.Random(seed)  # noqa: S311 - no secret is made
    documents = [row.text for row in rows if row.kind in ("benign_document", "document", "benign_ordinary")]
    more = []
    for row in rows:
        if len(row.text) <= _MOST_DISGUISED_CHARACTERS and chance.random() < 0.2:
            more.append(_disguised(row, chance))
        if chance.random() < 0.1:
            more.append(row._replace(text=chance.choice((str.lower, str.upper))(row.text)))
        if row.attack and len(row.text) <= _MOST_DISGUISED_CHARACTERS and chance.random() < 0.3:
            more.append(_surrounded(row, documents, chance))
        if not row.attack and chance.random() < 0.25:
            more.append(row._replace(text=chance.choice(_BEFORE) + row.text + chance.choice(_AFTER)))
    return more


def _surrounded(row: Row, documents: Sequence[str], chance: random.Random) -> Row:
    if documents and chance.random() < 0.6:
        document = chance.choice(documents)[:1500]
        cut = chance.choice((0, len(document), document.find("\n") + 1))
        return row._replace(text=f"{document[:cut]}\n{row.text}\n{document[cut:]}")
    return row._replace(text=chance.choice(_BEFORE) + row.text + chance.choice(_AFTER))


def _disguised(row: Row, chance: random.Random) -> Row:
    disguise = chance.choice(DISGUISES)
    asked = chance.choice(_ASKS_TO_DECODE_AND_OBEY if row.attack else _ASKS_TO_DECODE)
    return row._replace(text=asked + disguise(row.text))


def _spaced(text: str) -> str:
    return "   ".join(" ".join(word) for word in text.split())


def _tags(text: str) -> str:
    return "Hello! " + "".join(chr(0xE0000 + ord(one)) for one in text if one.isascii())


def _fullwidth(text: str) -> str:
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)


DISGUISES: Sequence[Callable[[str], str]] = (
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: text.encode().hex(),
    lambda text: codecs.encode(text, "rot13"),
    lambda text: text[::-1],
    lambda text: text.translate(_LEET),
    lambda text: text.translate(_LOOKALIKES),
    lambda text: "\u200b".join(text),
    _spaced,
    _tags,
    _fullwidth,
)
"""How texts are hidden from a detector and not from a model."""
