"""Rules that span fields, and so cannot be written beside one field of the contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from google.protobuf.struct_pb2 import Struct

from pointsman.v1 import completion_pb2 as pb
from pointsman_server.domain.errors import FieldProblem
from pointsman_server.execution.schema_rules import wrong_schema
from pointsman_server.rpc.rules import is_blank
from pointsman_server.rpc.struct import struct_to_dict

_Problems = Iterator[FieldProblem]

_ROLE_OF_PART: Mapping[str, frozenset[int]] = {
    "image": frozenset({pb.ROLE_USER}),
    "tool_call": frozenset({pb.ROLE_ASSISTANT}),
    "tool_result": frozenset({pb.ROLE_TOOL}),
    "reasoning": frozenset({pb.ROLE_ASSISTANT}),
    "opaque": frozenset({pb.ROLE_ASSISTANT}),
}
"""Parts that belong to certain roles only; text belongs to all but tool messages."""


def check_conversation(spec: pb.CompletionSpec) -> _Problems:
    """What is wrong with the conversation as a whole."""
    if not spec.messages:
        if not spec.HasField("template"):
            yield FieldProblem("completion.messages", "must not be empty, unless a template comes before them")
        return
    seen_calls: set[str] = set()
    answered: set[str] = set()
    for index, message in enumerate(spec.messages):
        path = f"completion.messages[{index}]"
        yield from _check_blank(path, message)
        for part_index, part in enumerate(message.parts):
            yield from _check_part(f"{path}.parts[{part_index}]", message.role, part, seen_calls, answered)
    if not spec.HasField("template") and all(message.role == pb.ROLE_SYSTEM for message in spec.messages):
        yield FieldProblem("completion.messages", "must have a message that is not of ROLE_SYSTEM")


def _check_blank(path: str, message: pb.Message) -> _Problems:
    if all(part.WhichOneof("content") == "text" and is_blank(part.text) for part in message.parts):
        yield FieldProblem(f"{path}.parts", "must hold something that is not blank")


def _check_part(path: str, role: int, part: pb.Part, seen_calls: set[str], answered: set[str]) -> _Problems:
    kind = part.WhichOneof("content") or ""
    roles = _ROLE_OF_PART.get(kind)
    if (roles is not None and role not in roles) or (kind == "text" and role == pb.ROLE_TOOL):
        yield FieldProblem(f"{path}.{kind}", f"does not belong in a message of {pb.Role.Name(pb.Role.ValueType(role))}")
    elif kind == "image":
        if not _is_whole_image(part.image.data, part.image.media_type):
            yield FieldProblem(f"{path}.image.data", f"is not a whole image of type {part.image.media_type}")
    elif kind == "tool_call":
        if part.tool_call.id in seen_calls:
            yield FieldProblem(f"{path}.tool_call.id", "repeats the id of an earlier tool call")
        seen_calls.add(part.tool_call.id)
    elif kind == "tool_result":
        yield from _check_result(
            f"{path}.tool_result.tool_call_id", part.tool_result.tool_call_id, seen_calls, answered
        )


def _check_result(path: str, call_id: str, seen_calls: set[str], answered: set[str]) -> _Problems:
    if call_id not in seen_calls:
        yield FieldProblem(path, "answers no tool call of an earlier message")
    elif call_id in answered:
        yield FieldProblem(path, "answers a tool call that is already answered")
    answered.add(call_id)


def check_generation(generation: pb.GenerationConfig) -> _Problems:
    """Tools, schemas and the tool choice."""
    names = [tool.name for tool in generation.tools]
    if len(set(names)) != len(names):
        yield FieldProblem("completion.generation.tools", "must not repeat a name")
    for index, tool in enumerate(generation.tools):
        if tool.HasField("parameters"):
            wrong = _wrong_schema(tool.parameters.SerializeToString(deterministic=True))
            if wrong:
                yield FieldProblem(f"completion.generation.tools[{index}].parameters", wrong)
    if generation.HasField("response_schema"):
        wrong = _wrong_schema(generation.response_schema.SerializeToString(deterministic=True))
        if wrong:
            yield FieldProblem("completion.generation.response_schema", wrong)
    yield from _check_tool_choice(generation.tool_choice, names)


def _check_tool_choice(choice: pb.ToolChoice, names: list[str]) -> _Problems:
    path = "completion.generation.tool_choice"
    if choice.mode == pb.TOOL_CHOICE_MODE_NAMED and choice.name not in names:
        yield FieldProblem(f"{path}.name", "must be the name of one of the tools")
    elif choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED and not names:
        yield FieldProblem(f"{path}.mode", "requires a tool, but generation.tools is empty")
    elif choice.name and choice.mode != pb.TOOL_CHOICE_MODE_NAMED:
        yield FieldProblem(f"{path}.name", "may be set with TOOL_CHOICE_MODE_NAMED only")


def check_conflicts(spec: pb.CompletionSpec) -> _Problems:
    """Fields that contradict each other."""
    generation = spec.generation
    if generation.HasField("temperature") and generation.HasField("top_p"):
        yield FieldProblem("completion.generation.top_p", "conflicts with temperature: set one of the two")
    yield from check_pin("completion.deployment", spec.deployment, spec.constraints)


def check_pin(path: str, deployment: str, constraints: pb.RoutingConstraints) -> _Problems:
    """A pinned deployment must be one that the constraints leave; `path` is the field that pins it."""
    if deployment and deployment in constraints.denied_deployments:
        yield FieldProblem(path, "conflicts with constraints.denied_deployments, which names it")
    if deployment and constraints.allowed_deployments and deployment not in constraints.allowed_deployments:
        yield FieldProblem(path, "conflicts with constraints.allowed_deployments, which lacks it")


def check_durations(spec: pb.CompletionSpec) -> _Problems:
    """Durations must be positive."""
    yield from check_latency("completion.constraints", spec.constraints)
    if spec.cache.HasField("ttl") and spec.cache.ttl.ToNanoseconds() <= 0:
        yield FieldProblem("completion.cache.ttl", "must be greater than 0")


def check_latency(path: str, constraints: pb.RoutingConstraints) -> _Problems:
    """The limit on the first token must be positive; `path` is the field of the constraints."""
    limit = constraints.max_first_token_latency
    if constraints.HasField("max_first_token_latency") and limit.ToNanoseconds() <= 0:
        yield FieldProblem(f"{path}.max_first_token_latency", "must be greater than 0")


def check_documents(spec: pb.CompletionSpec) -> _Problems:
    """Citations name documents by their ids, so no two may share one."""
    seen: set[str] = set()
    for index, document in enumerate(spec.documents):
        if document.id in seen:
            yield FieldProblem(f"completion.documents[{index}].id", "repeats the id of an earlier document")
        seen.add(document.id)


@lru_cache(maxsize=512)
def _wrong_schema(serialised: bytes) -> str | None:
    return wrong_schema(struct_to_dict(Struct.FromString(serialised)))


def _is_whole_image(data: bytes, media_type: str) -> bool:
    match media_type:
        case "image/png":
            return data.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in data[-16:]
        case "image/jpeg":
            return data.startswith(b"\xff\xd8\xff") and b"\xff\xd9" in data[-64:]
        case "image/gif":
            return data[:6] in (b"GIF87a", b"GIF89a") and data.rstrip(b"\x00").endswith(b";")
        case "image/webp":
            return (
                data[:4] == b"RIFF" and data[8:12] == b"WEBP" and int.from_bytes(data[4:8], "little") + 8 <= len(data)
            )
        case _:
            return False
