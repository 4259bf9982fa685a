"""Questions that look alike and are not: another number, name, unit, date, negation or opposite.

However similar two texts are, an answer is only good for both when their traits agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pointsman_server.decision.plain_words import SMALL_WORDS, Token, clarified, plain, tokens_of, word_set
from pointsman_server.domain.cache import Traits

_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"|“[^”]*”|(?<!\w)'[^'\n]{2,}'(?!\w)")
_SENTENCE_END = re.compile(r"[.!?:]\s|\n")

_NUMBER_WORDS = {
    word: str(value)
    for words, value in (
        ("zero", 0), ("one first once single", 1), ("two second twice double pair", 2), ("three third triple", 3),
        ("four fourth", 4), ("five fifth", 5), ("six sixth", 6), ("seven seventh", 7), ("eight eighth", 8),
        ("nine ninth", 9), ("ten tenth", 10), ("eleven", 11), ("twelve dozen", 12), ("thirteen", 13), ("fourteen", 14),
        ("fifteen", 15), ("sixteen", 16), ("seventeen", 17), ("eighteen", 18), ("nineteen", 19), ("twenty", 20),
        ("thirty", 30), ("forty", 40), ("fifty", 50), ("sixty", 60), ("seventy", 70), ("eighty", 80), ("ninety", 90),
        ("hundred", 100), ("thousand", 1_000), ("million", 1_000_000), ("billion", 1_000_000_000), ("half", "1/2"),
        ("quarter", "1/4"),
    )
    for word in words.split()
}  # fmt: skip

_NEGATIONS = word_set("not no never none nor neither nobody nothing nowhere without unless except")

_DATES = word_set(
    """
    january february march april may june july august september october november december jan feb mar apr jun jul aug
    sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday tonight now
    second minute hour day week month quarter year decade century daily weekly monthly yearly annual bc ad am pm
    spring summer autumn winter morning afternoon evening night midnight noon
    """
)
_UNITS = {
    word: words[0]
    for words in (
        line.split()
        for line in """
        mm millimetre millimeter
        cm centimetre centimeter
        m metre meter
        km kilometre kilometer
        inch in
        foot ft
        yard yd
        mile mi
        mg milligram
        g gram
        kg kilogram kilo
        lb pound
        oz ounce
        ton tonne
        ml millilitre milliliter
        l litre liter
        gallon gal
        celsius c
        fahrenheit f
        kelvin k
        percent % pct
        usd dollar $
        eur euro €
        gbp £ sterling
        yen ¥ jpy
        chf franc
        kb kilobyte
        mb megabyte
        gb gigabyte
        tb terabyte
        bit
        byte
        ms millisecond
        watt w
        kw kilowatt
        volt v
        hz hertz
        mph
        kmh kph
        """.splitlines()
        if line.strip()
    )
    for word in words
}
_LONG_UNIT = 3
"""Shorter ones are units only after a number: "in", "m", "c"."""

_OPPOSITES = frozenset(
    plain(word)
    for word in word_set(
        """
        increase decrease raise lower reduce grow shrink up down out off over under above below before after since
        until more less fewer most least maximum minimum max min best worst better worse high low higher highest
        lowest hot cold warm cool open close start stop end finish first last next previous prior following enable
        disable activate deactivate allow deny forbid block unblock lock unlock add remove create include exclude
        accept reject approve decline buy sell import export upload download push pull send receive lend borrow win
        lose pass fail true false yes always every all some any only both either each left right north south east
        west northern southern eastern western old new young older younger newest oldest big small biggest smallest
        long short longer shorter longest shortest tall fast slow faster slower fastest slowest cheap expensive
        cheaper cheapest safe dangerous legal illegal encrypt decrypt encode decode compress decompress subscribe
        unsubscribe install uninstall connect disconnect login logout signin signout signup positive negative input
        output source target male female man woman boy girl he she his her him husband wife father mother son
        daughter brother sister internal external public private sync async ascending descending horizontal vertical
        rise fall gain loss profit advantage disadvantage pro con benefit risk should must may might cause effect
        show hide expand collapse forward backward early late earlier later inside outside wide narrow heavy light
        strong weak rich poor alive dead born die live birth death day night hire fire save spend deposit withdraw
        credit debit inbound outbound who whom whose when where why how many much often far from than against or if
        same different odd even major minor front back top bottom host guest client server read write local remote
        manual automatic permanent temporary possible impossible simple complex @past @future
        """
    )
)
_REVERSING = re.compile(r"(?:un|non|dis|anti|ir|il|im|mis|de)[a-z]{4,}")
_SYMBOL = re.compile(r"[^\w\s]+")

_OPENERS = word_set(
    """
    explain describe list give show tell write define compare name find calculate convert translate create make help
    suggest provide summarise summarize please kindly hello hi hey dear can could would will what who when where why
    how which is are do does did was were has have had should must may if in on at for from to the a an i my we our
    you your it its this that these those there and or but so
    """
)


def traits_of(text: str) -> Traits:
    """What any other text must share with this one to ask the same."""
    clear = clarified(_QUOTED.sub(" ", text))
    tokens = tokens_of(clear)
    ordered = [f"q:{quoted[1:-1]}" for quoted in _QUOTED.findall(text)]
    ordered += [f"n:{number}" for number in _numbers(tokens)]
    unordered = sorted(_marks(tokens))
    return Traits(
        fixed=(*ordered, *unordered),
        names=tuple(sorted(set(_names(clear)))),
        words=tuple(_word(raw) for raw, _ in tokens),
    )


def agree(one: Traits, other: Traits) -> bool:
    """Whether an answer to one may be an answer to the other, if they are alike enough."""
    if one.fixed != other.fixed:
        return False
    names = {*one.names, *other.names}
    return [word for word in one.words if word in names] == [word for word in other.words if word in names]


def _numbers(tokens: Sequence[Token]) -> Iterator[str]:
    """Numbers in order, each with its unit."""
    for place, token in enumerate(tokens):
        number = _number(token.plain)
        if number:
            after = tokens[place + 1].plain if place + 1 < len(tokens) else ""
            yield f"{number} {_UNITS.get(after, '')}".rstrip()


def _number(word: str) -> str:
    if any(letter.isdigit() for letter in word):
        whole = re.sub(r",(?=\d{3}(?!\d))", "", word)
        return re.sub(r"(?<=\d)\.0+$", "", whole)
    return _NUMBER_WORDS.get(word, "")


def _marks(tokens: Sequence[Token]) -> Iterator[str]:
    before = ""
    for raw, word in tokens:
        if word in _NEGATIONS:
            yield "not" if word == "not" else f"not:{word}"
        if word in _DATES and not (word == "may" and raw == "may"):
            yield f"d:{word}"
        if word in _UNITS and len(word) >= _LONG_UNIT and not _number(before):
            yield f"u:{_UNITS[word]}"
        if word in _OPPOSITES or _REVERSING.fullmatch(word):
            yield f"o:{word}"
        if _SYMBOL.fullmatch(word):
            yield f"s:{word}"
        before = word


def _names(clear: str) -> Iterator[str]:
    """Words in capitals; the first of a sentence is one unless sentences often begin with it."""
    for sentence in _SENTENCE_END.split(clear):
        for place, (raw, _) in enumerate(tokens_of(sentence)):
            small, is_first = _word(raw), place == 0
            if raw.casefold() == raw or (is_first and small in _OPENERS):
                continue
            # Vitamin A and the US are names; a text all in capitals says nothing of what is one.
            if small not in SMALL_WORDS or (raw.isupper() and small != "i" and not clear.isupper()):
                yield small


def _word(raw: str) -> str:
    """A name and its plural are two names, so nothing is made plain here."""
    return raw.casefold().removesuffix("'s")
