from __future__ import annotations

import pytest

from pointsman_server.decision.ask import words_of
from pointsman_server.decision.freshness import LAST_KNOWN_YEAR, needs_fresh_facts
from pointsman_server.decision.judge import MOST_TASK_WORDS
from pointsman_server.domain.plan import TaskType

FACTUAL = (TaskType.LOOKUP, TaskType.CHAT, TaskType.ANALYSIS, TaskType.EXPLAINING)


def fresh(text: str, task: TaskType = TaskType.LOOKUP) -> bool:
    return needs_fresh_facts(words_of(text), task)


@pytest.mark.parametrize(
    "text",
    [
        "What is the latest version of Go?",
        "What's the weather like in Lyon?",
        "Who won the match yesterday?",
        "How much is the dollar today?",
        "Is the pharmacy open now?",
        "Wie wird das Wetter morgen?",
        "Quel est le cours de l'or aujourd'hui ?",
        "¿Cuál es el precio de la luz hoy?",
        "Какая погода в Казани?",
        "Bugün dolar kaç lira?",
        "东京今天的股价是多少",
        "今日の天気は?",
        "오늘 환율 알려줘",
        "ما الطقس في عمان؟",
        f"Who is president in {LAST_KNOWN_YEAR + 1}?",
        f"Election results {LAST_KNOWN_YEAR + 2}",
    ],
)
def test_the_latest_is_asked_for(text: str) -> None:
    assert fresh(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "Suggest a dinner for tonight.",  # a day, but nothing that changes from day to day
        "What is a stock?",  # it changes, but no day is named
        f"Who was president in {LAST_KNOWN_YEAR}?",
        "Who was king in 1648?",
        "What is 2048 in binary?",
        "What will the sea level be in 2050?",
        "Is 20266 a prime?",
        "How do I type a non-breaking space?",
        "Şu kelime ne demek?",  # "that word"
        "",
    ],
)
def test_the_latest_is_not_asked_for(text: str) -> None:
    assert not fresh(text)


@pytest.mark.parametrize("task", TaskType)
def test_only_who_looks_facts_up_needs_them(task: TaskType) -> None:
    assert fresh("the latest gossip", task) is (task in FACTUAL)


@pytest.mark.parametrize("task", TaskType)
def test_day_and_thing_together_tell_in_a_search_through_a_text_too(task: TaskType) -> None:
    assert fresh("the score of the match now", task) is (task in (*FACTUAL, TaskType.EXTRACTION))


def test_a_long_ask_brings_its_own_facts() -> None:
    assert needs_fresh_facts(("latest", *["word"] * 23), TaskType.LOOKUP)
    assert not needs_fresh_facts(("latest", *["word"] * 24), TaskType.LOOKUP)


def test_the_judge_hands_over_more_words_than_a_question_about_the_latest_has() -> None:
    assert not needs_fresh_facts(("latest", *["word"] * (MOST_TASK_WORDS - 1)), TaskType.LOOKUP)
