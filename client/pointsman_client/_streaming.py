"""What a streamed answer knows of itself, sync or async; nothing here does I/O."""

from __future__ import annotations

import grpc
from google.protobuf.message import Message as ProtoMessage

from pointsman.v1.answer_pb2 import CompleteResponse, Delta, Failover, StreamCompleteResponse, Warning
from pointsman.v1.completion_pb2 import Message
from pointsman.v1.decision_pb2 import RouteDecision
from pointsman_client._answers import Answer, text_of
from pointsman_client._folding import Folder
from pointsman_client._retrying import Attempts
from pointsman_client.errors import Cancelled, ContractViolation, PointsmanError, StreamInterrupted, error_from_rpc

StreamEvent = RouteDecision | Delta | Failover | Warning | CompleteResponse
"""One event of a stream: the decision first, pieces of the answer, and the whole answer last."""

_LOST_CONNECTION = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


def stream_response(event: StreamEvent) -> StreamCompleteResponse:
    """The event as it came over the wire."""
    match event:
        case RouteDecision():
            return StreamCompleteResponse(decision=event)
        case Delta():
            return StreamCompleteResponse(delta=event)
        case Failover():
            return StreamCompleteResponse(failover=event)
        case Warning():
            return StreamCompleteResponse(warning=event)
        case CompleteResponse():
            return StreamCompleteResponse(completed=event)


class StreamedAnswer:
    """The state of a stream: what came, what it makes up, and how it ended."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._folder = Folder()
        self._decision: RouteDecision | None = None
        self._answer: Answer | None = None
        self._begun = False
        self._over = False
        self._closed = False

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self._attempts.request_id

    @property
    def decision(self) -> RouteDecision | None:
        """Which deployment answers, and why; None until it came."""
        return self._decision

    @property
    def partial(self) -> Message:
        """The answer as far as it came."""
        return self._folder.message()

    @property
    def partial_text(self) -> str:
        """The text as far as it came."""
        return text_of(self.partial)

    @property
    def answer(self) -> Answer:
        """The whole answer; raises RuntimeError while the stream has not come to its end."""
        if self._answer is None:
            raise RuntimeError("the answer is not complete: read the stream to its end, or call finish()")
        return self._answer

    def _take(self, response: StreamCompleteResponse) -> StreamEvent | None:
        """The event in a response, taken in; None for one that this client does not know."""
        self._begun = True
        match response.WhichOneof("event"):
            case "decision":
                self._decision = response.decision
                return response.decision
            case "delta":
                self._fold(response.delta)
                return response.delta
            case "failover":
                self._folder.cut(response.failover)
                return response.failover
            case "warning":
                return response.warning
            case "completed":
                self._complete(response.completed)
                return response.completed
        return None

    def _fold(self, delta: Delta) -> None:
        try:
            self._folder.add(delta)
        except ValueError as error:
            raise self._violation(f"the server streamed pieces that do not fit: {error}") from error

    def _complete(self, response: CompleteResponse) -> None:
        if self._folder.message() != response.message:
            raise self._violation("the streamed pieces differ from the completed answer", response.message)
        self._answer = Answer(response)

    def _end(self) -> None:
        """The server ended the stream without an error."""
        self._over = True
        if self._answer is None:
            raise self._violation("the server ended the stream without the completed answer")

    def _delay_after(self, rpc_error: grpc.RpcError) -> float | None:
        """The seconds after which to open the stream again; raises the typed error when it is not to be opened.

        None after a failure that follows the completed answer: all has come, and the stream is at its end.
        """
        if self._answer is not None:
            return None
        if self._closed:
            raise self._given_up() from rpc_error
        if self._begun:
            raise self._interruption(rpc_error) from rpc_error
        return self._attempts.delay_after(rpc_error)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise self._given_up()

    def _interruption(self, rpc_error: grpc.RpcError) -> PointsmanError:
        error = error_from_rpc(rpc_error, request_id=self.request_id)
        if isinstance(error, StreamInterrupted):
            error.partial = self.partial
        elif not error.reason and error.code in _LOST_CONNECTION:
            return StreamInterrupted(
                error.message, partial=self.partial, code=error.code, reason="", request_id=error.request_id
            )
        return error

    def _violation(self, message: str, completed: Message | None = None) -> ContractViolation:
        return ContractViolation(message, folded=self.partial, completed=completed, request_id=self.request_id)

    def _given_up(self) -> Cancelled:
        return Cancelled("the stream was closed", reason="", request_id=self.request_id)


def text_in(event: ProtoMessage) -> str | None:
    """The text that an event adds to the answer; None for all other events."""
    return (event.text or None) if isinstance(event, Delta) else None
