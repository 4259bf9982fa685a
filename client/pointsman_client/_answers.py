"""What the client hands back: the contract's own messages with the everyday questions answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pointsman.v1.answer_pb2 import Citation, CompleteResponse, FinishReason, Redaction, Usage
from pointsman.v1.completion_pb2 import Message, ToolCall
from pointsman.v1.decision_pb2 import ChosenDeployment, ExcludedDeployment, RankedDeployment, RouteDecision
from pointsman.v1.embedding_service_pb2 import EmbedResponse
from pointsman.v1.router_service_pb2 import RouteResponse


def text_of(message: Message) -> str:
    """All text of a message, without reasoning and tool traffic."""
    return "".join(part.text for part in message.parts)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `response` is all that the server said."""

    response: CompleteResponse

    @property
    def text(self) -> str:
        """All text of the answer, without reasoning and tool calls."""
        return text_of(self.response.message)

    @property
    def message(self) -> Message:
        """The answer as a message: add it to the conversation to go on."""
        return self.response.message

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tool calls that the model asks for, in order; `arguments_json` holds their arguments."""
        return [part.tool_call for part in self.response.message.parts if part.HasField("tool_call")]

    @property
    def finish_reason(self) -> FinishReason.ValueType:
        """Why the model stopped."""
        return self.response.finish_reason

    @property
    def usage(self) -> Usage:
        """Tokens and cost (millionths of a US dollar)."""
        return self.response.usage

    @property
    def decision(self) -> RouteDecision:
        """Which deployment answered, and why."""
        return self.response.decision

    @property
    def citations(self) -> Sequence[Citation]:
        """The sources of the answer."""
        return self.response.citations

    @property
    def request_id(self) -> str:
        """Id of the request; quote it when asking about this call, and in feedback."""
        return self.response.request_id

    def json(self) -> Any:
        """The text read as JSON, for answers to a `response_schema`; raises ValueError when it is none."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of some texts; `response` is all that the server said."""

    response: EmbedResponse

    @property
    def vectors(self) -> list[Sequence[float]]:
        """One for each text, in the same order."""
        return [embedding.values for embedding in self.response.embeddings]

    @property
    def model(self) -> str:
        """The model that made them. Vectors of different models do not compare: keep this beside what you store."""
        return self.response.attempts[-1].model if self.response.attempts else ""

    @property
    def usage(self) -> Usage:
        """Tokens and cost (millionths of a US dollar)."""
        return self.response.usage

    @property
    def redactions(self) -> Sequence[Redaction]:
        """Sensitive data that was found in the texts, by kind. Where the policy masks it, so are the vectors' texts."""
        return self.response.redactions

    @property
    def request_id(self) -> str:
        """Id of the request; quote it when asking about this call."""
        return self.response.request_id


@dataclass(frozen=True, slots=True)
class Decision:
    """Which deployment would answer; `response` is all that the server said."""

    response: RouteResponse

    @property
    def id(self) -> str:
        """Names the decision: the option `decision_id` makes a call follow it while it is fresh."""
        return self.response.decision.decision_id

    @property
    def deployment(self) -> str:
        """Id of the deployment that would answer."""
        return self.response.decision.chosen.deployment

    @property
    def chosen(self) -> ChosenDeployment:
        """The deployment that would answer, with its provider, model and tier."""
        return self.response.decision.chosen

    @property
    def ranked(self) -> Sequence[RankedDeployment]:
        """All that may answer, best first."""
        return self.response.decision.ranked

    @property
    def excluded(self) -> Sequence[ExcludedDeployment]:
        """All that may not, with the reason."""
        return self.response.decision.excluded

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self.response.request_id
