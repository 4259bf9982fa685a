"""Names and postal addresses where the words around them give them away; others take a language model to find."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pointsman_server.adapters.guards.rules import Candidate, Find, Page, Rank, Rule, expression

_WINDOW = 80
_MOST_WORDS = 5

_MARKS = "\u0300-\u036f\u0900-\u0dff"
_WORD = re.compile(rf"[^\W\d_](?:[\w{_MARKS}'-]*[{_MARKS}a-zA-Z0-9\xc0-\U0010ffff])?\.?")
_PARTICLES = frozenset(
    {"de", "del", "della", "di", "da", "do", "dos", "das", "la", "le", "van", "von", "der", "den", "ter", "ten", "zu",
     "bin", "ibn", "al", "el", "y", "e", "af", "av", "i", "und", "of"}
)  # fmt: skip
_TITLES = frozenset({"mr", "mrs", "ms", "miss", "dr", "prof", "herr", "frau", "mme", "mlle", "sr", "sra", "sig", "ing",
                     "dipl.-ing", "univ.prof", "ir", "dhr", "mevr", "pan", "pani", "sir", "lady", "mx"})  # fmt: skip
_NO_NAMES = frozenset(
    {"a", "an", "and", "any", "are", "all", "at", "but", "by", "can", "could", "customer", "dear", "do", "does",
     "everyone", "everybody", "for", "friend", "friends", "from", "good", "guys", "have", "hello", "help", "here",
     "hi", "how", "i", "id", "if", "in", "is", "it", "its", "just", "let", "madam", "me", "my", "name", "no", "not",
     "of", "on", "or", "our", "please", "sir", "sirs", "so", "some", "support", "team", "thank", "thanks", "that",
     "the", "there", "this", "to", "today", "user", "was", "we", "welcome", "what", "when", "where", "which", "who",
     "why", "will", "with", "would", "yes", "you", "your", "yet", "new", "number", "null", "none", "true", "false",
     "string", "patient", "person", "phone", "email", "assistant", "chatgpt", "gpt", "claude", "gemini", "copilot",
     "siri", "alexa", "bot", "ai", "world", "folks", "code"}
)  # fmt: skip


def _name_end(text: str, start: int, needs_capitals: bool, most_words: int = _MOST_WORDS) -> tuple[int, int]:
    """Where a name that begins at `start` ends, and how many words it has (0 if there is none)."""
    place = end = start
    words = 0
    while words < most_words:
        match = _WORD.match(text, place, start + _WINDOW)
        if match is None:
            break
        word = match.group().rstrip(".")
        particle = words > 0 and word.lower() in _PARTICLES
        if word.lower() in _NO_NAMES and not particle:
            break
        if needs_capitals and not word[0].isupper() and not particle and _has_case(word):
            break
        if not particle:
            end, words = match.end(), words + (word.lower() not in _TITLES)
        place = match.end()
        if len(word) > 1 and word.lower() not in _TITLES and match.group().endswith("."):
            break
        if text[place : place + 1] != " ":
            break
        place += 1
    return _without_full_stop(text, end), words


def _has_case(word: str) -> bool:
    return word.lower() != word.upper()


def _without_full_stop(text: str, end: int) -> int:
    """A full stop after a word of more than one letter ends the sentence; after an initial it is the name's."""
    return end - 1 if text[end - 1] == "." and text[end - 3 : end - 2].isalpha() else end


_LAST_NAME_FIRST = re.compile(r"[A-Z\xc0-\xde][A-Z\xc0-\xde'-]+, [A-Z\xc0-\xde][\w'-]+(?![\w@])")


def _after(lead: str, fewest: int = 1, needs_capitals: bool = True, surname_first: bool = False) -> Find:
    """A name that follows, with only `lead` between."""
    leading = re.compile(lead)

    def find(page: Page, start: int, end: int) -> Iterator[Candidate]:
        page.name_checks_left -= 1
        opening = leading.match(page.text, end) if page.name_checks_left > 0 else None
        if opening is None:
            return
        first = opening.end()
        turned = _LAST_NAME_FIRST.match(page.text, first, first + _WINDOW) if surname_first else None
        last, words = (turned.end(), 2) if turned else _name_end(page.text, first, needs_capitals)
        if words >= fewest and page.text[last : last + 1] not in ("@", "_", "("):
            yield Candidate(first, last, "PERSON", Rank.WORDS)

    return find


_INTRODUCTIONS = (
    rb"(?i)\b(?:my (?:full |first |last )?name is|i am called|ich hei\xdfe|mein name ist|je m'appelle"
    rb"|mon nom est|me llamo|mi nombre es|mi chiamo|il mio nome \xe8|meu nome \xe9|me chamo|mijn naam is"
    rb"|ik heet|jag heter"
    rb"|mitt namn \xe4r|nazywam si\?|maiden name is|was called|account holder|issued to|signed by|signed,|attending:"
    rb"|codice fiscale di|die e-mail von|el se\xf1or|la se\xf1ora|il signor|la signora|merci d'appeler"
    rb"|cardholder|kontoinhaber)"
)
_TITLE = (
    rb"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Herr|Frau|Herrn|Mme|Mlle|Monsieur|Madame|Sra?|Se\xf1ora?|Sig|Signor"
    rb"|Signora|Dhr|Mevr)\b"
)
_ADDRESSED = (
    rb"\b(?:Dear|Hi|Hello|Hey|Hallo|Bonjour|Hola|Ciao|Liebe[rs]?|Cher|Ch\xe8re|Sehr geehrter?|Estimad[oa]"
    rb"|Patient|Patientin"
    rb"|From:|To:|Cc:|Regards,\n|[Rr]emind|[Cc]all me|[Ss]hip it to|[Mm]ail to)"
)
_FIELD = (
    rb"(?i)\b(?:(?:full|first|last|customer|patient|contact|account)?[ _-]?name|customer|patient|cardholder"
    rb"|owner|contact)"
    rb"['\"]?\s{0,2}[:=]"
)


def _sentence(kind: str, start_after: str, stop: str) -> Callable[[Page, int, int], Iterator[Candidate]]:
    """What follows, to where `stop` matches, if a number is in it."""
    lead, end_of = re.compile(start_after), re.compile(stop)

    def find(page: Page, start: int, end: int) -> Iterator[Candidate]:
        page.name_checks_left -= 1
        opening = lead.match(page.text, end) if page.name_checks_left > 0 else None
        if opening is None:
            return
        first = opening.end()
        window = page.text[first : first + 120]
        ending = end_of.search(window)
        value = window[: ending.start() if ending else len(window)].rstrip(" ,;:.\"'")
        if len(value) > 5 and any(map(str.isdigit, value)) and any(map(str.isalpha, value)):
            yield Candidate(first, first + len(value), kind, Rank.WORDS)

    return find


_ADDRESS_ENDS = (
    r"[;\n\"<>]|(?<!Apt)(?<!apt)(?<!Ste)(?<!No)(?<!St)[.!?](?:\s|$)"
    r"| (?:and|und|et|y|e|but|my|with|for|is|are|so) |: | - |\bphone\b|\bemail\b|\btel\b|@|$"
)
_LIVING = (
    rb"(?i)\b(?:(?:i|we|he|she|who|they)? ?lives? at|living at|reside[sd]? at|residing at|(?:home |postal "
    rb"|shipping |billing |my |new "
    rb"|the )?address(?: is|:)|arrived at|deliver(?:ed)? to|wohn(?:e|t|haft) in|j'habite(?: au| \xe0)?"
    rb"|habite au|vive en|vivo en"
    rb"|abito in|abita in|moro na|mora na|woon op|bor p\xe5|mieszkam przy|share the address|office is at|meet me at)"
)
_STREET_KINDS = (
    rb"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Boulevard|Blvd|Court|Ct|Way|Place|Square|Terrace|Close"
    rb"|Crescent|Parkway"
    rb"|Pkwy|Highway|Hwy|Circle|Trail|Mews|Gardens|Grove|Hill|Row|Walk|Loop|Plaza|Alley)"
)
_STREET = expression(
    rb"\b\d{1,6}[A-Za-z]?,? (?:(?:[NSEW]\.? )?[A-Z][A-Za-z'\xc0-\xff.-]{1,24} ){1,4}" + _STREET_KINDS + rb"\b"
)
_GERMANIC_ENDINGS = (
    rb"(?i:stra\xdfe|strasse|str\.|weg|platz|allee|gasse|ring|damm|ufer|straat|laan|plein|gracht|gatan|v\xe4gen)"
)
_STREET_WITH_NUMBER = expression(
    rb"\b[A-Z\xc0-\xde][A-Za-z\xc0-\xff.-]{2,40}" + _GERMANIC_ENDINGS + rb"\s?\d{1,5}[a-z]?(?:[/-]\d{1,4})?\b"
)
_STREET_WORDS = (
    rb"\b(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Cc]hemin|[Ii]mpasse|[Aa]ll\xe9e"
    rb"|[Cc]alle|[Aa]venida|[Pp]aseo|[Rr]ua|[Tt]ravessa|ul\.)"
)
_SMALL_WORDS = rb"(?: (?:de|du|des|la|le|les|del|las|los|da|do|das|dos|el|e)\b| d'| l')*"
_NAMED = rb"(?:" + _SMALL_WORDS + rb" ?[A-Z\xc0-\xde][A-Za-z\xc0-\xff'.-]{1,24}){1,4}"
_ROMANCE_STREET = expression(
    rb"(?:\b\d{1,5}(?: ?bis| ?ter)?,? )?" + _STREET_WORDS + _NAMED + rb"(?:,? (?:n\.? ?)?\d{1,4}\b)?"
)
_ITALIAN_WORDS = rb"\b(?:[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]orso|[Vv]icolo|[Bb]orgo|[Ss]trada)"
_ITALIAN_STREET = expression(_ITALIAN_WORDS + _NAMED + rb",? \d{1,5}\b")
_PLACE_AFTER = re.compile(
    r"(?:,? (?:Apt|Suite|Unit|Flat)\.? ?#?\w{1,6})?"
    r"(?:,\s?[^\W\d_][\w' .-]{1,30}(?=,\s[A-Z]{2} \d{5}|,\s[A-Z]{1,2}\d))?"
    r"(?:,\s[A-Z]{2} \d{5}(?:-\d{4})?|,?\s[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b"
    r"|,\s\d{4,5}(?: [A-Z]{2})? [^\W\d_][\w'-]{1,30})?"
)


def _street(page: Page, start: int, end: int) -> Iterator[Candidate]:
    """The street with the place that follows it; a number must be in it."""
    page.name_checks_left -= 1
    if page.name_checks_left <= 0 or page.text[start - 1 : start] in (".", ","):
        return
    tail = _PLACE_AFTER.match(page.text, end, end + 100)
    stop = tail.end() if tail else end
    if any(map(str.isdigit, page.text[start:stop])):
        yield Candidate(start, stop, "ADDRESS", Rank.WORDS)


_FOREIGN_NAMES = (
    ("名前は", re.compile(r"(\S{1,12}(?: \S{1,12})?)(?:です|と申します)")),
    ("שמי ", re.compile(r"([\u05d0-\u05ea'\"-]{2,20}(?: [\u05d0-\u05ea'\"-]{2,20}){0,2})(?=[,.;]|$)")),
    ("नाम ", re.compile(r"([^\s,.]{2,20}(?: [^\s,.]{2,20}){0,3}?) (?:है|हैं)")),
)
_FOREIGN_ADDRESSES = (("住所は", re.compile(r"(.{4,60}?)(?:です|。|$)")),)


def foreign_names(page: Page) -> Iterator[Candidate]:
    """Names and addresses after words in scripts that Latin-1 has not."""
    for kind, table in (("PERSON", _FOREIGN_NAMES), ("ADDRESS", _FOREIGN_ADDRESSES)):
        for label, form in table:
            place = page.text.find(label)
            while place >= 0:
                end = place + len(label)
                match = form.match(page.text, end, end + _WINDOW)
                if match is not None:
                    yield Candidate(*match.span(1), kind, Rank.WORDS)
                place = page.text.find(label, end)


def _rule(pattern: bytes, find: Find) -> Rule:
    return Rule(pattern, expression(pattern), find)


_GAP_OF_FIELD = r"\s{0,2}['\"]?"

RULES = (
    _rule(_INTRODUCTIONS, _after(r" ", needs_capitals=False, surname_first=True)),
    _rule(_TITLE, _after(r"\.? ")),
    _rule(_ADDRESSED, _after(r" ?", surname_first=True)),
    _rule(_FIELD, _after(_GAP_OF_FIELD, fewest=2, needs_capitals=False, surname_first=True)),
    _rule(_LIVING, _sentence("ADDRESS", r"[: ]{1,2}\s?", _ADDRESS_ENDS)),
    Rule(_STREET_KINDS + rb"\b", _STREET, _street),
    Rule(_GERMANIC_ENDINGS + rb"\s?\d", _STREET_WITH_NUMBER, _street),
    Rule(_STREET_WORDS + rb" ", _ROMANCE_STREET, _street),
    Rule(_ITALIAN_WORDS + rb" ", _ITALIAN_STREET, _street),
)
