from __future__ import annotations

import pytest

from pointsman_server.execution.sealing import Seal

ASKED = b"a hash of a question"


def test_who_asks_the_same_reads_the_answer() -> None:
    sealed = Seal.of(ASKED).close(b"the answer")
    assert Seal.of(ASKED).open(sealed) == b"the answer"
    assert b"answer" not in sealed
    assert sealed != Seal.of(ASKED).close(b"the answer")


def test_what_is_kept_opens_nothing() -> None:
    seal = Seal.of(ASKED)
    sealed = seal.close(b"the answer")
    for other in (Seal.of(seal.digest), Seal.of(b"another"), Seal(seal.digest, seal.digest * 2)):
        with pytest.raises(ValueError, match="not sealed"):
            other.open(sealed)


@pytest.mark.parametrize("spoilt", [b"", b"x" * 12, b"x" * 40])
def test_what_was_changed_is_no_answer(spoilt: bytes) -> None:
    with pytest.raises(ValueError, match="not sealed"):
        Seal.of(ASKED).open(spoilt)
