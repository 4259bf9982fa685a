"""Providers behind a wire: what they send arrives at its time, whether anybody reads it or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from kit.scripted import Hang, Step, Wait
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import CONTENT_DELTAS, Finished, ReplyEvent


@dataclass
class Exchange:
    """One call as its provider saw it; `ended_at` is None while the connection is open.

    `content_at` is when the last content was sent, `whole_at` when the provider said that this is all.
    """

    call: ProviderCall
    began_at: float
    sent: list[ReplyEvent] = field(default_factory=list)
    content_at: float | None = None
    whole_at: float | None = None
    ended_at: float | None = None

    def send(self, batch: Sequence[ReplyEvent], now: float) -> None:
        """The provider sends this."""
        self.sent.extend(batch)
        if any(isinstance(event, CONTENT_DELTAS) for event in batch):
            self.content_at = now
        if any(isinstance(event, Finished) for event in batch):
            self.whole_at = now


@dataclass
class Wires:
    """Connections to any number of providers: each call is answered with the script that `answer` makes for it.

    A wait is counted from what came before it was sent, so a slow reader finds the next pieces there already.
    To hang up takes `close_seconds`.
    """

    answer: Callable[[ProviderCall], Sequence[Step]]
    close_seconds: float = 0.0
    exchanges: list[Exchange] = field(default_factory=list)

    async def exchange(self, call: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """See `ProviderAdapter.exchange`."""
        loop = asyncio.get_running_loop()
        exchange = Exchange(call, loop.time())
        self.exchanges.append(exchange)
        due = exchange.began_at
        try:
            for step in self.answer(call):
                if isinstance(step, Wait):
                    due += step.seconds
                    continue
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                match step:
                    case Hang():
                        await loop.create_future()
                    case ProviderFault(kind=kind, retry_after_seconds=seconds):
                        raise ProviderFault(kind, step.detail, retry_after_seconds=seconds)
                    case Exception():
                        raise step
                    case _:
                        exchange.send(step, loop.time())
                        yield step
        finally:
            try:
                if self.close_seconds:
                    await asyncio.sleep(self.close_seconds)
            finally:
                exchange.ended_at = loop.time()

    async def close(self) -> None:
        """See `ProviderAdapter.close`."""
