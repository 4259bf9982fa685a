"""The guards over texts that are to become vectors."""

from __future__ import annotations

from dataclasses import replace

from pointsman_server.domain.call import Call
from pointsman_server.domain.errors import FieldProblem, PromptRejected
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.request import EmbeddingInput
from pointsman_server.execution.guarding import Guards


async def guard_texts(guards: Guards, call: Call, wanted: EmbeddingInput) -> tuple[Call, EmbeddingInput]:
    """The call and its texts as they may go on: of a raised data class, masked; see the policy's `safety`.

    Sensitive data alone is looked for: nobody obeys what becomes a vector. Raises `PromptRejected` and
    `GuardsUnavailable`.
    """
    # As words of the operator, which are scanned for sensitive data as all others are, and never taken for an attack.
    shown = tuple(Message(Role.SYSTEM, (TextPart(text),)) for text in wanted.texts)
    try:
        guarded = await guards.guard(replace(call, request=replace(call.request, messages=shown)))
    except PromptRejected as error:
        raise PromptRejected(tuple(_renamed(problem) for problem in error.problems)) from None
    texts = tuple(message.text for message in guarded.request.messages)
    return replace(guarded, request=replace(guarded.request, messages=())), replace(wanted, texts=texts)


def _renamed(problem: FieldProblem) -> FieldProblem:
    field = problem.field.replace("completion.messages[", "inputs[").removesuffix(".parts[0]")
    return replace(problem, field=field)
