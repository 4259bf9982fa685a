"""Vectors in the dialects that have any: `POST /v1/embeddings`, `POST /v2/embed`, `models/…:batchEmbedContents`.

Each is its vendor's dialect with another request and another answer: errors and headers are the same.
"""

from __future__ import annotations

from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pointsman_server.simulator.answer import Answer, Hollow
from pointsman_server.simulator.ask import Ask, RejectedError, Tally
from pointsman_server.simulator.behaviour import Dialect
from pointsman_server.simulator.dialects.cohere import Cohere
from pointsman_server.simulator.dialects.dialect import Envelope
from pointsman_server.simulator.dialects.gemini import Gemini
from pointsman_server.simulator.dialects.openai_chat import OpenAIChat
from pointsman_server.simulator.dialects.reading import need_list, need_object, need_one_of, need_text, read_limit
from pointsman_server.simulator.vectors import DEFAULT_DIMENSIONS, MOST_DIMENSIONS, vector_of

_INPUT_TYPES = ("search_document", "search_query", "classification", "clustering", "image")


class OpenAIEmbeddings(OpenAIChat):
    """See `WireDialect`."""

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        given = body.get("input")
        texts = _read_texts([given] if isinstance(given, str) else given, "input", most=2_048)
        if body.get("encoding_format") is not None:
            need_one_of(body["encoding_format"], ("float", "base64"), "encoding_format")
        return _ask(self.dialect, need_text(body.get("model"), "model"), texts, _dimensions(body, "dimensions"), body)

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        in_base64 = answer.ask.body.get("encoding_format") == "base64"
        entries = [
            {"object": "embedding", "index": index, "embedding": _in_base64(vector) if in_base64 else vector}
            for index, vector in enumerate(_vectors(answer))
        ]
        document: dict[str, Any] = {"object": "list", "data": entries, "model": answer.model}
        if not answer.counts.missing:
            document["usage"] = {"prompt_tokens": answer.counts.input, "total_tokens": answer.counts.input}
        return orjson.dumps(document)


class CohereEmbeddings(Cohere):
    """See `WireDialect`."""

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        texts = _read_texts(body.get("texts"), "texts", most=96)
        need_one_of(body.get("input_type"), _INPUT_TYPES, "input_type")
        for index, kind in enumerate(need_list(body.get("embedding_types"), "embedding_types")):
            need_one_of(kind, ("float",), f"embedding_types[{index}]")
        dimensions = _dimensions(body, "output_dimension")
        return _ask(self.dialect, need_text(body.get("model"), "model"), texts, dimensions, body)

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        meta: dict[str, Any] = {"api_version": {"version": "2"}}
        if not answer.counts.missing:
            meta["billed_units"] = {"input_tokens": answer.counts.input, "image_tokens": 0}
        document = {
            "id": envelope.key,
            "texts": answer.ask.turns,
            "embeddings": {"float": _vectors(answer)},
            "meta": meta,
            "response_type": "embeddings_by_type",
        }
        return orjson.dumps(document)


class GeminiEmbeddings(Gemini):
    """See `WireDialect`."""

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        requests = [
            need_object(one, f"requests[{index}]")
            for index, one in enumerate(need_list(body.get("requests"), "requests"))
        ]
        if len(requests) > 100:
            raise RejectedError("BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch")
        for index, one in enumerate(requests):
            need_one_of(one.get("model"), (f"models/{model}",), f"requests[{index}].model")
        texts = [_text_of(one, index) for index, one in enumerate(requests)]
        return _ask(self.dialect, model, texts, _dimensions(requests[0], "outputDimensionality"), body)

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        document: dict[str, Any] = {"embeddings": [{"values": vector} for vector in _vectors(answer)]}
        if not answer.counts.missing:
            document["usageMetadata"] = {"promptTokenCount": answer.counts.input}
        return orjson.dumps(document)


def _ask(dialect: Dialect, model: str, texts: list[str], dimensions: int, body: Mapping[str, Any]) -> Ask:
    tally = Tally(messages=len(texts), characters=sum(map(len, texts)))
    return Ask(dialect, model, False, texts, tally, body={**body, "dimensions": dimensions})


def _read_texts(given: Any, where: str, *, most: int) -> list[str]:
    texts = [need_text(text, f"{where}[{index}]") for index, text in enumerate(need_list(given, where))]
    if len(texts) > most:
        raise RejectedError(f"{where}: array too long, at most {most}", param=where, code="array_above_max_length")
    return texts


def _text_of(request: Mapping[str, Any], index: int) -> str:
    where = f"requests[{index}].content"
    parts = need_list(need_object(request.get("content"), where).get("parts"), f"{where}.parts")
    return "".join(need_text(need_object(part, where).get("text"), f"{where}.parts.text") for part in parts)


def _dimensions(body: Mapping[str, Any], where: str) -> int:
    dimensions = read_limit(body, where) or DEFAULT_DIMENSIONS
    if dimensions > MOST_DIMENSIONS:
        raise RejectedError(f"{where}: at most {MOST_DIMENSIONS}", param=where, code="integer_above_max_value")
    return dimensions


def _vectors(answer: Answer) -> Sequence[list[float]]:
    if answer.hollow is not Hollow.NOT:
        return []
    return [vector_of(text, answer.ask.body["dimensions"]) for text in answer.ask.turns]


def _in_base64(vector: list[float]) -> str:
    return b64encode(array("f", vector).tobytes()).decode()
