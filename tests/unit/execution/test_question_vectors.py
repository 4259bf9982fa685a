"""Who makes the vector of a question; what a model makes of it over the wire is in the integration tests."""

from __future__ import annotations

import sys
from array import array

import pytest

from kit.caching import asked
from pointsman_server.adapters.embedders.local import LocalEmbedder
from pointsman_server.bootstrap.identity import RandomIds
from pointsman_server.domain.cache import CachePolicy, QuestionEmbedder
from pointsman_server.execution import question_vectors
from pointsman_server.execution.question_vectors import QuestionVectors

BY_MODEL = CachePolicy(embedder=QuestionEmbedder.SERVICE)


@pytest.mark.parametrize("policy", [CachePolicy(), BY_MODEL], ids=["as the policy wants", "before there is a model"])
def test_the_process_itself(policy: CachePolicy) -> None:
    local = LocalEmbedder()
    assert QuestionVectors(local, RandomIds()).embedder_of(asked(), policy) is local


@pytest.mark.parametrize("order", ["little", "big"])
def test_vectors_have_length_one_and_the_same_bytes_on_every_machine(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = array("f", (0.6, 0.8))
    if order != sys.byteorder:
        expected.byteswap()
    monkeypatch.setattr(sys, "byteorder", order)
    assert question_vectors._unit((3.0, 4.0)) == expected.tobytes()
    assert question_vectors._unit((0.0, 0.0)) == b""
