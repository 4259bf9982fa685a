"""Words that say what the number after them is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import re2

from pointsman_server.adapters.guards.rules import Page

NEAR, FAR = 100, 25
"""Cues are looked for so many code points before a number; one that stands closer than `FAR` speaks for it surely."""

_WORDS = {
    "phone": (
        r"\b(?:phones?|telephone|tel|mobile|cell|cellphone|calls?|calling|called|fax|whatsapp|sms|rings?"
        r"|dial|reach|contact"
        r"|my number|hotline|telefon[a-z]*|handy[a-z]*|rückfragen|anruf[a-z]*|mobil[a-z]*"
        r"|rufnummer|t[ée]l[ée]phone[a-z]*"
        r"|portable|appel[a-z]*|tel[ée]fon[a-z]*|m[óo]vil|ll[aá]m[a-z]+|erreichbar|joignable|bereikbaar|registered"
        r"|zurück|cellulare|chiam[a-z]+|telefone|celular|ligu[a-z]+|ligar|telefoon[a-z]*"
        r"|mobiel|bel|komórk[a-z]*|zadzwo[a-z]*|ring|signal|viber|numer[a-z]*|nummer)\b"
        r"|\btext(?: me| us)?(?: at| on)?:? ?$|\bmessages? (?:to|on)\b"
        r"|\b(?:desk|office|work|home) ?:|טלפון|נייד|電話|携帯|फ़ोन|फोन|मोबाइल|телефон|هاتف|جوال|电话|手机|전화"
    ),
    "card": (
        r"\b(?:cards?|cc|credit|debit|visa|mastercard|amex|american express|maestro|diners|discover|jcb"
        r"|pan|kreditkarte[a-z]*"
        r"|karten?[a-z]*|carte|tarjeta|carta|cart[ãa]o|kaart[a-z]*|karta|karty|kort)\b|כרטיס|אשראי|カード|कार्ड|карт|بطاقة|卡"
    ),
    "US_SSN": r"\b(?:ssns?|social security|soc(?:ial)? sec|itin)\b|\bmy social(?: is|:)",
    "IL_ID": r"\b(?:israeli id|israeli identity|t\.?z\.?|teudat(?: zehut)?)(?:\W|$)"
    r"|ת\.?\"?ז|תעודת זהות|מספר זהות|\bז\.?ה\.",
    "UK_NHS": r"\b(?:nhs|national health)\b",
    "DE_TAX_ID": (
        r"\b(?:steuer-?id[a-z]*|steuer-?nummer|steuer[a-z]*|idnr|id-nr|steuerliche|tin|german tax)\b|\btax (?:id"
        r"|identification|number)\b"
    ),
    "FR_NIR": r"\b(?:nir|s[ée]curit[ée] sociale|num[ée]ro de s[ée]cu[a-z]*|insee|french social)\b",
    "BR_CPF": r"\b(?:cpf|cadastro de pessoas?)\b",
    "IN_AADHAAR": r"\b(?:aadh?aa?r|uidai|uid)\b|आधार",
    "JP_MYNUMBER": r"\b(?:my ?number|mynumber|individual number)\b|マイナンバー|個人番号",
    "CA_SIN": r"\b(?:sin|social insurance|canadian)\b|\bassurance sociale\b",
    "other": (
        r"\b(?:arn|orders?|invoices?|refs?|references?|build|versions?|isbn|sku|tickets?|issues?|track[a-z]*"
        r"|models?|serial|ports?"
        r"|pages?|lines?|epoch|timestamps?|sessions?|requests?|grid|sheet|matrix|functions?|commits?|hash"
        r"|checksum|pid|po|so"
        r"|ord|bestell[a-z]*|rechnung[a-z]*|commande|facture|pedido|factura|ordine|fattura|case|batch|parts?"
        r"|items?|products?"
        r"|articles?|id|ids|mrn|passport|licen[cs]e|iban|account|konto|zip|code|key|points?|coordinates?"
        r"|amount|total|sum)\b"
    ),
}
_ALL_DIGITS_ALIKE = str.maketrans("123456789", "000000000")
"""No word has a digit, so texts that differ in digits alone are judged once."""

_CUE = re2.compile("|".join(_WORDS.values()).encode())
_PHONE_WORD = re2.compile(f"(?i){_WORDS['phone']}".encode())
_KINDS = {kind: re.compile(words) for kind, words in _WORDS.items()}

_PHONE_AFTER = re.compile(
    r"\s*(?:is|are|was)? ?(?:my|our|his|her|their|the)? ?(?:new |work |home |private )?"
    r"(?:phone|mobile|cell|telephone|landline|fax|whatsapp)\b"
    r"|\s?[-(] ?(?:home|mobile|cell|office|work|fax|phone|desk|privat|mobil|dienstlich)\b"
)
_PHONE_LENGTH_AFTER = 40


class Cues(NamedTuple):
    """What stands before a number: every kind named, the nearest of them, and how far away it is."""

    named: frozenset[str]
    nearest: str
    distance: int

    def close(self, kind: str) -> bool:
        """Whether this is the nearest and stands close."""
        return self.nearest == kind and self.distance <= FAR


def cues_before(page: Page, start: int) -> Cues:
    """What stands before the number that begins there."""
    return page.judged(cues_in, page.before(start, NEAR).translate(_ALL_DIGITS_ALIKE))


def cues_after(page: Page, end: int) -> Cues:
    """What follows the number that ends there, half as far."""
    return page.judged(cues_in, page.after(end, NEAR // 2).translate(_ALL_DIGITS_ALIKE))


def cues_in(before: str) -> Cues:
    """`before`: what stands before the number, in small letters."""
    if before.isascii() and before.upper() == before:
        return Cues(frozenset(), "", len(before))  # without a letter there is no word
    named, nearest, end = set(), "", 0
    written = before.encode("utf-8", "replace")
    for match in _CUE.finditer(written):
        start, end = match.span()
        nearest = _kind_of(written[start:end])
        named.add(nearest)
    return Cues(frozenset(named), nearest, len(written[end:].decode("utf-8")))


def speaks_of_phones(page: Page) -> bool:
    """Whether a word for a phone stands anywhere; looked for once."""
    if page.speaks_of_phones is None:
        page.speaks_of_phones = _PHONE_WORD.search(page.text.encode("utf-8", "replace")) is not None
    return page.speaks_of_phones


@lru_cache(maxsize=1024)
def _kind_of(cue: bytes) -> str:
    return next((kind for kind, words in _KINDS.items() if words.match(cue.decode("utf-8"))), "")


def is_phone_by_what_follows(after: str) -> bool:
    """`after`: what follows the number, in small letters."""
    return _PHONE_AFTER.match(after[:_PHONE_LENGTH_AFTER]) is not None
