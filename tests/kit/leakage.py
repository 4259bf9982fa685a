"""Whether two sets of prompts share prompts, exactly or nearly."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

SHINGLE_WORDS = 8
LEAST_CONTAINMENT = 0.5
"""The share of a prompt's shingles that, when found in another prompt, makes it a near-duplicate of that one."""

_WORD = re.compile(r"\w+")


def eight_word_shingles(text: str) -> frozenset[int]:
    """Digests of all runs of eight words, casing and punctuation aside; a shorter text is one run."""
    words = _WORD.findall(text.lower())
    last = max(len(words) - SHINGLE_WORDS, 0)
    return (
        frozenset(hash(tuple(words[start : start + SHINGLE_WORDS])) for start in range(last + 1))
        if words
        else frozenset()
    )


def leaked(training: Iterable[str], evaluation: Sequence[str]) -> list[int]:
    """The places of the evaluation prompts of which a training prompt holds at least half of the shingles.

    Runs of words that stand in more than one in a hundred evaluation prompts are their template, not the prompt, and
    do not count; a prompt that is nothing but template counts whole.
    """
    shingles = _without_templates([eight_word_shingles(text) for text in evaluation])
    holders: dict[int, list[int]] = defaultdict(list)
    for place, of_prompt in enumerate(shingles):
        for shingle in of_prompt:
            holders[shingle].append(place)
    found: set[int] = set()
    for text in training:
        shared: dict[int, int] = defaultdict(int)
        for shingle in eight_word_shingles(text):
            for place in holders.get(shingle, ()):
                shared[place] += 1
        found.update(place for place, count in shared.items() if count >= LEAST_CONTAINMENT * len(shingles[place]))
    return sorted(found)


def _without_templates(shingles: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    counts: dict[int, int] = defaultdict(int)
    for of_prompt in shingles:
        for shingle in of_prompt:
            counts[shingle] += 1
    most = max(2, len(shingles) // 100)
    return [frozenset(one for one in of_prompt if counts[one] <= most) or of_prompt for of_prompt in shingles]
