from __future__ import annotations

from pointsman.v1 import answer_pb2, completion_pb2, decision_pb2
from pointsman_client._folding import Folder
from pointsman_server.rpc.repeated import repeated_stream

ANSWER = answer_pb2.CompleteResponse(
    request_id="req_1",
    message=completion_pb2.Message(
        role=completion_pb2.ROLE_ASSISTANT,
        parts=[
            completion_pb2.Part(reasoning=completion_pb2.Reasoning(text="hm", redacted=True), signature="seal"),
            completion_pb2.Part(text="Paris", signature="s"),
            completion_pb2.Part(text=""),
            completion_pb2.Part(tool_call=completion_pb2.ToolCall(id="c1", name="look", arguments_json='{"a": 1}')),
            completion_pb2.Part(opaque=completion_pb2.Opaque(dialect="gemini_generate", kind="code", json="{}")),
            completion_pb2.Part(signature="nothing but a seal"),
        ],
    ),
    finish_reason=answer_pb2.FINISH_REASON_STOP,
    decision=decision_pb2.RouteDecision(decision_id="dec_1"),
    usage=answer_pb2.Usage(input_tokens=3, cost_micro_usd=7),
    warnings=[answer_pb2.Warning(code="fallback", message="another one answered")],
)


def events(answer: answer_pb2.CompleteResponse) -> list[str]:
    return [event.WhichOneof("event") or "" for event in repeated_stream(answer)]


def folded(answer: answer_pb2.CompleteResponse) -> completion_pb2.Message:
    folder = Folder()
    for event in repeated_stream(answer):
        if event.WhichOneof("event") == "delta":
            folder.add(event.delta)
    return folder.message()


def test_the_events_come_in_the_order_of_a_stream() -> None:
    assert events(ANSWER) == ["decision", *["delta"] * 6, "warning", "completed"]


def test_the_last_one_is_the_answer_as_it_was() -> None:
    *_, last = repeated_stream(ANSWER)
    assert last.completed == ANSWER


def test_folded_the_pieces_are_the_message() -> None:
    assert folded(ANSWER) == ANSWER.message


def test_an_answer_without_parts() -> None:
    empty = answer_pb2.CompleteResponse(message=completion_pb2.Message(role=completion_pb2.ROLE_ASSISTANT))
    assert events(empty) == ["decision", "completed"]
    assert folded(empty) == empty.message
