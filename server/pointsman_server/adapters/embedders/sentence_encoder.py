"""Vectors of what texts mean, from a multilingual sentence encoder whose weights come inside an optional package.

The encoder needs numpy and nothing else: no download, no graphics card. It is loaded when it is first used, which takes
a second and some 110 MB, and works in one thread of its own, so that neither disturbs the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pointsman_server.decision.encoder import Encoder
from pointsman_server.domain.embedder import Vector


class EncoderMissingError(Exception):
    """The package is not installed, or in another version than the one whose vectors are known."""


class SentenceEncoder:
    """See `Embedder`. Making one loads nothing yet."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._model: Any = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="second-look")

    @property
    def name(self) -> str:
        """See `Embedder.name`."""
        return f"{self._encoder.package}-{self._encoder.version}"

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """See `Embedder.embed`. Raises `EncoderMissingError`."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self.encode, tuple(texts))

    def encode(self, texts: Sequence[str]) -> Sequence[Vector]:
        """The vectors at once, in the thread that asks: some milliseconds a text. Raises `EncoderMissingError`."""
        if self._model is None:
            self._model = _load(self._encoder)
        return [row.astype("<f4").tobytes() for row in self._model.encode(list(texts))]


def _load(encoder: Encoder) -> Any:
    try:
        found = version(encoder.package)
    except PackageNotFoundError as error:
        raise EncoderMissingError(f"the package {encoder.package} is not installed") from error
    if found != encoder.version:
        raise EncoderMissingError(f"the package {encoder.package} is of version {found} instead of {encoder.version}")
    model = import_module(encoder.module).USE(threads=1)
    model.encode("ready")  # its weights are read by its first text
    return model
