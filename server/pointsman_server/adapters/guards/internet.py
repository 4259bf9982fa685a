"""Addresses of machines and mailboxes: EMAIL, IP, MAC."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from pointsman_server.adapters.guards.normalise import is_word
from pointsman_server.adapters.guards.rules import Candidate, Page, Rank, Rule, expression

_PLAIN_LOCAL = rb"[A-Za-z0-9\xc0-\xff](?:[A-Za-z0-9\xc0-\xff._%+'-]{0,62}[A-Za-z0-9\xc0-\xff_+-])?"
_LABEL = rb"[A-Za-z0-9\xc0-\xff](?:[A-Za-z0-9\xc0-\xff-]{0,40}[A-Za-z0-9\xc0-\xff])?"
_TOP_LEVEL = rb"(?:[A-Za-z]{2,24}|xn--[A-Za-z0-9-]{2,40})"

_PLAIN = expression(_PLAIN_LOCAL + rb"(?:@|%40)(?:" + _LABEL + rb"\.){1,8}" + _TOP_LEVEL + rb"\b")

_BRACKETED_AT = rb" ?[\[({<] ?(?:at|AT|At|@) ?[\])}>] ?"
_BRACKETED_DOT = rb" ?[\[({<] ?(?:dot|DOT|Dot|\.) ?[\])}>] ?"
_SPOKEN_DOT = rb" (?:dot|DOT) "
_ANY_DOT = rb"(?:\.|" + _BRACKETED_DOT + rb"|" + _SPOKEN_DOT + rb")"
_HIDDEN_DOT = rb"(?:" + _BRACKETED_DOT + rb"|" + _SPOKEN_DOT + rb")"
_WORD = rb"[A-Za-z0-9_%+-]{1,40}"
_HIDDEN_LOCAL = _WORD + rb"(?:" + _ANY_DOT + _WORD + rb"){0,4}"
_HIDDEN_LABEL = rb"[A-Za-z0-9-]{1,40}"

_HIDDEN = expression(
    rb"\b" + _HIDDEN_LOCAL + rb"(?:"
    rb"(?:" + _BRACKETED_AT + rb")(?:" + _HIDDEN_LABEL + _ANY_DOT + rb"){1,5}"
    rb"|(?: at | AT |@|%40)" + _HIDDEN_LABEL + rb"(?:" + _ANY_DOT + _HIDDEN_LABEL + rb"){0,4}" + _HIDDEN_DOT
    + rb"(?:" + _HIDDEN_LABEL + _ANY_DOT + rb"){0,4}"
    rb")" + _TOP_LEVEL + rb"\b"
)  # fmt: skip

_URL_LENGTH = 60
_SPOKEN_END = re.compile(r" dot (?:the|a|an|i|and|or|is|it|in|on|to)$", re.IGNORECASE)


def _mail(page: Page, start: int, end: int) -> Iterator[Candidate]:
    before = page.before(start, _URL_LENGTH)
    in_url = before.endswith(":") and "://" in before
    if page.text[end : end + 1] != "@" and not in_url and page.text[start : start + 4] != "git@":
        yield Candidate(start, end, "EMAIL", Rank.CHECKED)


def _hidden_mail(page: Page, start: int, end: int) -> Iterator[Candidate]:
    if not _SPOKEN_END.search(page.text[end - 8 : end]):
        yield Candidate(start, end, "EMAIL", Rank.CHECKED)


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_DOTTED = expression(rb"\d+(?:\.\d+){3,}")
_IP4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:versions?|v|release|sections?|chapters?|clauses?|build|firmware|upgrade|driver)|==|>=|~=)[\s:=v.]*$"
)
_PUBLISHED = frozenset({"0.0.0.0", "255.255.255.255"})  # noqa: S104 - named here to be left alone


def _ip4(page: Page, start: int, end: int) -> Iterator[Candidate]:
    around = page.text[max(0, start - 2) : start], page.text[end : end + 2]
    if not page.stands_alone(start, end) or _IP4.fullmatch(page.text, start, end) is None:
        return
    if around[0].endswith((".", "-")) and is_word(around[0][:1]):
        return
    if around[1][:1] == "-" and is_word(around[1][1:]):
        return
    address = page.text[start:end]
    if address.startswith("127.0.") or address in _PUBLISHED or _VERSION_BEFORE.search(page.before(start, 20)):
        return
    yield Candidate(start, end, "IP", Rank.CHECKED)


_IP6 = expression(rb"[0-9A-Fa-f:.]*::[0-9A-Fa-f:.]*|(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f:.]*")
_LONGEST_IP6 = 45
_ROUTED_PREFIXES = ("2", "3", "fe8", "fe9", "fea", "feb", "fc", "fd", "ff", "64:ff9b", "::ffff:")
_FEW_GROUPS = 4


def _ip6(page: Page, start: int, end: int) -> Iterator[Candidate]:
    value = page.text[start:end].rstrip(".")
    end = start + len(value)
    edges = page.text[start - 1 : start], page.text[end : end + 1]
    if (
        len(value) > _LONGEST_IP6
        or any(is_word(edge) or edge == ":" for edge in edges)
        or not page.judged(_is_ip6, value.lower())
    ):
        return
    yield Candidate(start, end, "IP", Rank.CHECKED)


def _is_ip6(value: str) -> bool:
    """Times, C++ names, fingerprints and the addresses that every machine has are none."""
    if value.count(":") < 2 or (value.count(":") < 7 and "::" not in value):
        return False
    groups = value.split(":")
    if all(len(group) == 2 for group in groups):
        return False
    if not value.startswith(_ROUTED_PREFIXES) and len(list(filter(None, groups))) < _FEW_GROUPS:
        return False
    try:
        address = ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified) and any(map(str.isdigit, value))


_PAIR = rb"[0-9A-Fa-f]{2}"
_MAC = expression(
    rb"\b(?:" + _PAIR + rb"(?::" + _PAIR + rb"){5,}|" + _PAIR + rb"(?:-" + _PAIR + rb"){5,}"
    rb"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})\b"
)


_LONGEST_MAC = 17


def _mac(page: Page, start: int, end: int) -> Iterator[Candidate]:
    value = page.text[start:end]
    separators = (":", "-", ".")
    longer = page.text[start - 1 : start] in separators and is_word(page.text[start - 2 : start - 1])
    longer = longer or (page.text[end : end + 1] in separators and is_word(page.text[end + 1 : end + 2]))
    if (
        longer
        or end - start > _LONGEST_MAC
        or set(value) <= set("0:-.")
        or ("." in value and not re.search("[A-Fa-f]", value))
    ):
        return
    yield Candidate(start, end, "MAC", Rank.CHECKED)


RULES = (
    Rule(rb"(?:@|%40)[A-Za-z0-9\xc0-\xff]", _PLAIN, _mail),
    Rule(
        rb"(?i) dot |[\[({<] ?(?:at|dot|\.|@) ?[\])}>]",
        _HIDDEN,
        _hidden_mail,
    ),
    Rule(rb"\d\.\d+\.\d+\.\d", _DOTTED, _ip4),
    Rule(rb"::|:[0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+:", _IP6, _ip6),
    Rule(_PAIR + rb"[:-]" + _PAIR + rb"[:-]" + _PAIR + rb"[:-]|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.", _MAC, _mac),
)
