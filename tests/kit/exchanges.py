"""Providers behind a wire: what they send arrives at its time, whether anybody reads it or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from kit.scripted import Hang, Step, Wait
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Finished, ReplyEvent


@dataclass
class Exchange:
    """One call as its provider saw it; `ended_at` is None while the connection is open."""

    call: ProviderCall
    began_at: float
    sent: list[ReplyEvent] = field(default_factory=list)
    ended_at: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the provider said that this is all."""
        return any(isinstance(event, Finished) for event in self.sent)


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
                        exchange.sent.extend(step)
                        yield step
        finally:
            try:
                if self.close_seconds:
                    await asyncio.sleep(self.close_seconds)
            finally:
                exchange.ended_at = loop.time()

    async def close(self) -> None:
        """See `ProviderAdapter.close`."""
