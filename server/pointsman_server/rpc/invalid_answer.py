"""The answer that does not fit, as a detail of its error.

Details travel as HTTP/2 trailers, of which clients take about 8 KiB, base64 and all else included. So the answer is
cut where there is no room for it; `textCharacters` in the metadata of the error says how long it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pointsman.v1.answer_pb2 import InvalidAnswer

MOST_DETAIL_BYTES = 4_000
MOST_VIOLATIONS_BYTES = 1_600
MOST_VIOLATION_BYTES = 400


def invalid_answer(text: str, violations: Iterable[str]) -> InvalidAnswer:
    """The detail; what is cut is cut at its end, between characters."""
    fitting = list(_fitting(violations))
    left_bytes = MOST_DETAIL_BYTES - sum(len(one.encode()) for one in fitting)
    return InvalidAnswer(text=_cut(text, left_bytes), violations=fitting)


def _fitting(violations: Iterable[str]) -> Iterator[str]:
    left_bytes = MOST_VIOLATIONS_BYTES
    for violation in violations:
        cut = _cut(violation, MOST_VIOLATION_BYTES)
        left_bytes -= len(cut.encode())
        if left_bytes < 0:
            return
        yield cut


def _cut(text: str, most_bytes: int) -> str:
    # No character has less than a byte, so the rest need not be encoded. A lone surrogate has no encoding.
    return text[:most_bytes].encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore")
