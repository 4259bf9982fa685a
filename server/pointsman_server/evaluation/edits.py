"""Harmless edits: changes of a prompt that leave what it asks for as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Edited(NamedTuple):
    """A changed prompt, with a system prompt if the change is one."""

    text: str
    system: str = ""


Edit = Callable[[str], Edited | None]
"""Returns None where the edit does not apply."""

_SENTENCE_END = re.compile(r"([.?!]) (?=[A-Z])")
_OPTION = re.compile(r"^(\(?[A-J][).:]) +(.*)$", re.MULTILINE)

_PARAPHRASES = (
    ("Which of the following", "Which one of these"),
    ("which of the following", "which one of these"),
    ("How many", "What number of"),
    ("What is the", "Tell me the"),
    ("Find the", "Determine the"),
    ("Calculate", "Work out"),
    ("do not", "don't"),
    ("is not", "isn't"),
    ("Write a", "Please produce a"),
    ("Explain", "Please explain"),
)


def _whitespace(text: str) -> Edited:
    return Edited("\n\n " + _SENTENCE_END.sub(r"\1  ", text) + "  \n\n")


def _lower_case(text: str) -> Edited:
    return Edited(text.lower())


def _upper_case(text: str) -> Edited:
    return Edited(text.upper())


def _politeness(text: str) -> Edited:
    return Edited(f"Hi! Could you please help me with this?\n\n{text}\n\nThank you so much in advance!")


def _urgency(text: str) -> Edited:
    return Edited(f"{text}\n\nThis is really important to me and quite urgent, please take a deep breath.")


def _persona(text: str) -> Edited:
    return Edited(f"You are a world-class expert with decades of experience in every field.\n\n{text}")


def _system_persona(text: str) -> Edited:
    return Edited(text, "You are a helpful assistant. Be accurate and friendly.")


def _frame(text: str) -> Edited:
    return Edited(f"### Instruction\nAnswer the request below.\n\n<request>\n{text}\n</request>\n\n### Response")


def _options_turned(text: str) -> Edited | None:
    found = list(_OPTION.finditer(text))
    if len(found) < 3:
        return None
    contents = [match.group(2) for match in found]
    turned = iter(contents[1:] + contents[:1])
    return Edited(_OPTION.sub(lambda match: f"{match.group(1)} {next(turned)}", text))


def _paraphrase(text: str) -> Edited | None:
    changed = text
    for old, new in _PARAPHRASES:
        changed = changed.replace(old, new)
    return None if changed == text else Edited(changed)


EDITS: Mapping[str, Edit] = {
    "whitespace": _whitespace,
    "lower case": _lower_case,
    "upper case": _upper_case,
    "politeness": _politeness,
    "urgency": _urgency,
    "persona before it": _persona,
    "persona as system prompt": _system_persona,
    "frame around it": _frame,
    "options reordered": _options_turned,
    "other words": _paraphrase,
}
"""By the name they have in reports."""
