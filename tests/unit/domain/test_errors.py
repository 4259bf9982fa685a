from __future__ import annotations

import pytest

from kit.catalog import rejection
from pointsman_server.domain import errors
from pointsman_server.domain.errors import (
    AttemptsFailed,
    ContextOverflow,
    DeadlineExceeded,
    DeploymentNotFound,
    Draining,
    FailedAttempt,
    FieldProblem,
    InvalidRequest,
    NobodyHealthy,
    NoEligibleDeployment,
    Overloaded,
    Step,
    StreamInterrupted,
)
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.plan import ExclusionReason


def failed(*kinds: FaultKind) -> AttemptsFailed:
    return AttemptsFailed(tuple(FailedAttempt(f"d{n}", kind, f"said {n}") for n, kind in enumerate(kinds)))


class TestAttemptsFailed:
    @pytest.mark.parametrize(
        ("kinds", "kind"),
        [
            ([FaultKind.QUOTA], FaultKind.QUOTA),
            ([FaultKind.RATE_LIMITED, FaultKind.RATE_LIMITED], FaultKind.RATE_LIMITED),
            ([FaultKind.RATE_LIMITED, FaultKind.QUOTA], None),
            ([FaultKind.TIMEOUT, FaultKind.INVALID_REQUEST], FaultKind.INVALID_REQUEST),
        ],
    )
    def test_the_fault_that_ended_it(self, kinds: list[FaultKind], kind: FaultKind | None) -> None:
        assert failed(*kinds).kind is kind

    def test_it_tells_every_attempt(self) -> None:
        message = str(failed(FaultKind.TIMEOUT, FaultKind.AUTH))
        assert message == "every attempt failed: d0: said 0; d1: said 1"

    def test_an_interruption_is_one_with_an_account(self) -> None:
        error = StreamInterrupted((FailedAttempt("d", FaultKind.STREAM_CUT, "cut"),), 12, 34)
        assert (error.output_tokens, error.cost_micro_usd, error.kind) == (12, 34, FaultKind.STREAM_CUT)


class TestInvalidRequest:
    def test_it_names_the_first_three_problems(self) -> None:
        error = InvalidRequest(tuple(FieldProblem(f"f{n}", "must be set") for n in range(5)))
        assert str(error) == "f0: must be set; f1: must be set; f2: must be set"
        assert len(error.problems) == 5
        assert not error.conflicting

    def test_overflow_tells_both_numbers_and_the_remedy(self) -> None:
        error = ContextOverflow(5_000, 4_096)
        assert "5000" in str(error)
        assert "4096" in str(error)
        assert "shorten" in str(error)
        assert [problem.field for problem in error.problems] == ["completion.messages"]


class TestOthers:
    def test_who_is_out_is_kept_for_the_details(self) -> None:
        out = (rejection("d", ExclusionReason.DENIED),)
        assert NoEligibleDeployment(out).rejections == out
        error = NobodyHealthy(out, 2.5)
        assert (error.rejections, error.retry_after_seconds) == (out, 2.5)

    @pytest.mark.parametrize("kind", [Overloaded, Draining])
    def test_when_to_try_again_is_kept(self, kind: type[Overloaded | Draining]) -> None:
        assert kind(1.5).retry_after_seconds == 1.5

    def test_an_unknown_deployment_is_told_without_its_name(self) -> None:
        assert str(DeploymentNotFound()) == "completion.deployment names no deployment that you may use"


@pytest.mark.parametrize("step", Step)
def test_a_deadline_names_its_step(step: Step) -> None:
    error = DeadlineExceeded(step)
    assert step.value in str(error)
    assert error.attempts == ()


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    named = {word for word in (errors.__doc__ or "").replace("─", " ").split() if word[:1].isupper() and word.isalpha()}
    assert set(_below(errors.RouterError)) <= named


def _below(kind: type[errors.RouterError]) -> list[str]:
    return [kind.__name__, *(name for below in kind.__subclasses__() for name in _below(below))]
