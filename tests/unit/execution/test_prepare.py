from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import call, deployment, request, snapshot, user
from kit.properties import examples
from kit.scripted import CharacterCounter
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.decision.tokens import (
    FRAMING_TOKENS_PER_MESSAGE,
    MOST_IMAGE_TOKENS,
    TYPICAL_IMAGE_TOKENS,
    estimate_tokens,
)
from pointsman_server.domain.call import Call
from pointsman_server.domain.message import ImagePart, Message, Role, TextPart
from pointsman_server.domain.request import RoutingConstraints
from pointsman_server.execution.prepare import ON_LOOP_BYTES, OTHER_TOKENIZER_MARGIN, count_input, get_ready

CAPPED = RoutingConstraints(max_cost_micro_usd=100)


def one_call(text: str = "hello", windows: tuple[int, ...] = (1_000, 100_000), **asked: Any) -> Call:
    deployments = [deployment(f"d{window}", of={"context_window_tokens": window}) for window in windows]
    return call(snapshot(*deployments), request=request(**{"text": text, **asked}))


class ThreadCounter(CharacterCounter):
    """Remembers in which threads it counted."""

    def __init__(self, *, is_ready: bool = True) -> None:
        super().__init__(is_ready=is_ready)
        self.threads: set[threading.Thread] = set()

    def count(self, text: str) -> int:
        self.threads.add(threading.current_thread())
        return super().count(text)


async def test_an_estimate_is_enough_where_nothing_depends_on_it() -> None:
    counter = CharacterCounter()
    one = one_call()
    assert await count_input(one, counter) == estimate_tokens(one.request)
    assert counter.counted == []


async def test_a_cost_cap_needs_a_count() -> None:
    counter = CharacterCounter()
    tokens = await count_input(one_call(constraints=CAPPED), counter)
    assert counter.counted == ["hello"]
    assert tokens.exact
    assert tokens.tokens == 5 + FRAMING_TOKENS_PER_MESSAGE
    assert tokens.upper_bound >= 5 * OTHER_TOKENIZER_MARGIN + FRAMING_TOKENS_PER_MESSAGE


@pytest.mark.parametrize(("length", "counts"), [(900, False), (1_100, True)])
async def test_the_smallest_window_needs_a_count(length: int, counts: bool) -> None:
    tokens = await count_input(one_call("x" * length), CharacterCounter())
    assert tokens.exact is counts


async def test_the_edge_of_the_smallest_window_needs_a_count() -> None:
    bound = estimate_tokens(request("hello")).upper_bound
    assert (await count_input(one_call(windows=(bound,)), CharacterCounter())).exact
    assert not (await count_input(one_call(windows=(bound + 1,)), CharacterCounter())).exact


async def test_images_are_counted_as_typical_ones_and_bounded_by_the_largest() -> None:
    image = Message(Role.USER, (TextPart("abc"), ImagePart(b"x", "image/png")))
    tokens = await count_input(one_call(messages=(image,), constraints=CAPPED), CharacterCounter())
    assert tokens.tokens == 3 + FRAMING_TOKENS_PER_MESSAGE + TYPICAL_IMAGE_TOKENS
    assert tokens.upper_bound >= 3 + FRAMING_TOKENS_PER_MESSAGE + MOST_IMAGE_TOKENS


@pytest.mark.parametrize(
    ("length", "is_ready", "on_loop"), [(1_000, True, True), (1_000, False, False), (ON_LOOP_BYTES + 1, True, False)]
)
async def test_large_texts_and_slow_beginnings_are_left_to_a_thread(length: int, is_ready: bool, on_loop: bool) -> None:
    counter = ThreadCounter(is_ready=is_ready)
    await count_input(one_call("x" * length, constraints=CAPPED), counter)
    assert (counter.threads == {threading.current_thread()}) is on_loop


async def test_a_counter_gets_ready_in_a_thread_and_once() -> None:
    counter = CharacterCounter(is_ready=False)
    await get_ready(counter)
    await get_ready(counter)
    assert len(counter.warmed_in) == 1
    assert counter.warmed_in[0] is not threading.current_thread()


TIKTOKEN = TiktokenCounter()


@examples(60)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
async def test_an_exact_count_stays_below_both_bounds(texts: list[str]) -> None:
    messages = tuple(user(text) for text in texts)
    counted = await count_input(one_call(messages=messages, constraints=CAPPED), TIKTOKEN)
    assert counted.tokens <= counted.upper_bound
    assert counted.tokens <= estimate_tokens(request(messages=messages)).upper_bound
