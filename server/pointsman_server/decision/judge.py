"""The learned judge: tier, task, difficulty and score of a request from what can be seen before any call.

Two things are learned apart and brought together here. The tier follows the written rubric and comes from the wording
of what is asked. How much a strong model is needed comes from recorded outcomes of exam-like prompts; how much it
counts depends on how much the request is like those. Where no outcomes are known, the tiers are thirds of the score;
among exam-like prompts the score orders by need, whatever their tier, because that is what was seen to save money.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain
from operator import mul
from typing import TYPE_CHECKING, Any, NamedTuple

from pointsman_server.decision import layout
from pointsman_server.decision.forest import Forest
from pointsman_server.decision.freshness import needs_fresh_facts
from pointsman_server.decision.outcome_features import HEAD_CHARS, TAIL_CHARS, outcome_features
from pointsman_server.decision.quality import log_odds
from pointsman_server.decision.remembered import Remembered
from pointsman_server.decision.rubric import Probabilities, Rubric, evidence_of
from pointsman_server.decision.tasks import Tasks
from pointsman_server.decision.wording import Heard, Reading, Sentence, Wording
from pointsman_server.domain.embedder import Vector
from pointsman_server.domain.plan import Complexity, Factor, TaskType
from pointsman_server.domain.request import Tier

if TYPE_CHECKING:
    from pointsman_server.decision.second_look import SecondLook

CHEAP_QUALITY, STRONG_QUALITY = 0.62, 0.88
"""The `quality` of a model that does as well as the cheap and as the strong panel of the recorded outcomes."""

SUCCESS_BY_TIER: tuple[Probabilities, Probabilities] = ((0.92, 0.62, 0.25), (0.98, 0.88, 0.70))
"""How often a cheap and a strong model answer a simple, medium and complex request well, where no outcomes are known.
Set by hand: at a medium request a model's chance is its `quality`."""

UNSURE_BELOW = 0.55
"""With no tier more probable than this, the factors say so."""

LOOKED_AT_AGAIN_BELOW = 0.8
"""With no tier more probable than this, a second look is worth its time."""

LOOKED_AT_ASK_CHARS, LOOKED_AT_CHARS = (250, 250), (150, 250)
"""So many characters of the beginning and of the end are read, of what asks and of the whole text."""

MOST_TASK_WORDS = 60
"""Words by which the task is told, those of the likeliest ask first."""

LEAST_DISCRIMINATION = 0.2
_MOST_LOGIT = 6.0
_BANDS = 3
_TIERS = tuple(Tier)

MOST_JUDGED = 1_000
"""Judgements that are remembered, by a digest of the text: some 1 MB."""

_READ_HEAD, _READ_TAIL = max(HEAD_CHARS, layout.HEAD_CHARS), max(TAIL_CHARS, layout.TAIL_CHARS)
"""Nothing of a text but its length and so much of it is ever read."""

_CHEAP_ANCHOR = log_odds(CHEAP_QUALITY)
_STRONG_ANCHOR = log_odds(STRONG_QUALITY)


class Outcome(NamedTuple):
    """What recorded outcomes say: need of a strong model as a quantile 0..1, log-odds of success, and familiarity."""

    need: float
    cheap_logit: float
    strong_logit: float
    familiar: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The forests of recorded outcomes; see `training/outcomes.py`."""

    forest: Forest
    need_knots: Sequence[float]
    cheap: Sequence[float]
    strong: Sequence[float]

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Outcomes:
        """From the parsed data file."""
        tiers = data["tiers"]
        return cls(Forest.load(data["forest"]), data["need_knots"], tiers["cheap"], tiers["strong"])

    def judge(self, text: str) -> Outcome:
        """What models made of prompts like this one."""
        need, cheap, strong, familiar = self.forest.raw_scores(outcome_features(text))
        inputs = (_bounded(cheap), _bounded(strong), need, 1.0)
        return Outcome(
            need=_quantile(need, self.need_knots),
            cheap_logit=sum(map(mul, self.cheap, inputs)),
            strong_logit=sum(map(mul, self.strong, inputs)),
            familiar=1.0 / (1.0 + math.exp(-_bounded(familiar))),
        )


@dataclass(frozen=True, slots=True)
class Judge:
    """All that was learned, ready to judge."""

    wording: Wording
    rubric: Rubric
    tasks: Tasks
    outcomes: Outcomes
    _judged: Remembered[bytes, Complexity] = field(
        default_factory=lambda: Remembered(MOST_JUDGED), init=False, repr=False, compare=False
    )

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Judge:
        """From the parsed data file."""
        return cls(
            Wording(data["wording"]),
            Rubric.load(data["rubric"]),
            Tasks.load(data["tasks"]),
            Outcomes.load(data["outcomes"]),
        )

    def judge(self, text: str, background: str = "") -> Complexity:
        """Judges one text, with its background before it where the text itself asks for nothing.

        Time is bounded whatever the lengths. What was judged lately is not judged again: an agent sends the same user
        turn with every result of a tool.
        """
        key = _digest(text, background)
        judged = self._judged.get(key)
        if judged is None:
            judged = self._judge(text, background)
            self._judged.keep(key, judged)
        return judged

    def in_doubt(self, text: str, background: str = "") -> tuple[str, ...]:
        """The texts that a second look reads, see `looked_at`; none where the words leave no doubt of the tier."""
        if max(self.judge(text, background).tier_probabilities) >= LOOKED_AT_AGAIN_BELOW:
            return ()
        text, heard = self._hear(text, background)
        return looked_at(text, self.wording.read(heard).kept)

    def judge_again(self, text: str, background: str, look: SecondLook, meanings: Sequence[Vector]) -> Complexity:
        """The judgement by words and by the meanings of what `in_doubt` gave; how far they moved it is a factor."""
        by_words = self.judge(text, background)
        text, heard = self._hear(text, background)
        reading = self.wording.read(heard)
        probabilities = look.judge(evidence_of(reading, heard.sentences), meanings)
        judged = self._judgement(text, heard.sentences, reading, probabilities)
        moved = _expected(probabilities) - _expected(by_words.tier_probabilities)
        return replace(judged, factors=(*judged.factors, Factor("second_look", moved)))

    def forget(self) -> None:
        """Forgets what was judged and read before: judging a text then takes as long as if it had never been seen."""
        self._judged.forget()
        self.wording.forget()

    def _judge(self, text: str, background: str) -> Complexity:
        text, heard = self._hear(text, background)
        if not heard.sentences:
            return _nothing_asked()
        reading = self.wording.read(heard)
        return self._judgement(text, heard.sentences, reading, self.rubric.judge(reading, heard.sentences))

    def _hear(self, text: str, background: str) -> tuple[str, Heard]:
        heard = self.wording.hear(text)
        if background and not heard.asks_clearly:
            text = f"{background}\n\n{text}"
            heard = self.wording.hear(text)
        return text, heard

    def _judgement(
        self, text: str, sentences: Sequence[Sentence], reading: Reading, probabilities: Probabilities
    ) -> Complexity:
        asking = [sentences[reading.top], *[sentences[place] for place in reading.kept if place != reading.top]]
        task = self.tasks.judge(list(chain.from_iterable([one.stems for one in asking]))[:MOST_TASK_WORDS])
        words = list(chain.from_iterable([one.words for one in asking]))[:MOST_TASK_WORDS]
        fresh = needs_fresh_facts(words, task)
        return _complexity(probabilities, self.outcomes.judge(text), task, fresh)


def looked_at(text: str, asking: Sequence[int]) -> tuple[str, str]:
    """What a second look reads of a text: the segments at these places, which ask, and beginning and end of it all."""
    segments = layout.lay_out(text).segments
    ask = " ".join([segments[place].strip() for place in asking])
    return _ends(ask, *LOOKED_AT_ASK_CHARS), _ends(text, *LOOKED_AT_CHARS)


def _ends(text: str, head: int, tail: int) -> str:
    """In one line: an encoder reads that the same, and a request that does nothing but ask is read once."""
    return " ".join((text if len(text) <= head + tail else f"{text[:head]} {text[-tail:]}").split())


def _digest(text: str, background: str) -> bytes:
    """Tells texts apart by their lengths and by all of them that is ever read, without keeping any of it."""
    read = f"{len(text)} {len(background)} {_head_and_tail(text)}{_head_and_tail(background)}"
    return blake2b(read.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _head_and_tail(text: str) -> str:
    return text if len(text) <= _READ_HEAD + _READ_TAIL else text[:_READ_HEAD] + text[-_READ_TAIL:]


def _complexity(probabilities: Probabilities, outcome: Outcome, task: TaskType, needs_fresh_facts: bool) -> Complexity:
    most = max(probabilities)
    band = probabilities.index(most)
    expected = _expected(probabilities)
    from_wording = min(max((2.0 * expected - band + 1.0) / 2.0, 0.0), 1.0)
    by_rubric = (band + 0.005 + 0.99 * from_wording) / _BANDS
    difficulty, discrimination = _item(probabilities, outcome)
    factors = [
        Factor("wording", expected),
        Factor("need_of_strong_model", outcome.need),
        Factor("familiar", outcome.familiar),
    ]
    if most < UNSURE_BELOW:
        factors.append(Factor("unsure", 1.0 - most))
    return Complexity(
        score=round(outcome.familiar * outcome.need + (1.0 - outcome.familiar) * by_rubric, 5),
        tier=_TIERS[band],
        factors=tuple(factors),
        task=task,
        tier_probabilities=probabilities,
        needs_fresh_facts=needs_fresh_facts,
        difficulty=difficulty,
        discrimination=discrimination,
    )


def _expected(probabilities: Probabilities) -> float:
    """Between the tiers, 0 for simple and 1 for complex."""
    return (probabilities[1] + 2.0 * probabilities[2]) / 2.0


def _item(probabilities: Probabilities, outcome: Outcome) -> tuple[float, float]:
    """Difficulty and discrimination of the request, as `expected_quality` takes them."""
    cheap = _ability(outcome.familiar, outcome.cheap_logit, SUCCESS_BY_TIER[0], probabilities)
    strong = _ability(outcome.familiar, outcome.strong_logit, SUCCESS_BY_TIER[1], probabilities)
    discrimination = max((strong - cheap) / (_STRONG_ANCHOR - _CHEAP_ANCHOR), LEAST_DISCRIMINATION)
    middle = (strong + cheap) / 2.0
    anchor = (_STRONG_ANCHOR + _CHEAP_ANCHOR) / 2.0
    return round(anchor - middle / discrimination, 5), round(discrimination, 5)


def _ability(familiar: float, known: float, chances: Probabilities, probabilities: Probabilities) -> float:
    """The log-odds that a panel answers well: as recorded outcomes say as far as the request is like theirs."""
    return familiar * known + (1.0 - familiar) * log_odds(sum(map(mul, chances, probabilities)))


def _nothing_asked() -> Complexity:
    return Complexity(score=0.0, tier=Tier.LIGHT, factors=(), tier_probabilities=(1.0, 0.0, 0.0), difficulty=-1.0)


def _quantile(value: float, knots: Sequence[float]) -> float:
    place = bisect_left(knots, value)
    if place in (0, len(knots)):
        return float(place > 0)
    low, high = knots[place - 1], knots[place]
    return (place - 1 + (value - low) / (high - low)) / (len(knots) - 1)


def _bounded(value: float) -> float:
    return max(-_MOST_LOGIT, min(_MOST_LOGIT, value))
