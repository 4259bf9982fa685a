"""EmbedRequest and EmbedResponse: what is refused, what is read, what leaves."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import call, deployment, plan, snapshot
from pointsman.v1 import answer_pb2, completion_pb2
from pointsman.v1.embedding_service_pb2 import Embedding, EmbedRequest
from pointsman_server.domain.call import Attempt, AttemptOutcome, Completion, Decision
from pointsman_server.domain.errors import InvalidRequest
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import Capability, DataClass
from pointsman_server.rpc.boundary import _labels_of
from pointsman_server.rpc.embedding import _digest, _on_the_wire, embedded_to_proto, read_embed_request

SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_embed_request(EmbedRequest(**{"inputs": ["x"], **fields}))
    return caught.value


def fields_of(error: InvalidRequest) -> list[str]:
    return [problem.field for problem in error.problems]


class TestRequest:
    def test_everything_is_read(self) -> None:
        read, wanted = read_embed_request(
            EmbedRequest(
                inputs=["north", "east"],
                deployment="house",
                dimensions=64,
                constraints=completion_pb2.RoutingConstraints(
                    data_class=completion_pb2.DATA_CLASS_CONFIDENTIAL,
                    regions=["eu"],
                    required_capabilities=[completion_pb2.CAPABILITY_VISION],
                ),
                labels={"feature": "search"},
                end_user="u1",
            )
        )
        assert (wanted.texts, wanted.dimensions) == (("north", "east"), 64)
        assert (read.messages, read.deployment, read.end_user) == ((), "house", "u1")
        assert read.labels == {"feature": "search"}
        assert read.constraints.data_class is DataClass.CONFIDENTIAL
        assert read.constraints.required_capabilities == {Capability.VISION}

    def test_little_is_enough(self) -> None:
        read, wanted = read_embed_request(EmbedRequest(inputs=["x"]))
        assert (wanted.texts, wanted.dimensions, read.deployment) == (("x",), None, "")
        assert read.constraints.data_class is DataClass.PUBLIC

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"inputs": []}, "inputs"),
            ({"inputs": ["x"] * 2_049}, "inputs"),
            ({"inputs": ["x", ""]}, "inputs[1]"),
            ({"inputs": ["x", "\u200b \n"]}, "inputs[1]"),
            ({"dimensions": 0}, "dimensions"),
            ({"deployment": "No"}, "deployment"),
            ({"request_id": "a b"}, "request_id"),
            ({"constraints": {"max_first_token_latency": {"seconds": 0}}}, "constraints.max_first_token_latency"),
        ],
    )
    def test_what_is_wrong_is_named(self, fields: dict[str, Any], field: str) -> None:
        error = refused(**fields)
        assert fields_of(error) == [field]
        assert not error.conflicting

    @pytest.mark.parametrize("lists", [{"denied_deployments": ["a"]}, {"allowed_deployments": ["b"]}])
    def test_a_pin_must_be_among_those_that_are_left(self, lists: dict[str, Any]) -> None:
        error = refused(deployment="a", constraints=lists)
        assert fields_of(error) == ["deployment"]
        assert error.conflicting

    def test_the_name_is_no_part_of_what_is_asked(self) -> None:
        one, other = EmbedRequest(inputs=["x"], request_id="1"), EmbedRequest(inputs=["x"], request_id="2")
        assert _digest(one) == _digest(other)
        assert _digest(one) != _digest(EmbedRequest(inputs=["y"]))
        assert one.request_id == "1"

    def test_the_gate_reads_its_labels(self) -> None:
        assert dict(_labels_of(EmbedRequest(labels={"priority": "high"}))) == {"priority": "high"}


class TestResponse:
    @given(st.lists(SINGLE, max_size=200))
    def test_vectors_leave_as_if_they_were_set_one_by_one(self, values: list[float]) -> None:
        read = Embedding.FromString(_on_the_wire(array("f", values)))
        assert read == Embedding(values=values)

    def test_long_vectors_too(self) -> None:
        values = [float(number) for number in range(5_000)]
        assert list(Embedding.FromString(_on_the_wire(array("f", values))).values) == values

    def test_everything_is_told(self) -> None:
        place = deployment("d")
        usage = Usage(input_tokens=7, output_tokens=0)
        attempt = Attempt(place, 0.5, None, AttemptOutcome.SUCCEEDED, usage, 3)
        route = plan([place])
        vectors = (array("f", [1.0, 0.0]), array("f", [0.0, 0.5]))
        reply = Reply((), FinishReason.STOP, "", usage, (), "", "", vectors=vectors)
        one = call(snapshot(place), request_id="req_1")
        told = embedded_to_proto(
            Completion(
                request_id=one.request_id,
                decision=Decision("dec_1", route, 0.0),
                answered_by=route.candidates[0],
                reply=reply,
                usage=usage,
                estimated=True,
                cost_micro_usd=3,
                attempts=(attempt,),
                warnings=(),
                redactions={"EMAIL": 2, "IP": 1},
            )
        )
        assert told.request_id == "req_1"
        assert [list(embedding.values) for embedding in told.embeddings] == [[1.0, 0.0], [0.0, 0.5]]
        assert (told.usage.input_tokens, told.usage.cost_micro_usd, told.usage.estimated) == (7, 3, True)
        assert [one.outcome for one in told.attempts] == [answer_pb2.ATTEMPT_OUTCOME_SUCCEEDED]
        assert {one.type: one.count for one in told.redactions} == {"EMAIL": 2, "IP": 1}
