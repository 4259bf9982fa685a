"""Where a call's answer stands in the cache: two keyed hashes, out of which nothing of the text can be read.

Calls have the same partition when they differ in their question at most: same tenant, policy, data class, regions,
system prompt, earlier turns, documents, template, tools and settings. They have the same key when the question is the
same too, letter by letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from hashlib import blake2b

from pointsman_server.decision.near_miss import traits_of
from pointsman_server.domain.cache import CachePolicy, Traits
from pointsman_server.domain.call import Call
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.request import CompletionRequest

LONGEST_QUESTION = 300
"""Characters; what is longer is only found exactly."""

_BESIDE = frozenset({"messages", "labels", "end_user", "session_id", "cache"})
"""Fields of a request that are taken apart here, or have no say in its answer."""

_SETTINGS = tuple(field.name for field in fields(CompletionRequest) if field.name not in _BESIDE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to one call belongs. `question` is "" where only the very same request will do."""

    key: bytes
    partition: bytes
    question: str


class Surveyor:
    """Finds places. All processes that share a cache have the same `salt`."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt

    def place_of(self, call: Call, policy: CachePolicy, embedder: str) -> Place:
        """The place of this call; `embedder` names what makes the vectors."""
        request = call.request
        *earlier, last = request.messages
        question = _question(last)
        settings = {name: getattr(request, name) for name in _SETTINGS}
        says = {label for rule in call.snapshot.rules for label in rule.when.labels}
        partition = self._hash(
            embedder,
            call.tenant,
            call.snapshot.version,
            settings,
            {name: value for name, value in request.labels.items() if name in says},
            request.end_user if policy.per_end_user else "",
            earlier,
            last if question is None else None,
        )
        key = self._hash(partition, question)
        is_short = question is not None and len(question) <= LONGEST_QUESTION
        return Place(key, partition, (question or "").strip() if policy.semantic and is_short else "")

    def traits_of(self, question: str) -> Traits:
        """What a question must share with another, each word as a hash."""
        return Traits(*(tuple(self._word(word) for word in words) for words in traits_of(question)))

    def _word(self, word: str) -> str:
        return blake2b(word.encode(), digest_size=8, key=self._salt, person=b"cache word").hexdigest()

    def _hash(self, *values: object) -> bytes:
        digest = blake2b(digest_size=32, key=self._salt, person=b"cache place")
        _feed(digest, values)
        return digest.digest()


def _question(last: Message) -> str | None:
    """The text to be answered, None for a last turn that is more, or something else, than a user's words."""
    plain = [part.text for part in last.parts if isinstance(part, TextPart) and not part.signature]
    return plain[0] if last.role is Role.USER and len(plain) == len(last.parts) == 1 else None


def _feed(digest: blake2b, value: object) -> None:
    """Every value begins with its kind and its size, so that no two say the same by being cut differently."""
    if is_dataclass(value) and not isinstance(value, type):
        _feed_many(digest, type(value).__name__, [getattr(value, field.name) for field in fields(value)])
    elif isinstance(value, Mapping):
        _feed_many(digest, "mapping", sorted(value.items(), key=lambda item: str(item[0])))
    elif isinstance(value, (set, frozenset)):
        _feed_many(digest, "set", sorted(value, key=repr))
    elif isinstance(value, (list, tuple)):
        _feed_many(digest, "list", value)
    else:
        kind, data = _bare(value)
        digest.update(f"{kind}:{len(data)}:".encode())
        digest.update(data)


def _feed_many(
    digest: blake2b, kind: str, values: list[object] | list[tuple[object, object]] | tuple[object, ...]
) -> None:
    digest.update(f"{kind}({len(values)}".encode())
    for value in values:
        _feed(digest, value)


def _bare(value: object) -> tuple[str, bytes]:
    if isinstance(value, bytes):
        return "bytes", value
    if isinstance(value, str):
        # Half a surrogate pair cannot come in, but must not raise here either.
        return "text", value.encode("utf-8", "surrogatepass")
    if isinstance(value, Enum):
        return type(value).__name__, value.name.encode()
    return type(value).__name__, repr(value).encode()
