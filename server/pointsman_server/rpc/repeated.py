"""An answer that is given once more, as a stream."""

from __future__ import annotations

from collections.abc import Iterator

from pointsman.v1 import answer_pb2, completion_pb2


def repeated_stream(answer: answer_pb2.CompleteResponse) -> Iterator[answer_pb2.StreamCompleteResponse]:
    """The decision, one piece for each part, the warnings, and the answer; folded, the pieces are its message."""
    yield answer_pb2.StreamCompleteResponse(decision=answer.decision)
    for index, part in enumerate(answer.message.parts):
        yield answer_pb2.StreamCompleteResponse(delta=_whole(index, part))
    for warning in answer.warnings:
        yield answer_pb2.StreamCompleteResponse(warning=warning)
    yield answer_pb2.StreamCompleteResponse(completed=answer)


def _whole(index: int, part: completion_pb2.Part) -> answer_pb2.Delta:
    delta = answer_pb2.Delta(part_index=index, signature=part.signature)
    match part.WhichOneof("content"):
        case "text":
            delta.text = part.text
        case "reasoning":
            delta.reasoning.CopyFrom(part.reasoning)
        case "tool_call":
            call = part.tool_call
            delta.tool_call.id, delta.tool_call.name = call.id, call.name
            delta.tool_call.arguments_json = call.arguments_json
        case "opaque":
            delta.opaque.CopyFrom(part.opaque)
    return delta
