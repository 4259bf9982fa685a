"""What can be counted in a prompt that says how much a strong model is needed.

Everything is a plain count over the head and the tail of the text: length, numbers, options, marks of code and of
mathematics, kinds of question, fields of knowledge. The outcome model is trained on these numbers, so the order of
`OUTCOME_FEATURE_NAMES` is part of the trained data: whoever changes a feature trains anew.

The text is cut first, which bounds the time. Words are looked at once, through one table from word to groups: one pass
per group would cost several times as much. And what can be counted among bytes is: bytes are translated and split in a
quarter of the time that a pattern takes to find words.
"""

from __future__ import annotations

import re
import struct
from math import log2
from string import ascii_lowercase, ascii_uppercase, digits

HEAD_CHARS = 1_200
TAIL_CHARS = 400
"""Only so much of the text is counted; the whole length is a feature of its own."""

_GROUPS: dict[str, str] = {
    "common": """the of a and to in is that for it as was with be by on not he his but at are this have from or had
        an they which one you were her all she there would their we him been has when who will more no if out so said
        what up its about into than them can only other new some could time these two may then do first any my now
        such like our over man me even most made after also did many before must through years where much your way
        well down should because each just those people mr how too little state good very make world still own see men
        work long get here between both life being under never day same another know while last might us great old
        year off come since against go came right used take three following""",
    "negation": """not no never none neither nor cannot except without least false incorrect untrue unless isn don
        doesn didn aren wasn won wouldn couldn""",
    "condition": "if suppose assume assuming given let when whether unless provided otherwise then where",
    "quantity": "each every per all any both half twice double triple thrice total remaining altogether dozen",
    "comparison": """more less fewer than greater larger smaller times longer shorter older younger most least
        increase decrease increased decreased difference ratio percent average""",
    "numeral": """one two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty thirty forty
        fifty hundred thousand million first second third fourth""",
    "time_money": """dollars dollar cents hours hour minutes minute days day weeks week months month years year cost
        costs price buys bought sold sells pays paid pay earn earns money spend spent""",
    "unit": """miles feet foot inches meters metres kilometers km cm mm kg grams pounds ounces gallons liters volts
        watts ohms mol moles kpa psi joules kj hz newton newtons degrees atm btu ft lb cal ev nm mev""",
    "what": "what",
    "who_when_where": "who when where whom whose",
    "how_why": "how why",
    "reference": "following above below statement statements true correct described shown passage",
    "evaluate": """find compute calculate determine evaluate solve express simplify estimate derive prove show integers
        integer""",
    "request": """write explain describe create generate list give provide summarize rewrite translate design
        implement draft suggest discuss compare edit""",
    "creative": "story poem essay song email letter blog article tweet character script dialogue title slogan recipe",
    "constraint": "must should ensure only exactly include avoid using use without at limit format json table",
    "person": "i my me we our you your us",
    "law": """court defendant plaintiff statute law laws contract jury trial evidence liable negligence tort
        constitutional constitution appeal crime murder property deed buyer seller landlord tenant admissible
        jurisdiction amendment attorney legal""",
    "medicine": """patient patients disease symptoms treatment blood infection cell cells clinical syndrome diagnosis
        pain virus hiv cancer pressure drug therapy muscle nerve gene protein dna species organisms""",
    "physics": """force velocity mass energy acceleration charge electric magnetic field wave wavelength frequency
        temperature heat gas current voltage circuit beam radius pressure speed power resistance""",
    "chemistry": """reaction acid solution molecule molecules atom atoms ion ions compound oxidation equilibrium
        bond hydrogen oxygen carbon electron electrons concentration enthalpy""",
    "economy": """price demand supply market firm cost costs income tax interest rate bank inflation monetary stock
        company sales profit capital investment accounting asset assets bond cash gdp""",
    "mathematics": """function polynomial matrix vector group ring prime integral derivative probability graph triangle
        circle equation polygon sequence sum angle square real positive integers set subset modulo divisible""",
    "society": """theory social moral ethical ethics culture political government war century empire philosophy
        argument religion behavior psychology children school education self rights kant state women""",
    "computing": """algorithm computer program data memory code string list array byte bits network software function
        python input output return server tcp encryption class""",
    "loop": "for while range append",
    "branch": "if elif else return",
}
_SLOT = {name: index for index, name in enumerate(_GROUPS)}


_LANE = 16
"""Bits of a count: more than a text that is cut can have words."""


def _packed_groups() -> dict[bytes, int]:
    packed: dict[bytes, int] = {}
    for group, words in _GROUPS.items():
        for word in set(words.encode().split()):
            packed[word] = packed.get(word, 0) + (1 << _LANE * _SLOT[group])
    return packed


_PACKED_GROUPS = _packed_groups()
"""For each word a 1 in the lane of each of its groups: the sum over all words of a text has all counts side by side."""

_LANES = struct.Struct(f"<{len(_GROUPS)}H")

_MARKS: dict[str, str] = {
    "commas": ",",
    "question_marks": "?",
    "colons": ":",
    "apostrophes": "'",
    "open_parentheses": "(",
    "open_brackets": "[",
    "open_braces": "{",
    "backslashes": "\\",
    "dollars": "$",
    "carets": "^",
    "underscores": "_",
    "equals": "=",
    "plus_signs": "+",
    "hyphens": "-",
    "slashes": "/",
    "dots": ".",
    "line_breaks": "\n",
}

_LETTERS = bytes(byte if byte in ascii_lowercase.encode() else ord(" ") for byte in range(256))
"""Translates all but small letters to blanks."""


def _all_but(kept: str) -> bytes:
    return bytes(byte for byte in range(256) if byte not in kept.encode())


_MARK_BYTES = "".join(_MARKS.values()).encode()
_NO_MARKS, _NO_CAPITALS, _NO_DIGITS = map(_all_but, ("".join(_MARKS.values()), ascii_uppercase, digits))
_SHORT_WORD = 7
_UP_TO_SHORT = bytes(range(_SHORT_WORD + 1))

_DIGIT_EARLY = re.compile(r".{0,7}?\d", re.DOTALL)
_NUMBER = re.compile(r"\d\d*(?:,\d{3})*(?:\.\d+)?")  # not \d+: `re` skips to the first of one set of characters
_ASCII_NUMBER = re.compile(r"[0-9][0-9]*(?:,[0-9]{3})*(?:\.[0-9]+)?")
_OPTION = re.compile(r"\n\(?([A-J])[.):] ?")
_SENTENCE_END = re.compile(r"[.?!](?:\s|$)")
_INDENT = re.compile(r"\n( +)")
_BIGGEST_NUMBER_DIGITS = 15

OUTCOME_FEATURE_NAMES: tuple[str, ...] = (
    "characters",
    "words",
    "mean_word_chars",
    "long_word_share",
    "longest_word_chars",
    "distinct_word_share",
    "uncommon_word_share",
    "sentences",
    "words_per_sentence",
    "capital_share",
    "non_ascii_share",
    "digit_share",
    "numbers",
    "distinct_numbers",
    "biggest_number_log2",
    "decimal_numbers",
    "option_count",
    "option_chars_mean",
    "option_chars_spread",
    "option_numeric_share",
    "stem_chars",
    "stem_ends_open",
    "last_sentence_words",
    "indent_chars_max",
    "longest_line_chars",
    *(f"marks_{name}" for name in _MARKS),
    *(f"words_{name}" for name in _GROUPS if name != "common"),
)


def outcome_features(text: str) -> list[float]:
    """The counts of this text, in the order of `OUTCOME_FEATURE_NAMES`; finite for any text, also an empty one."""
    length = len(text)
    if length > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    plain = text.encode("ascii", "ignore")
    words = text.lower().encode("ascii", "replace").translate(_LETTERS).split()
    groups = _LANES.unpack(sum(filter(None, map(_PACKED_GROUPS.get, words))).to_bytes(_LANES.size, "little"))
    stem, options = _split_options(text)
    marks = plain.translate(None, _NO_MARKS)
    return [
        length,
        *_shape_of_words(words, groups[0], len(_SENTENCE_END.findall(text)) or 1),
        *_shape_of_characters(text, plain),
        *_numbers(text, plain),
        *_options(options),
        *_shape_of_stem(stem),
        *_shape_of_lines(text),
        *[marks.count(mark) for mark in _MARK_BYTES],
        *groups[1:],
    ]


def _shape_of_words(words: list[bytes], common: int, sentences: int) -> tuple[float, ...]:
    count = len(words)
    if not count:
        return (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, sentences, 0.0)
    lengths = list(map(len, words))
    longest = max(lengths)
    long_words = len(bytes(lengths).translate(None, _UP_TO_SHORT)) if longest < 256 else _count_long(lengths)
    return (
        count,
        sum(lengths) / count,
        long_words / count,
        longest,
        len(set(words)) / count,
        1.0 - common / count,
        sentences,
        count / sentences,
    )


def _count_long(lengths: list[int]) -> int:
    return sum([length > _SHORT_WORD for length in lengths])


def _shape_of_characters(text: str, plain: bytes) -> tuple[float, ...]:
    size = len(text) or 1
    capitals = len(plain.translate(None, _NO_CAPITALS))
    foreign = 0.0 if len(plain) == len(text) else 1.0 - len(plain) / size
    return capitals / size, foreign


def _numbers(text: str, plain: bytes) -> tuple[float, ...]:
    numbers = _find_numbers(text, plain)
    if not numbers:
        return (0.0, 0.0, 0.0, 0.0, 0.0)
    biggest = max([float(number.replace(",", "")[:_BIGGEST_NUMBER_DIGITS]) for number in numbers])
    digit_share = sum(map(len, numbers)) / len(text)
    decimals = sum(["." in number for number in numbers])
    return digit_share, len(numbers), len(set(numbers)), log2(1.0 + biggest), decimals


def _find_numbers(text: str, plain: bytes) -> list[str]:
    if len(plain) < len(text):
        return _NUMBER.findall(text)
    return _ASCII_NUMBER.findall(text) if plain.translate(None, _NO_DIGITS) else []


def _split_options(text: str) -> tuple[str, list[str]]:
    """The question and its lettered options; a trailing `Answer:` belongs to no option."""
    parts = _OPTION.split(text)
    if len(parts) < 5:
        return text, []
    return parts[0], parts[2::2]


def _options(options: list[str]) -> tuple[float, ...]:
    count = len(options)
    if not count:
        return (0.0, 0.0, 0.0, 0.0)
    options[-1] = options[-1].partition("\nAnswer:")[0]
    lengths = list(map(len, options))
    mean = sum(lengths) / count
    spread = sum([abs(length - mean) for length in lengths]) / count
    numeric = sum([_DIGIT_EARLY.match(option) is not None for option in options]) / count
    return count, mean, spread, numeric


def _shape_of_stem(stem: str) -> tuple[float, ...]:
    """Length of the question itself, whether it is left to be completed, and the length of its last sentence."""
    stem = stem.rstrip()
    last = _SENTENCE_END.split(stem[-300:].rstrip(".?! \n"))[-1]
    ends_open = not stem.endswith(("?", ".", "!", ":"))
    return len(stem), float(ends_open), last.count(" ") + 1


def _shape_of_lines(text: str) -> tuple[float, ...]:
    indents = _INDENT.findall(text) if "\n " in text else None
    deepest = len(max(indents, key=len)) if indents else 0
    return deepest, max(map(len, text.split("\n")))
