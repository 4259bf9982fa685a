"""When a canary does far worse than the calls beside it, in one process and in several together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.execution.canary_samples import (
    LEAST_SAMPLES,
    MOST_SAMPLES,
    Samples,
    Together,
    verdict_on,
)


def samples(count: int, failed: int = 0, seconds: float = 1.0) -> Samples:
    some = Samples()
    some.failed.extend([True] * failed + [False] * (count - failed))
    some.seconds.extend([seconds] * (count - failed))
    return some


class TestVerdict:
    @pytest.mark.parametrize(
        ("canary", "control", "ends"),
        [
            (samples(50, failed=11), samples(500, failed=50), True),
            (samples(50, failed=10), samples(500, failed=50), False),
            (samples(49, failed=49), samples(500), False),
            (samples(50, failed=2), samples(500), True),
            (samples(50, failed=1), samples(500), False),
            (samples(50, failed=50), samples(0), True),
            (samples(50), samples(50), False),
            (samples(0), samples(0), False),
            (samples(50, seconds=2.1), samples(50), True),
            (samples(50, seconds=2.0), samples(50), False),
            (samples(49, seconds=9.0), samples(500), False),
            (samples(500, seconds=9.0), samples(49), False),
        ],
    )
    def test_table(self, canary: Samples, control: Samples, ends: bool) -> None:
        assert bool(verdict_on(canary, control)) is ends

    def test_it_says_why(self) -> None:
        assert verdict_on(samples(50, failed=25), samples(100)) == "50.0% of its calls failed, 0.0% of the others"
        assert verdict_on(samples(50, seconds=3.0), samples(100)) == (
            "95 % of its answers came within 3.00 s, those of the others within 1.00 s"
        )

    def test_a_few_slow_ones_do_not_count(self) -> None:
        some = samples(100)
        some.seconds.extend([60.0] * 4)
        assert verdict_on(some, samples(100)) == ""
        some.seconds.extend([60.0] * 4)
        assert verdict_on(some, samples(100))

    def test_it_forgets_what_is_long_ago(self) -> None:
        some = samples(MOST_SAMPLES * 3)
        some.failed.extend([True] * MOST_SAMPLES)
        assert some.error_rate == 1.0

    @examples(200)
    @given(st.integers(LEAST_SAMPLES, 500), st.integers(0, 500), st.integers(LEAST_SAMPLES, 500), st.data())
    def test_who_does_no_worse_goes_on(self, count: int, others: int, other_count: int, data: st.DataObject) -> None:
        others = min(others, other_count)
        rate = others / other_count
        failed = data.draw(st.integers(0, int(rate * count)))
        assert verdict_on(samples(count, failed), samples(other_count, others)) == ""


class TestTogether:
    def test_the_failures_of_all_processes_count(self) -> None:
        few = samples(20, failed=10)
        assert verdict_on(few, samples(1_000)) == ""
        assert verdict_on(Together(few, [samples(20).tally()]), samples(1_000)) == ""
        others = [samples(20).tally(), samples(10).tally()]
        assert verdict_on(Together(few, others), samples(1_000)) == "20.0% of its calls failed, 0.0% of the others"
        assert verdict_on(Together(few, others), Together(samples(0), [samples(100, failed=20).tally()])) == ""

    def test_the_times_of_all_processes_count(self) -> None:
        slow, usual = samples(30, seconds=3.0), samples(30, seconds=1.0)
        assert verdict_on(slow, usual) == ""
        both = Together(slow, [slow.tally()]), Together(usual, [usual.tally()])
        assert verdict_on(*both).startswith("95 % of its answers came within 3.0")

    @examples(200)
    @given(st.lists(st.lists(st.floats(0.001, 600.0), max_size=100), min_size=1, max_size=4))
    def test_together_is_as_if_one_had_seen_all_within_the_steps(self, parts: list[list[float]]) -> None:
        all_of_it, each = Samples(), []
        for part in parts:
            one = Samples()
            one.seconds.extend(part)
            one.failed.extend([seconds > 300.0 for seconds in part])
            all_of_it.seconds.extend(part)
            all_of_it.failed.extend(one.failed)
            each.append(one)
        together = Together(each[0], [one.tally() for one in each[1:]])
        assert (together.calls, together.answers) == (all_of_it.calls, all_of_it.answers)
        assert together.error_rate == all_of_it.error_rate
        assert together.slow_seconds == pytest.approx(all_of_it.slow_seconds, rel=0.026)

    def test_alone_it_is_what_was_measured(self) -> None:
        one = samples(100, failed=3, seconds=0.123)
        assert (Together(one).error_rate, Together(one).slow_seconds) == (0.03, 0.123)
