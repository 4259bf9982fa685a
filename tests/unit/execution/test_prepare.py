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
    FRAMING_TOKENS_PER_REQUEST,
    MOST_IMAGE_TOKENS,
    TYPICAL_IMAGE_TOKENS,
    core_of,
    estimate_tokens,
    measure,
    tokens_for,
)
from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Deployment, RoutingRule, RuleCondition
from pointsman_server.domain.context import ContextPolicy, Trim
from pointsman_server.domain.message import ImagePart, Message, Role, TextPart
from pointsman_server.domain.request import CompletionRequest, Document, GenerationConfig, RoutingConstraints
from pointsman_server.domain.tokenizer import CORRECTIONS, Tokenizer
from pointsman_server.execution.prepare import ON_LOOP_BYTES, SAMPLE_MARGIN, count_exactly, count_input, get_ready

CAPPED = RoutingConstraints(max_cost_micro_usd=100)
FRAMING = FRAMING_TOKENS_PER_REQUEST + FRAMING_TOKENS_PER_MESSAGE
"""Of a request with one message."""

LONG_CHARS = 400_000


def with_window(tokens: int, name: str = "", **of: Any) -> Deployment:
    fields = {"context_window_tokens": tokens, "max_output_tokens": 50, "tokenizer": Tokenizer.O200K, **of}
    return deployment(name or f"d{tokens}", of=fields)


def one_call(text: str = "hello", windows: tuple[int, ...] = (1_000, 100_000), **asked: Any) -> Call:
    policy = snapshot(*map(with_window, windows))
    return call(policy, request=request(**{"text": text, **asked}))


class ThreadCounter(CharacterCounter):
    """Remembers in which threads it counted."""

    def __init__(self, *, is_ready: bool = True) -> None:
        super().__init__(is_ready=is_ready)
        self.threads: set[threading.Thread] = set()

    def count(self, text: str) -> int:
        self.threads.add(threading.current_thread())
        return super().count(text)


class TestWindows:
    async def test_an_estimate_is_enough_where_nothing_depends_on_it(self) -> None:
        counter = CharacterCounter(is_ready=False)
        one = one_call()
        assert await count_input(one, counter) == estimate_tokens(one.request)
        assert (counter.counted, counter.warmed_in) == ([], [])

    @pytest.mark.parametrize(
        ("window", "counts"),
        [(FRAMING + 7, False), (FRAMING + 8, True), (FRAMING + 1_000, True), (FRAMING + 1_002, False)],
    )
    async def test_a_window_between_the_bounds_needs_a_count(self, window: int, counts: bool) -> None:
        # 1,000 bytes are 8 tokens to 1,000.
        tokens = await count_input(one_call("x" * 1_000, (window,)), CharacterCounter())
        assert tokens.exact is counts

    async def test_windows_that_are_surely_passed_or_surely_wide_need_none(self) -> None:
        assert not (await count_input(one_call("x" * 100_000, (500, 200_000)), CharacterCounter())).exact

    async def test_a_window_of_another_tokenizer_is_met_earlier(self) -> None:
        factor = CORRECTIONS[Tokenizer.CLAUDE].factor
        one = call(snapshot(with_window(1_300, tokenizer=Tokenizer.CLAUDE)), request=request("x" * 1_000))
        assert 1_000 < 1_300 < 1_000 * factor
        assert (await count_input(one, CharacterCounter())).exact
        assert not (await count_input(one_call("x" * 1_000, (1_300,)), CharacterCounter())).exact

    @pytest.mark.parametrize(
        ("names", "counts"),
        [
            ({"deployment": "narrow"}, True),
            ({"deployment": "wide"}, False),
            ({"deployment": "nobody"}, False),
            ({"constraints": RoutingConstraints(allowed_deployments=frozenset(["wide"]))}, False),
            ({"constraints": RoutingConstraints(denied_deployments=frozenset(["small"]))}, False),
            ({}, True),
        ],
    )
    async def test_only_deployments_that_can_be_chosen_matter(self, names: dict[str, Any], counts: bool) -> None:
        policy = snapshot(with_window(500, "narrow"), with_window(50_000, "wide"), aliases={"small": "narrow"})
        tokens = await count_input(call(policy, request=request("x" * 1_000, **names)), CharacterCounter())
        assert tokens.exact is counts

    async def test_a_provider_that_cannot_be_called_does_not_matter(self) -> None:
        narrow = deployment("narrow", of={"context_window_tokens": 500}, by={"unusable_because": "no key"})
        one = call(snapshot(narrow, with_window(50_000)), request=request("x" * 1_000))
        assert not (await count_input(one, CharacterCounter())).exact

    @pytest.mark.parametrize(("least", "counts"), [(0, False), (500, True), (5_000, False)])
    async def test_a_rule_for_long_inputs_is_an_edge_too(self, least: int, counts: bool) -> None:
        rule = RoutingRule("long", RuleCondition(least_input_tokens=least))
        one = call(snapshot(with_window(50_000), rules=(rule,)), request=request("x" * 1_000))
        assert (await count_input(one, CharacterCounter())).exact is counts


class TestSample:
    @pytest.mark.parametrize("off", [-2, 2])
    async def test_a_long_input_is_sampled_where_that_is_clear_enough(self, off: int) -> None:
        counter = ThreadCounter()
        window = int(LONG_CHARS * (1 + SAMPLE_MARGIN * off))
        one = one_call("é" * LONG_CHARS, (window,))
        tokens = await count_input(one, counter)
        assert not tokens.exact
        assert tokens.tokens == pytest.approx(LONG_CHARS, rel=0.01)
        assert tokens.upper_bound == estimate_tokens(one.request).upper_bound
        assert sum(map(len, counter.counted)) <= ON_LOOP_BYTES
        assert counter.threads == {threading.current_thread()}

    @pytest.mark.parametrize("off", [-0.9, 0.9])
    async def test_near_an_edge_a_long_input_is_counted(self, off: float) -> None:
        counter = ThreadCounter()
        tokens = await count_input(one_call("é" * LONG_CHARS, (int(LONG_CHARS * (1 + SAMPLE_MARGIN * off)),)), counter)
        assert tokens.exact
        assert tokens.tokens == LONG_CHARS + FRAMING
        assert threading.current_thread() in counter.threads
        assert len(counter.threads) == 2

    async def test_a_sample_never_leaves_the_bounds(self) -> None:
        class Overcounting(CharacterCounter):
            def count(self, text: str) -> int:
                return 10 * len(text)

        one = one_call("x" * LONG_CHARS, (LONG_CHARS // 2,))
        assert (await count_input(one, Overcounting())).tokens == measure(one.request).highest


class TestCost:
    async def test_a_cap_that_the_bounds_leave_open_needs_a_count(self) -> None:
        counter = CharacterCounter()
        tokens = await count_input(one_call("x" * 500, constraints=CAPPED), counter)
        assert counter.counted == ["x" * 500]
        assert tokens.exact
        assert tokens.tokens == 500 + FRAMING
        assert tokens.upper_bound >= tokens.tokens

    @pytest.mark.parametrize(("cap", "counts"), [(7, False), (8, True), (206, True), (207, False)])
    async def test_a_cap_that_is_surely_kept_or_surely_broken_needs_none(self, cap: int, counts: bool) -> None:
        # 100 bytes are 1 token to 100, at 1 micro-USD each; 50 tokens of output cost 2 each.
        assert (1 + FRAMING, 100 + FRAMING + 2 * 50) == (8, 207)
        generation = GenerationConfig(max_output_tokens=50)
        constraints = RoutingConstraints(max_cost_micro_usd=cap)
        one = one_call("x" * 100, constraints=constraints, generation=generation)
        assert (await count_input(one, CharacterCounter())).exact is counts

    async def test_a_sample_says_nothing_about_a_cap(self) -> None:
        constraints = RoutingConstraints(max_cost_micro_usd=LONG_CHARS // 2)
        one = one_call("x" * LONG_CHARS, (10 * LONG_CHARS,), constraints=constraints)
        assert (await count_input(one, CharacterCounter())).exact


class TestWhatMayBeLeftOut:
    DOCUMENT = Document("a", "y" * 1_000)
    ROOMY = 10_000

    def asked(self, window: int, trim: Trim = Trim.ALL, text: str = "x" * 500, **changes: Any) -> Call:
        history = (user("z" * 300), Message(Role.ASSISTANT, (TextPart("z" * 200),)))
        fields = {"messages": (*history, user(text)), "documents": (self.DOCUMENT,), **changes}
        return call(snapshot(with_window(window), context=ContextPolicy(trim)), request=CompletionRequest(**fields))

    async def test_a_count_tells_the_parts(self) -> None:
        tokens = await count_input(self.asked(1_000), CharacterCounter())
        assert tokens.exact
        assert tokens.history_tokens == 500 + 2 * FRAMING_TOKENS_PER_MESSAGE
        assert tokens.document_tokens > 1_000 + FRAMING_TOKENS_PER_MESSAGE
        assert core_of(tokens).tokens == 500 + FRAMING
        assert core_of(tokens).upper_bound >= 500 + FRAMING

    @pytest.mark.parametrize(
        ("trim", "documents", "history"),
        [(Trim.ALL, True, True), (Trim.DOCUMENTS, True, False), (Trim.NEVER, False, False)],
    )
    async def test_the_policy_says_what_they_are(self, trim: Trim, documents: bool, history: bool) -> None:
        tokens = await count_input(self.asked(1_000, trim), CharacterCounter())
        assert (bool(tokens.document_tokens), bool(tokens.history_tokens)) == (documents, history)
        assert tokens.tokens == (await count_input(self.asked(1_000), CharacterCounter())).tokens

    async def test_without_documents_history_is_what_may_go(self) -> None:
        tokens = await count_input(self.asked(700, documents=()), CharacterCounter())
        assert (tokens.document_tokens, tokens.history_tokens) == (0, 508)

    @pytest.mark.parametrize(("window", "counts"), [(ROOMY, False), (2_400, True), (FRAMING + 3, False), (400, True)])
    async def test_windows_are_compared_with_all_and_with_what_may_not_go(self, window: int, counts: bool) -> None:
        tokens = await count_input(self.asked(window), CharacterCounter())
        assert tokens.exact is counts
        assert tokens.document_tokens > 0
        assert tokens.history_tokens > 0

    @pytest.mark.parametrize(("window", "counts"), [(100_000, False), (LONG_CHARS, True), (2 * LONG_CHARS, False)])
    async def test_long_documents_are_sampled_where_that_is_clear(self, window: int, counts: bool) -> None:
        long = Document("a", "é" * LONG_CHARS)
        tokens = await count_input(self.asked(window, documents=(long,)), CharacterCounter())
        assert tokens.exact is counts
        assert tokens.document_tokens == pytest.approx(LONG_CHARS, rel=0.05)
        assert tokens.history_tokens == pytest.approx(508, abs=20)

    async def test_a_long_history_is_sampled_too(self) -> None:
        history = user("é" * LONG_CHARS), Message(Role.ASSISTANT, (TextPart("z" * 200),))
        one = self.asked(LONG_CHARS // 4, messages=(*history, user("x" * 500)), documents=())
        tokens = await count_input(one, CharacterCounter())
        assert not tokens.exact
        assert tokens.history_tokens == pytest.approx(LONG_CHARS, rel=0.02)
        assert tokens.document_tokens == 0


class TestCounting:
    async def test_images_are_counted_as_typical_ones_and_bounded_by_the_largest(self) -> None:
        image = Message(Role.USER, (TextPart("abc"), ImagePart(b"x", "image/png")))
        tokens = await count_exactly(request(messages=(image,)), CharacterCounter())
        assert tokens.tokens == 3 + FRAMING + TYPICAL_IMAGE_TOKENS
        assert tokens.upper_bound >= 3 + FRAMING + MOST_IMAGE_TOKENS

    async def test_a_small_input_is_counted_on_the_loop(self) -> None:
        counter = ThreadCounter()
        await count_input(one_call("x" * 1_000, (500,)), counter)
        assert counter.threads == {threading.current_thread()}

    async def test_an_exact_count_is_made_in_a_thread(self) -> None:
        counter = ThreadCounter()
        await count_exactly(request("x"), counter)
        assert threading.current_thread() not in counter.threads

    async def test_a_counter_gets_ready_in_a_thread_and_once(self) -> None:
        counter = CharacterCounter(is_ready=False)
        await count_input(one_call("x" * 1_000, (500,)), counter)
        await get_ready(counter)
        assert len(counter.warmed_in) == 1
        assert counter.warmed_in[0] is not threading.current_thread()


TIKTOKEN = TiktokenCounter()


@examples(60)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
async def test_an_exact_count_stays_below_both_bounds(texts: list[str]) -> None:
    asked = request(messages=tuple(user(text) for text in texts))
    counted = await count_exactly(asked, TIKTOKEN)
    assert counted.tokens <= counted.upper_bound
    assert counted.tokens <= estimate_tokens(asked).upper_bound


@examples(40)
@given(st.text("ab .é日\n", max_size=40), st.integers(1, 130), st.integers(1, 9_000), st.sampled_from(Tokenizer))
async def test_the_window_is_decided_as_a_count_would(text: str, times: int, window: int, tokenizer: Tokenizer) -> None:
    one = call(snapshot(with_window(window, tokenizer=tokenizer)), request=request(text * times))
    (only,) = one.snapshot.deployments.values()
    told, counted = await count_input(one, TIKTOKEN), await count_exactly(one.request, TIKTOKEN)
    assert (tokens_for(only, told).tokens >= window) is (tokens_for(only, counted).tokens >= window)
