"""What the ledger's rooms need from outside, as protocols."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from pointsman_server.domain.ledger import Booking, BudgetKey, BudgetView, Lease, LeaseWish, Pulse, Refusal, Remains


class LedgerStore(Protocol):
    """Budgets and ledger of all processes. Every method raises `StoreUnavailableError`.

    A `writer` is the name of a process that keeps accounts.
    """

    async def lease(self, writer: str, wishes: Sequence[LeaseWish]) -> tuple[Lease, ...] | Refusal:
        """All of the wishes, or none and the first that does not fit."""
        ...

    async def book(self, writer: str, bookings: Sequence[Booking]) -> Mapping[BudgetKey, BudgetView]:
        """Writes down what is not yet written down of these, which are in order; gives how their budgets stand."""
        ...

    async def pulse(self, writer: str, keys: Collection[BudgetKey]) -> Pulse:
        """Shows that the writer lives."""
        ...

    async def mark_alerted(self, key: BudgetKey, percent: int) -> bool:
        """Whether nobody was told of this, or of a higher percentage, before."""
        ...

    async def lessees(self) -> Mapping[str, int]:
        """The writers that hold leases, each with a number that grows while it lives."""
        ...

    async def take_away(self, writer: str, beats: int | None) -> int:
        """Books all leases of a writer as lost, and gives how much that was; nothing if it lived since `beats`.

        None is whether it lived or not.
        """
        ...

    async def give_back(self, writer: str) -> int:
        """Returns all leases of a writer of which nothing was spent, and gives how much that was."""
        ...

    async def forget(self, before: float) -> None:
        """Deletes entries from before this time, and writers that were not seen since."""
        ...


class Trail(Protocol):
    """Keeps what a process does with money outside of its memory, so that nothing is forgotten when it is killed.

    Nothing is written down anywhere else before it is here. Never raises for a disk's sake, and returns at once.
    """

    @property
    def is_long(self) -> bool:
        """Whether it should be begun anew."""
        ...

    def leased(self, lease: Lease) -> None:
        """A lease was granted."""
        ...

    def reserved(self, number: int, takes: Sequence[tuple[str, int]]) -> None:
        """A reservation takes so much of each of these leases."""
        ...

    def booked(self, booking: Booking, reservation: int | None = None) -> None:
        """Something is to be written down; with a reservation, that is settled by it."""
        ...

    def begin_anew(self, remains: Remains) -> None:
        """Forgets everything but this."""
        ...

    def end(self) -> None:
        """All is written down; nothing needs to be kept."""
        ...

    def leave(self) -> None:
        """This process ends, and others find what is left to be done."""
        ...


class LeftTrail(Protocol):
    """The trail of a process that has ended without clearing up; nobody else works on it until it is left."""

    @property
    def remains(self) -> Remains:
        """What it tells."""
        ...

    def remove(self) -> None:
        """All of it is written down."""
        ...

    def leave(self) -> None:
        """Lets others have it, if there is anything left; comes last, and once."""
        ...


class Trails(Protocol):
    """Where the processes of one machine leave their trails."""

    def open(self, writer: str) -> Trail:
        """A new trail."""
        ...

    async def left_behind(self) -> Sequence[LeftTrail]:
        """The trails of processes that have ended."""
        ...
