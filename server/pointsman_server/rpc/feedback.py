"""FeedbackService: callers' verdicts on the answers they got."""

from __future__ import annotations

from typing import Any

from pointsman.v1 import feedback_service_pb2, feedback_service_pb2_grpc
from pointsman_server.domain.errors import InvalidRequest
from pointsman_server.execution.feedback import FeedbackBook
from pointsman_server.rpc.boundary import CURRENT_CALL
from pointsman_server.rpc.rules import check_message

_Context = Any
"""grpc.aio.ServicerContext; generic in the published types, not in the library."""


class FeedbackServicer(feedback_service_pb2_grpc.FeedbackServiceServicer):
    """Checks verdicts and hands them to the book."""

    def __init__(self, book: FeedbackBook) -> None:
        self._book = book

    async def RecordFeedback(
        self, request: feedback_service_pb2.RecordFeedbackRequest, context: _Context
    ) -> feedback_service_pb2.RecordFeedbackResponse:
        """Takes one verdict."""
        problems = check_message(request)
        if problems:
            raise InvalidRequest(tuple(problems))
        tenant = CURRENT_CALL.get().caller.tenant
        await self._book.look_up(request.request_id, tenant)
        self._book.judge(request.request_id, tenant, request.score, request.label)
        return feedback_service_pb2.RecordFeedbackResponse(request_id=request.request_id)
