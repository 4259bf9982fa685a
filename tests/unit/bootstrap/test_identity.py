from __future__ import annotations

import re
import time

from pointsman_server.bootstrap.identity import RandomIds, SystemClock


def test_ids_differ_and_name_their_kind() -> None:
    ids = RandomIds()
    made = {ids.new("req") for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", one) for one in made)


def test_two_generators_do_not_repeat_each_other() -> None:
    assert RandomIds().new("a") != RandomIds().new("a")


def test_the_clocks_are_the_systems() -> None:
    clock = SystemClock()
    before = time.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()
    assert abs(clock.now() - time.time()) < 5
