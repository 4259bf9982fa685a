"""What callers are told was left out. The other warnings are tested with what they are about."""

from __future__ import annotations

import pytest

from kit.catalog import call, candidate, deployment, snapshot
from kit.scripted import answers
from pointsman_server.decision.fitting import Fitted, LeftOut
from pointsman_server.domain.call import Attempt, AttemptOutcome
from pointsman_server.domain.reply import Reply, fold
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.warnings import MOST_NAMED_DOCUMENTS, warnings_about

SMALL = deployment("small")


def told(left_out: LeftOut) -> dict[str, str]:
    reply: Reply = fold(event for batch in answers("Yes") if isinstance(batch, tuple) for event in batch)
    attempt = Attempt(SMALL, 1.0, None, AttemptOutcome.SUCCEEDED, reply.usage, 10)
    record = DispatchRecord([attempt], candidate(SMALL), reply, reply, packed={"small": Fitted((), left_out)})
    return {warning.code: warning.message for warning in warnings_about(call(snapshot(SMALL)), record)}


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (LeftOut(turns=1, messages=2), "the oldest turn of the conversation (2 messages)"),
        (LeftOut(turns=3, messages=8), "the oldest 3 turns of the conversation (8 messages)"),
        (LeftOut(cut=("a",)), "parts of document a"),
        (LeftOut(documents=("a", "b")), "all of documents a, b"),
        (
            LeftOut(turns=2, messages=4, cut=("a",), documents=("b", "c")),
            "the oldest 2 turns of the conversation (4 messages); parts of document a; all of documents b, c",
        ),
    ],
)
def test_it_is_named(left_out: LeftOut, message: str) -> None:
    assert told(left_out) == {
        "context_trimmed": f"left out, because the context window of small is too small: {message}"
    }


def test_of_very_many_the_rest_is_counted() -> None:
    ids = tuple(f"d{number}" for number in range(MOST_NAMED_DOCUMENTS + 7))
    message = told(LeftOut(documents=ids))["context_trimmed"]
    assert message.endswith(f"d{MOST_NAMED_DOCUMENTS - 1} and 7 more")


def test_where_nothing_is_nothing_is_said() -> None:
    assert told(LeftOut()) == {}
