"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from pointsman.v1.admin_service_pb2_grpc import AdminServiceStub
from pointsman.v1.answer_pb2 import StreamCompleteResponse
from pointsman.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from pointsman.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub

from pointsman_client._answers import Answer, Decision
from pointsman_client._connection import Connection
from pointsman_client._options import (
    CallOptions,
    ClientOptions,
    CompletionOptions,
    Prompt,
    StreamOptions,
    completion_from,
    failover_from,
    metadata_from,
    timeout_from,
)
from pointsman_client._retrying import Attempts, Method, RetryPolicy
from pointsman_client._streaming import StreamedAnswer, StreamEvent, text_in
