"""Questions that come again in other words, and questions that only look the same, for measuring the cache."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

_SUBJECTS = (
    "password", "invoice", "delivery address", "newsletter", "credit card", "phone number", "user name", "gift card",
    "return label", "loyalty points", "account", "time zone", "language", "tax number", "order history", "photo album",
    "playlist", "calendar", "backup", "printer",
)  # fmt: skip
_PLACES = ("", " in the app", " on the website", " on my phone", " for my company")
_HOW = (
    "How do I {verb} my {subject}{place}?",
    "how can I {verb} my {subject}{place}",
    "HOW DO I {verb} MY {subject}{place}???",
    "Hi, how do I {verb} my {subject}{place}, please?",
    "Could you please tell me how to {verb} the {subject}{place}?",
    "I'd like to know how I can {verb} my {subject}{place}. Thanks!",
    "What's the best way to {verb} my {subject}{place}?",
    "Hello, I was wondering how to {verb} my {subject}{place}.",
    "Do you know how to {verb} your {subject}{place}?",
    "{moved}how do I {verb} my {subject}?",
)
_VERBS = ("change", "delete", "export", "find", "share", "lock", "print", "rename", "restore", "update")

FREE_PARAPHRASES = (
    ("How do I reset my password?", "I forgot my password, what should I do?"),
    ("How do I cancel my subscription?", "I want to stop paying for my plan"),
    ("How long does delivery take?", "When will my parcel arrive?"),
    ("What is your refund policy?", "Can I get my money back?"),
    ("Where is my order?", "How can I track my package?"),
    ("How much does shipping cost?", "What do you charge for postage?"),
    ("Which payment methods do you accept?", "Can I pay with a credit card?"),
    ("How do I contact support?", "Is there a number I can call for help?"),
    ("What are your opening hours?", "When are you open?"),
    ("Do you ship abroad?", "Is international delivery possible?"),
    ("What is the capital of France?", "Which city is the capital of France?"),
    ("How tall is the Eiffel Tower?", "What is the height of the Eiffel Tower?"),
    ("Who wrote Hamlet?", "Who is the author of Hamlet?"),
    ("When did the Second World War end?", "In which year was the Second World War over?"),
    ("Why is the sky blue?", "What makes the sky look blue?"),
    ("How do I delete my account?", "How can I remove my account?"),
    ("How do I buy a gift card?", "How can I purchase gift cards?"),
    ("Where can I find my invoices?", "Where are my invoices?"),
    ("What's the price of the premium plan?", "How much does the premium plan cost?"),
    ("I don't have a receipt, can I return it?", "Can I return it if I do not have a receipt?"),
)
"""The same meant, and freely said: what the local embedder is not made for. Kept to tell how little of it is found."""

_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
_VERB = re.compile(r"\b(is|are|was|can|does|do|did|will|should) ")
_OTHER_NAMES = ("Zurich", "Mendel", "Ottawa", "Kepler", "Lagos", "Fatima")
_PATTERNS = (
    "Is it safe to take {number} mg of {name} in a day?",
    "What was the population of {name} in {number}?",
    "How many of the {number} rooms in {name} are taken?",
    "Does the {name} plan include {number} users?",
    "Can I fly from {name} to Berlin with {number} kg of luggage?",
    "Who was the mayor of {name} in {number}?",
    "Will the train to {name} stop at platform {number}?",
    "Should I add {number} spoons of {name} salt to the soup?",
)
_NAMES = ("Paris", "Aspirin", "Madrid", "Oslo", "Boston", "Lima", "Cairo", "Quito")


def paraphrases() -> Iterator[tuple[str, ...]]:
    """Groups of ten questions that ask the same; no two groups do. There are a thousand groups."""
    for subject in _SUBJECTS:
        for place in _PLACES:
            for verb in _VERBS:
                moved = f"{place.strip().capitalize()}, " if place else ""
                yield tuple(one.format(verb=verb, subject=subject, place=place, moved=moved) for one in _HOW)


def near_misses(random: Random, count: int) -> Iterator[tuple[str, str, str]]:
    """Kind of the difference, a question, and one that differs in a number, a name or a negation."""
    for number in range(count):
        pattern = _PATTERNS[number % len(_PATTERNS)]
        question = pattern.format(number=random.randint(2, 2_000), name=random.choice(_NAMES))
        yield next(spoiled(question, random))


def spoiled(question: str, random: Random) -> Iterator[tuple[str, str, str]]:
    """The question with one number, name or negation changed, in random order; nothing if it has none of them."""
    finds = {
        "number": list(_NUMBER.finditer(question)),
        "name": list(_NAME.finditer(question)),
        "negation": list(_VERB.finditer(question)),
    }
    kinds = [kind for kind, found in finds.items() if found]
    random.shuffle(kinds)
    for kind in kinds:
        place = random.choice(finds[kind])
        if kind == "number":
            other = str(int(place[0]) + random.randint(1, 9))
        elif kind == "name":
            other = random.choice([name for name in _OTHER_NAMES if name != place[0]])
        else:
            other = f"{place[0]}not "
        yield kind, question, question[: place.start()] + other + question[place.end() :]
