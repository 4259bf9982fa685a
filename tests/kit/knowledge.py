"""The knowledge base of the tests: its files, questions in other words than its own, and policies that name it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from kit.running import MODEL
from pointsman_server.config.policy_file import LoadedPolicy, compile_policy
from pointsman_server.domain.knowledge import Knowledge

FOLDER = Path(__file__).parents[1] / "fixtures" / "knowledge"
FILES = ("faq.jsonl", "handbook.md", "shops.csv")

QUESTIONS: tuple[tuple[str, str], ...] = tuple(
    (row["question"], row["source"])
    for row in map(json.loads, (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines())
)
"""Each with what answers it: the id of a passage or the last part of its title; "" where nothing does."""
KNOWN = tuple(one for one in QUESTIONS if one[1])
UNKNOWN = tuple(question for question, source in QUESTIONS if not source)


def local_provider(**fields: Any) -> dict[str, Any]:
    """The provider of the tests' knowledge base, as the policy writes it."""
    return {"dialect": "local_knowledge", "knowledge": list(FILES), "synonyms": "synonyms.json", **fields}


def load_with_knowledge(
    policy: Mapping[str, Any] | None = None, folder: Path = FOLDER, **provider: Any
) -> LoadedPolicy:
    """A policy in `folder` whose deployment `kb` answers from the knowledge base; `policy` adds to it."""
    given = dict(policy or {})
    content = {
        "version": 1,
        **given,
        "providers": {**given.get("providers", {}), "house": local_provider(**provider)},
        "deployments": {**given.get("deployments", {}), "kb": {"provider": "house"}},
    }
    return compile_policy(json.dumps(content).encode(), str(folder / "policy.yaml"), {}, date(2026, 11, 21))


def knowledge() -> Knowledge:
    """The tests' knowledge base."""
    found = load_with_knowledge().snapshot.providers["house"].knowledge
    assert found is not None
    return found


def real_model_at(base_url: str, **policy: Any) -> dict[str, Any]:
    """A policy with one real model of tier standard at this address."""
    return {
        "providers": {"vendor": {"dialect": "openai_chat", "base_url": base_url}},
        "models": {"big": dict(MODEL)},
        "deployments": {"real": {"provider": "vendor", "model": "big", "model_name": "big-1"}},
        **policy,
    }


def is_source(source: str, document_id: str, title: str) -> bool:
    """Whether a citation names what answers a question."""
    return source in (document_id, title.split(" - ")[-1])
