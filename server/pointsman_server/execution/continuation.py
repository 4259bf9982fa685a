"""Going on with an answer that was cut: when that is allowed, what the next model is asked, and the seam of the texts.

There are two ways to ask. A model that takes a prefill gets the text so far as the beginning of its own turn and goes
on in the middle of a word if need be. Any other gets the text as its last turn and an instruction to go on, and may
repeat some of it first; the seam takes that out again. What is relayed is always what a model wrote: nothing is added,
and nothing is taken away that the caller does not have already.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum

from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.message import Message, ReasoningPart, Role, TextPart
from pointsman_server.domain.reply import Reply
from pointsman_server.domain.request import Capability, CompletionRequest, ReasoningEffort, ToolChoiceMode

CONTINUATION_PROMPT = (
    "Your last message was cut off by a lost connection. Go on with it exactly where it stops, in its own language and "
    "format: your reply is attached to it as it is, so begin with the very next character, with a space or a line "
    "break only if one is due there, and in the middle of a word if it stops there. Do not repeat anything of it, do "
    "not start over, do not mention this message."
)
"""What a model without prefill is asked, unless the policy says it otherwise."""

LEAST_OUTPUT_TOKENS = 32
"""Room for the rest of an answer, however much was written: counts differ between models, and an end needs some."""

HOLD_BACK_CHARACTERS = 65_536
"""How much of the end of the text so far is looked for in what follows; so much may be held back, see `Seam`."""

LEAST_REPETITION = 16
"""Letters and digits that make a repetition; East Asian characters, which say more each, count twice.

Three words or more. Texts repeat less than that by themselves all the time ("the the", "row, row, row", `</td></td>`,
a bullet and its indentation), and doubled words are a blemish where a lost word is damage.
"""

LEAST_CUT_WORD = 4
"""Letters that make a repetition where a word was cut in its middle and is begun again ("the weath", "weather")."""

_LONGEST_LEAD = 32
_LEAD_CHARACTERS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + ".\u2026"
_LEAD = re.compile(r"\s*(?:\u2026|\.{2,})?\s*")
_LONGEST_COMPARED_BLANK = 256
_FIRST_EAST_ASIAN = 0x2E80
_WITHOUT_BLANKS = ((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF))
"""Thai, Lao and Tibetan, Burmese, Khmer: scripts that do not show where a word begins."""


def may_continue(request: CompletionRequest, so_far: Reply) -> bool:
    """Whether another model may go on with this answer: plain prose, of which something was sent.

    Not where a tool may be called: the next model would tell in prose what it should have called a tool for. Not JSON,
    where a seam breaks the whole. Not where the model's state came along with the text (signatures, opaque blocks):
    it belongs to the model that wrote it.
    """
    generation = request.generation
    choice = generation.tool_choice
    if generation.response_schema is not None:
        return False
    if generation.tools and (choice is None or choice.mode is not ToolChoiceMode.NONE):
        return False
    return bool(so_far.text.strip()) and all(
        (isinstance(part, TextPart) and not part.signature)
        or (isinstance(part, ReasoningPart) and not part.signature and not part.redacted)
        for part in so_far.parts
    )


def says_nothing(so_far: Reply) -> bool:
    """Whether nothing of this answer needs to be kept, so that it may be begun anew: blanks and reasoning at most."""
    return all(
        isinstance(part, ReasoningPart) or (isinstance(part, TextPart) and not part.text.strip())
        for part in so_far.parts
    )


def takes_prefill(request: CompletionRequest, deployment: Deployment) -> bool:
    """Whether this deployment goes on from the beginning of its own turn. None does that while it reasons."""
    reasons = request.generation.reasoning_effort not in (None, ReasoningEffort.NONE)
    return Capability.PREFILL in deployment.model.capabilities and not reasons


def continuation_messages(
    request: CompletionRequest, so_far: Reply, deployment: Deployment, prompt: str = CONTINUATION_PROMPT
) -> tuple[Message, ...]:
    """The conversation that makes this deployment go on with the answer.

    A prefill goes without the white space at its end, which vendors refuse; the seam knows of it.
    """
    if takes_prefill(request, deployment):
        return with_answer(request.messages, so_far.text, strip_end=True)
    instruction = Message(Role.USER, (TextPart(prompt),))
    return (*with_answer(request.messages, so_far.text), instruction)


def with_answer(messages: tuple[Message, ...], text: str, *, strip_end: bool = False) -> tuple[Message, ...]:
    """The conversation with this text as what the assistant said last.

    Where the caller had begun the assistant's turn himself, the text goes on in that turn.
    """
    *before, last = messages
    parts = last.parts if last.role is Role.ASSISTANT else ()
    if last.role is not Role.ASSISTANT:
        before.append(last)
    end = parts[-1] if parts else None
    if isinstance(end, TextPart) and not end.signature:
        parts, text = parts[:-1], end.text + text
    said = text.rstrip() if strip_end else text
    return (*before, Message(Role.ASSISTANT, (*parts, TextPart(said))))


def remaining_output_tokens(most_output_tokens: int, written_tokens: int) -> int:
    """What is left of an output limit after so much was written."""
    return max(LEAST_OUTPUT_TOKENS, most_output_tokens - written_tokens)


def open_seam(request: CompletionRequest, so_far: Reply, deployment: Deployment) -> Seam:
    """The seam between the text so far and what this deployment goes on with."""
    text = with_answer(request.messages, so_far.text)[-1].text
    return Seam(text, prefilled=takes_prefill(request, deployment))


class _Phase(Enum):
    LEAD = "lead"
    MATCHING = "matching"
    BLANK = "blank"
    OPEN = "open"


class Seam:
    """Feeds the continuing model's text through and takes out what it repeats at its beginning.

    After a prefill, that is the white space that was left off the prefill's end, and nothing else: what continues
    exactly goes through exactly. After an instruction it is the longest beginning that the text so far ends with, with
    the ellipsis and white space before it, if it is at least `LEAST_REPETITION` long or begins a cut word again
    (`LEAST_CUT_WORD`). A beginning that the text so far repeats by itself, a line or a phrase over and over, is left
    alone: nobody can tell whether it is meant.

    Text is held back only while it stands word for word in the text so far (in its last `HOLD_BACK_CHARACTERS`), or
    while only an ellipsis and white space (32 characters at most) or the white space at the joint came. What is
    relayed does not depend on how the text is cut into pieces. No blank is ever put between two letters: whether one
    is missing or a word goes on cannot be known.
    """

    __slots__ = ("_blank", "_core", "_held", "_lead", "_matched", "_phase", "_start")

    def __init__(self, text_so_far: str, *, prefilled: bool) -> None:
        core = text_so_far.rstrip()
        self._blank = text_so_far[len(core) :]
        self._core = core[-HOLD_BACK_CHARACTERS:]
        self._lead = ""
        self._held = ""
        self._start = 0
        self._matched = 0
        self._phase = _Phase.LEAD
        if prefilled:
            self._phase = _Phase.BLANK if self._blank else _Phase.OPEN

    def feed(self, text: str) -> str:
        """The next piece of the model's text; what of it, and of what was held back, may be relayed."""
        if not text or self._phase is _Phase.OPEN:
            return text
        if self._phase is _Phase.LEAD:
            return self._feed_lead(text)
        if self._phase is _Phase.MATCHING:
            return self._feed_matching(text)
        return self._feed_blank(text)

    def flush(self) -> str:
        """What was held back, less what it repeats; to be called at the end of the text, or of the part."""
        text = ""
        if self._phase is _Phase.LEAD and self._lead:
            text, self._phase = self._lead, _Phase.OPEN
        elif self._phase is _Phase.MATCHING:
            text = self._decide(self._matching)
        if self._phase is _Phase.BLANK and self._held:
            text = self._without_blank()
        return text

    @property
    def _matching(self) -> str:
        return self._core[self._start : self._start + self._matched]

    def _feed_lead(self, text: str) -> str:
        held = self._lead + text
        run = len(held) - len(held.lstrip(_LEAD_CHARACTERS))
        self._lead = held
        if run == len(held) <= _LONGEST_LEAD:
            return ""
        lead = _LEAD.match(held, 0, run) if run <= _LONGEST_LEAD else None
        self._lead = lead[0] if lead else ""
        self._phase = _Phase.MATCHING
        return self._feed_matching(held[len(self._lead) :])

    def _feed_matching(self, text: str) -> str:
        if self._matched and self._core.startswith(text, self._start + self._matched):
            self._matched += len(text)
            return ""
        beginning = self._matching + text
        place = self._core.find(beginning, self._start)
        if place < 0:
            return self._decide(beginning)
        self._start, self._matched = place, len(beginning)
        return ""

    def _decide(self, beginning: str) -> str:
        length = _repetition(self._core, beginning, word_may_be_cut=not self._blank)
        if not length:
            self._phase = _Phase.OPEN
            return self._lead + beginning
        self._phase = _Phase.BLANK if self._blank else _Phase.OPEN
        return self.feed(beginning[length:])

    def _feed_blank(self, text: str) -> str:
        self._held += text
        if self._held.isspace() and len(self._held) < len(self._blank):
            return ""
        return self._without_blank()

    def _without_blank(self) -> str:
        self._phase = _Phase.OPEN
        came = self._held[: len(self._held) - len(self._held.lstrip())]
        return self._held[_repeated_blank(self._blank, came) :]


def _repetition(text: str, beginning: str, *, word_may_be_cut: bool) -> int:
    """How many characters of this beginning only repeat the end of the text."""
    length, border = _overlap(text, beginning)
    repeated = beginning[:length]
    before = text[: len(text) - length]
    if border * 3 > length or before.rstrip().endswith(repeated):
        return 0
    size = sum(2 if ord(character) >= _FIRST_EAST_ASIAN else 1 for character in repeated if character.isalnum())
    if size >= LEAST_REPETITION:
        return length
    if not word_may_be_cut or size < LEAST_CUT_WORD:
        return 0
    goes_on = _is_spaced_letter(repeated[-1:]) and _is_spaced_letter(beginning[length : length + 1])
    begins_a_word = not before[-1:].isalnum() and before[-1:] != "_"
    return length if goes_on and begins_a_word else 0


def _overlap(text: str, beginning: str) -> tuple[int, int]:
    """The longest beginning that the text ends with, and the longest one of that which it also ends with.

    In time linear in both (Knuth, Morris and Pratt), since models and callers choose the texts.
    """
    beginning = beginning[: len(text)]
    borders = [0] * len(beginning)
    state = 0
    for place in range(1, len(beginning)):
        while state and beginning[place] != beginning[state]:
            state = borders[state - 1]
        state += beginning[place] == beginning[state]
        borders[place] = state
    state = 0
    for character in text[len(text) - len(beginning) :]:
        while state and character != beginning[state]:
            state = borders[state - 1]
        state += character == beginning[state]
    return state, borders[state - 1] if state else 0


def _is_spaced_letter(character: str) -> bool:
    """Whether this is a letter, or a mark on one, of a script that puts blanks between words."""
    if not character or unicodedata.category(character)[0] not in "LM":
        return False
    code = ord(character)
    return code < _FIRST_EAST_ASIAN and not any(first <= code <= last for first, last in _WITHOUT_BLANKS)


def _repeated_blank(sent: str, came: str) -> int:
    """How much of the white space that came was sent already."""
    if came.startswith(sent):
        return len(sent)
    for length in range(min(len(sent), len(came), _LONGEST_COMPARED_BLANK), 0, -1):
        if sent.startswith(came[:length]) or sent.endswith(came[:length]):
            return length
    return 0
