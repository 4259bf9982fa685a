"""Credentials: keys by their makers' prefixes, private keys, tokens, passwords in addresses and settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pointsman_server.adapters.guards.rules import Candidate, Find, Page, Rank, Rule, expression

_FEWEST_DIFFERENT = 8
_PLACEHOLDER = re.compile(
    r"example|placeholder|your[_-]?|changeme|redacted|dummy|sample|xxxx|0000000|\*\*\*|\.\.\.",
    re.IGNORECASE,
)


def _is_real(value: str) -> bool:
    """Whether it could be a key and not what stands for one in documentation."""
    return len(set(value)) >= _FEWEST_DIFFERENT and not _PLACEHOLDER.search(value)


def _key(kind: str) -> Find:
    def find(page: Page, start: int, end: int) -> Iterator[Candidate]:
        if page.text[start - 1 : start] not in ("/", "+") and _is_real(page.text[start:end]):
            yield Candidate(start, end, kind, Rank.CREDENTIAL)

    return find


_PREFIXED = (
    ("ANTHROPIC_KEY", rb"\bsk-ant-", rb"[A-Za-z0-9_-]{24,200}"),
    ("OPENAI_KEY", rb"\bsk-", rb"(?:(?:proj|svcacct|admin|None)-)?[A-Za-z0-9_-]{20,220}"),
    ("AWS_ACCESS_KEY", rb"\b(?:AKIA|ASIA|ABIA|ACCA)", rb"[A-Z0-9]{16}\b"),
    ("GITHUB_TOKEN", rb"\b(?:gh[pousr]_|github_pat_)", rb"[A-Za-z0-9_]{30,255}"),
    ("GITLAB_TOKEN", rb"\bgl(?:pat|dt|rt|ptt)-", rb"[A-Za-z0-9_-]{20,64}"),
    ("SLACK_TOKEN", rb"\b(?:xox[abeoprs]-|xapp-)", rb"[A-Za-z0-9-]{15,250}"),
    ("SLACK_WEBHOOK", rb"hooks\.slack\.com/", rb"(?:services|workflows)/[A-Za-z0-9+/_-]{20,100}"),
    ("STRIPE_KEY", rb"\b(?:[sr]k_(?:live|test)_|whsec_)", rb"[A-Za-z0-9]{16,247}"),
    ("GOOGLE_KEY", rb"\bAIza", rb"[A-Za-z0-9_-]{35}"),
    ("GOOGLE_TOKEN", rb"\b(?:ya29\.|GOCSPX-)", rb"[A-Za-z0-9_-]{20,250}"),
    ("HF_TOKEN", rb"\b(?:hf_|api_org_)", rb"[A-Za-z0-9]{30,60}"),
    ("SENDGRID_KEY", rb"\bSG\.", rb"[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    ("NPM_TOKEN", rb"\bnpm_", rb"[A-Za-z0-9]{36}\b"),
    ("PYPI_TOKEN", rb"\bpypi-", rb"AgE[A-Za-z0-9_-]{50,250}"),
    ("API_KEY", rb"\b(?:gsk_|xai-|pplx-|r8_|dop_v1_|shp(?:at|ss|ca)_|lin_api_|ntn_|hvs\.|nvapi-|fw_|csk-|tskey-|glsa_)",
     rb"[A-Za-z0-9_-]{24,250}"),
)  # fmt: skip

_JWT_SIGN = rb"\beyJ"
_JWT = rb"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"

_KEY_BEGIN = rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,.()-]*")
_LONGEST_PRIVATE_KEY = 20_000


def _private_key(page: Page, start: int, end: int) -> Iterator[Candidate]:
    """To the end line; of a key cut off before it, what looks like one."""
    rest = page.text[end : end + _LONGEST_PRIVATE_KEY]
    rest = rest.partition("-----BEGIN")[0]
    last = _KEY_END.match(rest, max(0, rest.find("-----END")))
    cut = _KEY_BODY.match(rest)
    length = last.end() if last else len(cut.group().rstrip()) if cut else 0
    if length > 20:
        yield Candidate(start, end + length, "PRIVATE_KEY", Rank.CREDENTIAL)


_URL = rb"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/@\"'<>?#]{0,100}:[^\s/@\"'<>]{3,200}@[^\s\"'<>()\x60,;]{1,300}"
_URL_PASSWORD = re.compile(r"://[^:]*:(.*)@", re.DOTALL)
_TEMPLATE = re.compile(r"[\[<({]\w|[$%]\w*[({]|^\$|^%\w+%?$|\*{3}|^x+$", re.IGNORECASE)
_NO_PASSWORDS = frozenset({"password", "pass", "passwd", "pwd", "secret", "user", "token"})


def _url(page: Page, start: int, end: int) -> Iterator[Candidate]:
    value = page.text[start:end].rstrip(".!?")
    password = _URL_PASSWORD.search(value)
    if password is None or _TEMPLATE.search(password.group(1)) or password.group(1).lower() in _NO_PASSWORDS:
        return
    yield Candidate(start, start + len(value), "URL_CREDENTIALS", Rank.CREDENTIAL)


_SETTING_END = rb"['\"]?\s{0,3}(?::=|=>|=|:)\s{0,3}['\"]?"
_NAME_BEGIN = rb"(?i)(?:\b|_)"


def _setting(kind: str, accept: Callable[[str], bool], length: int, rank: Rank = Rank.LABELLED) -> Find:
    """A value that follows its name and a sign of assignment."""
    form = re.compile(rf"[^\s'\"`,;<>{{}}()\[\]]{{{length},200}}")

    def find(page: Page, start: int, end: int) -> Iterator[Candidate]:
        match = form.match(page.text, end)
        if match is None:
            return
        value = match.group().rstrip(".:")
        if page.judged(accept, value):
            yield Candidate(end, end + len(value), kind, rank)

    return find


_AWS_SECRET = re.compile(r"[A-Za-z0-9/+]{40}={0,2}")


def _is_aws_secret(value: str) -> bool:
    return _AWS_SECRET.fullmatch(value) is not None and _is_real(value)


def _mixes(value: str) -> int:
    kinds = (str.islower, str.isupper, str.isdigit)
    return sum(any(map(kind, value)) for kind in kinds) + any(not character.isalnum() for character in value)


def _is_password(value: str) -> bool:
    """A word alone could be code: `password: string`."""
    named = _TEMPLATE.search(value) or _PLACEHOLDER.search(value) or value.lower() in _NO_PASSWORDS
    return not named and "://" not in value and _mixes(value) >= 2 and any(map(str.isdigit, value))


def _is_key(value: str) -> bool:
    return _is_password(value) and _is_real(value) and _mixes(value) >= 2 and not value.startswith(("sha", "data:"))


_BEARER = rb"(?i)\bauthorization['\"]?\s{0,3}[:=]\s{0,3}['\"]?(?:bearer|basic|token)\s{1,3}|\bbearer\s{1,3}"


def _rule(sign: bytes, pattern: bytes, find: Find) -> Rule:
    return Rule(sign, expression(pattern), find)


RULES = (
    *(_rule(sign, sign + rest, _key(kind)) for kind, sign, rest in _PREFIXED),
    _rule(_JWT_SIGN, _JWT, _key("JWT")),
    _rule(rb"PRIVATE KEY", _KEY_BEGIN, _private_key),
    _rule(rb"://", _URL, _url),
    _rule(
        rb"(?i)secret",
        rb"(?i)\b(?:aws_?)?secret_?(?:access_?)?key" + _SETTING_END,
        _setting("AWS_SECRET", _is_aws_secret, 40, Rank.CREDENTIAL),
    ),
    _rule(
        rb"(?i)pass|pwd",
        _NAME_BEGIN + rb"(?:password|passwd|passphrase|pwd|pass)" + _SETTING_END,
        _setting("PASSWORD", _is_password, 6),
    ),
    _rule(
        rb"(?i)api.?key|secret|token|access.?key|private.?key|account.?key",
        _NAME_BEGIN
        + rb"(?:api[_-]?key|secret|client[_-]?secret|secret[_-]?key|access[_-]?key|account[_-]?key|auth[_-]?token"
        rb"|access[_-]?token|refresh[_-]?token|private[_-]?key|token)" + _SETTING_END,
        _setting("API_KEY", _is_key, 16),
    ),
    _rule(rb"(?i)bearer|authorization", _BEARER, _setting("BEARER_TOKEN", _is_key, 20)),
)
