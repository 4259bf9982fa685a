from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.clock import FakeClock
from kit.properties import examples
from kit.remembering import VerdictList
from pointsman_server.domain.errors import RequestNotFound
from pointsman_server.domain.experience import NO_EXPERIENCE, PRIOR_VERDICTS, Lesson, Verdicts
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution import feedback
from pointsman_server.execution.feedback import (
    HALF_LIFE_SECONDS,
    MOST_WEIGHT_PER_TENANT,
    VIEW_SECONDS,
    FeedbackBook,
)

CODE = Lesson("m", TaskType.CODE, Tier.STANDARD)


class Book:
    """A book with its clock and log."""

    def __init__(self) -> None:
        self.clock, self.log = FakeClock(), VerdictList()
        self.book = FeedbackBook(self.clock, self.log)

    def judged(self, score: float, request_id: str = "r", tenant: str = "", label: str = "", **lesson: Any) -> None:
        """An answer and the verdict on it."""
        self.book.answered(request_id, tenant, CODE._replace(**lesson))
        self.book.judge(request_id, tenant, score, label)

    def verdicts(self, task: TaskType = TaskType.CODE, band: Tier = Tier.STANDARD, model: str = "m") -> Verdicts:
        return self.book.experience(task, band).verdicts.get(model, Verdicts(0.0, 0.0))


@pytest.fixture
def book() -> Book:
    return Book()


class TestJudging:
    def test_a_verdict_teaches_about_requests_like_it(self, book: Book) -> None:
        book.judged(0.25)
        assert book.verdicts() == Verdicts(0.25, 1.0)
        assert book.verdicts(band=Tier.LIGHT) == Verdicts(0.0, 0.0)
        assert book.verdicts(task=TaskType.CHAT) == Verdicts(0.0, 0.0)
        assert book.verdicts(model="n") == Verdicts(0.0, 0.0)

    def test_it_is_kept(self, book: Book) -> None:
        book.judged(0.25)
        assert book.log.kept == [Verdict("r", "", CODE, 0.25, book.clock.now())]

    def test_verdicts_add_up(self, book: Book) -> None:
        for place in range(4):
            book.judged(0.5, f"r{place}")
        assert book.verdicts() == Verdicts(2.0, 4.0)

    def test_a_second_one_replaces_the_first(self, book: Book) -> None:
        book.judged(0.0)
        book.judged(0.5, "other")
        book.clock.advance(86_400.0)
        book.book.judge("r", "", 1.0, "")
        total, weight = book.verdicts()
        assert weight == pytest.approx(2.0, rel=0.05)
        assert total / weight == pytest.approx(0.75, rel=0.02)
        assert len(book.log.kept) == 3

    @pytest.mark.parametrize(("label", "task"), [("mathematics", TaskType.MATHEMATICS), ("accuracy", TaskType.CODE)])
    def test_a_label_that_names_a_task_overrules_the_judged_one(self, book: Book, label: str, task: TaskType) -> None:
        book.judged(1.0, label=label)
        assert book.verdicts(task=task) == Verdicts(1.0, 1.0)
        assert book.log.kept[0].lesson.task is task

    def test_a_replacement_may_teach_about_something_else(self, book: Book) -> None:
        book.judged(1.0)
        book.book.judge("r", "", 1.0, "chat")
        assert book.verdicts(task=TaskType.CHAT) == Verdicts(1.0, 1.0)
        assert book.verdicts().weight == 0.0

    def test_what_was_never_answered_cannot_be_judged(self, book: Book) -> None:
        with pytest.raises(RequestNotFound):
            book.book.judge("r", "", 1.0, "")
        assert book.log.kept == []

    def test_nor_what_another_tenant_was_answered(self, book: Book) -> None:
        book.book.answered("r", "a", CODE)
        with pytest.raises(RequestNotFound):
            book.book.judge("r", "b", 1.0, "")

    def test_nor_what_was_answered_too_many_answers_ago(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feedback, "MOST_ANSWERS", 3)
        for place in range(4):
            book.book.answered(f"r{place}", "", CODE)
        with pytest.raises(RequestNotFound):
            book.book.judge("r0", "", 1.0, "")
        book.book.judge("r1", "", 1.0, "")


class Elsewhere:
    """Answers of other processes."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Lesson]] = []
        self.asked: list[tuple[str, str]] = []
        self.verdicts: list[Verdict] = []

    def tell(self, verdict: Verdict) -> None:
        """See `Answers.tell`."""
        self.verdicts.append(verdict)

    def keep(self, request_id: str, tenant: str, lesson: Lesson) -> None:
        """See `Answers.keep`."""
        self.told.append((request_id, tenant, lesson))

    async def find(self, request_id: str, tenant: str) -> Lesson | None:
        """See `Answers.find`."""
        self.asked.append((request_id, tenant))
        return CODE if (request_id, tenant) == ("r", "a") else None


class TestElsewhere:
    @pytest.fixture
    def elsewhere(self) -> Elsewhere:
        return Elsewhere()

    @pytest.fixture
    def here(self, book: Book, elsewhere: Elsewhere) -> Book:
        book.book = FeedbackBook(book.clock, book.log, elsewhere)
        return book

    async def test_an_answer_of_another_process_is_judged_here(self, here: Book, elsewhere: Elsewhere) -> None:
        for _ in range(2):
            await here.book.look_up("r", "a")
        here.book.judge("r", "a", 0.25, "")
        assert here.verdicts() == Verdicts(0.25, 1.0)
        assert elsewhere.asked == [("r", "a")], "what is known is not asked for"

    @pytest.mark.parametrize(("request_id", "tenant"), [("r", "b"), ("s", "a")])
    async def test_what_nobody_answered_for_this_tenant_is_not(self, here: Book, request_id: str, tenant: str) -> None:
        await here.book.look_up("r", "a")
        await here.book.look_up(request_id, tenant)
        with pytest.raises(RequestNotFound):
            here.book.judge(request_id, tenant, 1.0, "")

    def test_two_tenants_may_call_their_requests_the_same(self, here: Book) -> None:
        here.book.answered("same", "a", CODE)
        here.book.answered("same", "b", CODE._replace(model_id="n"))
        here.book.judge("same", "a", 1.0, "")
        assert (here.verdicts(), here.verdicts(model="n").weight) == (Verdicts(1.0, 1.0), 0.0)

    def test_the_others_are_told_of_answers_that_are_not_recorded(self, here: Book, elsewhere: Elsewhere) -> None:
        here.book.answered("kept", "a", CODE, is_recorded=True)
        here.book.answered("loose", "a", CODE)
        assert elsewhere.told == [("loose", "a", CODE)]


class TestLearningFromOthers:
    def other(self, score: float, given_at: float, request_id: str = "r") -> Verdict:
        return Verdict(request_id, "a", CODE, score, given_at)

    def test_verdicts_are_told_to_the_others(self, book: Book) -> None:
        elsewhere = Elsewhere()
        book.book = FeedbackBook(book.clock, book.log, elsewhere)
        book.judged(0.25, tenant="a")
        assert elsewhere.verdicts == book.log.kept == [self.other(0.25, book.clock.now())]

    def test_what_others_were_told_teaches_here_but_is_not_ours_to_keep(self, book: Book) -> None:
        now = book.clock.now()
        book.book.learn([self.other(0.25, now), self.other(1.0, now, "s")])
        assert book.verdicts() == Verdicts(1.25, 2.0)
        assert book.log.kept == []

    def test_a_verdict_is_learned_once_however_often_it_is_read(self, book: Book) -> None:
        book.judged(0.25, tenant="a")
        for _ in range(3):
            book.book.learn(book.log.kept)
        assert book.verdicts() == Verdicts(0.25, 1.0)

    def test_the_last_verdict_on_an_answer_counts_wherever_it_was_given(self, book: Book) -> None:
        book.judged(0.0, tenant="a")
        now = book.clock.now()
        book.book.learn([self.other(1.0, now + 1.0)])
        book.book.learn([self.other(0.5, now - 1.0)])
        book.clock.advance(1.0)
        assert book.verdicts() == pytest.approx((1.0, 1.0))


class TestBounds:
    def test_one_tenant_counts_as_so_many_verdicts_at_most(self, book: Book) -> None:
        for place in range(200):
            book.judged(0.0, f"r{place}", tenant="loud")
        assert book.verdicts() == Verdicts(0.0, MOST_WEIGHT_PER_TENANT)
        book.judged(1.0, "other", tenant="quiet")
        assert book.verdicts() == Verdicts(1.0, MOST_WEIGHT_PER_TENANT + 1.0)

    def test_what_cannot_be_replaced_any_more_still_counts(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feedback, "MOST_ANSWERS", 2)
        for place in range(3):
            book.judged(1.0, f"r{place}")
        book.judged(1.0, "r0")  # its first verdict was forgotten, so that this one is new
        assert book.verdicts().weight == 4.0

    def test_nothing_learned_is_no_experience(self, book: Book) -> None:
        assert book.book.experience(TaskType.CODE, Tier.LIGHT) is NO_EXPERIENCE


class TestTime:
    def test_after_its_half_life_a_verdict_counts_half(self, book: Book) -> None:
        book.judged(1.0)
        book.clock.advance(HALF_LIFE_SECONDS)
        assert book.verdicts() == pytest.approx((0.5, 0.5))

    def test_what_was_learned_is_shown_at_once_and_fades_by_and_by(self, book: Book) -> None:
        book.judged(1.0)
        first = book.book.experience(TaskType.CODE, Tier.STANDARD)
        book.clock.advance(VIEW_SECONDS - 1.0)
        assert book.book.experience(TaskType.CODE, Tier.STANDARD) is first
        book.clock.advance(1.0)
        assert book.verdicts().weight < 1.0
        book.judged(1.0, "s")
        assert book.verdicts().weight == pytest.approx(2.0, rel=0.01)

    def test_the_older_of_two_weighs_less_in_whichever_order_they_come(self, book: Book) -> None:
        now = book.clock.now()
        old, new = (Verdict(name, "", CODE, score, at) for name, score, at in (
            ("r", 0.0, now - HALF_LIFE_SECONDS), ("s", 1.0, now)
        ))  # fmt: skip
        for order in ((old, new), (new, old)):
            again = Book()
            again.book.recall(order)
            assert again.verdicts() == pytest.approx((1.0, 1.5))


class TestRecall:
    def test_a_new_process_knows_what_the_last_one_learned(self, book: Book) -> None:
        for place in range(5):
            book.judged(place / 4, f"r{place % 3}", tenant=f"t{place % 2}", label="chat" if place % 2 else "")
        again = Book()
        again.book.recall(book.log.kept)
        for task in (TaskType.CODE, TaskType.CHAT):
            assert again.verdicts(task=task) == book.verdicts(task=task)
        assert again.log.kept == []


# As many requests as stay below the bound of a tenant.
verdicts = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.sampled_from("ab"), st.floats(0, HALF_LIFE_SECONDS)), max_size=25
)


@examples(100)
@given(verdicts)
def test_any_history_is_worth_what_the_plain_words_say(history: list[tuple[float, int, str, float]]) -> None:
    book = Book()
    last: dict[tuple[str, str], tuple[float, float]] = {}
    for score, request, tenant, pause in history:
        request_id = f"{tenant}{request}"
        book.judged(score, request_id, tenant)
        last[tenant, request_id] = (score, book.clock.now())
        book.clock.advance(pause)
    book.clock.advance(VIEW_SECONDS)
    weights = {key: 0.5 ** ((book.clock.now() - at) / HALF_LIFE_SECONDS) for key, (_, at) in last.items()}
    total, weight = book.verdicts()
    assert weight == pytest.approx(sum(weights.values()), abs=1e-6)
    assert total == pytest.approx(sum(weights[key] * score for key, (score, _) in last.items()), abs=1e-6)


@pytest.mark.parametrize(("expected", "score", "moved"), [(0.9, 0.0, 0.6), (0.3, 0.9, 0.5), (0.5, 0.5, 0.5)])
def test_one_tenant_alone_moves_an_expectation_by_a_third_of_the_way_at_most(
    book: Book, expected: float, score: float, moved: float
) -> None:
    for place in range(1_000):
        book.judged(score, f"r{place}", tenant="loud")
    left = book.book.experience(TaskType.CODE, Tier.STANDARD).corrected("m", expected)
    assert left == pytest.approx(moved)


def test_many_tenants_move_it_further(book: Book) -> None:
    for place in range(1_000):
        book.judged(0.0, f"r{place}", tenant=f"t{place % 10}")
    left = book.book.experience(TaskType.CODE, Tier.STANDARD).corrected("m", 0.9)
    assert left == pytest.approx(0.9 * PRIOR_VERDICTS / (PRIOR_VERDICTS + 10 * MOST_WEIGHT_PER_TENANT))
