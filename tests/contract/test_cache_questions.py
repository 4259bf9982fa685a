"""What the cache must find and must not, over a thousand questions for each of two tenants and real ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from bench.questions import near_misses, paraphrases, spoiled

from kit.caching import ON, DictCache, always, asked, completed
from kit.catalog import request
from kit.clock import FakeClock
from pointsman_server.adapters.embedders.local import LocalEmbedder, vector_of
from pointsman_server.decision.near_miss import agree, traits_of
from pointsman_server.domain.cache import HITS, CacheOutcome
from pointsman_server.domain.request import DataClass, RoutingConstraints
from pointsman_server.execution.recall import Recall

PROMPTS = Path(__file__).parents[3] / "shared" / "data" / "routing" / "items.parquet"
MANY = replace(ON, entries_per_tenant=10_000)
LEAST = 0.95


@pytest.fixture
async def recall() -> AsyncGenerator[Recall, None]:
    recall = Recall(FakeClock(), DictCache(), always(LocalEmbedder()), b"salt", patience_seconds=10.0)
    recall.start()
    yield recall
    await recall.close()


async def answered(recall: Recall, text: str, **changes: Any) -> str:
    """What the answer found says, "" for a miss, which is then answered and kept."""
    one = asked(text, MANY, **changes)
    found = await recall.find(one)
    if found.answer is not None:
        assert found.outcome in HITS
        return "".join(part.text for part in found.answer.parts)
    assert found.outcome is CacheOutcome.MISS
    recall.keep(one, found, completed(f"{one.tenant} {text}"))
    return ""


async def test_two_tenants_with_a_thousand_paraphrases_never_meet(recall: Recall) -> None:
    groups = Random(5).sample(list(paraphrases()), 100)
    for question, *_ in groups:
        assert not await answered(recall, question, tenant="one")
    for question, *others in groups:
        assert not await answered(recall, question, tenant="two")
        for tenant in ("one", "two"):
            found = {await answered(recall, other, tenant=tenant) for other in others}
            assert found == {f"{tenant} {question}"}


async def test_classes_of_data_never_meet(recall: Recall) -> None:
    for question, other, *_ in islice(paraphrases(), 100):
        await answered(recall, question)
        internal = RoutingConstraints(data_class=DataClass.INTERNAL)
        assert not await answered(recall, other, request=request(other, constraints=internal))


async def test_near_misses_are_misses(recall: Recall) -> None:
    hits = 0
    for number, (_, question, other) in enumerate(near_misses(Random(7), 1_000)):
        await answered(recall, question, tenant=f"t{number}")
        hits += bool(await answered(recall, other, tenant=f"t{number}"))
    assert hits == 0


def test_real_questions_with_something_changed_are_other_questions() -> None:
    if not PROMPTS.exists():
        pytest.skip("the recorded prompts are not here (../shared/data/routing)")
    parquet: Any = pytest.importorskip("pyarrow.parquet", reason="reading the recorded prompts needs pyarrow")
    prompts = parquet.read_table(PROMPTS, columns=["prompt"]).column(0).to_pylist()
    short = [one for one in dict.fromkeys(prompts) if len(one) <= 200 and vector_of(one)]
    hits = asked_about = 0
    for question in Random(3).sample(short, 1_000):
        for _, one, other in islice(spoiled(question, Random(4)), 1):
            asked_about += 1
            hits += _is_hit(one, other)
    assert asked_about > 500
    assert hits / asked_about <= 0.01


def _is_hit(one: str, other: str) -> bool:
    vectors = [np.frombuffer(vector_of(text), dtype="<f4") for text in (one, other)]
    alike = all(len(vector) for vector in vectors) and float(vectors[0] @ vectors[1]) >= LEAST
    return one != other and alike and agree(traits_of(one), traits_of(other))
