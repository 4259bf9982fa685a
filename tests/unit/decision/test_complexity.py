from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import request, user
from kit.properties import examples
from pointsman_server.decision import complexity
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.decision.learned import shipped_judge
from pointsman_server.domain.message import ImagePart, Message, Role, TextPart, ToolCallPart, ToolResultPart
from pointsman_server.domain.plan import Complexity, Factor, TaskType
from pointsman_server.domain.request import CompletionRequest, GenerationConfig, ReasoningEffort, Tier

EASY = "What is the capital of France?"
HARD = (
    "Design the migration of our payment ledger to three regions without downtime: strict consistency, at most 1 % of "
    "writes delayed, two teams, a fixed budget. Weigh two architectures, their failure modes and the way back."
)
FACTORS = {"wording", "need_of_strong_model", "familiar", "unsure", "follow_up", "reasoning_effort"}


def judge(*messages: Message | str, effort: ReasoningEffort | None = None) -> Complexity:
    """The judgement of these messages; texts are the user's."""
    said = tuple(user(one) if isinstance(one, str) else one for one in messages)
    return judge_complexity(request(messages=said, generation=GenerationConfig(reasoning_effort=effort)))


def system(text: str) -> Message:
    return Message(Role.SYSTEM, (TextPart(text),))


def assistant(text: str) -> Message:
    return Message(Role.ASSISTANT, (TextPart(text),))


def is_valid(judged: Complexity) -> bool:
    """Whether score, tier, probabilities and factors hold together."""
    return (
        0.0 <= judged.score <= 1.0
        and math.isclose(sum(judged.tier_probabilities), 1.0, abs_tol=1e-9)
        and all(0.0 <= one <= 1.0 for one in judged.tier_probabilities)
        and {factor.name for factor in judged.factors} <= FACTORS
        and all(math.isfinite(factor.value) for factor in judged.factors)
        and math.isfinite(judged.difficulty)
        and judged.discrimination > 0
    )


def test_easy_and_hard_are_told_apart() -> None:
    assert judge(EASY).tier is Tier.LIGHT
    assert judge(HARD).tier is Tier.ADVANCED


class TestWhatDecides:
    def test_the_last_user_text(self) -> None:
        assert judge(HARD, assistant("Here is a plan."), EASY) == judge(EASY)
        assert judge(EASY, assistant("Paris."), HARD) == judge(HARD)

    def test_neither_answers_nor_tools_do(self) -> None:
        call = Message(Role.ASSISTANT, (ToolCallPart("c1", "look_up", "{}"),))
        result = Message(Role.TOOL, (ToolResultPart("c1", HARD),))
        assert judge(EASY, call, result, assistant(HARD)) == judge(EASY)

    def test_a_blank_turn_says_nothing(self) -> None:
        assert judge(HARD, "  \n ") == judge(HARD)

    def test_a_turn_without_text_says_nothing(self) -> None:
        image = Message(Role.USER, (ImagePart(b"x", "image/png"),))
        assert judge(HARD, image) == judge(HARD)

    def test_text_parts_are_one_text(self) -> None:
        half = len(HARD) // 2
        parts = Message(Role.USER, (TextPart(HARD[:half]), TextPart(HARD[half:])))
        assert judge(parts) == judge(HARD)

    def test_without_a_user_the_last_text_does(self) -> None:
        assert judge(system(HARD)) == judge(HARD)
        assert judge(system(HARD), assistant(EASY)) == judge(EASY)


class TestFollowUps:
    @pytest.mark.parametrize("text", ["and in 2019?", "Go on.", "yes", " why? \n", "…", "还有呢"])
    def test_a_few_words_take_the_ask_before_them(self, text: str) -> None:
        alone, followed = judge(text), judge(HARD, assistant("Well."), text)
        assert followed.score == max(alone.score, judge(HARD).score)
        assert followed.tier is Tier.ADVANCED

    def test_it_is_told(self) -> None:
        factors = dict(judge(HARD, assistant("Well."), "Go on.").factors)
        assert factors["follow_up"] == pytest.approx(max(judge(HARD).score - judge("Go on.").score, 0.0))

    def test_a_harder_tier_counts_even_at_a_lower_score(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The score also tells the need of a strong model, so it need not rise with the tier."""
        known = {
            "first": Complexity(0.3, Tier.ADVANCED, (Factor("wording", 0.9),), task=TaskType.PLANNING),
            "go on": Complexity(0.7, Tier.LIGHT, (Factor("wording", 0.1),)),
        }
        monkeypatch.setattr(
            complexity, "shipped_judge", lambda: SimpleNamespace(judge=lambda text, background="": known[text])
        )
        judged = judge("first", "go on")
        assert (judged.tier, judged.score, judged.task) == (Tier.ADVANCED, 0.7, TaskType.PLANNING)
        assert judged.factors == (Factor("wording", 0.9), Factor("follow_up", 0.0))

    def test_only_the_ask_right_before_counts(self) -> None:
        assert judge(HARD, EASY, "yes").tier == max(judge(EASY).tier, judge("yes").tier)

    def test_they_never_make_it_easier(self) -> None:
        assert judge(EASY, assistant("Paris."), "Prove Goldbach's conjecture").score >= judge(EASY).score
        alone = judge("Prove the theorem.")
        assert judge("hi", "Prove the theorem.").score >= alone.score

    @pytest.mark.parametrize("text", ["Where is the Louvre, by the way?", "x" * 61, "法国的首都是哪里？"])  # noqa: RUF001
    def test_a_whole_ask_stands_for_itself(self, text: str) -> None:
        assert judge(HARD, assistant("Well."), text) == judge(text)

    def test_a_first_turn_follows_nothing(self) -> None:
        assert "follow_up" not in dict(judge("Go on.").factors)


class TestSystemPrompt:
    PERSONA = "You are a friendly assistant of a travel agency. Be brief."
    MATERIAL = (
        "The bridge was closed on 3 May after the inspection. Two bearings had moved. Repairs took nine weeks.\n"
        "The parish paid a third of the cost, the county the rest. Traffic went through Oldham meanwhile.",
        "From: Karin\nDate: 4 June\n\nThe parcel came two days late and the box was open. The lamp works, the shade "
        "has a dent. My neighbour took it in because I was at work.",
        "08:14 boiler on, 61 degrees\n08:20 boiler off\n08:41 boiler on, 58 degrees\n09:02 pressure 1.4 bar",
    )

    def material(self) -> str:
        """A text that asks for nothing, as the shipped judge sees it."""
        hear = shipped_judge().wording.hear
        return next(text for text in self.MATERIAL if not hear(text).asks_clearly)

    def test_it_does_not_count_where_the_user_asks(self) -> None:
        assert judge(system(self.PERSONA), EASY) == judge(EASY)
        assert judge(system(HARD), EASY) == judge(EASY)

    def test_it_counts_where_the_users_text_asks_nothing(self) -> None:
        material = self.material()
        assert judge(system(HARD), material) == judge(f"{HARD}\n\n{material}")

    def test_an_empty_one_does_not_count(self) -> None:
        material = self.material()
        assert judge(system(""), material) == judge(material)


class TestReasoningEffort:
    @pytest.mark.parametrize("effort", [None, *ReasoningEffort])
    @pytest.mark.parametrize("text", [EASY, HARD, "Write a function that merges two sorted lists.", ""])
    def test_it_never_lowers(self, effort: ReasoningEffort | None, text: str) -> None:
        judged = judge(text, effort=effort)
        assert judged.score >= judge(text).score
        assert judged.tier >= judge(text).tier
        assert is_valid(judged)

    def test_high_effort_is_more_than_a_light_request(self) -> None:
        judged = judge(EASY, effort=ReasoningEffort.HIGH)
        assert judged.tier is Tier.STANDARD
        raised = min(1 / 3, 1.0 - judge(EASY).score)
        assert judged.score == pytest.approx(judge(EASY).score + raised)
        assert dict(judged.factors)["reasoning_effort"] == pytest.approx(raised)

    def test_the_score_stays_a_score(self, monkeypatch: pytest.MonkeyPatch) -> None:
        light = Complexity(0.9, Tier.LIGHT, ())
        monkeypatch.setattr(
            complexity, "shipped_judge", lambda: SimpleNamespace(judge=lambda text, background="": light)
        )
        judged = judge("anything", effort=ReasoningEffort.HIGH)
        assert (judged.score, judged.tier) == (1.0, Tier.STANDARD)
        assert dict(judged.factors)["reasoning_effort"] == pytest.approx(0.1)

    def test_less_effort_and_harder_requests_stay_as_judged(self) -> None:
        assert judge(EASY, effort=ReasoningEffort.MEDIUM) == judge(EASY)
        assert judge(HARD, effort=ReasoningEffort.HIGH) == judge(HARD)


ODD = [
    "",
    " \n\t",
    "?",
    "\x00\x01",
    "​",
    "🙂" * 500,
    "a" * 5_000,
    "\n" * 5_000 + "x",
    "```",
    "…:\n\n:",
    "\ud800",
    "İ" * 90,
]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_judged(text: str) -> None:
    assert is_valid(judge(text))
    assert is_valid(judge(HARD, text))


@pytest.mark.parametrize("messages", [(), (user(""),), (system(""), user(" "))])
def test_nothing_asked_is_light(messages: tuple[Message, ...]) -> None:
    judged = judge(*messages)
    assert (judged.score, judged.tier, judged.factors) == (0.0, Tier.LIGHT, ())


texts = st.text(max_size=200) | st.lists(
    st.sampled_from(("prove", "explain", "must", "def f(", "3 + 4", "{\n", "hello", "\n- ", "SELECT a", "日本", "؟ ")),
    max_size=60,
).map(" ".join)
turns = st.builds(
    lambda role, text: Message(role, (TextPart(text),)),
    st.sampled_from((Role.SYSTEM, Role.USER, Role.ASSISTANT)),
    texts,
)


class TestAnything:
    @examples(200)
    @given(st.lists(turns, max_size=4), st.sampled_from((None, *ReasoningEffort)))
    def test_gives_a_valid_judgement_and_always_the_same(
        self, messages: list[Message], effort: ReasoningEffort | None
    ) -> None:
        judged = judge(*messages, effort=effort)
        assert is_valid(judged)
        assert judge(*messages, effort=effort) == judged


HOSTILE = {
    "line breaks": "\n" * 3_999 + "x",
    "spaces": " " * 3_999 + "x",
    "keywords": "SELECT " * 570,
    "digits": "1" * 3_999 + "x",
    "braces": "{ " * 1_999 + "x",
    "sentence marks": "?!. " * 1_000,
    "lines": "a\n" * 2_000,
    "backslashes": "\\" + "w" * 3_998,
}
PROSE = "The quick brown fox jumps over the lazy dog. "
SHORT, LONG = (PROSE * 100)[:4_000], (PROSE * 10_000)[:400_000]


class TestTime:
    """Ratios of processor time, with room: a pattern that backtracks, or one pass over a long text, needs far more."""

    @pytest.mark.parametrize("name", HOSTILE)
    def test_no_text_costs_much_more_than_prose_of_its_length(self, name: str) -> None:
        assert cpu_seconds(request(HOSTILE[name])) < 10 * cpu_seconds(request(SHORT))

    def test_a_text_a_hundred_times_as_long_costs_about_the_same(self) -> None:
        assert cpu_seconds(request(LONG)) < 4 * cpu_seconds(request(SHORT))

    @pytest.mark.parametrize("around", [(user("Hello"),), (system("You are kind."),), (user(LONG), user(LONG))])
    def test_nor_after_other_turns(self, around: tuple[Message, ...]) -> None:
        long, short = (request(messages=(*around, user(text))) for text in (LONG, SHORT))
        assert cpu_seconds(long) < 4 * cpu_seconds(short)

    def test_nor_without_a_user(self) -> None:
        long, short = (request(messages=(system(text),)) for text in (LONG, SHORT))
        assert cpu_seconds(long) < 4 * cpu_seconds(short)


class TestMemory:
    @examples(100)
    @given(st.lists(turns, min_size=1, max_size=4))
    def test_a_judgement_is_the_same_whatever_was_judged_before(self, messages: list[Message]) -> None:
        judged = judge(*messages)
        shipped_judge().forget()
        assert judge(*messages) == judged


def cpu_seconds(asked: CompletionRequest) -> float:
    """The least of some tries, so that a busy machine does not spoil the comparison; each is of a text never seen."""
    spent = []
    for _ in range(7):
        shipped_judge().forget()
        started_at = time.process_time()
        judge_complexity(asked)
        spent.append(time.process_time() - started_at)
    return min(spent)
