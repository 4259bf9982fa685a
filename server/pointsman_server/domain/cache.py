"""Answers that are kept for who asks the same again: what is kept, for whom, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from pointsman_server.domain.embedder import Vector
from pointsman_server.domain.message import ReasoningPart, TextPart
from pointsman_server.domain.reply import Citation
from pointsman_server.domain.request import CacheMode


class CacheOutcome(Enum):
    """What the cache did for a call. BYPASS: it was not asked."""

    HIT_EXACT = "hit_exact"
    HIT_SEMANTIC = "hit_semantic"
    MISS = "miss"
    BYPASS = "bypass"


class QuestionEmbedder(Enum):
    """What makes the vectors of questions: the process itself, or a model, as for the callers of EmbeddingService."""

    LOCAL = "local"
    SERVICE = "service"


HITS = frozenset({CacheOutcome.HIT_EXACT, CacheOutcome.HIT_SEMANTIC})


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How one tenant's calls use the cache. With `allow_requests` a request may use it more than `mode` says.

    `per_end_user` keeps the end users of a tenant apart; `embedder` makes the vectors of questions.
    """

    mode: CacheMode = CacheMode.OFF
    allow_requests: bool = True
    ttl_seconds: float = 3600.0
    semantic: bool = True
    min_similarity: float = 0.95
    entries_per_tenant: int = 100
    largest_answer_bytes: int = 65_536
    per_end_user: bool = False
    embedder: QuestionEmbedder = QuestionEmbedder.LOCAL


@dataclass(frozen=True, slots=True)
class Caching:
    """The cache as the policy wants it; tenants that are not listed have `usual`."""

    usual: CachePolicy = field(default_factory=CachePolicy)
    tenants: Mapping[str, CachePolicy] = field(default_factory=dict)

    def of(self, tenant: str) -> CachePolicy:
        """What holds for this tenant."""
        return self.tenants.get(tenant, self.usual)


class Traits(NamedTuple):
    """What two questions must share to have one answer, however alike they are otherwise; see `decision.near_miss`."""

    fixed: tuple[str, ...]
    names: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer as it is kept. `cost_micro_usd` is what it cost when it was made; `certainty` as in `Reply`."""

    parts: tuple[TextPart | ReasoningPart, ...]
    citations: tuple[Citation, ...]
    raw_finish_reason: str
    model: str
    deployment_id: str
    cost_micro_usd: int
    certainty: float | None = None

    @property
    def size_bytes(self) -> int:
        """About how much room it takes."""
        texts = (text for part in self.parts for text in (part.text, part.signature))
        quoted = (text for one in self.citations for text in (one.url, one.title, one.quoted_text))
        return sum(len(text.encode()) for text in (*texts, *quoted))


@dataclass(frozen=True, slots=True)
class Card:
    """What of an entry is needed to find it. Times are seconds since the Unix epoch.

    `key` and `partition` are keyed hashes; entries of one partition may be compared, others never. `vector` is empty
    and `traits` None for what is only found exactly.
    """

    key: bytes
    partition: bytes
    stored_at: float
    expires_at: float
    vector: Vector = b""
    traits: Traits | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer with its card, and whose it is; the tenant keeps its `most_entries` last used."""

    card: Card
    tenant: str
    answer: CachedAnswer
    most_entries: int


class CacheStore(Protocol):
    """Where all processes keep entries. Everything raises `StoreUnavailableError`; times are given by the caller."""

    async def cards(self, partition: bytes, now: float) -> Sequence[Card]:
        """All cards of this partition that have not expired."""
        ...

    async def answer(self, key: bytes) -> CachedAnswer | None:
        """The answer with this key; None if it is gone."""
        ...

    async def write(self, entries: Sequence[Entry], used: Mapping[bytes, float]) -> int:
        """Keeps entries, in the place of those with the same keys, and when others (by key) were last used.

        Says how many were evicted because their tenants have too many.
        """
        ...

    async def clean(self, now: float) -> None:
        """Removes what has expired."""
        ...
