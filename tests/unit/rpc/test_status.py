from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from kit.catalog import rejection
from pointsman.v1 import answer_pb2
from pointsman.v1.errors_pb2 import ErrorReason
from pointsman_server.domain import errors
from pointsman_server.domain.control import KillScope, KillSwitch
from pointsman_server.domain.errors import FailedAttempt, FieldProblem
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.governance import Period
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.rpc.status import MalformedRequest, RequestTooSlow, TooMuchMetadata, status_of

Code = grpc.StatusCode
PROBLEMS = (FieldProblem("completion.tier", "must be set"),)
OUT = (rejection("d", ExclusionReason.REGION), rejection("e", ExclusionReason.COOLDOWN))


def failed(*kinds: FaultKind, retry: float | None = None) -> errors.AttemptsFailed:
    return errors.AttemptsFailed(
        tuple(FailedAttempt(f"d{n}", kind, f"said {n}") for n, kind in enumerate(kinds)), retry
    )


def misfit(text: str = '{"canary": 1}', *, streamed: bool = False) -> errors.AnswerInvalid:
    attempts = (FailedAttempt("d", FaultKind.ANSWER_INVALID, "does not fit"),) * 2
    return errors.AnswerInvalid(
        attempts, text=text, violations=("/canary: 1",), output_tokens=12, cost_micro_usd=34, streamed=streamed
    )


@dataclass(frozen=True)
class Row:
    """An error and how it is told."""

    error: Exception
    code: grpc.StatusCode
    reason: str
    details: tuple[str, ...] = ()


TABLE: dict[str, Row] = {
    "RouterError": Row(errors.RouterError("something odd"), Code.INTERNAL, "INTERNAL"),
    "Unauthenticated": Row(errors.Unauthenticated(), Code.UNAUTHENTICATED, "UNAUTHENTICATED"),
    "PermissionDenied": Row(errors.PermissionDenied("no"), Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
    "InvalidRequest": Row(errors.InvalidRequest(PROBLEMS), Code.INVALID_ARGUMENT, "INVALID_FIELD", ("BadRequest",)),
    "InvalidRequest, conflicting": Row(
        errors.InvalidRequest(PROBLEMS, conflicting=True), Code.INVALID_ARGUMENT, "CONFLICTING_FIELDS", ("BadRequest",)
    ),
    "ContextOverflow": Row(
        errors.ContextOverflow(9_000, 8_000), Code.INVALID_ARGUMENT, "CONTEXT_OVERFLOW", ("BadRequest",)
    ),
    "PromptRejected": Row(errors.PromptRejected(PROBLEMS), Code.INVALID_ARGUMENT, "PROMPT_REJECTED", ("BadRequest",)),
    "GuardsUnavailable": Row(errors.GuardsUnavailable(), Code.UNAVAILABLE, "GUARD_UNAVAILABLE", ("RetryInfo",)),
    "UnsupportedContent": Row(
        errors.UnsupportedContent(PROBLEMS), Code.INVALID_ARGUMENT, "UNSUPPORTED_CONTENT", ("BadRequest",)
    ),
    "DeploymentNotFound": Row(errors.DeploymentNotFound(), Code.NOT_FOUND, "DEPLOYMENT_NOT_FOUND"),
    "SwitchedOff": Row(
        errors.SwitchedOff("SHUT", "service", "shut for now"),
        Code.FAILED_PRECONDITION,
        "KILL_SWITCH",
        ("PreconditionFailure",),
    ),
    "KillSwitchEngaged": Row(
        errors.KillSwitchEngaged(KillSwitch(KillScope.GLOBAL)),
        Code.FAILED_PRECONDITION,
        "KILL_SWITCH",
        ("PreconditionFailure",),
    ),
    "RouteOnly": Row(errors.RouteOnly("acme"), Code.FAILED_PRECONDITION, "KILL_SWITCH", ("PreconditionFailure",)),
    "RateLimited": Row(
        errors.RateLimited("tenants/acme", "5 requests a minute", 12.3456),
        Code.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        ("RetryInfo", "QuotaFailure"),
    ),
    "RateLimited, in vain": Row(
        errors.RateLimited("tenants/acme", "0 requests a minute", None),
        Code.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        ("QuotaFailure",),
    ),
    "CountersUnavailable": Row(errors.CountersUnavailable(1.0), Code.UNAVAILABLE, "STORE_UNAVAILABLE", ("RetryInfo",)),
    "RequestIdReused": Row(errors.RequestIdReused("was used before"), Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    "AnswersUnavailable": Row(errors.AnswersUnavailable(1.0), Code.UNAVAILABLE, "STORE_UNAVAILABLE", ("RetryInfo",)),
    "NoEligibleDeployment": Row(
        errors.NoEligibleDeployment(OUT), Code.FAILED_PRECONDITION, "NO_ELIGIBLE_DEPLOYMENT", ("PreconditionFailure",)
    ),
    "NobodyHealthy": Row(
        errors.NobodyHealthy(OUT, 2.5), Code.UNAVAILABLE, "ALL_ATTEMPTS_FAILED", ("RetryInfo", "PreconditionFailure")
    ),
    "DecisionExpired": Row(
        errors.DecisionExpired("is too old"), Code.FAILED_PRECONDITION, "DECISION_EXPIRED", ("PreconditionFailure",)
    ),
    "RequestNotFound": Row(errors.RequestNotFound(), Code.NOT_FOUND, "REQUEST_NOT_FOUND"),
    "TraceNotFound": Row(errors.TraceNotFound(), Code.NOT_FOUND, "REQUEST_NOT_FOUND"),
    "AttemptsFailed": Row(
        failed(FaultKind.TIMEOUT, FaultKind.CONNECTION), Code.UNAVAILABLE, "ALL_ATTEMPTS_FAILED", ("RetryInfo",)
    ),
    "StreamInterrupted": Row(
        errors.StreamInterrupted((FailedAttempt("d", FaultKind.STREAM_CUT, "cut"),), 12, 34),
        Code.ABORTED,
        "STREAM_INTERRUPTED",
    ),
    "AnswerInvalid": Row(misfit(), Code.UNAVAILABLE, "ANSWER_INVALID", ("InvalidAnswer",)),
    "AnswerInvalid, streamed": Row(misfit(streamed=True), Code.ABORTED, "ANSWER_INVALID", ("InvalidAnswer",)),
    "BudgetExceeded": Row(
        errors.BudgetExceeded("team", Period.DAY), Code.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED", ("QuotaFailure",)
    ),
    "LedgerUnavailable": Row(errors.LedgerUnavailable(0.25), Code.UNAVAILABLE, "STORE_UNAVAILABLE", ("RetryInfo",)),
    "DeadlineExceeded": Row(errors.DeadlineExceeded(errors.Step.DECIDE), Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    "Overloaded": Row(errors.Overloaded(0.5), Code.RESOURCE_EXHAUSTED, "OVERLOADED", ("RetryInfo", "QuotaFailure")),
    "ReaderTooSlow": Row(errors.ReaderTooSlow(), Code.UNAVAILABLE, "READER_TOO_SLOW"),
    "Draining": Row(errors.Draining(1.0), Code.UNAVAILABLE, "DRAINING", ("RetryInfo",)),
    "RequestTooSlow": Row(RequestTooSlow(), Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    "StoreUnavailableError": Row(
        StoreUnavailableError("canary"), Code.UNAVAILABLE, "STORE_UNAVAILABLE", ("RetryInfo",)
    ),
    "MalformedRequest": Row(MalformedRequest(), Code.INVALID_ARGUMENT, "MALFORMED_REQUEST", ("BadRequest",)),
    "TooMuchMetadata": Row(TooMuchMetadata(), Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"),
    "NotImplementedError": Row(NotImplementedError("canary"), Code.UNIMPLEMENTED, "FEATURE_UNAVAILABLE"),
}

UNAVAILABLE = (Code.UNAVAILABLE, "ALL_ATTEMPTS_FAILED", ("RetryInfo",))
OF_FAULTS: dict[FaultKind, tuple[grpc.StatusCode, str, tuple[str, ...]]] = {
    FaultKind.RATE_LIMITED: (Code.RESOURCE_EXHAUSTED, "PROVIDER_RATE_LIMITED", ("RetryInfo", "QuotaFailure")),
    FaultKind.OVERLOADED: UNAVAILABLE,
    FaultKind.UNAVAILABLE: UNAVAILABLE,
    FaultKind.CONNECTION: UNAVAILABLE,
    FaultKind.TIMEOUT: (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", ()),
    FaultKind.AUTH: (Code.INTERNAL, "PROVIDER_AUTH", ()),
    FaultKind.QUOTA: (Code.RESOURCE_EXHAUSTED, "PROVIDER_QUOTA", ("QuotaFailure",)),
    FaultKind.CONTEXT_WINDOW: (Code.INVALID_ARGUMENT, "CONTEXT_OVERFLOW", ("BadRequest",)),
    FaultKind.REQUEST_TOO_LARGE: (Code.INVALID_ARGUMENT, "CONTEXT_OVERFLOW", ("BadRequest",)),
    FaultKind.INVALID_REQUEST: (Code.INVALID_ARGUMENT, "PROVIDER_INVALID_REQUEST", ("BadRequest",)),
    FaultKind.UNSUPPORTED: (Code.INVALID_ARGUMENT, "UNSUPPORTED_CONTENT", ("BadRequest",)),
    FaultKind.MODEL_MISSING: (Code.FAILED_PRECONDITION, "PROVIDER_MODEL_MISSING", ("PreconditionFailure",)),
    FaultKind.MALFORMED_REPLY: UNAVAILABLE,
    FaultKind.EMPTY_REPLY: UNAVAILABLE,
    FaultKind.STREAM_CUT: UNAVAILABLE,
    FaultKind.ANSWER_INVALID: UNAVAILABLE,
    FaultKind.TOO_SLOW: UNAVAILABLE,
    FaultKind.UNKNOWN: UNAVAILABLE,
}


class Told:
    """A status as it is sent, unpacked."""

    def __init__(self, error: Exception) -> None:
        self.status = status_of(error)
        self.sent = self.status.to_proto("req_7")
        self.details: dict[str, Any] = {}
        for packed in self.sent.details:
            name = packed.TypeName().rsplit(".", 1)[-1]
            assert name not in self.details, f"{name} twice"
            self.details[name] = getattr(answer_pb2 if name == "InvalidAnswer" else error_details_pb2, name)()
            packed.Unpack(self.details[name])
        self.info = self.details["ErrorInfo"]
        self.others = tuple(name for name in self.details if name != "ErrorInfo")


def check(error: Exception, code: grpc.StatusCode, reason: str, details: tuple[str, ...]) -> Told:
    told = Told(error)
    assert told.sent.code == code.value[0]
    assert (told.info.reason, told.info.domain, told.info.metadata["requestId"]) == (reason, "pointsman.v1", "req_7")
    assert told.others == details
    assert told.sent.message.endswith("(request req_7)")
    assert ErrorReason.Value(f"ERROR_REASON_{reason}") > 0
    return told


@pytest.mark.parametrize("name", TABLE)
def test_every_error_has_its_status(name: str) -> None:
    row = TABLE[name]
    check(row.error, row.code, row.reason, row.details)


def test_the_table_has_every_error_a_caller_can_be_told() -> None:
    assert {type(row.error) for row in TABLE.values()} >= set(_tree(errors.RouterError))


def _tree(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(one for below in kind.__subclasses__() for one in _tree(below))]


@pytest.mark.parametrize("kind", FaultKind)
def test_what_all_attempts_met_is_told(kind: FaultKind) -> None:
    told = check(failed(kind, kind), *OF_FAULTS[kind])
    assert told.info.metadata["attempts"] == f"d0:{kind.value},d1:{kind.value}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("canary at /srv/keys"), Code.INTERNAL),
        (KeyError("canary"), Code.INTERNAL),
        (errors.RouterError("canary"), Code.INTERNAL),
        (NotImplementedError("canary"), Code.UNIMPLEMENTED),
        (MalformedRequest("canary"), Code.INVALID_ARGUMENT),
    ],
)
def test_nothing_of_an_unforeseen_error_is_told(error: Exception, told: grpc.StatusCode) -> None:
    sent = Told(error)
    assert sent.status.code is told
    assert "canary" not in str(sent.sent)


def test_an_error_below_a_known_one_is_told_like_it() -> None:
    class Stricter(errors.Draining):
        pass

    assert Told(Stricter(3.0)).info.reason == "DRAINING"


class TestDetails:
    def test_fields_with_their_problems(self) -> None:
        violations = Told(errors.InvalidRequest(PROBLEMS * 2)).details["BadRequest"].field_violations
        assert [(one.field, one.description) for one in violations] == [("completion.tier", "must be set")] * 2

    def test_every_deployment_that_is_out(self) -> None:
        violations = Told(errors.NoEligibleDeployment(OUT)).details["PreconditionFailure"].violations
        assert [(one.type, one.subject, one.description) for one in violations] == [
            ("REGION", "deployments/d", OUT[0].detail),
            ("COOLDOWN", "deployments/e", OUT[1].detail),
        ]

    @pytest.mark.parametrize(
        ("error", "what", "subject"),
        [
            (errors.KillSwitchEngaged(KillSwitch(KillScope.GLOBAL)), "KILL_SWITCH", "service"),
            (errors.KillSwitchEngaged(KillSwitch(KillScope.TENANT, "acme")), "KILL_SWITCH", "tenants/acme"),
            (errors.KillSwitchEngaged(KillSwitch(KillScope.PROVIDER, "up")), "KILL_SWITCH", "providers/up"),
            (errors.RouteOnly("acme"), "ROUTE_ONLY", "tenants/acme"),
        ],
    )
    def test_what_an_operator_switched_off(self, error: errors.SwitchedOff, what: str, subject: str) -> None:
        violation = Told(error).details["PreconditionFailure"].violations[0]
        assert (violation.type, violation.subject, violation.description) == (what, subject, str(error))

    @pytest.mark.parametrize(
        ("error", "milliseconds"),
        [
            (errors.Overloaded(0.5), 500),
            (errors.Draining(0.0), 1),
            (errors.NobodyHealthy(OUT, 12.3456), 12_346),
            (failed(FaultKind.RATE_LIMITED, retry=7.0), 7_000),
            (failed(FaultKind.RATE_LIMITED), 1_000),
            (failed(FaultKind.UNAVAILABLE, retry=0.0), 1),
        ],
    )
    def test_when_to_try_again(self, error: Exception, milliseconds: int) -> None:
        assert Told(error).details["RetryInfo"].retry_delay.ToMilliseconds() == milliseconds

    def test_which_limit_is_reached(self) -> None:
        told = Told(errors.RateLimited("tenants/acme/end_user", "20 requests a minute", 59.8004))
        violation = told.details["QuotaFailure"].violations[0]
        assert (violation.subject, violation.description) == ("tenants/acme/end_user", "20 requests a minute")
        assert told.details["RetryInfo"].retry_delay.ToMilliseconds() == 59_800

    def test_which_budget_is_used_up(self) -> None:
        told = Told(errors.BudgetExceeded("team", Period.MONTH))
        violation = told.details["QuotaFailure"].violations[0]
        assert (violation.subject, violation.description) == ("budgets/team", "the budget of this month is used up")
        assert (told.info.metadata["budget"], told.info.metadata["period"]) == ("team", "month")

    def test_both_numbers_of_an_overflow(self) -> None:
        metadata = Told(errors.ContextOverflow(9_000, 8_000)).info.metadata
        assert (metadata["inputTokens"], metadata["largestWindowTokens"]) == ("9000", "8000")

    def test_the_account_of_an_interruption(self) -> None:
        attempts = (FailedAttempt("a", FaultKind.QUOTA, "x"), FailedAttempt("b", FaultKind.STREAM_CUT, "y"))
        told = Told(errors.StreamInterrupted(attempts, 12, 34))
        assert told.info.metadata["attempts"] == "a:quota,b:stream_cut"
        assert (told.info.metadata["outputTokens"], told.info.metadata["costMicroUsd"]) == ("12", "34")
        assert "not the whole answer" in told.sent.message

    def test_an_answer_that_does_not_fit_with_its_account(self) -> None:
        told = Told(misfit())
        detail, metadata = told.details["InvalidAnswer"], told.info.metadata
        assert (detail.text, list(detail.violations)) == ('{"canary": 1}', ["/canary: 1"])
        assert metadata["attempts"] == "d:answer_invalid,d:answer_invalid"
        assert (metadata["outputTokens"], metadata["costMicroUsd"], metadata["textCharacters"]) == ("12", "34", "13")
        assert "canary" not in told.sent.message

    def test_the_step_of_a_deadline_and_what_was_tried(self) -> None:
        tried = (FailedAttempt("a", FaultKind.TIMEOUT, "x"),)
        metadata = Told(errors.DeadlineExceeded(errors.Step.DISPATCH, tried)).info.metadata
        assert (metadata["step"], metadata["attempts"]) == ("dispatch", "a:timeout")
        assert "attempts" not in Told(errors.DeadlineExceeded(errors.Step.DECIDE)).info.metadata

    @pytest.mark.parametrize(
        ("kind", "read"),
        [
            (FaultKind.QUOTA, lambda details: details["QuotaFailure"].violations[0]),
            (FaultKind.MODEL_MISSING, lambda details: details["PreconditionFailure"].violations[0]),
        ],
    )
    def test_whose_account_or_model_it_is(self, kind: FaultKind, read: Callable[[dict[str, Any]], Any]) -> None:
        violation = read(Told(failed(kind, kind)).details)
        assert (violation.subject, violation.description) == ("deployments/d1", "said 1")

    def test_the_field_of_what_a_provider_found_wrong(self) -> None:
        violations = Told(failed(FaultKind.INVALID_REQUEST)).details["BadRequest"].field_violations
        assert [(one.field, one.description) for one in violations] == [("completion", "said 0")]
