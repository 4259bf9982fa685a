"""How far the answer of a call can be trusted: gathers the evidence that `decision.confidence` weighs."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman_server.decision.confidence import Evidence, confidence_of
from pointsman_server.domain.call import AttemptPurpose, Call, Completion
from pointsman_server.domain.confidence import Confidence
from pointsman_server.domain.experience import Verdicts
from pointsman_server.domain.request import Document

UNRATED_RELEVANCE = 0.5
"""What is taken for the relevance of a document that its caller did not rate."""


def confidence_in(call: Call, completion: Completion, own: Verdicts, agreement: float | None = None) -> Confidence:
    """The confidence in an answer. `own` are the tenant's verdicts beyond those that the decision knew.

    `agreement` 0..1 is how much another model's answer says the same, None where none was asked.
    """
    reply, documents = completion.reply, {one.id: one for one in call.request.documents}
    cited = {citation.document_id for citation in reply.citations if citation.document_id in documents}
    quotes_itself = completion.answered_by.deployment.is_last_resort
    return confidence_of(
        Evidence(
            expected_quality=completion.answered_by.expected_quality,
            finish_reason=reply.finish_reason,
            text=reply.text,
            own=own,
            certainty=reply.certainty,
            documents=len(documents),
            cited=_relevances(documents, cited),
            other_sources=sum(quotes_itself or not citation.document_id for citation in reply.citations),
            agreement=agreement,
            repaired=bool(completion.attempts) and completion.attempts[-1].purpose is AttemptPurpose.REPAIR,
        )
    )


def _relevances(documents: Mapping[str, Document], cited: set[str]) -> tuple[float, ...]:
    relevances = (documents[name].relevance for name in sorted(cited))
    return tuple(UNRATED_RELEVANCE if relevance is None else relevance for relevance in relevances)
