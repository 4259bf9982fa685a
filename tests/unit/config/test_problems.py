"""Messages show what helps and nothing that could be a credential, wherever it was pasted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError, Problem, nearest, shown

Compile = Callable[..., LoadedPolicy]
KEYS = [
    "sk-ant-api03-PLANTED_0123456789-abc",
    "sk-proj-PLANTED0123456789",
    "AIzaSyPLANTED0123456789",
    "AQ.PLANTED0123456789",
    "pplx-PLANTED0123456789",
    "PLANTED0123456789abcdefABCDEF0123456789ab",
    "key=sk-PLANTED",
]
PLACES = [
    ("dialect: openai_chat", "dialect: {}"),
    ("dialect: openai_chat", "dialect: openai_chat, {}: x"),
    ("dialect: openai_chat", "dialect: openai_chat, apikey: {}"),
    ("dialect: openai_chat", "dialect: openai_chat, api_key: {}"),
    ("dialect: openai_chat", "dialect: openai_chat, simulated: {}"),
    ('"http://127.0.0.1:8089/v1"', '"https://{}@host"'),
    ('"http://127.0.0.1:8089/v1"', '"{}"'),
    ("provider: local", "provider: {}"),
    ("  small-local:", "  {}:"),
    ("tier: light", "tier: {}"),
    ("quality: 0.5", "quality: {}"),
    ("capabilities: []", "capabilities: [{}]"),
    ("max_output_tokens: 1000", "max_output_tokens: {}"),
    ("[us, no]", "['{} x']"),
    ("ref: \"anthropic/claude-sonnet-4-5\"", "ref: {}"),
    ("total_seconds: 90", "total_seconds: {}"),
    ("options: {metadata", "options: {token: {}, metadata"),
    ("options: {metadata", "options: {{}: {}, metadata"),
    ("aliases: {best", "aliases: {{}: {}, best"),
    ("[small-local, best]", "[{}]"),
    ("version: 1", "version: {}"),
    ("version: 1", "version: 1\n{}"),
    ("version: 1", "version: 1\n{}: 1\n{}: 2"),
    ("version: 1", "version: !{} 1"),
    ("version: 1", "version: *{}"),
    ("version: 1", 'version: "{}'),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("old", "new"), PLACES)
def test_key_in_the_wrong_place_is_not_told(
    key: str, old: str, new: str, good_policy: str, compile_text: Compile
) -> None:
    assert old in good_policy
    text = good_policy.replace(old, new.replace("{}", key), 1)
    with pytest.raises(PolicyError) as caught:
        compile_text(text)
    told = f"{caught.value} {caught.value!r} {caught.value.problems}"
    assert "PLANTED" not in told


@pytest.mark.parametrize(
    "text", ["claude-sonnet-4-5-20250929", "gpt-6.1-sol", "max_retires", "012", "task-list", "faq.md"]
)
def test_ordinary_texts_are_shown(text: str) -> None:
    assert shown(text) == f"'{text}'"


@pytest.mark.parametrize("text", ["x" * 61, "a\nb", "a\x1b[0m", "\u202egpt"])
def test_unreadable_texts_are_not_shown(text: str) -> None:
    assert text not in shown(text)
    assert "not shown" in shown(text)


def test_nearest_name_or_the_few_known_ones() -> None:
    assert nearest("max_retires", ["max_retries", "other"]) == "Did you mean 'max_retries'?"
    assert nearest("zzz", ["a", "b"]) == "Known: a, b."
    assert nearest("zzz", [str(number) for number in range(13)]) == ""
    assert nearest("zzz", []) == ""


def test_problem_reads_as_a_sentence() -> None:
    problem = Problem("p.yaml", 3, "models.m.tier", "is missing", "Add it.")
    assert str(problem) == "p.yaml:3: models.m.tier is missing. Add it."
    assert problem.field == "tier"
    whole = Problem("p.yaml", 0, "", "is empty", "Write one.")
    assert str(whole) == "p.yaml: the file is empty. Write one."
    assert whole.field == ""
