"""Vectors over a real socket: what leaves, what comes back, and what is no answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from kit.catalog import deployment, provider
from kit.scripted import ScriptedAdapter, answers
from kit.upstream import Script, json_script, raw_script, running_upstream
from pointsman_server.adapters.providers.cohere_embeddings import CohereEmbeddings
from pointsman_server.adapters.providers.embedding_exchange import ON_LOOP_BYTES, EmbeddingAdapter, EmbeddingDialect
from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.adapters.providers.gemini_embeddings import GeminiEmbeddings
from pointsman_server.adapters.providers.openai_embeddings import OpenAiEmbeddings
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import EmbeddingTraits
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Reply, ReplyBuilder, Usage
from pointsman_server.domain.request import EmbeddingInput, GenerationConfig

PLACE = deployment("v", of={"embedding": EmbeddingTraits(2, variable_dimensions=True)})
GOOD = {"id": "e1", "model": "m-1", "data": [{"index": 0, "embedding": [1.0, 0.5]}], "usage": {"prompt_tokens": 3}}


def asked(*texts: str, dimensions: int | None = None, options: dict[str, Any] | None = None) -> ProviderCall:
    wanted = EmbeddingInput(texts or ("north",), dimensions)
    place = replace(PLACE, options=options or {})
    return ProviderCall(place, (), GenerationConfig(), 0, False, 5.0, {"traceparent": "00-t"}, embedding=wanted)


async def exchange(
    script: Script, call: ProviderCall, dialect: EmbeddingDialect | None = None
) -> tuple[Reply, dict[str, Any], dict[str, str]]:
    """The reply, and the body and the headers that were sent for it."""
    wire = HttpWire()
    async with running_upstream(script) as upstream:
        endpoint = BearerEndpoint(provider(base_url=upstream.base_url))
        adapter = EmbeddingAdapter(ScriptedAdapter(answers("x")), dialect or OpenAiEmbeddings(), endpoint, wire)
        builder = ReplyBuilder()
        try:
            async for batch in adapter.exchange(call):
                for event in batch:
                    builder.add(event)
        finally:
            await wire.close()
        return builder.build(), upstream.bodies[0], upstream.headers[0]


async def fault_of(script: Script, *texts: str, dialect: EmbeddingDialect | None = None) -> ProviderFault:
    with pytest.raises(ProviderFault) as caught:
        await exchange(script, asked(*texts), dialect)
    return caught.value


def rows(reply: Reply) -> Sequence[list[float]]:
    return [list(vector) for vector in reply.vectors]


async def test_an_answer_is_read_and_trace_context_sent() -> None:
    reply, body, headers = await exchange(json_script(GOOD), asked("north"))
    assert rows(reply) == [[1.0, 0.5]]
    assert (reply.response_id, reply.model) == ("e1", "m-1")
    assert reply.usage == Usage(input_tokens=3, output_tokens=0)
    assert body == {"model": "v-1", "input": ["north"], "encoding_format": "float"}
    assert headers["traceparent"] == "00-t"


async def test_options_speak_last_and_dimensions_only_when_asked() -> None:
    options = {"encoding_format": "base64", "user": "u"}
    _, body, _ = await exchange(json_script(GOOD), asked(dimensions=2, options=options))
    assert body == {"model": "v-1", "input": ["north"], "dimensions": 2, **options}
    _, body, _ = await exchange(json_script(GOOD), asked(options={"encoding_format": None}))
    assert "encoding_format" not in body


async def test_large_answers_are_read_all_the_same() -> None:
    texts = [f"text {number}" for number in range(4_000)]
    data = [{"index": number, "embedding": [number / 7, 1.0]} for number in range(len(texts))]
    assert len(json.dumps(data)) > ON_LOOP_BYTES
    reply, _, _ = await exchange(json_script({"data": data}), asked(*texts))
    assert [round(vector[0] * 7) for vector in reply.vectors] == list(range(len(texts)))
    assert reply.usage.input_tokens is None


async def test_places_may_be_left_out_by_all() -> None:
    data = [{"embedding": [1.0, 0.0]}, {"embedding": [0.0, 1.0]}]
    reply, _, _ = await exchange(json_script({"data": data}), asked("north", "east"))
    assert rows(reply) == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (json_script({"error": {"message": "x"}}, 429, retry_after="7"), FaultKind.RATE_LIMITED),
        (json_script({"error": {"message": "maximum context length is 8192"}}, 400), FaultKind.CONTEXT_WINDOW),
        (json_script({"error": "model not found"}, 404), FaultKind.MODEL_MISSING),
        (raw_script(b"<html>", "text/html", 502), FaultKind.UNAVAILABLE),
        (raw_script(b"", status=302), FaultKind.MALFORMED_REPLY),
        (raw_script(b"<html>", "text/html"), FaultKind.MALFORMED_REPLY),
        (raw_script(b""), FaultKind.MALFORMED_REPLY),
        (json_script([GOOD]), FaultKind.MALFORMED_REPLY),
        (json_script({"data": {}}), FaultKind.MALFORMED_REPLY),
        (json_script({"data": [7]}), FaultKind.MALFORMED_REPLY),
        (json_script({"data": [{"index": "0", "embedding": [1, 2]}]}), FaultKind.MALFORMED_REPLY),
        (json_script({"error": {"type": "rate_limit_error", "message": "x"}}), FaultKind.RATE_LIMITED),
        (json_script({"data": [{"index": 0, "embedding": [1, 2, 3]}]}), FaultKind.MALFORMED_REPLY),
    ],
)
async def test_what_is_no_answer(script: Script, kind: FaultKind) -> None:
    assert (await fault_of(script)).kind is kind


async def test_the_other_dialects_say_what_is_missing() -> None:
    for dialect in (CohereEmbeddings(), GeminiEmbeddings()):
        for body in ({}, {"embeddings": None}, {"embeddings": {"int8": [[1, 2]]}}):
            assert (await fault_of(json_script(body), dialect=dialect)).kind is FaultKind.MALFORMED_REPLY
    limited = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}}
    assert (await fault_of(json_script(limited), dialect=GeminiEmbeddings())).kind is FaultKind.RATE_LIMITED
    assert (await fault_of(json_script(limited, 429), dialect=GeminiEmbeddings())).kind is FaultKind.RATE_LIMITED


async def test_cohere_and_gemini_take_options_in_their_own_way() -> None:
    found = {"id": "c1", "embeddings": {"float": [[1.0, 0.0]]}, "meta": {"billed_units": {"input_tokens": 4}}}
    call = asked(dimensions=2, options={"input_type": "search_query"})
    reply, body, _ = await exchange(json_script(found), call, CohereEmbeddings())
    assert (reply.usage.input_tokens, reply.response_id) == (4, "c1")
    assert (body["input_type"], body["output_dimension"], body["truncate"]) == ("search_query", 2, "NONE")
    told = {"embeddings": [{"values": [1.0, 0.0]}, {"values": [0.0, 1.0]}]}
    call = asked("north", "east", dimensions=2, options={"taskType": "RETRIEVAL_QUERY"})
    reply, body, _ = await exchange(json_script(told), call, GeminiEmbeddings())
    assert rows(reply) == [[1.0, 0.0], [0.0, 1.0]]
    assert body["requests"] == [
        {
            "model": "models/v-1",
            "taskType": "RETRIEVAL_QUERY",
            "outputDimensionality": 2,
            "content": {"parts": [{"text": text}]},
        }
        for text in ("north", "east")
    ]


async def test_a_model_that_makes_none_is_not_asked() -> None:
    wire = HttpWire()
    adapter = EmbeddingAdapter(ScriptedAdapter(()), OpenAiEmbeddings(), BearerEndpoint(provider()), wire)
    with pytest.raises(ProviderFault) as caught:
        await anext(adapter.exchange(replace(asked(), deployment=deployment("chat"))))
    assert caught.value.kind is FaultKind.UNSUPPORTED
    await wire.close()


async def test_completions_are_left_to_the_other_adapter() -> None:
    wire, scripted = HttpWire(), ScriptedAdapter(answers("Hello"))
    adapter = EmbeddingAdapter(scripted, OpenAiEmbeddings(), BearerEndpoint(provider()), wire)
    builder = ReplyBuilder()
    async for batch in adapter.exchange(replace(asked(), embedding=None)):
        for event in batch:
            builder.add(event)
    assert builder.build().text == "Hello"
    await adapter.close()
    assert scripted.closed
    await wire.close()
