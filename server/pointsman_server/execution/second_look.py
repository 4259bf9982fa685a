"""The second look at the tier of a request: by what it means, where its words leave that in doubt.

It may take some milliseconds and never fails a call: who cannot be read in time keeps the judgement by words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from pointsman_server.decision.complexity import in_doubt, judge_complexity
from pointsman_server.decision.remembered import Remembered
from pointsman_server.domain.embedder import Embedder, Vector
from pointsman_server.domain.plan import Complexity
from pointsman_server.domain.request import CompletionRequest

PATIENCE_SECONDS = 0.01
"""After this the judgement by words stands."""

MOST_REMEMBERED = 200
"""Texts whose vectors are remembered, 2 kB each: an agent sends the same turn with every result of a tool."""

_LOG = structlog.stdlib.get_logger("pointsman.second_look")


class SecondLooks:
    """Looks again with the vectors of this embedder; without one nothing is looked at again. One for the process."""

    def __init__(self, embedder: Embedder | None = None, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._embedder = embedder
        self._patience_seconds = patience_seconds
        self._remembered: Remembered[str, Vector] = Remembered(MOST_REMEMBERED)

    async def judge(self, request: CompletionRequest, by_words: Complexity) -> Complexity:
        """The judgement with a second look, or the one by words where that is sure or the look does not succeed."""
        texts = in_doubt(request) if self._embedder else ()
        if not texts:
            return by_words
        meanings = await self._meanings(texts)
        return judge_complexity(request, meanings) if meanings else by_words

    async def _meanings(self, texts: Sequence[str]) -> Mapping[str, Vector]:
        known = self._remembered
        unknown = [text for text in texts if text not in known]
        new = dict(zip(unknown, await self._read(unknown), strict=False)) if unknown else {}
        meanings = new | {text: known[text] for text in texts if text in known}
        for text, vector in new.items():
            known.keep(text, vector)
        return meanings

    async def _read(self, texts: Sequence[str]) -> Sequence[Vector]:
        if self._embedder is None:
            return ()
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await self._embedder.embed(texts)
        except TimeoutError:
            return ()
        except Exception as error:  # whatever fails here, the call goes on by words
            self._embedder = None
            _LOG.warning("second_look_off", error=type(error).__name__, remedy="run `pointsman preflight`")
            return ()
