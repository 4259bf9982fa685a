from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.providers.sealing import Sealer, unseal
from pointsman_server.domain.message import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    fold,
)

HERE, ELSEWHERE = "here", "elsewhere"
UNSIGNED: tuple[Part, ...] = (
    TextPart("a"),
    ImagePart(b"x", "image/png"),
    ToolCallPart("c1", "clock", "{}"),
    ToolResultPart("c1", "12:00"),
    ReasoningPart("hm"),
    OpaquePart("gemini_generate", "x", "{}"),
)


def opened(*parts: Part, provider_id: str = HERE) -> tuple[Part, ...]:
    (message,) = unseal((Message(Role.ASSISTANT, parts),), provider_id)
    return message.parts


def sealed(*events: ReplyEvent, provider_id: str = HERE) -> tuple[Part, ...]:
    sealer = Sealer(provider_id)
    return fold(event for one in events for event in sealer.seal([one])).parts


class TestSeal:
    def test_signatures_are_marked(self) -> None:
        assert sealed(
            ReasoningDelta(0, "hm", "sig0"),
            TextDelta(1, "a", "sig1"),
            ToolCallDelta(2, "c1", "clock", "{}", "sig2"),
            ReasoningDelta(3, "", "sig3", redacted=True),
        ) == (
            ReasoningPart("hm", "here:sig0"),
            TextPart("a", "here:sig1"),
            ToolCallPart("c1", "clock", "{}", "here:sig2"),
            ReasoningPart("", "here:sig3", redacted=True),
        )

    def test_pieces_are_marked_once(self) -> None:
        pieces: list[ReplyEvent] = [
            ReasoningDelta(0, "h"),
            ReasoningDelta(0, "", "si"),
            TextDelta(1, "a"),
            ReasoningDelta(0, "", "g"),
        ]
        assert sealed(*pieces) == (ReasoningPart("h", "here:sig"), TextPart("a"))
        assert fold(Sealer(HERE).seal(pieces)).parts == sealed(*pieces)

    def test_everything_else_passes_untouched(self) -> None:
        events: list[ReplyEvent] = [
            TextDelta(0, "a"),
            OpaqueDelta(1, "anthropic_messages", "x", "{}"),
            CitationFound(Citation(url="https://example.com")),
            Finished(FinishReason.STOP, "end_turn"),
        ]
        assert Sealer(HERE).seal(events) == events
        assert Sealer(HERE).seal([*events, TextDelta(2, "b", "sig")])[:-1] == events
        assert Sealer(HERE).seal([]) == []

    def test_each_answer_begins_anew(self) -> None:
        for _ in range(2):
            assert sealed(TextDelta(0, "a", "sig")) == (TextPart("a", "here:sig"),)


class TestUnseal:
    @pytest.mark.parametrize("provider_id", ["openai", "my-vllm.2"])
    @given(signature=st.text(min_size=1))
    def test_own_state_comes_back_as_it_was(self, provider_id: str, signature: str) -> None:
        deltas: list[ReplyEvent] = [
            ReasoningDelta(0, "hm", signature),
            TextDelta(1, "a", signature),
            ToolCallDelta(2, "c1", "clock", "{}", signature),
        ]
        assert opened(*sealed(*deltas, provider_id=provider_id), provider_id=provider_id) == fold(deltas).parts

    @pytest.mark.parametrize("signature", ["elsewhere:sig", "sig", "here", "HERE:sig", ":"])
    def test_foreign_state_is_never_sent(self, signature: str) -> None:
        assert opened(
            ReasoningPart("hm", signature),
            ReasoningPart("", signature, redacted=True),
            TextPart("a", signature),
            ToolCallPart("c1", "clock", "{}", signature),
        ) == (TextPart("a"), ToolCallPart("c1", "clock", "{}"))

    def test_unsigned_parts_stay(self) -> None:
        assert opened(*UNSIGNED) == UNSIGNED
        assert opened(*UNSIGNED, TextPart("b", "here:s")) == (*UNSIGNED, TextPart("b", "s"))

    def test_other_turns_stay(self) -> None:
        question = Message(Role.USER, (TextPart("?"),))
        answer = Message(Role.ASSISTANT, (ReasoningPart("hm", "elsewhere:s"), TextPart("!")))
        assert unseal((question, answer), HERE) == (question, Message(Role.ASSISTANT, (TextPart("!"),)))
        assert unseal((question, answer), ELSEWHERE)[1].parts[0] == ReasoningPart("hm", "s")
