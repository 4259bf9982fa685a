"""What the client hands back."""

from __future__ import annotations

import pytest

from pointsman.v1.answer_pb2 import Citation, CompleteResponse, Redaction, Usage
from pointsman.v1.completion_pb2 import Part, Reasoning
from pointsman.v1.decision_pb2 import ChosenDeployment, ExcludedDeployment, RankedDeployment, RouteDecision
from pointsman.v1.embedding_service_pb2 import EmbedResponse
from pointsman.v1.router_service_pb2 import RouteResponse
from pointsman_client import Answer, Decision, Embeddings, assistant, tool_call


def test_text_leaves_reasoning_and_tools_out() -> None:
    thought = Part(reasoning=Reasoning(text="Hm"))
    answer = Answer(CompleteResponse(message=assistant(thought, "It is ", tool_call("c1", "now", {}), "late.")))
    assert answer.text == "It is late."
    assert [call.name for call in answer.tool_calls] == ["now"]


def test_an_answer_shows_what_the_server_said() -> None:
    answer = Answer(
        CompleteResponse(
            request_id="r1",
            usage=Usage(cost_micro_usd=3),
            citations=[Citation(url="https://example.com")],
            decision=RouteDecision(decision_id="d1"),
        )
    )
    assert (answer.request_id, answer.usage.cost_micro_usd, answer.decision.decision_id) == ("r1", 3, "d1")
    assert [citation.url for citation in answer.citations] == ["https://example.com"]


def test_json_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        Answer(CompleteResponse(message=assistant("Sure! Here you are:"))).json()


def test_a_decision_shows_what_the_server_said() -> None:
    made = RouteDecision(
        chosen=ChosenDeployment(deployment="a", model="m"),
        ranked=[RankedDeployment(deployment="a"), RankedDeployment(deployment="b")],
        excluded=[ExcludedDeployment(deployment="c", detail="serves from us only")],
    )
    decision = Decision(RouteResponse(decision=made, request_id="r1"))
    assert (decision.deployment, decision.chosen.model, decision.request_id) == ("a", "m", "r1")
    assert [item.deployment for item in decision.ranked] == ["a", "b"]
    assert decision.excluded[0].detail == "serves from us only"


def test_vectors_show_what_was_found_in_their_texts() -> None:
    made = Embeddings(EmbedResponse(redactions=[Redaction(type="EMAIL", count=2)]))
    assert [(one.type, one.count) for one in made.redactions] == [("EMAIL", 2)]
