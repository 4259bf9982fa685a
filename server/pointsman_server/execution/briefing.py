"""What an attempt is asked and how much of the call's time it gets."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman_server.decision.tokens import texts_of_messages
from pointsman_server.domain.call import AttemptPurpose, Call
from pointsman_server.domain.message import Message, Role
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.reply import Reply
from pointsman_server.domain.request import Capability, CompletionRequest
from pointsman_server.execution.agenda import Agenda, Turn
from pointsman_server.execution.attempt import Assignment, may_be_slow
from pointsman_server.execution.continuation import (
    CONTINUATION_PROMPT,
    continuation_messages,
    remaining_output_tokens,
)
from pointsman_server.execution.packing import Packing
from pointsman_server.execution.repair import repair_messages

SHARE_OF_TIME_WITH_FALLBACK = 0.6
"""Part of the time left for which an attempt may be silent while another candidate waits."""

_CHARACTERS_PER_TOKEN = 4
_CONVERSATION = CompletionRequest((Message(Role.USER, ()),))
"""Any; to see what is put behind it."""


class Briefing:
    """Makes the assignments of one call."""

    def __init__(self, call: Call, agenda: Agenda, packing: Packing, clock: Clock, *, stream: bool) -> None:
        self._call = call
        self._agenda = agenda
        self._packing = packing
        self._clock = clock
        self._stream = stream

    async def get_ready(self, turn: Turn, kept: Reply | None, invalid: Reply | None) -> None:
        """Packs what the turn's deployment will be sent; to be awaited before its assignment is made.

        `kept` and `invalid` are the answers so far that the assignment will be about.
        """
        if turn.candidate.deployment.is_last_resort:
            return
        added: tuple[str, ...] = ()
        if kept is not None:
            added = (kept.text, self._continuation_prompt)
        elif invalid is not None:
            added = tuple(texts_of_messages(repair_messages(_CONVERSATION, invalid, ())))
        await self._packing.pack(turn.candidate, added)

    def first(self, turn: Turn, headers: Mapping[str, str]) -> Assignment:
        """The request as the caller made it."""
        return self._assignment(turn, headers, self._request(turn).messages, turn.candidate.max_output_tokens)

    def continuation(self, turn: Turn, headers: Mapping[str, str], kept: Reply) -> Assignment:
        """To go on from the text so far."""
        deployment, prompt = turn.candidate.deployment, self._continuation_prompt
        messages = continuation_messages(self._request(turn), kept, deployment, prompt)
        written_tokens = len(kept.text) // _CHARACTERS_PER_TOKEN
        most_tokens = remaining_output_tokens(turn.candidate.max_output_tokens, written_tokens)
        return self._assignment(turn, headers, messages, most_tokens)

    def repair(self, turn: Turn, headers: Mapping[str, str], invalid: Reply, violations: tuple[str, ...]) -> Assignment:
        """To mend an answer that does not fit the schema."""
        messages = repair_messages(self._request(turn), invalid, violations)
        return self._assignment(turn, headers, messages, turn.candidate.max_output_tokens)

    @property
    def _continuation_prompt(self) -> str:
        return self._call.snapshot.resilience.continuation_prompt or CONTINUATION_PROMPT

    def _request(self, turn: Turn) -> CompletionRequest:
        deployment = turn.candidate.deployment
        # What answers without a model gets the documents as they are, and the question apart from them.
        return self._call.request if deployment.is_last_resort else self._packing.request_for(deployment)

    def _assignment(
        self, turn: Turn, headers: Mapping[str, str], messages: tuple[Message, ...], max_output_tokens: int
    ) -> Assignment:
        deployment = turn.candidate.deployment
        left_seconds = self._call.deadline - self._clock.monotonic()
        allowed_seconds = min(left_seconds, deployment.timeouts.total_seconds)
        patience_seconds = deployment.timeouts.first_token_seconds
        # A model that cannot stream gives its whole answer as one piece.
        stream = self._stream and Capability.STREAMING in deployment.model.capabilities
        if self._agenda.others_wait and turn.purpose is not AttemptPurpose.REPAIR:
            share_seconds = left_seconds * SHARE_OF_TIME_WITH_FALLBACK
            if stream:
                patience_seconds = min(patience_seconds, share_seconds)
            else:
                allowed_seconds = min(allowed_seconds, share_seconds)
        return Assignment(
            deployment=deployment,
            purpose=turn.purpose,
            messages=messages,
            generation=self._call.request.generation,
            max_output_tokens=min(max_output_tokens, self._packing.most_output_tokens(turn.candidate)),
            stream=stream,
            allowed_seconds=allowed_seconds,
            patience_seconds=patience_seconds,
            deadline=self._call.deadline,
            headers=headers or self._call.headers,
            may_be_slow=may_be_slow(deployment, self._call.failover),
            may_be_empty=turn.purpose is AttemptPurpose.CONTINUATION,
            embedding=self._call.embedding,
            documents=self._call.request.documents,
            template=self._call.request.template,
        )
