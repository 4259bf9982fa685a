from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS, Grant, Want, WindowCount, seconds_until_free

COUNTS = st.dictionaries(st.integers(1, HELD_GRAINS + 60), st.integers(1, 9), max_size=8)


class TestWindow:
    def test_a_minute_after_its_last_use_something_does_not_count(self) -> None:
        count = WindowCount([(100, 5)])
        # Taken in grain 100, it may be used until grain 102 begins.
        a_minute_later = 102 + round(60 / GRAIN_SECONDS)
        count.look(a_minute_later - 1)
        assert count.take(Want("n", 1, 1, 5), a_minute_later - 0.1).amount == 0
        count.look(a_minute_later)
        assert count.take(Want("n", 1, 1, 5), a_minute_later).amount == 1

    def test_a_grant_may_be_used_until_the_end_of_the_next_grain(self) -> None:
        assert WindowCount().take(Want("n", 1, 1, 5), 100.0).usable_seconds == 2 * GRAIN_SECONDS
        assert WindowCount().take(Want("n", 1, 1, 5), 100.75).usable_seconds == 1.25 * GRAIN_SECONDS

    @given(COUNTS)
    @examples(200)
    def test_looking_forgets_what_is_old_and_nothing_else(self, counts: dict[int, int]) -> None:
        now = HELD_GRAINS + 30
        count = WindowCount(counts.items())
        count.look(now)
        assert sum(count.counts.values()) == sum(amount for grain, amount in counts.items() if grain > 30)
        assert all(30 < grain <= now for grain in count.counts)


class TestWaiting:
    def test_more_than_the_limit_is_never_free(self) -> None:
        assert seconds_until_free(6, 5, Grant(0, 100, 0.5, 5)) is None

    @given(COUNTS, st.integers(1, 30), st.integers(0, 30), st.floats(0.0, 0.99))
    @examples(500)
    def test_is_as_long_as_it_must_be_and_no_longer(
        self, counts: dict[int, int], need: int, more: int, offset: float
    ) -> None:
        limit, moment = need + more, HELD_GRAINS + 60 + offset
        count = WindowCount(counts.items())
        count.look(int(moment))
        grant = count.take(Want("n", need, need, limit), moment)
        if grant.amount:
            return
        seconds = seconds_until_free(need, limit, grant)
        assert seconds is not None
        then = moment + seconds / GRAIN_SECONDS
        before, after = WindowCount(count.counts.items()), WindowCount(count.counts.items())
        before.look(int(then - 0.01))
        assert before.take(Want("n", need, need, limit), then - 0.01).amount == 0
        after.look(int(then + 0.01))
        assert after.take(Want("n", need, need, limit), then + 0.01).amount == need
