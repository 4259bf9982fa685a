"""Vectors of the questions that the cache compares: made in the process, or by a model on behalf of the call."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import replace
from math import hypot

from pointsman_server.domain.cache import CachePolicy, QuestionEmbedder
from pointsman_server.domain.call import Call
from pointsman_server.domain.embedder import Embedder, Vector
from pointsman_server.domain.ports import Ids
from pointsman_server.domain.request import CompletionRequest, EmbeddingInput, RoutingConstraints
from pointsman_server.execution.embedding import EmbeddingPipeline


class QuestionVectors:
    """Chooses who makes a question's vector. One for the process; until `embeddings` is set there is no model."""

    def __init__(self, local: Embedder, ids: Ids) -> None:
        self._local = local
        self._ids = ids
        self.embeddings: EmbeddingPipeline | None = None

    def embedder_of(self, call: Call, policy: CachePolicy) -> Embedder:
        """Who makes it for this call."""
        if policy.embedder is QuestionEmbedder.LOCAL or self.embeddings is None:
            return self._local
        return _OnBehalf(call, self.embeddings, self._ids)


class _OnBehalf:
    """See `Embedder`. Nobody sees the question who might not answer it: the same data rules and lists hold.

    What it costs is booked as a call of its own, with the labels of the one it is made for.
    """

    name = "service"

    def __init__(self, call: Call, embeddings: EmbeddingPipeline, ids: Ids) -> None:
        self._call = call
        self._embeddings = embeddings
        self._ids = ids

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """See `Embedder.embed`. Raises what `EmbeddingPipeline.embed_for` raises."""
        made = await self._embeddings.embed_for(self._derived(tuple(texts)))
        return [_unit(vector) for vector in made.reply.vectors]

    def _derived(self, texts: tuple[str, ...]) -> Call:
        call, asked = self._call, self._call.request
        wanted = asked.constraints
        # What the answering model must be able to do, and may cost, says nothing of this one.
        constraints = RoutingConstraints(
            data_class=wanted.data_class,
            regions=wanted.regions,
            allowed_deployments=wanted.allowed_deployments,
            denied_deployments=wanted.denied_deployments,
        )
        request = CompletionRequest(
            messages=(),
            constraints=constraints,
            labels=asked.labels,
            end_user=asked.end_user,
        )
        embedding = EmbeddingInput(texts)
        return replace(call, request=request, request_id=self._ids.new("emb"), decision_id="", embedding=embedding)


def _unit(vector: Sequence[float]) -> Vector:
    """The vector at length 1; none for one that points nowhere."""
    length = hypot(*vector)
    if not length:
        return b""
    numbers = array("f", [number / length for number in vector])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
