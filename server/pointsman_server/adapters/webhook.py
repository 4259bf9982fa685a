"""Posts budget alerts to the webhook of the policy, in the background: no call and no booking ever waits for it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import orjson
import structlog

from pointsman_server.adapters.providers.wire import HttpWire, PreparedRequest
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.governance import Webhook
from pointsman_server.domain.ledger import BudgetAlert
from pointsman_server.domain.ports import Clock

SIGNATURE_HEADER = "pointsman-signature"
EVENT = "budget_alert"

MOST_WAITING = 1_000
"""Alerts that wait to be sent; more are dropped and counted."""

PAUSES_SECONDS = (1.0, 5.0, 25.0)
"""Before an alert is sent once more."""

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
CLOSING_SECONDS = 5.0
"""At the end, what waits is sent for so long; the rest is dropped and counted."""

_TRY_AGAIN = frozenset([408, 425, 429])

_LOG = structlog.stdlib.get_logger("pointsman.webhook")


class AlertWebhook:
    """start → tell → close. `webhook` gives that of the policy in force, None when there is none.

    `dropped` counts the alerts that were not delivered, for whatever reason.
    """

    def __init__(
        self,
        wire: HttpWire,
        webhook: Callable[[], Webhook | None],
        clock: Clock,
        *,
        most_waiting: int = MOST_WAITING,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        self._wire = wire
        self._webhook = webhook
        self._clock = clock
        self._pauses_seconds = pauses_seconds
        self._waiting: asyncio.Queue[tuple[BudgetAlert, float]] = asyncio.Queue(most_waiting)
        self._sending: asyncio.Task[None] | None = None
        self.dropped = 0

    def start(self) -> None:
        """Sends from now on what is told, and what was told before."""
        self._sending = asyncio.create_task(self._send_all())

    def tell(self, alert: BudgetAlert) -> None:
        """Has it sent; returns at once. Without a webhook there is nothing to do."""
        if self._webhook() is None:
            return
        try:
            self._waiting.put_nowait((alert, self._clock.now()))
        except asyncio.QueueFull:
            self._give_up(alert, "too many are waiting")

    async def close(self) -> None:
        """Sends what waits, for a few seconds."""
        if self._sending is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._waiting.join()
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        self._sending = None
        while not self._waiting.empty():
            self._give_up(self._waiting.get_nowait()[0], "the server ended")

    async def _send_all(self) -> None:
        while True:
            alert, at = await self._waiting.get()
            try:
                await self._send(alert, at)
            except asyncio.CancelledError:
                self._give_up(alert, "the server ended")
                raise
            except Exception as error:
                # Whatever it is, the next alert must have its turn. An error's text may name the address.
                self._give_up(alert, type(error).__name__)
            finally:
                self._waiting.task_done()

    async def _send(self, alert: BudgetAlert, at: float) -> None:
        body = body_of(alert, at)
        for pause_seconds in (*self._pauses_seconds, None):
            webhook = self._webhook()
            if webhook is None:
                return
            fault, is_final = (webhook.unusable_because, True) if not webhook.url else await self._post(webhook, body)
            if not fault:
                return
            if is_final or pause_seconds is None:
                break
            await asyncio.sleep(pause_seconds)
        self._give_up(alert, fault)

    async def _post(self, webhook: Webhook, body: bytes) -> tuple[str, bool]:
        """What went wrong, "" when nothing did, and whether to leave it at that."""
        headers = {"content-type": "application/json", "user-agent": "pointsman"}
        if webhook.secret:
            headers[SIGNATURE_HEADER] = signature(webhook.secret, int(self._clock.now()), body)
        request = PreparedRequest(webhook.url, headers, body)
        try:
            async with self._wire.send(
                request, connect_seconds=CONNECT_SECONDS, total_seconds=TOTAL_SECONDS
            ) as response:
                status = response.status
        except ProviderFault as fault:
            return fault.kind.value, False
        if 200 <= status < 300:
            return "", True
        return f"HTTP {status}", status < 500 and status not in _TRY_AGAIN

    def _give_up(self, alert: BudgetAlert, reason: str) -> None:
        self.dropped += 1
        _LOG.warning("webhook_not_delivered", **alert.key._asdict(), percent=alert.percent, reason=reason)


def body_of(alert: BudgetAlert, at: float) -> bytes:
    """The JSON that is posted; `at` is seconds since the epoch."""
    content: Mapping[str, object] = {
        "event": EVENT,
        **alert.key._asdict(),
        "used_micro_usd": alert.settled_micro_usd,
        "limit_micro_usd": alert.limit_micro_usd,
        "threshold": alert.percent,
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return orjson.dumps(content)


def signature(secret: str, at: int, body: bytes) -> str:
    """The header's value: when it was sent, and the HMAC-SHA256 of that time, a full stop and the body, in hex."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
