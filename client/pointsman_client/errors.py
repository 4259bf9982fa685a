"""Everything that can go wrong with a call, as one tree of exceptions.

    PointsmanError                 a status this client has no class for
    ├── InvalidRequest             the request cannot be answered as it is; `field_violations` say where
    ├── Unauthenticated            no API key, or an unknown one
    ├── PermissionDenied           the key may not do this
    ├── RateLimited                too many calls; `retry_delay_seconds` says when to come back
    ├── BudgetExceeded             the money is used up; `quota_violations` say which budget
    ├── DeploymentNotFound         no such deployment for this caller
    ├── RequestNotFound            the call that is judged is not known, or it is too long ago
    ├── DecisionExpired            the named decision cannot be followed any more; ask `route` again
    ├── NoEligibleDeployment       nothing may answer; `precondition_violations` say why, one by one
    ├── Unavailable                every attempt failed, or the server cannot be reached, is overloaded or going down
    ├── StreamInterrupted          the stream broke after part of the answer; `partial` holds that part
    ├── AnswerInvalid              the answer does not fit the response_schema; `text` and `violations` show it
    ├── RequestIdReused            the request id was used with another content
    ├── DeadlineExceeded           the call's time is over; `step` says where it was
    ├── Cancelled                  the call was given up
    ├── InternalError              something unforeseen in the server; quote `request_id`
    └── ContractViolation          the server broke its own contract

The original `grpc.RpcError` is the `__cause__`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import grpc
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from pointsman.v1.answer_pb2 import InvalidAnswer
from pointsman.v1.completion_pb2 import ROLE_ASSISTANT, Message

ERROR_DOMAIN = "pointsman.v1"
"""The domain of the reasons that this client knows."""

REQUEST_ID_KEY = "x-request-id"
"""The trailing metadata that carries the request id."""

_INVALID_ANSWER = "invalid_answer"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field; `field` is its path, as in `completion.messages[0].role`."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """Why one `subject` (a deployment, a switch) stands in the way; `type` is a stable name."""

    type: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """Which limit or budget (`subject`) was reached."""

    subject: str
    description: str


class PointsmanError(Exception):
    """A call failed.

    `code` is the gRPC status. `reason` is a name of the contract's `ErrorReason` without its prefix, empty when the
    error did not come from pointsman itself (a lost connection, a proxy). `request_id` finds the call in the server's
    log. `retry_delay_seconds` is how long the server asks to wait, None when it did not say. `metadata` holds the
    variables of the message.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    default_reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str = "",
        *,
        code: grpc.StatusCode | None = None,
        reason: str | None = None,
        request_id: str = "",
        retry_delay_seconds: float | None = None,
        field_violations: Sequence[FieldViolation] = (),
        precondition_violations: Sequence[PreconditionViolation] = (),
        quota_violations: Sequence[QuotaViolation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.reason = self.default_reason if reason is None else reason
        self.request_id = request_id
        self.retry_delay_seconds = retry_delay_seconds
        self.field_violations = tuple(field_violations)
        self.precondition_violations = tuple(precondition_violations)
        self.quota_violations = tuple(quota_violations)
        self.metadata: Mapping[str, str] = dict(metadata or {})

    def __str__(self) -> str:
        name = self.reason or self.code.name
        lines = [f"{name}: {self.message}" if self.message else name]
        lines += [f"  {item.field}: {item.description}" for item in self.field_violations]
        lines += [f"  {item.subject}: {item.description}" for item in self.precondition_violations]
        lines += [f"  {item.subject}: {item.description}" for item in self.quota_violations]
        if self.request_id and self.request_id not in self.message:
            lines.append(f"  request id: {self.request_id}")
        return "\n".join(lines)


class InvalidRequest(PointsmanError):
    """The request cannot be answered as it is: malformed, contradictory, too large, or refused by the guard."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_FIELD"


class Unauthenticated(PointsmanError):
    """There is no API key, or it is unknown."""

    default_code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(PointsmanError):
    """The API key may not do this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class RateLimited(PointsmanError):
    """A rate limit is reached; come back after `retry_delay_seconds`."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "RATE_LIMITED"


class BudgetExceeded(PointsmanError):
    """A budget (of the request, the day or the month) is used up; `quota_violations` say which."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "BUDGET_EXCEEDED"


class DeploymentNotFound(PointsmanError):
    """There is no such deployment, or the caller may not use it."""

    default_code = grpc.StatusCode.NOT_FOUND
    default_reason = "DEPLOYMENT_NOT_FOUND"


class RequestNotFound(PointsmanError):
    """The call that is judged is not known to this server, or it is too long ago."""

    default_code = grpc.StatusCode.NOT_FOUND
    default_reason = "REQUEST_NOT_FOUND"


class DecisionExpired(PointsmanError):
    """The named decision cannot be followed any more; `precondition_violations` say why. Ask `route` again."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "DECISION_EXPIRED"


class NoEligibleDeployment(PointsmanError):
    """No deployment may answer, or an operator switched it off; `precondition_violations` say why, one by one."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "NO_ELIGIBLE_DEPLOYMENT"


class Unavailable(PointsmanError):
    """Every attempt failed, or the server cannot be reached, is overloaded or going down."""

    default_code = grpc.StatusCode.UNAVAILABLE
    default_reason = "ALL_ATTEMPTS_FAILED"


class StreamInterrupted(PointsmanError):
    """The stream broke after part of the answer was sent; `partial` is what had come, as an assistant message."""

    default_code = grpc.StatusCode.ABORTED
    default_reason = "STREAM_INTERRUPTED"

    def __init__(self, message: str = "", *, partial: Message | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.partial = partial if partial is not None else Message(role=ROLE_ASSISTANT)

    @property
    def partial_text(self) -> str:
        """The text that had come."""
        return "".join(part.text for part in self.partial.parts)

    @property
    def output_tokens(self) -> int | None:
        """Tokens that the providers had produced; None when the server did not say."""
        return _whole_number(self.metadata.get("outputTokens"))

    @property
    def cost_micro_usd(self) -> int | None:
        """Cost of the broken call in millionths of a US dollar; None when the server did not say."""
        return _whole_number(self.metadata.get("costMicroUsd"))


class AnswerInvalid(PointsmanError):
    """The model answered, but not as the response_schema demands, and could not be made to.

    `text` is the answer, cut if it was too long for an error (`is_cut`); after a stream, its `partial_text` is all of
    it. `violations` say by place what does not fit. Both quote the answer, so they are no part of the message.
    """

    default_code = grpc.StatusCode.UNAVAILABLE
    default_reason = "ANSWER_INVALID"

    def __init__(self, message: str = "", *, text: str = "", violations: Sequence[str] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.text = text
        self.violations = tuple(violations)

    @property
    def is_cut(self) -> bool:
        """Whether the answer was longer than `text`."""
        return (_whole_number(self.metadata.get("textCharacters")) or 0) > len(self.text)

    @property
    def output_tokens(self) -> int | None:
        """Tokens of the answer; None when the server did not say."""
        return _whole_number(self.metadata.get("outputTokens"))

    @property
    def cost_micro_usd(self) -> int | None:
        """Cost of the call in millionths of a US dollar; None when the server did not say."""
        return _whole_number(self.metadata.get("costMicroUsd"))


class RequestIdReused(PointsmanError):
    """The request id was used before with another content: give each question its own."""

    default_code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "REQUEST_ID_REUSED"


class DeadlineExceeded(PointsmanError):
    """The call's time is over; `timeout_seconds` gives a call more."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"

    @property
    def step(self) -> str:
        """The step the server was in; empty when the time ran out on the way."""
        return self.metadata.get("step", "")


class Cancelled(PointsmanError):
    """The call was given up, by closing its stream or client or by the server."""

    default_code = grpc.StatusCode.CANCELLED
    default_reason = "CANCELLED"


class InternalError(PointsmanError):
    """Something unforeseen happened in the server; `request_id` finds it in the server's log."""

    default_code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"


class ContractViolation(PointsmanError):
    """The server broke its own contract: a stream without its end, or one that differs from its whole answer.

    `folded` is the answer as its pieces make it up, `completed` the whole one that the server sent, if it did.
    """

    default_code = grpc.StatusCode.INTERNAL

    def __init__(
        self,
        message: str = "",
        *,
        folded: Message | None = None,
        completed: Message | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.folded = folded
        self.completed = completed


CLASS_BY_REASON: Mapping[str, type[PointsmanError]] = MappingProxyType(
    {
        "MALFORMED_REQUEST": InvalidRequest,
        "INVALID_FIELD": InvalidRequest,
        "CONFLICTING_FIELDS": InvalidRequest,
        "CONTEXT_OVERFLOW": InvalidRequest,
        "UNSUPPORTED_CONTENT": InvalidRequest,
        "PROMPT_REJECTED": InvalidRequest,
        "PROVIDER_INVALID_REQUEST": InvalidRequest,
        "REQUEST_TOO_LARGE": InvalidRequest,
        "FEATURE_UNAVAILABLE": InvalidRequest,
        "UNAUTHENTICATED": Unauthenticated,
        "PERMISSION_DENIED": PermissionDenied,
        "RATE_LIMITED": RateLimited,
        "BUDGET_EXCEEDED": BudgetExceeded,
        "DEPLOYMENT_NOT_FOUND": DeploymentNotFound,
        "REQUEST_NOT_FOUND": RequestNotFound,
        "DECISION_EXPIRED": DecisionExpired,
        "NO_ELIGIBLE_DEPLOYMENT": NoEligibleDeployment,
        "KILL_SWITCH": NoEligibleDeployment,
        "ALL_ATTEMPTS_FAILED": Unavailable,
        "PROVIDER_RATE_LIMITED": Unavailable,
        "PROVIDER_QUOTA": Unavailable,
        "PROVIDER_AUTH": Unavailable,
        "PROVIDER_MODEL_MISSING": Unavailable,
        "OVERLOADED": Unavailable,
        "DRAINING": Unavailable,
        "STORE_UNAVAILABLE": Unavailable,
        "GUARD_UNAVAILABLE": Unavailable,
        "STREAM_INTERRUPTED": StreamInterrupted,
        "READER_TOO_SLOW": StreamInterrupted,
        "ANSWER_INVALID": AnswerInvalid,
        "REQUEST_ID_REUSED": RequestIdReused,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
        "CANCELLED": Cancelled,
        "INTERNAL": InternalError,
    }
)
"""The class of each reason of the contract."""

CLASS_BY_CODE: Mapping[grpc.StatusCode, type[PointsmanError]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
        grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
        grpc.StatusCode.UNAVAILABLE: Unavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.CANCELLED: Cancelled,
        grpc.StatusCode.UNKNOWN: InternalError,
        grpc.StatusCode.INTERNAL: InternalError,
        grpc.StatusCode.DATA_LOSS: InternalError,
    }
)
"""The class of an error without a reason we know; the other codes mean too many things to guess."""


def error_from_rpc(error: grpc.RpcError, *, request_id: str = "") -> PointsmanError:
    """The exception for what a stub raised; raise it `from error`.

    `request_id` is the one that was sent; the server's own, if it named one, takes its place.
    """
    details: dict[str, Any] = {"code": error.code(), "reason": ""}
    details["request_id"] = _named_request_id(error) or request_id
    status = _rich_status(error)
    for packed in status.details if status else ():
        details |= _read_detail(packed)
    kind = CLASS_BY_REASON.get(details["reason"]) or CLASS_BY_CODE.get(details["code"], PointsmanError)
    answer = details.pop(_INVALID_ANSWER, {})
    if kind is AnswerInvalid:
        details |= answer
    return kind(error.details() or "", **details)


def _named_request_id(error: Any) -> str:
    return next((value for key, value in error.trailing_metadata() or () if key == REQUEST_ID_KEY), "")


def _rich_status(error: Any) -> Status | None:
    try:
        status: Status | None = rpc_status.from_call(error)
    except (ValueError, DecodeError):  # a proxy damaged or replaced them; code and message still stand
        return None
    return status


def _read_detail(packed: PackedDetail) -> dict[str, Any]:
    known = _DETAILS.get(packed.TypeName())
    if known is None:
        return {}
    kind, read = known
    detail = kind()
    try:
        packed.Unpack(detail)
    except DecodeError:
        return {}
    return read(detail)


def _read_error_info(info: ErrorInfo) -> dict[str, Any]:
    if info.domain != ERROR_DOMAIN:
        return {}
    return {"reason": info.reason, "metadata": dict(info.metadata)}


def _read_retry_info(info: RetryInfo) -> dict[str, Any]:
    return {"retry_delay_seconds": max(0.0, info.retry_delay.seconds + info.retry_delay.nanos / 1e9)}


def _read_bad_request(failure: BadRequest) -> dict[str, Any]:
    return {"field_violations": [FieldViolation(v.field, v.description) for v in failure.field_violations]}


def _read_precondition_failure(failure: PreconditionFailure) -> dict[str, Any]:
    violations = [PreconditionViolation(v.type, v.subject, v.description) for v in failure.violations]
    return {"precondition_violations": violations}


def _read_invalid_answer(answer: InvalidAnswer) -> dict[str, Any]:
    return {_INVALID_ANSWER: {"text": answer.text, "violations": list(answer.violations)}}


def _read_quota_failure(failure: QuotaFailure) -> dict[str, Any]:
    return {"quota_violations": [QuotaViolation(v.subject, v.description) for v in failure.violations]}


_DETAILS: Mapping[str, tuple[type[ProtoMessage], Callable[[Any], dict[str, Any]]]] = {
    kind.DESCRIPTOR.full_name: (kind, read)
    for kind, read in (
        (ErrorInfo, _read_error_info),
        (RetryInfo, _read_retry_info),
        (BadRequest, _read_bad_request),
        (PreconditionFailure, _read_precondition_failure),
        (QuotaFailure, _read_quota_failure),
        (InvalidAnswer, _read_invalid_answer),
    )
}


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
