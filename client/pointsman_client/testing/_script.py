"""What an in-memory router answers, in the shape in which it travels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from pointsman.v1.answer_pb2 import (
    FINISH_REASON_STOP,
    FINISH_REASON_TOOL_CALLS,
    CompleteResponse,
    Delta,
    InvalidAnswer,
    StreamCompleteResponse,
    ToolCallDelta,
)
from pointsman.v1.completion_pb2 import ROLE_ASSISTANT, Message, Opaque, Part, Reasoning, ToolCall
from pointsman.v1.decision_pb2 import ChosenDeployment, RouteDecision
from pointsman_client._streaming import StreamEvent, stream_response
from pointsman_client.errors import ERROR_DOMAIN, REQUEST_ID_KEY, AnswerInvalid, PointsmanError

DEPLOYMENT = "in-memory"
"""The deployment that answers when a script names none."""

AnswerLike = str | Message | CompleteResponse
"""An answer: its text, its message, or all of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call goes: these responses, then this error, if there is one."""

    responses: tuple[ProtoMessage, ...] = ()
    error: PointsmanError | None = None


def decision(deployment: str = DEPLOYMENT) -> RouteDecision:
    """A decision for a deployment; its id can be named as one of a server's."""
    return RouteDecision(decision_id=f"dec_{deployment}", chosen=ChosenDeployment(deployment=deployment))


def whole_answer(answer: AnswerLike, request_id: str) -> CompleteResponse:
    """The answer as a server would give it to this request; what a script sets is left as it is."""
    response = CompleteResponse()
    if isinstance(answer, CompleteResponse):
        response.CopyFrom(answer)
    elif isinstance(answer, Message):
        response.message.CopyFrom(answer)
    else:
        response.message.parts.append(Part(text=answer))
    response.message.role = ROLE_ASSISTANT
    response.request_id = response.request_id or request_id
    if not response.finish_reason:
        calls_tools = any(part.HasField("tool_call") for part in response.message.parts)
        response.finish_reason = FINISH_REASON_TOOL_CALLS if calls_tools else FINISH_REASON_STOP
    if not response.HasField("decision"):
        response.decision.CopyFrom(decision())
    return response


def streamed(events: Iterable[StreamEvent]) -> tuple[StreamCompleteResponse, ...]:
    """The events as a stream's responses."""
    return tuple(stream_response(event) for event in events)


def events_of(response: CompleteResponse) -> Iterator[StreamEvent]:
    """The stream of an answer: its decision, its message word by word, its warnings, and itself."""
    yield response.decision
    yield from deltas_of(response.message)
    yield from response.warnings
    yield response


def deltas_of(message: Message) -> Iterator[Delta]:
    """The pieces that fold into this message; text and reasoning come word by word."""
    for index, part in enumerate(message.parts):
        pieces = list(_pieces(part))
        for delta in pieces:
            delta.part_index = index
        pieces[-1].signature = part.signature
        yield from pieces


def _pieces(part: Part) -> Iterator[Delta]:
    match part.WhichOneof("content"):
        case "text":
            for word in _words(part.text):
                yield Delta(text=word)
        case "reasoning":
            for word in _words(part.reasoning.text):
                yield Delta(reasoning=Reasoning(text=word, redacted=part.reasoning.redacted))
        case "tool_call":
            yield from _tool_call_pieces(part.tool_call)
        case "opaque":
            yield Delta(opaque=Opaque(dialect=part.opaque.dialect, kind=part.opaque.kind, json=part.opaque.json))
        case other:
            raise ValueError(f"a model does not answer with {other}")


def _tool_call_pieces(call: ToolCall) -> Iterator[Delta]:
    middle = len(call.arguments_json) // 2
    first, second = call.arguments_json[:middle], call.arguments_json[middle:]
    yield Delta(tool_call=ToolCallDelta(id=call.id, name=call.name, arguments_json=first))
    yield Delta(tool_call=ToolCallDelta(arguments_json=second))


def _words(text: str) -> list[str]:
    return re.findall(r"\S*\s*", text)[:-1] or [""]


def rpc_error(error: PointsmanError, request_id: str) -> grpc.aio.AioRpcError:
    """The error as a stub raises it: its code and message, and all else packed as a server would."""
    status = Status(code=error.code.value[0], message=error.message)
    for detail in _details(error):
        packed = PackedDetail()
        packed.Pack(detail)
        status.details.append(packed)
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID_KEY, error.request_id or request_id)]
    if status.details:
        metadata += rpc_status.to_status(status).trailing_metadata
    return grpc.aio.AioRpcError(
        error.code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=error.message, debug_error_string=None
    )


def _details(error: PointsmanError) -> Iterator[ProtoMessage]:
    if error.reason:
        yield ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata)
    if error.retry_delay_seconds is not None:
        whole, fraction = divmod(error.retry_delay_seconds, 1)
        yield RetryInfo(retry_delay=Duration(seconds=int(whole), nanos=int(fraction * 1e9)))
    if error.field_violations:
        fields = [BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.field_violations]
        yield BadRequest(field_violations=fields)
    if error.precondition_violations:
        unmet = [
            PreconditionFailure.Violation(type=v.type, subject=v.subject, description=v.description)
            for v in error.precondition_violations
        ]
        yield PreconditionFailure(violations=unmet)
    if error.quota_violations:
        limits = [QuotaFailure.Violation(subject=v.subject, description=v.description) for v in error.quota_violations]
        yield QuotaFailure(violations=limits)
    if isinstance(error, AnswerInvalid):
        yield InvalidAnswer(text=error.text, violations=error.violations)
