"""Gemini's embeddings: batchEmbedContents, with one request for each text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.adapters.providers.embedding_exchange import FoundVectors
from pointsman_server.adapters.providers.gemini_failures import failure_of_error, read_failure
from pointsman_server.adapters.providers.json_reading import CountReader, as_object
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Usage
from pointsman_server.domain.request import EmbeddingInput


class GeminiEmbeddings:
    """See `EmbeddingDialect`. A deployment's options are fields of every text's request (`taskType`)."""

    def shape(self, call: ProviderCall, wanted: EmbeddingInput) -> Outgoing:
        """See `EmbeddingDialect.shape`."""
        name = call.deployment.model_name
        resource = name if "/" in name else f"models/{name}"
        common: dict[str, Any] = {"model": resource, **call.deployment.options}
        if wanted.dimensions is not None:
            common["outputDimensionality"] = wanted.dimensions
        requests = [{**common, "content": {"parts": [{"text": text}]}} for text in wanted.texts]
        return Outgoing(f"/{resource}:batchEmbedContents", {"requests": requests}, {})

    def read(self, body: Mapping[str, Any]) -> FoundVectors:
        """See `EmbeddingDialect.read`."""
        if body.get("error"):
            raise failure_of_error(body["error"])
        found = body.get("embeddings")
        if not isinstance(found, list):
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the answer holds no list of vectors")
        counts = CountReader()
        # Older models count nothing.
        tokens = counts.read(as_object(body.get("usageMetadata")).get("promptTokenCount"))
        usage = Usage(input_tokens=tokens, output_tokens=0, implausible=counts.implausible)
        return FoundVectors([as_object(entry).get("values") for entry in found], usage)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `EmbeddingDialect.read_error`."""
        return read_failure(status, headers, body)
