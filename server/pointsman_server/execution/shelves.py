"""What this process holds of the cache: the answers used last, and the cards of the partitions used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pointsman_server.decision.near_miss import agree
from pointsman_server.domain.cache import CachedAnswer, Card, Entry, Traits
from pointsman_server.domain.embedder import Vector

MOST_ANSWER_BYTES = 32_000_000
MOST_CARDS = 4_000
MOST_SHELVES = 4_000

UNWRITTEN_SECONDS = 10.0
"""For so long a card of ours may be missing in the store because it waits for being written."""


class Shelf:
    """The cards of one partition. `loaded_at` is when the store was asked, on the monotonic clock; None is never."""

    def __init__(self) -> None:
        self.cards: dict[bytes, Card] = {}
        self.loaded_at: float | None = None
        self._rows: tuple[list[Card], npt.NDArray[np.float32]] | None = None

    def add(self, card: Card) -> None:
        """Puts a card in the place of the one with the same key."""
        self.cards[card.key] = card
        self._rows = None

    def remove(self, key: bytes) -> None:
        """Takes a card away."""
        del self.cards[key]
        self._rows = None

    def replace(self, cards: Sequence[Card], now: float) -> set[bytes]:
        """Takes the store's cards over; gives the keys of those that are gone. Our own newest ones stay."""
        before, self._rows = self.cards, None
        self.cards = {card.key: card for card in cards}
        for key, card in before.items():
            if key not in self.cards and card.stored_at > now - UNWRITTEN_SECONDS:
                self.cards[key] = card
        return before.keys() - self.cards.keys()

    def like(self, vector: Vector, traits: Traits, least: float) -> Iterator[Card]:
        """Cards that are similar enough and whose traits agree, the most similar one first."""
        cards, rows = self._comparable(len(vector))
        if not cards:
            return
        similarities = rows @ np.frombuffer(vector, dtype="<f4")
        for place in np.argsort(-similarities):
            if similarities[place] < least - 1e-6:  # of 32 bits, the same vector is at 0.9999999
                return
            of_card = cards[place].traits
            if of_card is not None and agree(of_card, traits):
                yield cards[place]

    def _comparable(self, size_bytes: int) -> tuple[list[Card], npt.NDArray[np.float32]]:
        if self._rows is None or (self._rows[0] and len(self._rows[0][0].vector) != size_bytes):
            cards = [card for card in self.cards.values() if len(card.vector) == size_bytes]
            rows = np.frombuffer(b"".join(card.vector for card in cards), dtype="<f4")
            self._rows = cards, rows.reshape(len(cards), -1) if cards else rows
        return self._rows


class Shelves:
    """All shelves of this process, and answers by key; what was not used for the longest time goes first."""

    def __init__(self, most_answer_bytes: int = MOST_ANSWER_BYTES, most_cards: int = MOST_CARDS) -> None:
        self._most_bytes = most_answer_bytes
        self._most_cards = most_cards
        self._answers: OrderedDict[bytes, tuple[Card, CachedAnswer]] = OrderedDict()
        self._of_tenants: dict[str, OrderedDict[bytes, None]] = {}
        self._tenant_of: dict[bytes, str] = {}
        self._shelves: OrderedDict[bytes, Shelf] = OrderedDict()
        self._cards = 0
        self.answer_bytes = 0

    @property
    def answers(self) -> int:
        """How many answers are held here."""
        return len(self._answers)

    def shelf(self, partition: bytes) -> Shelf:
        """The shelf of a partition; an empty one if it is not held here."""
        shelf = self._shelves.get(partition)
        if shelf is None:
            shelf = self._shelves[partition] = Shelf()
        self._shelves.move_to_end(partition)
        return shelf

    def loaded(self, partition: bytes, cards: Sequence[Card], *, now: float, monotonic: float) -> None:
        """The store's cards of a partition."""
        shelf = self.shelf(partition)
        self._cards -= len(shelf.cards)
        for key in shelf.replace(cards, now):
            self._forget(key)
        self._cards += len(shelf.cards)
        shelf.loaded_at = monotonic
        self._make_room()

    def put(self, tenant: str, card: Card, answer: CachedAnswer, most_of_tenant: int) -> int:
        """Holds an answer with its card; says how many of the tenant's had to go for it."""
        self._forget(card.key)
        self._answers[card.key] = card, answer
        self.answer_bytes += answer.size_bytes
        self._tenant_of[card.key] = tenant
        keys = self._of_tenants.setdefault(tenant, OrderedDict())
        keys[card.key] = None
        shelf = self.shelf(card.partition)
        self._cards += card.key not in shelf.cards
        shelf.add(card)
        surplus = [key for key, _ in zip(keys, range(len(keys) - most_of_tenant), strict=False)]
        for key in surplus:
            self._drop(key)
        self._make_room()
        return len(surplus)

    def add(self, entry: Entry) -> int:
        """See `put`."""
        return self.put(entry.tenant, entry.card, entry.answer, entry.most_entries)

    def get(self, key: bytes) -> tuple[Card, CachedAnswer] | None:
        """An answer that is held here; that is a use of it."""
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
            self._of_tenants[self._tenant_of[key]].move_to_end(key)
        return found

    def _drop(self, key: bytes) -> None:
        """An entry is gone altogether."""
        shelf = self._shelves.get(self._answers[key][0].partition)
        if shelf is not None and key in shelf.cards:
            shelf.remove(key)
            self._cards -= 1
        self._forget(key)

    def _forget(self, key: bytes) -> None:
        """Its answer is not held here any more."""
        found = self._answers.pop(key, None)
        if found is None:
            return
        self.answer_bytes -= found[1].size_bytes
        tenant = self._tenant_of.pop(key)
        keys = self._of_tenants[tenant]
        del keys[key]
        if not keys:
            del self._of_tenants[tenant]

    def _make_room(self) -> None:
        while self.answer_bytes > self._most_bytes:
            self._forget(next(iter(self._answers)))
        while len(self._shelves) > 1 and (self._cards > self._most_cards or len(self._shelves) > MOST_SHELVES):
            _, shelf = self._shelves.popitem(last=False)
            self._cards -= len(shelf.cards)
