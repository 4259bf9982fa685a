"""Providers that follow a script in memory: real implementations of the port, without a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Finished, FinishReason, ReplyEvent, TextDelta, Usage, UsageReport


@dataclass(frozen=True)
class Wait:
    """Nothing comes for so long."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """Nothing comes ever again."""


Step = Sequence[ReplyEvent] | Wait | Hang | Exception
"""A batch, a pause, or the exception that ends it all. An empty batch is a ping."""

PING: Sequence[ReplyEvent] = ()
END: Sequence[ReplyEvent] = (Finished(FinishReason.STOP, "stop"),)


def says(text: str, key: int = 0) -> Sequence[ReplyEvent]:
    """A batch with one piece of text."""
    return (TextDelta(key, text),)


def used(input_tokens: int | None, output_tokens: int | None) -> Sequence[ReplyEvent]:
    """A batch that reports usage."""
    return (UsageReport(Usage(input_tokens=input_tokens, output_tokens=output_tokens)),)


def answers(text: str) -> tuple[Step, ...]:
    """A whole answer with its usage: 100 tokens in, 50 out."""
    return (says(text), used(100, 50), END)


@dataclass
class ScriptedAdapter:
    """Plays the same script for every call, or `then` from the second on; remembers calls and open connections."""

    steps: Sequence[Step]
    then: Sequence[Step] | None = None
    calls: list[ProviderCall] = field(default_factory=list)
    open_exchanges: int = 0
    closed: bool = False

    async def exchange(self, call: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """See `ProviderAdapter.exchange`."""
        self.calls.append(call)
        self.open_exchanges += 1
        try:
            for step in self.steps if self.then is None or len(self.calls) == 1 else self.then:
                match step:
                    case Wait(seconds):
                        await asyncio.sleep(seconds)
                    case Hang():
                        await asyncio.get_running_loop().create_future()
                    case ProviderFault():
                        # A fresh one each time, as adapters do: an exception carries the traceback of its raising.
                        raise ProviderFault(
                            step.kind,
                            step.detail,
                            status=step.status,
                            retry_after_seconds=step.retry_after_seconds,
                            blameless=step.blameless,
                        )
                    case Exception():
                        raise step
                    case _:
                        yield step
        finally:
            self.open_exchanges -= 1

    async def close(self) -> None:
        """See `ProviderAdapter.close`."""
        self.closed = True


class CharacterCounter:
    """Counts a token for each character; remembers what it was asked to count, and in which thread it got ready."""

    def __init__(self, *, is_ready: bool = True) -> None:
        self.is_ready = is_ready
        self.warmed_in: list[threading.Thread] = []
        self.counted: list[str] = []

    def warm_up(self) -> None:
        """See `TokenCounter.warm_up`."""
        self.warmed_in.append(threading.current_thread())
        self.is_ready = True

    def count(self, text: str) -> int:
        """See `TokenCounter.count`."""
        self.counted.append(text)
        return len(text)
