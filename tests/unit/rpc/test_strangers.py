from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from kit.clock import FakeClock
from pointsman_server.rpc.strangers import MOST_ADDRESSES, PERIOD_SECONDS, StrangersLog, address_of


def test_an_address_is_named_once_in_a_period() -> None:
    clock = FakeClock()
    log = StrangersLog(clock)
    with capture_logs() as lines:
        for _ in range(1_000):
            log.note("192.0.2.1", "/x.Y/Z", "unknown_key")
        log.note("192.0.2.2", "/x.Y/Z", "no_credentials")
        clock.advance(PERIOD_SECONDS)
        log.note("192.0.2.1", "/x.Y/Z", "expired_key")
    assert [(line["peer"], line["reason"], line["not_logged"]) for line in lines] == [
        ("192.0.2.1", "unknown_key", 0),
        ("192.0.2.2", "no_credentials", 999),
        ("192.0.2.1", "expired_key", 0),
    ]


def test_a_flood_from_everywhere_does_not_fill_the_log() -> None:
    clock = FakeClock()
    log = StrangersLog(clock)
    with capture_logs() as lines:
        for number in range(10_000):
            log.note(f"198.51.100.{number}", "/x.Y/Z", "unknown_key")
        clock.advance(PERIOD_SECONDS)
        log.note("192.0.2.1", "/x.Y/Z", "unknown_key")
    assert len(lines) == MOST_ADDRESSES + 1
    assert lines[-1]["not_logged"] == 10_000 - MOST_ADDRESSES


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
        ("ipv6:[::1]:50000", "::1"),
        ("unix:", "unix"),
        ("unix:/run/x.sock", "unix"),
        ("", ""),
    ],
)
def test_the_port_is_no_part_of_the_address(peer: str, address: str) -> None:
    assert address_of(peer) == address
