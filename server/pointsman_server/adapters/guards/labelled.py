"""Values that only the words before them make sensitive: MRN, PASSPORT, DATE_OF_BIRTH, US_DRIVER_LICENSE."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pointsman_server.adapters.guards.rules import Candidate, Find, Page, Rank, Rule, expression

_WINDOW = 60

_FILLER = (
    r"[\s\"'“”:=#.,()\-]*(?:(?:numbers?|num|no|nr|nummer|n[úu]mero|numero|num[ée]ro|is|are|was|was:|id|ist"
    r"|est|es|è|é|"
    r"of the patient|of|for|on|am|the|le|el|il|em|on file)\b[\s\"'“”:=#.,()\-]*){0,4}"
)


def _value_after(kind: str, value: str, accept: Callable[[str], bool] = bool, filler: str = _FILLER) -> Find:
    """The value must follow the label, with nothing but fillers between."""
    form = re.compile(f"{filler}({value})(?![\\w@])", re.IGNORECASE)

    def find(page: Page, start: int, end: int) -> Iterator[Candidate]:
        match = form.match(page.text[end : end + _WINDOW])
        if match is not None and accept(match.group(1)):
            yield Candidate(end + match.start(1), end + match.end(1), kind, Rank.LABELLED)

    return find


_MONTH = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec|january|february|march|april|june|july|august|september"
    r"|october|november|december|januar|februar|märz|mai|juni|juli|oktober|dezember|janvier|février|mars|avril|juin"
    r"|juillet|août|septembre|octobre|novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre"
    r"|octubre|noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|janeiro"
    r"|fevereiro|março|maio|junho|julho|setembro|outubro|novembro|dezembro)"
)
_DATE = (
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})|\d{4}年\d{1,2}月\d{1,2}日?"
    rf"|{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}|\d{{1,2}}(?:st|nd|rd|th|\.)? (?:de "
    rf"|of )?{_MONTH}\.?,? (?:de )?\d{{4}})"
)
_BIRTH = (
    rb"(?i)\b(?:dob|d\.o\.b\.?|date of birth|date_of_birth|birth ?date|birth_date|birthday|born|geboren"
    rb"|geb\.|geburtsdatum"
    rb"|n\xe9e?|date de naissance|nacid[oa]|fecha de nacimiento|nat[oa]|data di nascita|nascid[oa]|data de nascimento"
    rb"|geboortedatum|urodzon[ya]|f\xf6dd)\b"
)
_LICENCE = r"[a-z]{0,2}\d{5,14}[a-z]?|\d{4}-\d\d-\d{4}|[a-z]\d{3}-\d{4}-\d{4}"
_IDENTIFIER = r"(?:[a-z]{1,4}-?)?\d{5,12}"


def _has_digits(value: str) -> bool:
    return sum(map(str.isdigit, value)) >= 5 and not value.isalpha()


_PASSPORT = (
    rb"(?i)\b(?:passports?|reisepass\w*|passeport|pasaporte|passaport[eo]|paspoort\w*|paszport\w*"
    rb"|travel document)\b"
)
_PASSPORT_NUMBER = re.compile(
    r"(?:['\"]? ?[:=#]| (?:[Nn]umbers?|[Nn]o|[Nn]r|[Nn]um)\b\.?)[ :=#'\"]*(?:is )?([A-Z0-9]{8,9})(?![\w@-])"
)
_PASSPORT_VALUE = re.compile(r"(?<![\w@.-])((?=[A-Z]{0,8}\d)[A-Z0-9]{7,9}|[A-Z]{2} \d{7})(?![\w@-])")
_SENTENCE_END = re.compile(r"[.!?]\s|\n\n")


def _passport(page: Page, start: int, end: int) -> Iterator[Candidate]:
    window = page.text[end : end + _WINDOW]
    stop = _SENTENCE_END.search(window)
    match = _PASSPORT_NUMBER.match(window) or _PASSPORT_VALUE.search(window[: stop.start() + 1] if stop else window)
    if match is not None:
        yield Candidate(end + match.start(1), end + match.end(1), "PASSPORT", Rank.LABELLED)


_FOREIGN_LABELS = (
    ("דרכון", _value_after("PASSPORT", r"[a-z]{0,2}\d{7,9}", filler=r"\D{0,12}?")),
    ("パスポート", _value_after("PASSPORT", r"[a-z]{0,2}\d{7,9}", filler=r"\D{0,12}?")),
    ("पासपोर्ट", _value_after("PASSPORT", r"[a-z]{0,2}\d{7,9}", filler=r"\D{0,12}?")),
    ("תאריך לידה", _value_after("DATE_OF_BIRTH", _DATE, filler=r"\D{0,12}?")),
    ("生年月日", _value_after("DATE_OF_BIRTH", _DATE, filler=r"\D{0,12}?")),
    ("जन्म", _value_after("DATE_OF_BIRTH", _DATE, filler=r"\D{0,16}?")),
)


def foreign_labels(page: Page) -> Iterator[Candidate]:
    """Values after labels in scripts that Latin-1 has not."""
    for label, find in _FOREIGN_LABELS:
        place = page.text.find(label)
        while place >= 0:
            end = place + len(label)
            yield from find(page, place, end)
            place = page.text.find(label, end)


def _rule(labels: bytes, find: Find) -> Rule:
    return Rule(labels, expression(labels), find)


RULES = (
    _rule(
        rb"(?i)\b(?:mrn|medical[ _]record|patient[ _](?:id|number|no)|hospital (?:number|no)"
        rb"|chart (?:number|no)|case history"
        rb"|patientennummer|krankenakte|historia cl[i\xed]nica|num[e\xe9]ro de dossier)\b",
        _value_after("MRN", _IDENTIFIER),
    ),
    _rule(_BIRTH, _value_after("DATE_OF_BIRTH", _DATE)),
    _rule(_PASSPORT, _passport),
    _rule(
        rb"(?i)\b(?:driver'?s?'?|driving|dl)[ _-]?licen[cs]e\b|\bdriver'?s lic\b",
        _value_after("US_DRIVER_LICENSE", _LICENCE, _has_digits),
    ),
)
