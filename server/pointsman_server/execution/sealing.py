"""Answers at rest: only who asks the same again can read them.

The key of an answer follows from all that was asked, which nobody keeps; what is kept to compare with follows from it
as well, and the key does not follow from that. So the store, its copies and who can read it see no word of an answer.
The library is only loaded by who names a call: it takes six megabytes.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

_NONCE_BYTES = 12


class Seal(NamedTuple):
    """What follows from a question: `digest` to be kept and compared, `key` to be kept by nobody."""

    digest: bytes
    key: bytes

    @classmethod
    def of(cls, asked: bytes) -> Seal:
        """The seal for what was asked, of which `asked` is a hash that is stored nowhere."""
        return cls(
            hashlib.blake2b(asked, digest_size=16, person=b"compare").digest(),
            hashlib.blake2b(asked, digest_size=32, person=b"answer").digest(),
        )

    def close(self, answer: bytes) -> bytes:
        """The answer as it may be stored (AES-256 in GCM)."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, answer, None)

    def open(self, sealed: bytes) -> bytes:
        """The answer again. Raises `ValueError` when it was changed, or was never sealed with this."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self.key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            raise ValueError("what is stored was not sealed with this key") from None
