"""Asking a model to mend an answer that does not fit the JSON Schema of the request."""

from __future__ import annotations

from pointsman_server.domain.message import Message, Role, TextPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.execution.continuation import with_answer

MOST_SHOWN_CHARACTERS = 24_000
"""Of a longer answer the model sees only the beginning; it writes the answer anew from the conversation."""

BEGINNING_SHOWN_CHARACTERS = 4_000

_ANSWERED = frozenset({FinishReason.STOP, FinishReason.UNKNOWN})

_PROMPT = (
    "Your answer does not fit the JSON Schema that was asked for:\n{violations}\n\n"
    "Answer once more with the corrected JSON and nothing else: no explanation, no code fence. Keep what was right."
)
_SHORTENED = "Only the beginning of your answer is shown above; it had {characters} characters.\n\n"


def needs_check(request: CompletionRequest, reply: Reply) -> bool:
    """Whether this answer should be JSON as the request's schema demands, so that mending it makes sense.

    Not one that the model did not finish or did not want to give: it was cut at its limit, filtered, refused or
    paused, or it calls tools first. The finish reason tells the caller, and asking once more would end the same way.
    Nor one whose beginning the caller wrote himself, as the last message: what of it is the JSON is not known.
    """
    if request.generation.response_schema is None or request.messages[-1].role is Role.ASSISTANT:
        return False
    return reply.finish_reason in _ANSWERED and not any(isinstance(part, ToolCallPart) for part in reply.parts)


def repair_messages(request: CompletionRequest, reply: Reply, violations: tuple[str, ...]) -> tuple[Message, ...]:
    """The conversation that asks for the corrected answer. Everything else is to be asked as before."""
    text, note = reply.text, ""
    if len(text) > MOST_SHOWN_CHARACTERS:
        note = _SHORTENED.format(characters=len(text))
        text = text[:BEGINNING_SHOWN_CHARACTERS]
    listed = "\n".join(f"- {violation}" for violation in violations)
    asked = Message(Role.USER, (TextPart(note + _PROMPT.format(violations=listed)),))
    # Vendors refuse a turn without text, and an answer without any needs no showing.
    return (*(with_answer(request.messages, text) if text.strip() else request.messages), asked)
