"""OpenAI's embeddings, which Ollama, vLLM, llama.cpp, Mistral, Voyage and many others speak too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.adapters.providers.embedding_exchange import FoundVectors
from pointsman_server.adapters.providers.json_reading import CountReader, as_object, as_text
from pointsman_server.adapters.providers.openai_errors import fault_in_answer, read_error_body
from pointsman_server.adapters.providers.openai_request import with_options
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Usage
from pointsman_server.domain.request import EmbeddingInput

_PATH = "/embeddings"


class OpenAiEmbeddings:
    """See `EmbeddingDialect`. A deployment's options are merged into the body, and null takes a field out; so
    `encoding_format: base64` makes answers a quarter as long where the server can."""

    def shape(self, call: ProviderCall, wanted: EmbeddingInput) -> Outgoing:
        """See `EmbeddingDialect.shape`. `dimensions` is sent only where the request asks for it: many models take no
        such field."""
        body: dict[str, Any] = {
            "model": call.deployment.model_name,
            "input": list(wanted.texts),
            "encoding_format": "float",
        }
        if wanted.dimensions is not None:
            body["dimensions"] = wanted.dimensions
        return Outgoing(_PATH, with_options(body, call.deployment), {})

    def read(self, body: Mapping[str, Any]) -> FoundVectors:
        """See `EmbeddingDialect.read`."""
        data = body.get("data")
        if not isinstance(data, list):
            if body.get("error") or "detail" in body or body.get("object") == "error":
                raise fault_in_answer(body)
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the answer holds no list of vectors")
        rows = [as_object(entry) for entry in data]
        return FoundVectors(
            rows=[entry.get("embedding") for entry in _in_order(rows)],
            usage=_usage(as_object(body.get("usage"))),
            response_id=as_text(body.get("id")),
            model=as_text(body.get("model")),
        )

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `EmbeddingDialect.read_error`."""
        return read_error_body(status, headers, body)


def _in_order(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """By `index` where every entry has its own, as they came where none says."""
    places = [entry.get("index") for entry in rows]
    if all(place is None for place in places):
        return rows
    by_place = dict(zip(places, rows, strict=True))
    if by_place.keys() != set(range(len(rows))):
        raise ProviderFault(FaultKind.MALFORMED_REPLY, "the vectors' places are not those of the texts")
    return [by_place[place] for place in range(len(rows))]


def _usage(said: Mapping[str, Any]) -> Usage:
    counts = CountReader()
    tokens = counts.read(said.get("prompt_tokens"))
    if tokens is None:
        tokens = counts.read(said.get("total_tokens"))  # there is no output, and some tell nothing else
    return Usage(input_tokens=tokens, output_tokens=0, implausible=counts.implausible)
