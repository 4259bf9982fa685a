from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.decision.plain_words import clarified, content_words, plain, tokens_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is the capital of France?", "capital france"),
        ("France's capital?", "capital france"),
        ("Could you please tell me what the capital of France is?", "capital france"),
        ("What's the weather in Paris's old town today?", "weather old town today paris"),
        ("How do I reset my password?", "how reset password"),
        ("What is the best way to reset my password, please?", "how reset password"),
        ("Hello there, I'd like to know how I can reset it. Thanks a lot!", "how reset"),
        ("How much does shipping cost?", "price shipping"),
        ("Where can I find my invoices?", "where invoice"),
        ("Where is the Eiffel Tower located?", "where eiffel tower"),
        ("I don't have it", "not"),
        ("Anna's a friend", "anna friend"),
        ("You can't, won't and shan't", "not @future not @future not"),
        ("Who was it?", "who @past"),
        ("log in and sign-up and wi-fi and e-mail", "login signup wifi email"),
        ("usd to eur", "usd to eur"),
        ("I want to go", "want go"),
        ("Is it possible to fly?", "possible fly"),
        ("Can I fly?", "possible fly"),
        ("C++ and C# on 3.11 and B12, 1,000 times", "c++ c# 3.11 b12 1,000 time"),
        ("-5 degrees and 2-2", "-5 degree 2 - 2"),
        ("children, buses, parties, dresses, news, physics, glass", "child buse party dress news physics glass"),
        ("purchase photos of automobiles", "buy photo car"),
        ("they\u2019re \u201chere\u201d", "they here"),
        ("Please", "please"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_what_a_question_comes_down_to(text: str, words: str) -> None:
    assert content_words(text) == words.split()


@pytest.mark.parametrize(
    "text", ["How do you say hello in French?", "What does good morning mean?", "How do I write thank you in German?"]
)
def test_courtesy_that_is_asked_about_stays(text: str) -> None:
    assert {"hello", "morning", "thank"} & set(content_words(text))


def test_a_word_in_plural_and_its_synonyms_have_one_form() -> None:
    assert plain("photographs") == plain("picture") == "photo"
    assert plain("women") == "woman"
    assert plain("1994") == "1994"


def test_tokens_keep_what_was_written() -> None:
    written = [token.raw for token in tokens_of(clarified("Is B12 in U2's 5% mix?"))]
    assert written == ["Is", "B12", "in", "U2's", "5", "%", "mix"]


@given(st.text(max_size=300))
def test_any_text_has_words_without_complaint(text: str) -> None:
    assert all(word and not word.isspace() for word in content_words(text))


@given(st.lists(st.sampled_from(["red", "house", "green", "door", "small", "window"]), min_size=1, max_size=8))
def test_casing_and_blanks_do_not_matter(words: list[str]) -> None:
    assert content_words(" ".join(words).upper()) == content_words("  ".join(words) + " ?")
