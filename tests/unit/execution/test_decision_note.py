"""A decision that went through a note is the decision that was made."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import circumstances, deployment, plan, rejection, request, snapshot
from kit.properties import examples
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.decision.engine import decide
from pointsman_server.domain.call import Decision
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.execution.decision_note import digest_of, read_decision, write_decision

ONE, TWO = deployment("one"), deployment("two")
DIGEST = digest_of(b"asked")


def is_passed_on(decision: Decision) -> bool:
    noted = read_decision(write_decision(decision, DIGEST))
    assert (noted.policy_version, noted.digest) == (decision.plan.policy_version, DIGEST)
    found = noted.under({"one": ONE, "two": TWO})
    return all(
        getattr(found, name) == getattr(decision, name) for name in ("id", "plan", "latency_seconds", "template")
    )


@pytest.mark.parametrize(
    "text", ["Hi", "Prove that there are infinitely many primes, step by step.", "Sag's auf 日本語"]
)
def test_a_real_one(text: str) -> None:
    policy = snapshot(ONE, TWO)
    made = decide(circumstances(complexity=judge_complexity(request(text))), policy)
    decision = Decision("dec_1", made, 0.001, "greet@2")
    assert is_passed_on(decision)


@examples(100)
@given(st.sampled_from(list(ExclusionReason)), st.text(max_size=20), st.floats(0, 1), st.integers(0, 2**40))
def test_whatever_is_in_it(reason: ExclusionReason, told: str, bias: float, tokens: int) -> None:
    told = told.encode("utf-8", "replace").decode()
    made = plan([ONE], rejections=(rejection("two", reason),))
    (candidate,) = made.candidates
    candidate = candidate._replace(room_tokens=tokens, takes_all=False, expected_quality=bias)
    made = type(made)(
        candidates=(candidate,), rejections=made.rejections, complexity=made.complexity,
        input_tokens=made.input_tokens, policy_version="v1", applied_rules=(told,), quality_bias=bias,
    )  # fmt: skip
    decision = Decision("dec_1", made, bias, told)
    assert is_passed_on(decision)


def test_one_whose_deployment_is_gone_cannot_be_followed() -> None:
    noted = read_decision(write_decision(Decision("dec_1", plan([ONE, TWO]), 0.0), DIGEST))
    with pytest.raises(ValueError, match="missing"):
        noted.under({"one": ONE})


@pytest.mark.parametrize("change", [{"plan": None}, {"plan": {}}, {"digest": None}, {"digest": "zz"}])
def test_a_note_of_another_version_is_refused_as_a_whole(change: dict[str, Any]) -> None:
    written = orjson.loads(write_decision(Decision("dec_1", plan([ONE]), 0.0), DIGEST))
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        read_decision(orjson.dumps({**written, **change}))
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        read_decision(b"{")


def test_no_note_opens_a_sealed_answer() -> None:
    assert digest_of(b"asked") != b"asked"
    assert digest_of(b"asked") == DIGEST != digest_of(b"asked else")
    assert len(DIGEST) == 16
