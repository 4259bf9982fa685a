"""API keys: how they are made and how a presented one is recognised.

A key reads `pm_<id>_<secret><checksum>`, of ASCII letters and digits but for the two underscores: a double click takes
all of it, and programs that look for leaked secrets find it. The id names the key in lists and logs. The secret has 256
bits of randomness. The checksum covers all that stands before it, so that a mistyped or cut key is told from an unknown
one without asking anybody.

Only the SHA-256 of the whole key is stored. A slow hash would be of no use: it makes guessing dear where people choose
their passwords, and nobody guesses 256 random bits, whatever a guess costs. But every call would pay for it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pointsman_server.domain.control import Key
from pointsman_server.domain.identifier import IDENTIFIER

PREFIX = "pm_"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ALPHANUMERIC = frozenset(_ALPHABET)
_ID_CHARACTERS = 12
_SECRET_CHARACTERS = 43
_CHECKSUM_CHARACTERS = 6
_SECRET_BITS = 256
_SECRET_AT = len(PREFIX) + _ID_CHARACTERS + 1

KEY_CHARACTERS = _SECRET_AT + _SECRET_CHARACTERS + _CHECKSUM_CHARACTERS
"""How long every key is."""

_DECOY = "-" * KEY_CHARACTERS
"""Hashed instead of what cannot be a key, so that every refusal costs the same. No key reads so."""

_NO_DIGEST = bytes(hashlib.sha256().digest_size)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only moment at which its text exists on our side."""

    id: str
    text: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """What is stored of it."""
        return digest_of(self.text)


def make_key() -> NewKey:
    """A key that nobody had before."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARACTERS))
    secret = _in_base62(secrets.randbits(_SECRET_BITS), _SECRET_CHARACTERS)
    signed = f"{PREFIX}{key_id}_{secret}"
    return NewKey(key_id, signed + _checksum(signed))


def is_tenant_id(text: str) -> bool:
    """Whether a tenant may be called so: ids are those of the policy, so that no two of them look alike."""
    return IDENTIFIER.fullmatch(text) is not None


def digest_of(text: str) -> bytes:
    """The SHA-256 of a key's text."""
    return hashlib.sha256(text.encode()).digest()


def is_whole(text: str) -> bool:
    """Whether this reads like a key and its checksum is right; nothing is said of whether anybody knows it."""
    if not _has_shape(text) or not text.startswith(PREFIX) or text[_SECRET_AT - 1] != "_":
        return False
    if not _ALPHANUMERIC.issuperset(text[len(PREFIX) : _SECRET_AT - 1] + text[_SECRET_AT:]):
        return False
    signed, checksum = text[:-_CHECKSUM_CHARACTERS], text[-_CHECKSUM_CHARACTERS:]
    return hmac.compare_digest(checksum, _checksum(signed))


def find_key(text: str, keys: Mapping[bytes, Key]) -> Key | None:
    """The key with this text among those that are known by their digests, whether it is still valid or not.

    The work is the same for every text, however long and whatever it holds.
    """
    has_shape = _has_shape(text)
    digest = digest_of(text if has_shape else _DECOY)
    key = keys.get(digest)
    is_same = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.digest)
    return key if has_shape and is_same else None


def _has_shape(text: str) -> bool:
    return len(text) == KEY_CHARACTERS and text.isascii()


def _checksum(signed: str) -> str:
    return _in_base62(zlib.crc32(signed.encode()), _CHECKSUM_CHARACTERS)


def _in_base62(number: int, characters: int) -> str:
    digits = []
    for _ in range(characters):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
