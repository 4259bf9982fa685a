"""Identifiers of letters and digits that prove themselves: IBAN, tax and insurance numbers, crypto addresses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

from stdnum import iban
from stdnum.es import dni, nie
from stdnum.it import codicefiscale

from pointsman_server.adapters.guards.rules import Candidate, Page, Rank, Rule, expression, whole

_IBAN_LENGTHS: Mapping[str, int] = {
    country: int(length)
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_COUNTRIES = "|".join(sorted(_IBAN_LENGTHS)).encode()
_IBAN = expression(rb"(?i)\b(?:" + _COUNTRIES + rb")[ .-]?\d{2}(?:[ .-]{0,2}[A-Z0-9]){11,29}")
_IBAN_START = re.compile(r"\b[A-Za-z]{2}[ .-]?\d\d")
_WRITTEN = {
    length: re.compile(rf"\w(?:[ .-]*\w){{{length - 1}}}(?!\w)", re.ASCII) for length in set(_IBAN_LENGTHS.values())
}
"""So many letters and digits, if the word ends there too."""
_LONGEST_WRITTEN = 64
_DIGITS_OF = {character: str(value) for value, character in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")}


def _ibans(page: Page, start: int, end: int) -> Iterator[Candidate]:
    """The match may run past an IBAN's end into the next one, or begin with what only looks like a beginning."""
    text = page.text[start : end + _LONGEST_WRITTEN]
    position = 0
    for begin in _IBAN_START.finditer(text):
        length = _IBAN_LENGTHS.get(begin.group()[:2].upper())
        if begin.start() >= end - start:
            break
        if begin.start() < position or length is None:
            continue
        written = _WRITTEN[length].match(text, begin.start())
        if written is not None and page.judged(_is_iban, written.group()):
            position = written.end()
            yield Candidate(start + begin.start(), start + position, "IBAN", Rank.CHECKED)


def _is_iban(written: str) -> bool:
    """The library checks the form too, but takes its time; the check digits alone refuse nearly all that is none."""
    compact = written.replace(" ", "").replace("-", "").replace(".", "").upper()
    number = "".join(map(_DIGITS_OF.__getitem__, compact[4:] + compact[:4]))
    return int(number) % 97 == 1 and iban.is_valid(compact, check_country=False)


_NINO = expression(rb"(?i)\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D]\b")
_UNUSED_NINO_PREFIXES = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})


def _is_nino(value: str) -> bool:
    return value[:2].upper() not in _UNUSED_NINO_PREFIXES and (value.isupper() or value.islower())


_PAN = expression(rb"\b[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]\b")
_NIF = expression(rb"(?i)\b(?:\d{8}|[XYZ]-?\d{7})-?[A-Z]\b")
_CF = expression(rb"(?i)\b[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]\b")


def _is_nif(value: str) -> bool:
    return dni.is_valid(value) or nie.is_valid(value)


_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CHECKSUMS = (1, 0x2BC830A3)
_CRYPTO = expression(
    rb"\b(?:[13mnL][1-9A-HJ-NP-Za-km-z]{25,34}|(?:bc1|tb1|ltc1)[02-9ac-hj-np-z]{11,71}"
    rb"|(?:BC1|TB1|LTC1)[02-9AC-HJ-NP-Z]{11,71}|0x[0-9a-fA-F]{40})\b"
)


def _is_crypto(value: str) -> bool:
    if value.startswith("0x"):
        return True
    return _is_bech32(value.lower()) if value[:3].lower() in ("bc1", "tb1", "ltc") else _is_base58check(value)


def _is_base58check(value: str) -> bool:
    number = 0
    for character in value:
        number = number * 58 + _BASE58.index(character)
    if number.bit_length() > 200:
        return False
    payload = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(payload[:21]).digest()).digest()[:4] == payload[21:]


def _is_bech32(value: str) -> bool:
    prefix, _, data = value.rpartition("1")
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + [_BECH32.index(c) for c in data]
    check = 1
    for word in values:
        top = check >> 25
        check = ((check & 0x1FFFFFF) << 5) ^ word
        for bit, generator in enumerate(_BECH32_GENERATORS):
            check ^= generator if (top >> bit) & 1 else 0
    return check in _BECH32_CHECKSUMS


RULES = (
    Rule(rb"(?i)\b[A-Z]{2}[ .-]?\d{2}[ .-]{0,2}[A-Z0-9]{2}", _IBAN, _ibans),
    Rule(rb"(?i)\b[A-Z]{2}[ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D]\b", _NINO, whole("UK_NINO", Rank.CHECKED, _is_nino)),
    Rule(rb"[A-Z]{5}\d{4}[A-Z]\b", _PAN, whole("IN_PAN", Rank.CHECKED)),
    Rule(rb"(?i)\d{7}-?[A-Z]\b", _NIF, whole("ES_NIF", Rank.CHECKED, _is_nif)),
    Rule(rb"(?i)[A-Z]{6}\d\d[A-Z]\d\d", _CF, whole("IT_CF", Rank.CHECKED, codicefiscale.is_valid)),
    Rule(
        rb"\b(?:0x[0-9a-fA-F]{4}|[13mnL][1-9A-HJ-NP-Za-km-z]{9}|(?i:bc1|tb1|ltc1)[0-9A-Za-z])",
        _CRYPTO,
        whole("CRYPTO", Rank.CHECKED, _is_crypto),
    ),
)
