"""The adapter that answers without a model: what it quotes, what it refuses, and that streams fold into the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.catalog import user
from kit.knowledge import load_with_knowledge
from pointsman_server.adapters.providers.local_knowledge import NO_ANSWER, WITHOUT_MODEL, LocalKnowledge
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Finished, FinishReason, Reply, fold
from pointsman_server.domain.request import Document, GenerationConfig

QUESTION = "How long does delivery take?"
UNKNOWN = "Who painted the Night Watch?"


def deployment(**provider: Any) -> Deployment:
    return load_with_knowledge(**provider).snapshot.deployments["kb"]


async def ask(
    *messages: Message, stream: bool = False, limit: int = 1_000, by: Deployment | None = None, **fields: Any
) -> Reply:
    place = by or deployment()
    assert place.provider.knowledge is not None
    adapter = LocalKnowledge(place.provider.knowledge)
    call = ProviderCall(
        place, messages or (user(QUESTION),), fields.pop("generation", GenerationConfig()), limit, stream, 5.0, **fields
    )
    batches = [list(batch) async for batch in adapter.exchange(call)]
    await adapter.close()
    events = [event for batch in batches for event in batch]
    assert sum(isinstance(event, Finished) for event in events) == 1
    assert isinstance(events[-1], Finished)
    assert (len(batches) > 2) is stream
    return fold(events)


async def test_an_answer_quotes_its_source() -> None:
    reply = await ask()
    first = reply.citations[0]
    assert (first.document_id, first.title) == ("faq-delivery-time", QUESTION)
    assert reply.text.startswith("Orders within the country arrive in two to three working days.")
    assert f"Source: {QUESTION} (faq-delivery-time)" in reply.text
    assert reply.text.endswith(WITHOUT_MODEL)
    assert reply.certainty is not None
    assert reply.certainty > 0.8
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (0, 0)
    assert reply.finish_reason is FinishReason.STOP
    for citation in reply.citations:
        assert reply.text[citation.start_index : citation.end_index] == citation.quoted_text


async def test_others_that_fit_nearly_as_well_are_quoted_too() -> None:
    reply = await ask(user("What are the opening hours?"))
    assert {"shops.csv:2", "shops.csv:3"} <= {one.document_id for one in reply.citations}
    assert reply.text.count("See also: ") == len(reply.citations) - 1


async def test_a_stream_folds_into_the_same() -> None:
    assert await ask(stream=True) == await ask()


async def test_the_last_question_counts() -> None:
    talk = (user("Do gift cards expire?"), Message(Role.ASSISTANT, (TextPart("Yes."),)), user(QUESTION), user("  "))
    assert (await ask(*talk)).citations[0].document_id == "faq-delivery-time"


@pytest.mark.parametrize("messages", [(user(UNKNOWN),), (user("  "),), (Message(Role.SYSTEM, (TextPart(QUESTION),)),)])
async def test_what_is_not_known_is_refused_without_blame(messages: tuple[Message, ...]) -> None:
    with pytest.raises(ProviderFault, match="no answer to this question") as caught:
        await ask(*messages)
    assert caught.value.kind is FaultKind.UNAVAILABLE
    assert not caught.value.rule.counts_for_breaker
    assert not caught.value.rule.retry_here
    assert caught.value.rule.try_next
    assert "Night" not in str(caught.value)


async def test_or_answered_without_any_certainty() -> None:
    reply = await ask(user(UNKNOWN), by=deployment(when_unknown="answer"))
    assert (reply.text, reply.certainty, reply.citations) == (NO_ANSWER, 0.0, ())


async def test_the_policy_says_how_good_a_match_has_to_be() -> None:
    with pytest.raises(ProviderFault):
        await ask(user("What do tickets cost?"), by=deployment(least_match=1))
    assert (await ask(user("What do tickets cost?"))).citations


async def test_a_schema_cannot_be_kept() -> None:
    with pytest.raises(ProviderFault, match="response_schema"):
        await ask(generation=GenerationConfig(response_schema={"type": "object"}))


async def test_an_answer_ends_at_its_limit_and_at_stop_sequences() -> None:
    short = await ask(limit=5)
    assert (len(short.text), short.finish_reason, short.citations) == (20, FinishReason.LENGTH, ())
    stopped = await ask(generation=GenerationConfig(stop_sequences=("nowhere", "\n\nSource:", "Source:")))
    assert stopped.text.endswith("the same day.")
    assert stopped.finish_reason is FinishReason.STOP
    assert len(stopped.citations) == 1


@pytest.mark.parametrize("padding", [0, 30_000], ids=["few", "many"])
async def test_documents_of_the_request_are_searched(padding: int) -> None:
    documents = (
        Document("a", "# Lease\n\nThe Rotterdam warehouse is leased until 2031.", metadata={"title": "Contract"}),
        Document("b", "filler words only " * (padding // 18)),
    )
    reply = await ask(user("Until when is the warehouse in Rotterdam leased?"), documents=documents)
    assert (reply.citations[0].document_id, reply.citations[0].title) == ("a", "Contract - Lease")
    other = await ask(documents=documents)
    assert other.citations[0].document_id == "faq-delivery-time"


async def test_of_documents_without_end_only_so_much_is_searched() -> None:
    documents = (Document("a", "words " * 400_000), Document("b", "The Rotterdam warehouse is leased until 2031."))
    with pytest.raises(ProviderFault):
        await ask(user("Rotterdam warehouse leased until?"), documents=documents)


@pytest.mark.parametrize("own", [True, False], ids=["documents", "knowledge base"])
async def test_tasks_are_answered_in_their_form(own: bool) -> None:
    documents = (Document("lease", "The Rotterdam warehouse is leased."), Document("menu", "Soup and salad."))
    query = "Rotterdam warehouse" if own else "gift cards expire"
    reply = await ask(
        task="semantic_search",
        task_variables={"query": query},
        documents=documents if own else (),
        generation=GenerationConfig(response_schema={"type": "object"}),
    )
    results = json.loads(reply.text)["results"]
    assert results[0]["document_id"] == ("lease" if own else "faq-giftcard-expiry")
    assert reply.certainty is None


async def test_other_templates_are_questions() -> None:
    assert (await ask(task="greeting", task_variables={})).citations[0].document_id == "faq-delivery-time"
