from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pointsman_server.decision.near_miss import agree, traits_of

SAME = """
What is the capital of France?|what's the capital of france
What is the capital of France?|WHAT IS THE CAPITAL OF FRANCE?
Explain the theory of relativity.|Could you explain the theory of relativity, please?
How do I reset my password?|Hello, how can I reset my password? Thanks!
Does it weigh 5 kg?|does it weigh 5 kilograms
Is 1,000 enough?|Is 1000 enough?
Is 5.0 enough?|Is 5 enough?
Are two enough?|Are 2 enough?
I don't have a receipt|I do not have a receipt
What does "ls -l" do?|what does `ls -l` do?
Who is Marie Curie?|who is marie curie
""".strip().splitlines()

DIFFERENT = """
Take 200 mg|Take 400 mg
Take 200 mg|Take 200 g
Does it weigh 5 kg?|Does it weigh 5 lb?
How far is it in miles?|How far is it in kilometres?
Does it cost $5?|Does it cost €5?
Is it 5%?|Is it 5?
Who founded Ford?|Who founded Fiat?
Who directed Alien?|Who directed Aliens?
What does vitamin A do?|What does vitamin C do?
What is vitamin B6?|What is vitamin B12?
Did Anna pay Ben?|Did Ben pay Anna?
Where is Paris?|Where is it?
Can I fly with it?|Can I not fly with it?
Can I fly with it?|Can't I fly with it?
Is it good with sugar?|Is it good without sugar?
Nobody knows|Somebody knows
Open on Monday?|Open on Tuesday?
What happened in March?|What happened in May?
Is it due today?|Is it due tomorrow?
Turn the alarm on|Turn the alarm off
Enable it|Disable it
Is it legal?|Is it illegal?
The most sugar|The least sugar
Who is the king?|Who was the king?
Will it rain?|Did it rain?
Should I take it?|Must I take it?
Convert 5 USD to EUR|Convert 5 EUR to USD
What does "ls -l" do?|What does "ls -a" do?
What is 2+2?|What is 2-2?
What is 2+2?|What is 2*2?
What is C++?|What is C#?
The first line|The second line
Is -5 cold?|Is 5 cold?
When was he born?|Where was he born?
""".strip().splitlines()


@pytest.mark.parametrize("pair", SAME)
def test_the_same_in_other_words(pair: str) -> None:
    one, other = pair.split("|")
    assert agree(traits_of(one), traits_of(other))
    assert agree(traits_of(other), traits_of(one))


@pytest.mark.parametrize("pair", DIFFERENT)
def test_another_question(pair: str) -> None:
    one, other = pair.split("|")
    assert not agree(traits_of(one), traits_of(other))
    assert not agree(traits_of(other), traits_of(one))


_SENTENCE = ["how", "many", "rooms", "does", "it", "have", "on", "the", "floor", "of", "tower"]
WORDS = st.lists(st.sampled_from(_SENTENCE), min_size=2, max_size=9)


@given(WORDS, st.integers(0, 10**6), st.integers(0, 10**6), st.data())
def test_another_number_is_another_question(words: list[str], one: int, other: int, data: st.DataObject) -> None:
    assume(one != other)
    place = data.draw(st.integers(0, len(words)))
    texts = [" ".join([*words[:place], str(number), *words[place:]]) for number in (one, other)]
    assert not agree(*map(traits_of, texts))


@given(WORDS, st.data())
def test_a_negation_is_another_question(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words)))
    negated = " ".join([*words[:place], data.draw(st.sampled_from(["not", "never", "without"])), *words[place:]])
    assert not agree(traits_of(" ".join(words)), traits_of(negated))


@given(WORDS, st.sampled_from(["Kepler", "Oslo", "IBM"]), st.sampled_from(["Mendel", "Lima", "SAP"]), st.data())
def test_another_name_is_another_question(words: list[str], one: str, other: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(1, len(words)))
    texts = [" ".join([*words[:place], name, *words[place:]]) for name in (one, other)]
    assert not agree(*map(traits_of, texts))


@given(st.text(max_size=200))
def test_every_question_agrees_with_itself(text: str) -> None:
    assert agree(traits_of(text), traits_of(text))
