"""A text as the words that carry its meaning, in a form in which the same word is always the same."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache


def _listed(words: str) -> list[str]:
    return words.split()


_WORD = re.compile("[^\\W_]+(?:['\u2019][^\\W\\d_]+)?")
_WITHOUT_BLANKS = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+)")
"""Japanese, Chinese and Korean: no blanks tell words apart, so pairs of characters stand for words."""

_VOWELS = frozenset("aeiouy")
_IRREGULAR = dict(
    pair.split(":")
    for pair in _listed("""
    ate:eat began:begin begun:begin bought:buy broke:break broken:break brought:bring built:build came:come
    caught:catch chose:choose chosen:choose drank:drink drove:drive driven:drive fell:fall fallen:fall felt:feel
    forgot:forget forgotten:forget fought:fight froze:freeze frozen:freeze gave:give grew:grow grown:grow
    heard:hear held:hold hid:hide hidden:hide kept:keep knew:know known:know left:leave lent:lend lost:lose
    made:make meant:mean met:meet paid:pay ran:run rang:ring said:say sat:sit saw:see seen:see sent:send
    shook:shake shown:show slept:sleep sold:sell spent:spend spoke:speak spoken:speak stole:steal stolen:steal
    stood:stand taught:teach thought:think threw:throw thrown:throw told:tell took:take taken:take wore:wear
    worn:wear withdrew:withdraw withdrawn:withdraw wrote:write written:write men:man women:woman feet:foot
    people:person mice:mouse
""")
)
_ENDINGS = ("ation", "ing", "ed", "ly", "er")
_LEAST_STEM = 3
_LONG_STEM = 6

FILLERS = frozenset(
    _listed("""
    a about able actually after again all also am an and any anybody anyone anything are as ask asking at be
    because been before being bit both but by can could couldn did didn do does doesn doing don done each either
    else even ever every everything exactly few find for from further get gets getting give given go goes going
    gonna got guys had happen happened happens has have having he hello help her here hers hey hi him his how
    however i idea if in into is isn it its just kind know let ll long looking lot may maybe me mean might mine
    more most much must my near need needed needs next no nor not now of off ok okay on once one only or other
    our ours out over own particular per please possible possibly quick quite rather re really regarding same
    see shall she should so some somebody someone something still such sure take taken takes taking tell than
    thank thanks that the their theirs them then there these they thing things this those to today too try
    trying under until up upon us use using usual usually ve very via wanna want wanted wants was wasn way ways
    we well were what whatever whats when where whether which while who whom whose why will wish with without
    won wonder wondering would wouldn yes yet you your yours
""")
)
"""English words that questions are made of and that say nothing of what is asked."""


def words_of(text: str) -> list[str]:
    """All words in their order, lower case, without accents; "What's" is one word, "e-book" two."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(one for one in plain if not unicodedata.combining(one)) if not plain.isascii() else plain
    plain = unicodedata.normalize("NFC", plain)
    words: list[str] = []
    for word in _WORD.findall(plain):
        if word.isascii():
            words.append(word.replace("\u2019", "'"))
        else:
            words.extend(_split(word.replace("\u2019", "'")))
    return words


def _split(word: str) -> list[str]:
    pieces: list[str] = []
    for place, run in enumerate(_WITHOUT_BLANKS.split(word)):
        if place % 2:
            pieces.extend(run[start : start + 2] for start in range(max(1, len(run) - 1)))
        elif run:
            pieces.append(run)
    return pieces


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The word without its endings: "charges", "charged" and "charging" are the same. Made for English."""
    word = word.partition("'")[0] or word
    word = _IRREGULAR.get(word, word)
    if len(word) <= _LEAST_STEM or not word.isascii() or not word.isalpha():
        return word
    return _without_e(_without_ending(_singular(word)))


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _without_ending(word: str) -> str:
    for ending in _ENDINGS:
        base = word.removesuffix(ending)
        if base != word and len(base) >= _LEAST_STEM and _VOWELS & set(base):
            return _undoubled(base)
    return word


def _undoubled(base: str) -> str:
    """ "shipp" is "ship", but "fill" is itself, and "cancell" is longer than such words are."""
    if base[-1] != base[-2] or base[-1] in "sz" or (base[-1] == "l" and len(base) < _LONG_STEM):
        return base
    return base[:-1]


def _without_e(word: str) -> str:
    if word.endswith("i") and len(word) > _LEAST_STEM:
        return word[:-1] + "y"
    return word[:-1] if word.endswith("e") and len(word) > _LEAST_STEM else word


COMMON = frozenset(
    stem(word)
    for word in _listed("""
    add allow answer appear arrange arrive bad become become begin believe best better big book break bring
    build call carry change check choose close come complete consider continue create cut decide different drink
    drive early easy eat end enjoy enter expect fall fast feel fill find follow friend full good great group
    grow guy hand happy hard hear high hold home hope house important include job join keep kind know large last
    late learn leave left life like line list listen little live load long look lose love low main make manage
    mean meet month morning move name never new nice night number offer old own part pass people person place
    play prepare problem program put question reach real receive remember right rule run save say second see
    seem serve set show side sit small solve sort speak spend stand start stay stop story study suggest talk
    teach think time today tomorrow top touch travel true turn type understand wait walk watch win word work
    world worry write wrong year young
""")
)
"""Words so usual that they tell little, however seldom they are in a knowledge base."""
