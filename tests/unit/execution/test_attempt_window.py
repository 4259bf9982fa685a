from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.execution.attempt_window import CELLS, AttemptWindow

SECONDS = 30.0
pauses = st.one_of(st.just(0.0), st.floats(0.0, 3.0), st.floats(20.0, 100.0))


def test_nothing_seen() -> None:
    window = AttemptWindow(SECONDS)
    assert (window.attempts, window.failures) == (0, 0)


def test_attempts_are_counted_until_they_are_too_old() -> None:
    window = AttemptWindow(SECONDS)
    window.add(100.0, failed=True)
    window.add(128.9, failed=False)
    assert (window.attempts, window.failures) == (2, 1)
    window.add(130.0, failed=False)
    assert (window.attempts, window.failures) == (2, 0)


def test_what_was_counted_can_be_forgotten() -> None:
    window = AttemptWindow(SECONDS)
    window.add(5.0, failed=True)
    window.clear()
    window.add(5.0, failed=False)
    assert (window.attempts, window.failures) == (1, 0)


@examples(300)
@given(st.lists(st.tuples(pauses, st.booleans()), max_size=60), st.sampled_from([0.001, 1.0, 30.0, 3_600.0]))
def test_it_slides(history: list[tuple[float, bool]], seconds: float) -> None:
    window, now = AttemptWindow(seconds), 1_000.0
    seen: list[tuple[float, bool]] = []
    for pause, failed in history:
        now += pause * seconds / SECONDS
        window.add(now, failed=failed)
        seen.append((now, failed))
        cell = seconds / CELLS
        surely = [bad for at, bad in seen if now - at < seconds - cell * 1.001]
        at_most = [bad for at, bad in seen if now - at < seconds * 1.001]
        assert len(surely) <= window.attempts <= len(at_most)
        assert sum(surely) <= window.failures <= sum(at_most)
        assert 0 <= window.failures <= window.attempts
