"""What goes back and forth with one caller, and for how long either side is waited for."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import grpc

from pointsman_server.domain.errors import DeadlineExceeded, ReaderTooSlow, Step
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.patience import Patience
from pointsman_server.rpc.status import MalformedRequest, RequestTooSlow

CANCELLATION_SECONDS = 0.01
"""How much later than its end the library may tell that a call was cancelled."""

_Context = Any
"""grpc.aio.ServicerContext; generic in the published types, not in the library."""


class RequestReader:
    """Reads the one message of calls whose handlers were registered as taking a stream of them.

    The library waits without end for the message of a call that takes only one, before any handler runs. Here one timer
    watches over all calls that wait: a timer for each would cost every call more than all else at the border.
    """

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, context: _Context) -> Any:
        """The message, or the error that the call comes to.

        That is `RequestTooSlow` when the message is not whole in time, and `MalformedRequest` when none comes.
        """
        task: Any = asyncio.current_task()
        self._waiting[task] = asyncio.get_running_loop().time()
        if self._timer is None:
            self._look_again_in(self._longest_seconds)
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            return RequestTooSlow()
        finally:
            del self._waiting[task]
            self._late.discard(task)
        if message is not grpc.aio.EOF:
            return message
        # A call that the caller cancelled looks the same at first.
        await asyncio.sleep(CANCELLATION_SECONDS)
        return MalformedRequest()

    def _look_again_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for task, began_at in self._waiting.items():  # the first to begin comes first
            left_seconds = began_at + self._longest_seconds - now
            if left_seconds > 0:
                self._look_again_in(left_seconds)
                return
            self._late.add(task)
            task.cancel()


class PatientWriter:
    """Writes to one caller, as `with`, and gives up on one that does not read.

    A write returns when the flow control of the caller's connection let all of it pass: at once, as long as the caller
    reads or has room. `deadline` is on the clock, in seconds.
    """

    def __init__(self, context: _Context, clock: Clock, idle_seconds: float, deadline: float) -> None:
        self._context = context
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._deadline = deadline
        self._patience = Patience(clock)

    def __enter__(self) -> PatientWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.stop()

    async def write(self, message: object) -> None:
        """Sends it at once. Raises `ReaderTooSlow`, or `DeadlineExceeded` when the call's time ends before."""
        now = self._clock.monotonic()
        gives_up_at = now + self._idle_seconds
        out_of_time = now < self._deadline < gives_up_at
        try:
            await self._patience.wait(self._context.write(message), self._deadline if out_of_time else gives_up_at)
        except TimeoutError:
            raise (DeadlineExceeded(Step.DISPATCH) if out_of_time else ReaderTooSlow()) from None

    async def write_last(self, message: object) -> None:
        """Sends the message that ends the stream; the call's time is not looked at any more.

        It may leave at the very moment the time ends, and then no error may follow it. Raises `ReaderTooSlow`.
        """
        try:
            await self._patience.wait(self._context.write(message), self._clock.monotonic() + self._idle_seconds)
        except TimeoutError:
            raise ReaderTooSlow from None
