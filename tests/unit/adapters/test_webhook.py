"""Budget alerts on their way to a receiver: what is sent, how often, and what becomes of those that cannot be."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from kit.clock import FakeClock
from kit.hooks import Receiver, receiving
from kit.redis_server import eventually
from pointsman_server.adapters import webhook as module
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.adapters.webhook import AlertWebhook, body_of
from pointsman_server.domain.governance import Webhook
from pointsman_server.domain.ledger import BudgetAlert, BudgetKey

KEY = BudgetKey("acme", "month", "2026-11")
ALERT = BudgetAlert(KEY, 80, 250_000_000, 201_000_000)
NO_PAUSES = (0.0, 0.01)


class Sender:
    """A webhook with its surroundings; what is changed here holds from the next alert on."""

    def __init__(self, wire: HttpWire, webhook: Webhook | None, **options: Any) -> None:
        self.policy = webhook
        self.hook = AlertWebhook(wire, lambda: self.policy, FakeClock(), pauses_seconds=NO_PAUSES, **options)


@asynccontextmanager
async def sender(webhook: Webhook | None, **options: Any) -> AsyncGenerator[Sender, None]:
    wire = HttpWire()
    made = Sender(wire, webhook, **options)
    made.hook.start()
    try:
        yield made
    finally:
        await made.hook.close()
        await wire.close()


def to(receiver: Receiver, secret: str = "") -> Webhook:
    return Webhook(receiver.url, "${S}" if secret else "", receiver.url, secret)


def percent(number: int) -> BudgetAlert:
    return ALERT._replace(percent=number)


async def test_an_alert_is_posted_as_json_and_signed() -> None:
    async with receiving() as receiver, sender(to(receiver, "the secret")) as sent:
        sent.hook.tell(ALERT)
        await receiver.have(1)
        (one,) = receiver.received
        assert one.content == {
            "event": "budget_alert",
            "tenant": "acme",
            "budget": "month",
            "period": "2026-11",
            "used_micro_usd": 201_000_000,
            "limit_micro_usd": 250_000_000,
            "threshold": 80,
            "at": "2025-06-15T15:06:40Z",
        }
        assert one.headers["Content-Type"] == "application/json"
        time_part, _, digest_part = one.headers["pointsman-signature"].partition(",")
        assert time_part == "t=1750000000"
        # As the documentation tells receivers to check it.
        expected = hmac.new(b"the secret", b"1750000000." + one.body, hashlib.sha256).hexdigest()
        assert digest_part == f"v1={expected}"
    assert sent.hook.dropped == 0


async def test_without_a_secret_nothing_is_signed_and_without_a_webhook_nothing_is_sent() -> None:
    async with receiving() as receiver, sender(None) as sent:
        sent.hook.tell(ALERT)
        sent.policy = to(receiver)
        sent.hook.tell(percent(100))
        await receiver.have(1)
    assert [one.content["threshold"] for one in receiver.received] == [100]
    assert "pointsman-signature" not in receiver.received[0].headers
    assert sent.hook.dropped == 0


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    async with receiving(status, status, 200) as receiver, sender(to(receiver)) as sent:
        sent.hook.tell(ALERT)
        await receiver.have(3)
    assert len({one.body for one in receiver.received}) == 1
    assert sent.hook.dropped == 0


@pytest.mark.parametrize(
    ("status", "times"), [(400, 1), (404, 1), (410, 1), (301, 1), (307, 1), (500, len(NO_PAUSES) + 1)]
)
async def test_who_refuses_is_left_alone_and_no_redirect_is_followed(status: int, times: int) -> None:
    async with receiving(status) as receiver:
        with capture_logs() as logs:
            async with sender(to(receiver)) as sent:
                sent.hook.tell(ALERT)
                await receiver.have(times)
        assert len(receiver.received) == times
    assert sent.hook.dropped == 1
    (line,) = logs
    assert (line["event"], line["reason"]) == ("webhook_not_delivered", f"HTTP {status}")
    assert (line["tenant"], line["budget"], line["period"], line["percent"]) == (*KEY, 80)
    assert "127.0.0.1" not in str(line), "to many receivers the address is a secret"


async def test_a_receiver_that_is_gone_costs_its_alerts_and_no_others() -> None:
    async with receiving() as receiver, sender(Webhook("x", url="http://127.0.0.1:1/")) as sent:
        with capture_logs() as logs:
            sent.hook.tell(ALERT)
            await eventually(lambda: sent.hook.dropped == 1)
        assert logs[0]["reason"] == "connection"
        sent.policy = to(receiver)
        sent.hook.tell(percent(100))
        await receiver.have(1)
    assert [one.content["threshold"] for one in receiver.received] == [100]


async def test_one_that_cannot_be_used_says_why() -> None:
    because = "environment variable HOOK is not set"
    with capture_logs() as logs:
        async with sender(Webhook("${HOOK}", unusable_because=because)) as sent:
            sent.hook.tell(ALERT)
    assert (logs[0]["reason"], sent.hook.dropped) == (because, 1)


async def test_when_the_policy_has_none_any_more_what_waits_is_let_go() -> None:
    async with receiving(500) as receiver, sender(to(receiver)) as sent:
        receiver.open.clear()
        sent.hook.tell(ALERT)
        await receiver.have(1)
        sent.policy = None
        receiver.open.set()
    assert (len(receiver.received), sent.hook.dropped) == (1, 0)


async def test_the_queue_is_bounded_and_telling_never_waits() -> None:
    async with receiving() as receiver, sender(to(receiver), most_waiting=3) as sent:
        receiver.open.clear()
        sent.hook.tell(ALERT)
        await receiver.have(1)
        with capture_logs() as logs:
            for _ in range(10):
                sent.hook.tell(percent(100))
        assert sent.hook.dropped == len(logs) == 7
        receiver.open.set()
        await receiver.have(4)


async def test_what_waits_at_the_end_is_still_sent() -> None:
    async with receiving() as receiver:
        async with sender(to(receiver)) as sent:
            for _ in range(20):
                sent.hook.tell(ALERT)
        assert len(receiver.received) == 20
    assert sent.hook.dropped == 0


async def test_the_end_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSING_SECONDS", 0.1)
    async with receiving() as receiver:
        receiver.open.clear()
        async with sender(to(receiver)) as sent:
            sent.hook.tell(ALERT)
            sent.hook.tell(percent(100))
            await receiver.have(1)
        assert sent.hook.dropped == 2


async def test_an_unforeseen_error_stops_nothing() -> None:
    async with receiving() as receiver, sender(to(receiver)) as sent:
        sent.policy = Webhook("x", url=receiver.url, secret="\ud800")  # cannot be encoded
        with capture_logs() as logs:
            sent.hook.tell(ALERT)
            await eventually(lambda: sent.hook.dropped == 1)
        assert logs[0]["reason"] == "UnicodeEncodeError"
        sent.policy = to(receiver)
        sent.hook.tell(ALERT)
        await receiver.have(1)


async def test_one_that_was_never_started_ends_in_peace() -> None:
    await AlertWebhook(HttpWire(), lambda: None, FakeClock()).close()


def test_nothing_shows_address_or_secret() -> None:
    shown = repr(Webhook("${HOOK}", "${SECRET}", "https://hooks.example.com/T0/PLANTED", "PLANTED"))
    assert "PLANTED" not in shown
    assert b"PLANTED" not in body_of(ALERT, 0.0)
