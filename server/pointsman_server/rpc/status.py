"""Errors as callers see them: a gRPC code, exactly one `ErrorInfo`, and the details that help.

One table turns each kind of error into its status. Whatever is not in the table is INTERNAL, with the request id and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from pointsman.v1.errors_pb2 import ErrorReason
from pointsman_server.domain import errors
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.plan import Rejection
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.rpc.invalid_answer import invalid_answer

DOMAIN = "pointsman.v1"
_PREFIX = "ERROR_REASON_"
DEFAULT_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """A status before it gets its request id."""

    code: grpc.StatusCode
    reason: ErrorReason.ValueType
    message: str
    details: tuple[Message, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def to_proto(self, request_id: str) -> status_pb2.Status:
        """The status as it is sent."""
        info = error_details_pb2.ErrorInfo(
            reason=ErrorReason.Name(self.reason).removeprefix(_PREFIX),
            domain=DOMAIN,
            metadata={**self.metadata, "requestId": request_id},
        )
        return status_pb2.Status(
            code=self.code.value[0],
            message=f"{self.message} (request {request_id})",
            details=[_pack(detail) for detail in (info, *self.details)],
        )


class MalformedRequest(Exception):
    """The bytes are not a message of the contract."""


class RequestTooSlow(Exception):
    """The call began, and its message did not come whole within the time that the server allows for that."""


class TooMuchMetadata(Exception):
    """The call carries more metadata entries than the server takes."""


def status_of(error: Exception) -> ErrorStatus:
    """The status for this error, by the most specific row of the table."""
    for kind in type(error).__mro__:
        row = _TABLE.get(kind)
        if row is not None:
            return row(error)
    return ErrorStatus(
        grpc.StatusCode.INTERNAL,
        ErrorReason.ERROR_REASON_INTERNAL,
        "something unforeseen happened; the request id finds it in the server's log",
    )


def _pack(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _bad_request(problems: Iterable[errors.FieldProblem]) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[violation(field=problem.field, description=problem.description) for problem in problems]
    )


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(max(1, round(seconds * 1000)))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _quota(subject: str, description: str) -> error_details_pb2.QuotaFailure:
    violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=description)
    return error_details_pb2.QuotaFailure(violations=[violation])


def _precondition(rejections: Iterable[Rejection]) -> error_details_pb2.PreconditionFailure:
    violation = error_details_pb2.PreconditionFailure.Violation
    return error_details_pb2.PreconditionFailure(
        violations=[
            violation(
                type=rejection.reason.name,
                subject=f"deployments/{rejection.deployment_id}",
                description=rejection.detail,
            )
            for rejection in rejections
        ]
    )


def _stale(error: errors.DecisionExpired) -> error_details_pb2.PreconditionFailure:
    violation = error_details_pb2.PreconditionFailure.Violation
    return error_details_pb2.PreconditionFailure(
        violations=[violation(type="DECISION", subject="decision_id", description=str(error))]
    )


def _switched_off(error: errors.SwitchedOff) -> ErrorStatus:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=error.what, subject=error.subject, description=str(error)
    )
    return ErrorStatus(
        grpc.StatusCode.FAILED_PRECONDITION,
        ErrorReason.ERROR_REASON_KILL_SWITCH,
        str(error),
        (error_details_pb2.PreconditionFailure(violations=[violation]),),
    )


def _invalid(error: errors.InvalidRequest) -> ErrorStatus:
    reason = ErrorReason.ERROR_REASON_INVALID_FIELD
    if error.conflicting:
        reason = ErrorReason.ERROR_REASON_CONFLICTING_FIELDS
    return _invalid_because(error, reason)


def _invalid_because(
    error: errors.InvalidRequest, reason: ErrorReason.ValueType, metadata: Mapping[str, str] | None = None
) -> ErrorStatus:
    return ErrorStatus(
        grpc.StatusCode.INVALID_ARGUMENT, reason, str(error), (_bad_request(error.problems),), metadata or {}
    )


def _context_overflow(error: errors.ContextOverflow) -> ErrorStatus:
    counts = {"inputTokens": str(error.input_tokens), "largestWindowTokens": str(error.largest_window_tokens)}
    return _invalid_because(error, ErrorReason.ERROR_REASON_CONTEXT_OVERFLOW, counts)


def _rate_limited(error: errors.RateLimited) -> ErrorStatus:
    quota = _quota(error.subject, error.quota)
    return ErrorStatus(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_RATE_LIMITED,
        str(error),
        (quota,) if error.retry_after_seconds is None else (_retry_info(error.retry_after_seconds), quota),
    )


def _store_unavailable(error: errors.CountersUnavailable | errors.AnswersUnavailable) -> ErrorStatus:
    return ErrorStatus(
        grpc.StatusCode.UNAVAILABLE,
        ErrorReason.ERROR_REASON_STORE_UNAVAILABLE,
        str(error),
        (_retry_info(error.retry_after_seconds),),
    )


def _nobody_healthy(error: errors.NobodyHealthy) -> ErrorStatus:
    return ErrorStatus(
        grpc.StatusCode.UNAVAILABLE,
        ErrorReason.ERROR_REASON_ALL_ATTEMPTS_FAILED,
        str(error),
        (_retry_info(error.retry_after_seconds), _precondition(error.rejections)),
    )


_BY_FAULT: Mapping[FaultKind, tuple[grpc.StatusCode, ErrorReason.ValueType]] = {
    FaultKind.RATE_LIMITED: (grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED),
    FaultKind.QUOTA: (grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.ERROR_REASON_PROVIDER_QUOTA),
    FaultKind.CONTEXT_WINDOW: (grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_CONTEXT_OVERFLOW),
    FaultKind.REQUEST_TOO_LARGE: (grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_CONTEXT_OVERFLOW),
    FaultKind.INVALID_REQUEST: (grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_PROVIDER_INVALID_REQUEST),
    FaultKind.UNSUPPORTED: (grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.ERROR_REASON_UNSUPPORTED_CONTENT),
    FaultKind.MODEL_MISSING: (grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.ERROR_REASON_PROVIDER_MODEL_MISSING),
    FaultKind.AUTH: (grpc.StatusCode.INTERNAL, ErrorReason.ERROR_REASON_PROVIDER_AUTH),
    FaultKind.TIMEOUT: (grpc.StatusCode.DEADLINE_EXCEEDED, ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED),
}
"""Where all attempts met the same fault, the caller learns which; every other end is UNAVAILABLE."""


def _attempts_failed(error: errors.AttemptsFailed) -> ErrorStatus:
    unavailable = (grpc.StatusCode.UNAVAILABLE, ErrorReason.ERROR_REASON_ALL_ATTEMPTS_FAILED)
    code, reason = _BY_FAULT.get(error.kind, unavailable) if error.kind is not None else unavailable
    return ErrorStatus(code, reason, str(error), _attempt_details(code, error), _attempt_metadata(error.attempts))


def _attempt_details(code: grpc.StatusCode, error: errors.AttemptsFailed) -> tuple[Message, ...]:
    retry = _retry_info(DEFAULT_RETRY_SECONDS if error.retry_after_seconds is None else error.retry_after_seconds)
    last = error.attempts[-1]
    match code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            quota = _quota(f"deployments/{last.deployment_id}", last.detail)
            return (quota,) if error.kind is FaultKind.QUOTA else (retry, quota)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return (_bad_request([errors.FieldProblem("completion", last.detail)]),)
        case grpc.StatusCode.FAILED_PRECONDITION:
            violation = error_details_pb2.PreconditionFailure.Violation(
                type=last.kind.name, subject=f"deployments/{last.deployment_id}", description=last.detail
            )
            return (error_details_pb2.PreconditionFailure(violations=[violation]),)
        case grpc.StatusCode.UNAVAILABLE:
            return (retry,)
        case _:
            return ()


def _attempt_metadata(attempts: Iterable[errors.FailedAttempt]) -> dict[str, str]:
    return {"attempts": ",".join(f"{attempt.deployment_id}:{attempt.kind.value}" for attempt in attempts)}


def _stream_interrupted(error: errors.StreamInterrupted) -> ErrorStatus:
    metadata = {
        **_attempt_metadata(error.attempts),
        "outputTokens": str(error.output_tokens),
        "costMicroUsd": str(error.cost_micro_usd),
    }
    message = "the provider failed in the middle of its answer; what was sent so far is not the whole answer"
    return ErrorStatus(grpc.StatusCode.ABORTED, ErrorReason.ERROR_REASON_STREAM_INTERRUPTED, message, (), metadata)


def _answer_invalid(error: errors.AnswerInvalid) -> ErrorStatus:
    metadata = {
        **_attempt_metadata(error.attempts),
        "outputTokens": str(error.output_tokens),
        "costMicroUsd": str(error.cost_micro_usd),
        "textCharacters": str(len(error.text)),
    }
    return ErrorStatus(
        grpc.StatusCode.ABORTED if error.streamed else grpc.StatusCode.UNAVAILABLE,
        ErrorReason.ERROR_REASON_ANSWER_INVALID,
        str(error),
        (invalid_answer(error.text, error.violations),),
        metadata,
    )


def _deadline(error: errors.DeadlineExceeded) -> ErrorStatus:
    metadata = {"step": error.step.value}
    if error.attempts:
        metadata |= _attempt_metadata(error.attempts)
    return ErrorStatus(
        grpc.StatusCode.DEADLINE_EXCEEDED, ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, str(error), (), metadata
    )


def _row(
    code: grpc.StatusCode, reason: ErrorReason.ValueType, message: str = "", *details: Message
) -> Callable[[Exception], ErrorStatus]:
    return lambda error: ErrorStatus(code, reason, message or str(error), details)


_TABLE: dict[type[BaseException], Callable[..., ErrorStatus]] = {
    errors.Unauthenticated: _row(grpc.StatusCode.UNAUTHENTICATED, ErrorReason.ERROR_REASON_UNAUTHENTICATED),
    errors.PermissionDenied: _row(grpc.StatusCode.PERMISSION_DENIED, ErrorReason.ERROR_REASON_PERMISSION_DENIED),
    errors.InvalidRequest: _invalid,
    errors.ContextOverflow: _context_overflow,
    errors.UnsupportedContent: lambda error: _invalid_because(error, ErrorReason.ERROR_REASON_UNSUPPORTED_CONTENT),
    errors.PromptRejected: lambda error: _invalid_because(error, ErrorReason.ERROR_REASON_PROMPT_REJECTED),
    errors.GuardsUnavailable: lambda error: ErrorStatus(
        grpc.StatusCode.UNAVAILABLE,
        ErrorReason.ERROR_REASON_GUARD_UNAVAILABLE,
        str(error),
        (_retry_info(error.retry_after_seconds),),
    ),
    errors.DeploymentNotFound: _row(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_DEPLOYMENT_NOT_FOUND),
    errors.SwitchedOff: _switched_off,
    errors.RateLimited: _rate_limited,
    errors.CountersUnavailable: _store_unavailable,
    errors.RequestIdReused: _row(grpc.StatusCode.ALREADY_EXISTS, ErrorReason.ERROR_REASON_REQUEST_ID_REUSED),
    errors.AnswersUnavailable: _store_unavailable,
    errors.NoEligibleDeployment: lambda error: ErrorStatus(
        grpc.StatusCode.FAILED_PRECONDITION,
        ErrorReason.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT,
        str(error),
        (_precondition(error.rejections),),
    ),
    errors.NobodyHealthy: _nobody_healthy,
    errors.DecisionExpired: lambda error: ErrorStatus(
        grpc.StatusCode.FAILED_PRECONDITION,
        ErrorReason.ERROR_REASON_DECISION_EXPIRED,
        str(error),
        (_stale(error),),
    ),
    errors.RequestNotFound: _row(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_REQUEST_NOT_FOUND),
    errors.AttemptsFailed: _attempts_failed,
    errors.StreamInterrupted: _stream_interrupted,
    errors.AnswerInvalid: _answer_invalid,
    errors.BudgetExceeded: lambda error: ErrorStatus(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_BUDGET_EXCEEDED,
        str(error),
        (_quota(f"budgets/{error.budget}", f"the budget of this {error.period.value} is used up"),),
        {"budget": error.budget, "period": error.period.value},
    ),
    errors.LedgerUnavailable: lambda error: ErrorStatus(
        grpc.StatusCode.UNAVAILABLE,
        ErrorReason.ERROR_REASON_STORE_UNAVAILABLE,
        str(error),
        (_retry_info(error.retry_after_seconds),),
    ),
    errors.DeadlineExceeded: _deadline,
    errors.Overloaded: lambda error: ErrorStatus(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_OVERLOADED,
        str(error),
        (_retry_info(error.retry_after_seconds), _quota("server", "concurrent calls")),
    ),
    errors.ReaderTooSlow: _row(grpc.StatusCode.UNAVAILABLE, ErrorReason.ERROR_REASON_READER_TOO_SLOW),
    errors.Draining: lambda error: ErrorStatus(
        grpc.StatusCode.UNAVAILABLE,
        ErrorReason.ERROR_REASON_DRAINING,
        str(error),
        (_retry_info(error.retry_after_seconds),),
    ),
    StoreUnavailableError: _row(
        grpc.StatusCode.UNAVAILABLE,
        ErrorReason.ERROR_REASON_STORE_UNAVAILABLE,
        "the server's database cannot be reached now; nothing was changed as far as is known: look, and try again",
        _retry_info(DEFAULT_RETRY_SECONDS),
    ),
    MalformedRequest: _row(
        grpc.StatusCode.INVALID_ARGUMENT,
        ErrorReason.ERROR_REASON_MALFORMED_REQUEST,
        "malformed request: the bytes are not a message of the contract",
        _bad_request(
            [errors.FieldProblem("", "send the message type that the RPC takes, with valid UTF-8 in strings")]
        ),
    ),
    RequestTooSlow: lambda error: ErrorStatus(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
        "the request's message did not arrive within the time that the server allows for it; send it with the call",
        (),
        {"step": errors.Step.DOOR.value},
    ),
    TooMuchMetadata: _row(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE,
        "the call carries too many metadata entries",
    ),
    NotImplementedError: _row(
        grpc.StatusCode.UNIMPLEMENTED,
        ErrorReason.ERROR_REASON_FEATURE_UNAVAILABLE,
        "this server does not serve this method",
    ),
}
