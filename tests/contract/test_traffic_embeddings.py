"""Recorded embeddings of all vendors, read as this server reads them and as the vendors say they are written."""

from __future__ import annotations

from array import array
from base64 import b64decode
from typing import Any

import orjson
import pytest

from kit.catalog import deployment
from kit.traffic import Exchange, load_traffic
from pointsman_server.adapters.providers.cohere_embeddings import CohereEmbeddings
from pointsman_server.adapters.providers.embedding_exchange import EmbeddingDialect, FoundVectors
from pointsman_server.adapters.providers.gemini_embeddings import GeminiEmbeddings
from pointsman_server.adapters.providers.json_reading import read_object
from pointsman_server.adapters.providers.openai_embeddings import OpenAiEmbeddings
from pointsman_server.adapters.providers.vectors import read_vectors
from pointsman_server.domain.catalog import EmbeddingTraits
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.request import EmbeddingInput, GenerationConfig

SPEAKERS: dict[str, EmbeddingDialect] = {
    "openai": OpenAiEmbeddings(),
    "azure_openai": OpenAiEmbeddings(),
    "mistral": OpenAiEmbeddings(),
    "openrouter": OpenAiEmbeddings(),
    "voyage": OpenAiEmbeddings(),
    "cohere": CohereEmbeddings(),
    "gemini": GeminiEmbeddings(),
}
PATHS = ("/embeddings", "/v2/embed", ":batchEmbedContents")


def recorded(provider: str) -> list[Exchange]:
    return [one for one in load_traffic(provider) if one.kind == "embeddings" and one.path.endswith(PATHS)]


def asked(exchange: Exchange) -> list[str] | int:
    """The texts, or how many there were where they were sent as tokens."""
    request = exchange.request
    if "requests" in request:
        return ["".join(part["text"] for part in one["content"]["parts"]) for one in request["requests"]]
    given = request.get("texts", request.get("input"))
    texts = [given] if isinstance(given, str) else given
    return texts if all(isinstance(text, str) for text in texts) else len(texts)


def rows_as_told(provider: str, body: dict[str, Any]) -> list[list[float]]:
    """The vectors as the vendor documents them."""
    if provider == "gemini":
        return [one["values"] for one in body["embeddings"]]
    if provider == "cohere":
        return list(body["embeddings"]["float"])
    in_order = sorted(body["data"], key=lambda one: one["index"])
    return [_numbers(one["embedding"]) for one in in_order]


def _numbers(row: Any) -> list[float]:
    return list(array("f", b64decode(row))) if isinstance(row, str) else row


def tokens_as_told(provider: str, body: dict[str, Any]) -> int | None:
    if provider == "gemini":
        counted: int | None = body.get("usageMetadata", {}).get("promptTokenCount")
    elif provider == "cohere":
        counted = body["meta"]["billed_units"]["input_tokens"]
    else:
        counted = body["usage"].get("prompt_tokens", body["usage"].get("total_tokens"))
    return counted


@pytest.mark.parametrize("provider", SPEAKERS)
def test_every_recorded_answer_is_read(provider: str) -> None:
    answers = [one for one in recorded(provider) if one.status == 200]
    assert answers
    for exchange in answers:
        body = read_object(exchange.body.lstrip(), "the answer")
        found: FoundVectors = SPEAKERS[provider].read(body)
        told = rows_as_told(provider, body)
        texts = asked(exchange)
        count = texts if isinstance(texts, int) else len(texts)
        vectors = read_vectors(found.rows, count, len(told[0]))
        assert vectors == tuple(array("f", row) for row in told)
        assert found.usage.input_tokens == tokens_as_told(provider, body)
        assert (found.usage.output_tokens, found.usage.implausible) == (0, False)


@pytest.mark.parametrize("provider", ["cohere", "voyage", "openai"])
def test_every_recorded_refusal_is_understood(provider: str) -> None:
    for exchange in (one for one in recorded(provider) if one.status != 200):
        fault = SPEAKERS[provider].read_error(exchange.status, exchange.headers, exchange.body)
        expected = {404: FaultKind.MODEL_MISSING, 400: FaultKind.INVALID_REQUEST}
        assert fault.kind is expected[exchange.status]


@pytest.mark.parametrize("provider", SPEAKERS)
def test_what_is_sent_is_what_was_recorded(provider: str) -> None:
    """The fields that this server sends are those that vendors were seen to take, with the same values."""
    checked = 0
    for exchange in recorded(provider):
        texts = asked(exchange)
        if exchange.status != 200 or isinstance(texts, int):
            continue
        sent = shaped(provider, exchange, texts)
        taken = orjson.loads(orjson.dumps(exchange.request))
        if provider == "gemini":
            if any("taskType" in one for one in taken["requests"]) or len(taken["requests"][0]["content"]["parts"]) > 1:
                continue
            for one in taken["requests"]:
                one["content"].pop("role", None)
            assert sent == taken
        else:
            texts_key = "texts" if provider == "cohere" else "input"
            assert sent["model"] == taken["model"]
            assert sent[texts_key] == texts
            assert sent.get("dimensions") == taken.get("dimensions")
            assert sent.keys() - {"truncate", "encoding_format"} <= taken.keys() | {"input_type"}
        checked += 1
    assert checked


def shaped(provider: str, exchange: Exchange, texts: list[str]) -> dict[str, Any]:
    request = exchange.request
    first = request["requests"][0] if "requests" in request else request
    name = request.get("model") or first["model"].removeprefix("models/")
    wanted = EmbeddingInput(tuple(texts), first.get("outputDimensionality") or first.get("dimensions"))
    traits = EmbeddingTraits(dimensions=4, variable_dimensions=True)
    place = deployment("d", of={"embedding": traits}, model_name=name)
    call = ProviderCall(place, (), GenerationConfig(), 0, False, 10.0, embedding=wanted)
    outgoing = SPEAKERS[provider].shape(call, wanted)
    assert exchange.path.endswith(outgoing.path)
    return dict(orjson.loads(orjson.dumps(outgoing.body)))
