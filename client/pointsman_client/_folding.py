"""Folding the pieces of a streamed answer into the message they make up."""

from __future__ import annotations

from pointsman.v1.answer_pb2 import Delta, Failover
from pointsman.v1.completion_pb2 import ROLE_ASSISTANT, Message, Opaque, Part, Reasoning, ToolCall


class Folder:
    """The answer so far. Pieces are kept as they come and joined when the message is asked for."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[int, _GrowingPart] = {}

    def add(self, delta: Delta) -> None:
        """Takes a piece in; raises ValueError when it does not fit the part it names."""
        kind = delta.WhichOneof("content") or ""
        part = self._parts.get(delta.part_index)
        if part is None:
            part = self._parts[delta.part_index] = _GrowingPart(kind)
        part.add(kind, delta)

    def cut(self, failover: Failover) -> None:
        """Takes back what a failover does not keep: all that follows the last of its `characters_kept`."""
        left = failover.characters_kept
        kept: dict[int, _GrowingPart] = {}
        for index, part in sorted(self._parts.items()):
            if left <= 0:
                break
            kept[index] = part
            left = part.shorten(left)
        self._parts = kept

    def message(self) -> Message:
        """The message that the pieces make up so far."""
        return Message(role=ROLE_ASSISTANT, parts=[part.build() for _, part in sorted(self._parts.items())])


class _GrowingPart:
    """One part of the message while its pieces come."""

    __slots__ = ("_kind", "_pieces", "_redacted", "_signatures", "_tool_id", "_tool_name", "_whole")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._pieces: list[str] = []
        self._signatures: list[str] = []
        self._redacted = False
        self._tool_id = ""
        self._tool_name = ""
        self._whole = Opaque()

    def add(self, kind: str, delta: Delta) -> None:
        self._kind = self._kind or kind
        if kind and kind != self._kind:
            raise ValueError(f"part {delta.part_index} began as {self._kind} and goes on as {kind}")
        self._signatures.append(delta.signature)
        if kind == "text":
            self._pieces.append(delta.text)
        elif kind == "reasoning":
            self._pieces.append(delta.reasoning.text)
            self._redacted = self._redacted or delta.reasoning.redacted
        elif kind == "tool_call":
            self._pieces.append(delta.tool_call.arguments_json)
            self._tool_id = self._tool_id or delta.tool_call.id
            self._tool_name = self._tool_name or delta.tool_call.name
        elif kind == "opaque":
            self._whole = delta.opaque

    def shorten(self, characters: int) -> int:
        """Keeps so many characters of text and returns how many are left for the parts that follow."""
        if self._kind != "text":
            return characters
        text = "".join(self._pieces)
        if len(text) > characters:
            self._pieces = [text[:characters]]
            self._signatures = []  # it sealed the whole part
        return characters - len(text)

    def build(self) -> Part:
        body, signature = "".join(self._pieces), "".join(self._signatures)
        match self._kind:
            case "text":
                return Part(text=body, signature=signature)
            case "reasoning":
                return Part(reasoning=Reasoning(text=body, redacted=self._redacted), signature=signature)
            case "tool_call":
                call = ToolCall(id=self._tool_id, name=self._tool_name, arguments_json=body)
                return Part(tool_call=call, signature=signature)
            case "opaque":
                return Part(opaque=self._whole, signature=signature)
            case _:
                return Part(signature=signature)
