"""The encoder whose weights come in a package: refused where that is missing, and of any language where it is not."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import numpy as np
import pytest

from pointsman_server.adapters.embedders.sentence_encoder import EncoderMissingError, SentenceEncoder
from pointsman_server.decision.encoder import ENCODER, Encoder

needs_the_package = pytest.mark.skipif(
    find_spec(ENCODER.module) is None, reason=f"needs the optional package {ENCODER.package}"
)


def test_a_missing_package_is_named() -> None:
    encoder = SentenceEncoder(Encoder("no-such-package-of-vectors", "1.0", "no_such_module"))
    with pytest.raises(EncoderMissingError, match="no-such-package-of-vectors is not installed"):
        encoder.encode(["Hello"])


def test_another_version_has_other_vectors_and_is_refused() -> None:
    encoder = SentenceEncoder(Encoder("numpy", "0.0.1", "numpy"))
    with pytest.raises(EncoderMissingError, match=r"numpy is of version .* instead of 0\.0\.1"):
        asyncio.run(encoder.embed(["Hello"]))


@needs_the_package
def test_texts_that_mean_alike_have_vectors_that_are_alike() -> None:
    encoder = SentenceEncoder(ENCODER)
    texts = ["Where is the railway station?", "Wo ist der Bahnhof?", "Prove that there is no largest prime number."]
    vectors = [np.frombuffer(one, "<f4") for one in asyncio.run(encoder.embed(texts))]
    assert [one.shape for one in vectors] == [(512,)] * 3
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert vectors[0] @ vectors[1] > 0.6 > vectors[0] @ vectors[2]


@needs_the_package
def test_it_is_named_after_package_and_version() -> None:
    assert SentenceEncoder(ENCODER).name == f"{ENCODER.package}-{ENCODER.version}"
