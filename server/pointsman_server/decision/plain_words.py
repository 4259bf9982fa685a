"""What a short question asks, in plain words: without courtesy and small words, one word for what means the same.

Two questions with the same plain words, the order of their halves apart, are taken to ask the same. So whatever
changes a meaning has to stay: question words, negations, tenses, directions, endings in -ed and -ing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_APOSTROPHES = str.maketrans(
    {**dict.fromkeys("\u2018\u2019\u02bc", "'"), **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"')}
)
_TOKEN = re.compile(
    r"(?<!\w)-?\d+(?:[.,:/]\d+)*(?![^\W_])"  # numbers, dates, times
    r"|[^\W_]+(?:'[^\W\d_]+)*(?:\+\+|#)?"  # words, with B12, C++ and C# among them
    r"|[^\w\s.,;:!?'\"()-]|_"  # symbols
    r"|(?<=\d)-(?=\d)"
)
_LEAD = re.compile(
    r"\W*(?:"
    r"(?:hello|hi|hey|dear (?:all|sir|madam|team|assistant))(?: there)?(?=\s*[,.!:-])"
    r"|good (?:morning|afternoon|evening|day)(?=\s*[,.!:-])"
    r"|please|kindly|excuse me|(?:a )?quick question|question"
    r"|(?:can|could|would|will) you(?: please| kindly| possibly)?"
    r"(?= (?:please|kindly|tell|explain|show|give|help|say))"
    r"|(?:can|could|may) i (?:please )?ask(?: you)?"
    r"|i(?: would|'d) (?:like|love) to (?:know|ask|learn|understand|find out)"
    r"|i (?:want|need|wish) to (?:know|ask|learn|understand|find out)"
    r"|i(?:'m| am| was) (?:just )?wondering(?: about)?|(?:do|does) (?:you|anyone|anybody) know|any idea"
    r"|(?:tell|show) me(?: please)?(?: about)?|let me know|explain(?: to me)?(?: please)?|help me (?:to )?"
    r")\b[\s,:;.!-]*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"(?:\b(?:please|kindly|if you (?:can|could|please|know))"
    r"|[,.!?] ?(?:thanks|thank you|thx|cheers)(?: a lot| so much| very much| in advance)?)$",
    re.IGNORECASE,
)
_LAST_MARKS = " ,.!?;:-"
_PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), wording)
    for pattern, wording in (
        (r"\bhow (?:do|can|could|would|should|may|might) (?:i|we|you|one)\b|\bhow to\b", " how "),
        (r"\bwhat (?:is|are) the (?:best |easiest |right |correct )?(?:ways?|steps|process|procedure) to\b", " how "),
        (r"\bwhere (?:can|could|do|would) (?:i|we|you|one) (?:find|see|get to)\b", " where "),
        (r"\b(where (?:is|are)\b.*?) (?:located|situated|found)\b", r"\1"),
        (r"\bhow much (?:does|do|will|would) (.*?) cost\b", r" price \1"),
        (r"\bhow much (?:is|are)\b", " price "),
        (r"\bhow come\b|\bfor (?:what|which) reason\b|\bwhat is the reason\b", " why "),
        (r"\b(?:at )?what time\b", " when "),
        (r"\b(?:is there (?:a|any) way to|is it possible to|am i able to)\b", " possible "),
        (r"^(?:can|could|may) i\b", " possible "),
        (r"\be-mail", "email"),
        (r"\bwi-fi\b", "wifi"),
        (r"\b(log|sign)[- ](in|out|up|off)\b", r"\1\2"),
        (r"\bset[- ]up\b", "setup"),
    )
)
_NOT_POSSESSIVE = frozenset(["what", "who", "it", "that", "there", "here", "how", "where", "when", "why", "he", "she"])
_SHORT = {
    "re": " are",
    "m": " am",
    "ve": " have",
    "ll": " will",
    "d": " would",
}
_SHORTENED = re.compile(r"\b([a-z]+)'(re|m|ve|ll|d)\b", re.IGNORECASE)
_NOT = re.compile(r"\b(?:can't|cannot|won't|shan't|([a-z]+)n't)\b", re.IGNORECASE)
_IRREGULAR_NOT = {"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not"}
_IS = re.compile(rf"\b({'|'.join(sorted(_NOT_POSSESSIVE))})'s\b", re.IGNORECASE)


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


SMALL_WORDS = word_set(
    """
    a an the is are am be been being do does have has of in on at for by with and it its i me my mine you your yours we
    our ours there that what which about can could would just really actually exactly basically simply also so then ok
    okay
    """
)
"""They carry nothing of a question."""

_BEFORE_INFINITIVE = word_set("how way ways want need able going have has had like try trying possible")
"""After these, and after what is left out, "to" belongs to a verb and says nothing."""

_TENSES = {"was": "@past", "were": "@past", "did": "@past", "had": "@past", "will": "@future", "shall": "@future"}
_SAME = {
    word: words[0]
    for words in (
        line.split()
        for line in """
        buy purchase
        start begin commence
        big large
        fast quick rapid
        quickly fast rapidly
        fix repair
        delete remove erase
        photo picture photograph
        movie film
        child kid
        choose select pick
        tv television
        phone telephone
        bike bicycle
        car automobile
        doctor physician
        lawyer attorney
        allow permit
        get obtain
        need require
        help assist
        price cost
        sofa couch
        biggest largest
        hard difficult
        answer reply
        show display
        near close_to
        """.splitlines()
        if line.strip()
    )
    for word in words[1:]
}
_PLURALS = {"men": "man", "women": "woman", "children": "child", "kids": "child", "feet": "foot", "mice": "mouse"}
_NO_PLURALS = word_set("news goods customs glasses arms means series species always sometimes perhaps")
_SHORTEST_PLURAL = 4


class Token(NamedTuple):
    """A word, number or symbol: as it was written, and in its plain form."""

    raw: str
    plain: str


def clarified(text: str) -> str:
    """The question alone: no courtesy, nothing shortened, one wording for what can be asked in several ways."""
    written = _lengthened(" ".join(unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).split()))
    written = _without_courtesy(written)
    for pattern, wording in _PHRASES:
        written = pattern.sub(wording, written)
    return written


def tokens_of(clear: str) -> list[Token]:
    """Everything that is written in a clarified text, in order; nothing is left out but punctuation."""
    return [Token(raw, plain(raw.casefold().removesuffix("'s"))) for raw in _TOKEN.findall(clear)]


def content_words(text: str) -> list[str]:
    """The plain words that carry the question, in order."""
    return list(_with_owners_last(_significant(_TOKEN.findall(clarified(text).casefold()))))


def plain(word: str) -> str:
    """One form for singular and plural, and for words that mean the same; `word` is in lower case."""
    if word in _TENSES:
        return _TENSES[word]
    if word in _PLURALS:
        return _PLURALS[word]
    if word.isdigit() or word in _NO_PLURALS or len(word) < _SHORTEST_PLURAL:
        return _SAME.get(word, word)
    single = _singular(word)
    return _SAME.get(single, single)


def _singular(word: str) -> str:
    if not word.endswith("s") or word.endswith(("ss", "us", "is", "ics")):
        return word
    if word.endswith("ies") and len(word) > _SHORTEST_PLURAL:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "ches", "shes", "xes")) else word[:-1]


def _lengthened(text: str) -> str:
    text = _NOT.sub(lambda found: _IRREGULAR_NOT.get(found[0].lower(), f"{found[1]} not"), text)
    text = _IS.sub(r"\1 is", text)
    return _SHORTENED.sub(lambda found: found[1] + _SHORT[found[2].lower()], text)


def _without_courtesy(text: str) -> str:
    while (lead := _LEAD.match(text)) is not None and lead.end() < len(text):
        text = text[lead.end() :]
    while (tail := _TAIL.search(text.rstrip(_LAST_MARKS))) is not None and tail.start():
        text = text[: tail.start()]
    return text


def _significant(words: Sequence[str]) -> Iterator[str]:
    """The words that count; an owner keeps its 's."""
    before = ""
    for word in words:
        if word == "to":
            if before and before not in SMALL_WORDS and before not in _BEFORE_INFINITIVE:
                yield word
        elif word not in SMALL_WORDS and word != "let's":
            yield word if word.endswith("'s") else plain(word)
        elif before.endswith("'s"):
            yield ""  # whatever was owned ends here
        before = word


def _with_owners_last(words: Iterable[str]) -> Iterator[str]:
    """ "France's capital" as "capital of France"."""
    owners: list[str] = []
    for word in words:
        if word.endswith("'s"):
            owners.append(plain(word.removesuffix("'s")))
        elif word:
            yield word
        else:
            yield from reversed(owners)
            owners.clear()
    yield from reversed(owners)
