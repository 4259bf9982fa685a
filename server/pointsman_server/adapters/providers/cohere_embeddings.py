"""Cohere's embeddings, version 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.adapters.providers.embedding_exchange import FoundVectors
from pointsman_server.adapters.providers.json_reading import CountReader, as_object, as_text
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Usage
from pointsman_server.domain.request import EmbeddingInput

_PATH = "/v2/embed"


class CohereEmbeddings:
    """See `EmbeddingDialect`.

    Texts are documents to be searched unless the deployment's options say otherwise (`input_type: search_query`). What
    is too long is refused rather than cut without a word (`truncate`).
    """

    def __init__(self) -> None:
        self._chat = CohereChat()

    def shape(self, call: ProviderCall, wanted: EmbeddingInput) -> Outgoing:
        """See `EmbeddingDialect.shape`."""
        body: dict[str, Any] = {
            "model": call.deployment.model_name,
            "texts": list(wanted.texts),
            "input_type": "search_document",
            "embedding_types": ["float"],
            "truncate": "NONE",
        }
        if wanted.dimensions is not None:
            body["output_dimension"] = wanted.dimensions
        return Outgoing(_PATH, {**body, **call.deployment.options}, {})

    def read(self, body: Mapping[str, Any]) -> FoundVectors:
        """See `EmbeddingDialect.read`."""
        rows = as_object(body.get("embeddings")).get("float")
        if not isinstance(rows, list):
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the answer holds no vectors of floats")
        counts = CountReader()
        billed = as_object(as_object(body.get("meta")).get("billed_units"))
        tokens = counts.read(billed.get("input_tokens"))
        usage = Usage(input_tokens=tokens, output_tokens=0, implausible=counts.implausible)
        return FoundVectors(rows, usage, as_text(body.get("id")))

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `EmbeddingDialect.read_error`."""
        return self._chat.read_error(status, headers, body)
