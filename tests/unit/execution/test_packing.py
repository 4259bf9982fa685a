from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import call, candidate, circumstances, deployment, snapshot, user
from kit.conversations import requests
from kit.dispatching import dispatch
from kit.properties import examples
from kit.scripted import END, CharacterCounter, Step, answers, says
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.decision.engine import decide
from pointsman_server.decision.fitting import Fitted
from pointsman_server.decision.tokens import core_of, correction_of, counted_tokens, tokens_for
from pointsman_server.domain.call import AttemptPurpose, FailoverMode
from pointsman_server.domain.catalog import Deployment, Dialect
from pointsman_server.domain.context import ContextPolicy, Trim
from pointsman_server.domain.errors import RouterError
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.plan import Candidate
from pointsman_server.domain.request import CompletionRequest, Document, GenerationConfig
from pointsman_server.domain.tokenizer import Tokenizer
from pointsman_server.execution.packing import Packing
from pointsman_server.execution.prepare import ON_LOOP_BYTES, count_input

COUNTER = TiktokenCounter()
FEES = Document("fees", "5 EUR")
LONG = Document("terms", "Paragraph about nothing.\n\n" * 200)


def with_window(tokens: int, name: str = "one", **of: Any) -> Deployment:
    return deployment(name, of={"context_window_tokens": tokens, "max_output_tokens": 500, **of})


def packing_of(request: CompletionRequest, counter: Any = COUNTER, **context: Any) -> tuple[Packing, dict[str, Fitted]]:
    packed: dict[str, Fitted] = {}
    policy = snapshot(with_window(1_000), context=ContextPolicy(**context))
    return Packing(call(policy, request=request), counter, packed), packed


async def sent_to(one: Candidate, request: CompletionRequest, *added: str, **context: Any) -> CompletionRequest:
    packing, _ = packing_of(request, **context)
    await packing.pack(one, added)
    return packing.request_for(one.deployment)


def asked(*documents: Document, **fields: Any) -> CompletionRequest:
    return CompletionRequest((user("What does a refund cost?"),), documents=documents, **fields)


class TestWhatIsSent:
    async def test_a_plain_request_is_the_same_object(self) -> None:
        request = asked()
        assert await sent_to(candidate(with_window(1_000)), request) is request

    async def test_documents_are_in_the_messages(self) -> None:
        sent = await sent_to(candidate(with_window(1_000)), asked(FEES))
        assert "5 EUR" in sent.messages[0].text
        assert sent.documents == ()

    async def test_a_knowledge_base_finds_them_beside_the_messages(self) -> None:
        one = with_window(1_000)
        local = replace(one, provider=replace(one.provider, dialect=Dialect.LOCAL_KNOWLEDGE))
        request = asked(FEES)
        assert await sent_to(candidate(local), request) is request

    @pytest.mark.parametrize(
        ("fields", "context", "cites"),
        [
            ({}, {}, True),
            ({}, {"citations": False}, False),
            ({"generation": GenerationConfig(response_schema={"type": "object"})}, {}, False),
        ],
    )
    async def test_marks_are_wanted_where_they_do_no_harm(
        self, fields: dict[str, Any], context: dict[str, Any], cites: bool
    ) -> None:
        sent = await sent_to(candidate(with_window(1_000)), asked(FEES, **fields), **context)
        assert ("[[fees]]" in sent.messages[0].text) is cites

    async def test_who_does_not_take_all_is_sent_less(self) -> None:
        one = candidate(with_window(1_000), room_tokens=500, takes_all=False)
        sent = await sent_to(one, asked(LONG))
        assert 300 < counted_tokens(sent, COUNTER.count) <= 500

    async def test_what_will_be_added_has_its_room_too(self) -> None:
        one = candidate(with_window(1_000), room_tokens=500)
        assert LONG.text.strip() in (await sent_to(one, asked(LONG))).messages[0].text
        sent = await sent_to(one, asked(LONG), "said " * 200)
        assert counted_tokens(sent, COUNTER.count) + 200 <= 500

    async def test_what_fits_after_all_is_sent_whole(self) -> None:
        packing, packed = packing_of(asked(FEES))
        one = candidate(with_window(1_000), room_tokens=900, takes_all=False)
        await packing.pack(one)
        assert not packed["one"].left_out
        assert packing.most_output_tokens(one) == one.max_output_tokens

    async def test_it_is_packed_once_for_each(self) -> None:
        packing, packed = packing_of(asked(LONG))
        first = candidate(with_window(1_000), room_tokens=500, takes_all=False)
        await packing.pack(first)
        before = packed["one"]
        await packing.pack(first)
        assert packed["one"] is before
        await packing.pack(candidate(with_window(1_000, "two"), room_tokens=300, takes_all=False))
        assert packed.keys() == {"one", "two"}

    async def test_the_answer_gets_what_the_window_has_left(self) -> None:
        packing, packed = packing_of(asked(LONG))
        one = candidate(with_window(1_000), room_tokens=700, takes_all=False)
        assert packing.most_output_tokens(one) == one.max_output_tokens
        await packing.pack(one)
        assert packing.most_output_tokens(one) == 1_000 - (packed["one"].tokens or 0) < one.max_output_tokens

    @pytest.mark.parametrize(("size", "is_off_loop"), [(100, False), (ON_LOOP_BYTES, True)])
    async def test_long_texts_are_packed_in_a_thread(self, size: int, is_off_loop: bool) -> None:
        class Counter(CharacterCounter):
            def count(self, text: str) -> int:
                threads.add(threading.current_thread())
                return super().count(text)

        threads: set[threading.Thread] = set()
        packing, _ = packing_of(asked(Document("a", "x" * size)), Counter(is_ready=False))
        await packing.pack(candidate(with_window(1_000), room_tokens=50, takes_all=False))
        assert (threading.current_thread() not in threads) is is_off_loop


_wanted = st.sampled_from((None, 1, 200, 100_000))


@examples(60)
@given(requests, st.sampled_from(Trim), st.integers(1, 4_000), st.sampled_from(Tokenizer), _wanted)
async def test_nobody_is_ever_sent_more_than_his_window(
    request: CompletionRequest, trim: Trim, window: int, tokenizer: Tokenizer, wanted: int | None
) -> None:
    one = with_window(window, tokenizer=tokenizer)
    policy = snapshot(one, context=ContextPolicy(trim))
    asking = call(policy, request=replace(request, generation=GenerationConfig(max_output_tokens=wanted)))
    tokens = await count_input(asking, COUNTER)
    try:
        (only,) = decide(circumstances(tokens=tokens, max_output_tokens=wanted), policy).candidates
    except RouterError:
        assert tokens_for(one, core_of(tokens)).tokens >= window
        return
    packing = Packing(asking, COUNTER, {})
    await packing.pack(only)
    sent = counted_tokens(packing.request_for(one), COUNTER.count)
    assert round(sent * correction_of(one).factor) + packing.most_output_tokens(only) <= window + 1


class TestDispatch:
    def test_a_continuation_and_a_repair_have_the_documents_too(self) -> None:
        cut = ProviderFault(FaultKind.STREAM_CUT, "x")
        one, two = with_window(100_000, "one"), with_window(100_000, "two")
        scripts: list[tuple[Deployment, Sequence[Step]]] = [
            (one, (says("It costs "), cut)),
            (two, (says("5 EUR."), END)),
        ]
        done = dispatch(scripts, stream=True, failover=FailoverMode.CONTINUE, request=asked(FEES))
        assert done.text == "It costs 5 EUR."
        material, question, *_ = done.adapters["two"].calls[0].messages
        assert "5 EUR" in material.text
        assert question == asked().messages[0]
        schema = GenerationConfig(response_schema={"type": "object"})
        repaired = dispatch([(one, answers("no"))], then={"one": answers("{}")}, request=asked(FEES, generation=schema))
        assert repaired.record.attempts[-1].purpose is AttemptPurpose.REPAIR
        assert "5 EUR" in repaired.adapters["one"].calls[1].messages[0].text
        assert repaired.adapters["one"].calls[1].messages[1] == asked().messages[0]
