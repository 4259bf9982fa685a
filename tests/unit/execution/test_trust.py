from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.catalog import call, candidate, deployment, plan, request, snapshot
from pointsman_server.domain.call import Attempt, AttemptOutcome, AttemptPurpose, Completion, Decision
from pointsman_server.domain.catalog import Dialect
from pointsman_server.domain.experience import NO_VERDICTS, Verdicts
from pointsman_server.domain.message import TextPart
from pointsman_server.domain.reply import Citation, FinishReason, Reply, Usage
from pointsman_server.domain.request import Document
from pointsman_server.execution.trust import confidence_in

ONE = deployment("d", of={"quality": 0.8})
DOCUMENTS = (Document("a", "Paris is the capital.", 0.9), Document("b", "Bread is baked."))


def completion(*purposes: AttemptPurpose, **said: Any) -> Completion:
    usage = Usage(1, output_tokens=1)
    fields: dict[str, Any] = {"parts": (TextPart("Paris"),), "finish_reason": FinishReason.STOP, "citations": ()}
    reply = Reply(**{**fields, "raw_finish_reason": "", "usage": usage, "response_id": "", "model": "", **said})
    attempts = [Attempt(ONE, 1.0, None, AttemptOutcome.SUCCEEDED, usage, 0, purpose=purpose) for purpose in purposes]
    return Completion(
        request_id="r",
        decision=Decision("dec", plan([ONE]), 0.0),
        answered_by=candidate(ONE),
        reply=reply,
        usage=usage,
        estimated=False,
        cost_micro_usd=0,
        attempts=tuple(attempts),
        warnings=(),
    )


def factors(
    done: Completion, own: Verdicts = NO_VERDICTS, agreement: float | None = None, documents: tuple[Document, ...] = ()
) -> dict[str, float]:
    found = confidence_in(call(snapshot(ONE), request=request(documents=documents)), done, own, agreement)
    return {factor.name: round(factor.value, 3) for factor in found.factors}


def test_the_plans_expectation_is_the_beginning() -> None:
    found = confidence_in(call(snapshot(ONE)), completion(), NO_VERDICTS)
    assert found.score == pytest.approx(0.8)
    assert [factor.name for factor in found.factors] == ["expected_quality"]


def test_the_replys_own_signs_are_taken() -> None:
    assert factors(completion(certainty=0.5))["model_certainty"] < 0
    assert factors(completion(finish_reason=FinishReason.LENGTH))["finish"] == -1.0
    assert factors(completion(parts=(TextPart("I don't know."),)))["wording"] == -1.0


def test_citations_count_with_the_relevance_that_the_caller_gave() -> None:
    cited = completion(citations=(Citation(document_id="a"), Citation(document_id="a")))
    assert factors(cited, documents=DOCUMENTS)["sources"] == pytest.approx(0.3 + 0.4 * 0.9)


def test_a_document_without_a_relevance_is_taken_for_middling() -> None:
    cited = completion(citations=(Citation(document_id="b"),))
    assert factors(cited, documents=DOCUMENTS)["sources"] == pytest.approx(0.3 + 0.4 * 0.5)


def test_documents_that_nothing_is_cited_of_speak_against_it() -> None:
    assert factors(completion(), documents=DOCUMENTS)["sources"] == -0.5
    strange = completion(citations=(Citation(document_id="of-nobody"),))
    assert factors(strange, documents=DOCUMENTS)["sources"] == -0.5


def test_sources_of_a_search_count() -> None:
    assert factors(completion(citations=(Citation(url="https://example.com"),)))["sources"] == pytest.approx(0.3)


def test_agreement_and_verdicts_are_passed_on() -> None:
    assert factors(completion(), agreement=1.0)["cross_validation"] == pytest.approx(1.2)
    assert "cross_validation" not in factors(completion(), agreement=0.5)
    assert factors(completion(), own=Verdicts(0.0, 20.0))["historical_accuracy"] < 0


def test_an_answer_that_had_to_be_mended() -> None:
    mended = completion(AttemptPurpose.FIRST, AttemptPurpose.REPAIR)
    assert factors(mended)["repaired"] == pytest.approx(-0.3)
    assert "repaired" not in factors(completion(AttemptPurpose.FIRST))


def test_a_knowledge_base_cites_passages_of_its_own() -> None:
    local = deployment("kb", by={"dialect": Dialect.LOCAL_KNOWLEDGE})
    done = replace(completion(citations=(Citation(document_id="passage 7"),)), answered_by=candidate(local))
    assert factors(done)["sources"] == pytest.approx(0.3)
