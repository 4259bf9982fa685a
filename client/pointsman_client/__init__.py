"""The client of pointsman, the smart router between services and the LLMs they call.

from pointsman_client import Client

print(Client("localhost:50051").complete("What is the capital of France?").text)
"""

from pointsman_client._answers import Answer, Decision, Embeddings
from pointsman_client._connection import tls_from_files
from pointsman_client._options import (
    CallOptions,
    ClientOptions,
    CompletionOptions,
    EmbedOptions,
    Prompt,
    RouteOptions,
    StreamOptions,
)
from pointsman_client._retrying import RetryPolicy
from pointsman_client._streaming import StreamEvent, stream_response
from pointsman_client.async_client import AsyncAnswerStream, AsyncClient
from pointsman_client.client import AnswerStream, Client
from pointsman_client.errors import (
    AnswerInvalid,
    BudgetExceeded,
    Cancelled,
    ContractViolation,
    DeadlineExceeded,
    DecisionExpired,
    DeploymentNotFound,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NoEligibleDeployment,
    PermissionDenied,
    PointsmanError,
    PreconditionViolation,
    QuotaViolation,
    RateLimited,
    RequestIdReused,
    RequestNotFound,
    StreamInterrupted,
    Unauthenticated,
    Unavailable,
    error_from_rpc,
)
from pointsman_client.messages import (
    assistant,
    call_tool,
    document,
    function_tool,
    image_from_bytes,
    image_from_path,
    system,
    template,
    tool_call,
    tool_result,
    user,
)

__all__ = [
    "Answer",
    "AnswerInvalid",
    "AnswerStream",
    "AsyncAnswerStream",
    "AsyncClient",
    "BudgetExceeded",
    "CallOptions",
    "Cancelled",
    "Client",
    "ClientOptions",
    "CompletionOptions",
    "ContractViolation",
    "DeadlineExceeded",
    "Decision",
    "DecisionExpired",
    "DeploymentNotFound",
    "EmbedOptions",
    "Embeddings",
    "FieldViolation",
    "InternalError",
    "InvalidRequest",
    "NoEligibleDeployment",
    "PermissionDenied",
    "PointsmanError",
    "PreconditionViolation",
    "Prompt",
    "QuotaViolation",
    "RateLimited",
    "RequestIdReused",
    "RequestNotFound",
    "RetryPolicy",
    "RouteOptions",
    "StreamEvent",
    "StreamInterrupted",
    "StreamOptions",
    "Unauthenticated",
    "Unavailable",
    "assistant",
    "call_tool",
    "document",
    "error_from_rpc",
    "function_tool",
    "image_from_bytes",
    "image_from_path",
    "stream_response",
    "system",
    "template",
    "tls_from_files",
    "tool_call",
    "tool_result",
    "user",
]
