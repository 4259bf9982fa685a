"""Callers' verdicts on answers, and what they teach the decision."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from pointsman_server.domain.errors import RequestNotFound
from pointsman_server.domain.experience import NO_EXPERIENCE, NO_VERDICTS, PRIOR_VERDICTS, Experience, Lesson, Verdicts
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.ports import Clock, VerdictLog
from pointsman_server.domain.request import Tier
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution.shared_answers import Answers, OwnAnswers

HALF_LIFE_SECONDS = 30 * 86_400.0
"""After a month a verdict counts half: models, prompts and tastes change."""

MOST_WEIGHT_PER_TENANT = PRIOR_VERDICTS / 2
"""One tenant's verdicts on one lesson count as at most this many, so that none can turn the router for all: half the
prior's weight moves an expectation by at most a third of its distance to the mean of the tenant's verdicts."""

MOST_ANSWERS = 100_000
"""Answers that can still be judged, and verdicts that can still be replaced; the oldest are forgotten first."""

VIEW_SECONDS = 3_600.0
"""How long a view of what was learned is shown before older verdicts lose weight again."""

_TASKS = {task.value: task for task in TaskType}


_Kind = tuple[TaskType, Tier]
"""Task and band: what requests have in common that teach about each other. Below it come model id and tenant."""


class _Cell:
    """Decayed sums of one tenant's verdicts on one lesson."""

    __slots__ = ("at", "total", "weight")

    def __init__(self) -> None:
        self.total = self.weight = self.at = 0.0

    def add(self, score: float, given_at: float, sign: float) -> None:
        newest = max(self.at, given_at)
        kept, added = _decay(newest - self.at), sign * _decay(newest - given_at)
        self.total = max(0.0, self.total * kept + added * score)
        self.weight = max(0.0, self.weight * kept + added)
        self.at = newest

    def bounded(self, now: float) -> Verdicts:
        return self._of_weight(min(self._weight(now), MOST_WEIGHT_PER_TENANT))

    def beyond_bound(self, now: float) -> Verdicts:
        return self._of_weight(max(0.0, self._weight(now) - MOST_WEIGHT_PER_TENANT))

    def _weight(self, now: float) -> float:
        return self.weight * _decay(now - self.at)

    def _of_weight(self, weight: float) -> Verdicts:
        if weight <= 0.0:
            return NO_VERDICTS
        return Verdicts(min(self.total / self.weight, 1.0) * weight, weight)


class FeedbackBook:
    """Learns from verdicts; shows the decision what was learned. `elsewhere` are the answers of other processes."""

    def __init__(self, clock: Clock, log: VerdictLog, elsewhere: Answers | None = None) -> None:
        self._clock = clock
        self._log = log
        self._elsewhere = elsewhere or OwnAnswers()
        self._answers: OrderedDict[tuple[str, str], Lesson] = OrderedDict()
        self._given: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self._cells: dict[_Kind, dict[str, dict[str, _Cell]]] = {}
        self._shown: dict[_Kind, Experience] = {}
        self._shown_until = 0.0

    def recall(self, verdicts: Iterable[Verdict]) -> None:
        """Takes in the verdicts of earlier runs, in the order in which they were given."""
        for verdict in verdicts:
            self._enter(verdict)

    def answered(self, request_id: str, tenant: str, lesson: Lesson, *, is_recorded: bool = False) -> None:
        """An answer was given, which may be judged later; `is_recorded` says that its call is kept with its account."""
        self._remember(request_id, tenant, lesson)
        if not is_recorded:
            self._elsewhere.keep(request_id, tenant, lesson)

    async def look_up(self, request_id: str, tenant: str) -> None:
        """Learns of the answer if another process gave it. Raises `StoreUnavailableError`."""
        if (tenant, request_id) in self._answers:
            return
        lesson = await self._elsewhere.find(request_id, tenant)
        if lesson is not None:
            self._remember(request_id, tenant, lesson)

    def judge(self, request_id: str, tenant: str, score: float, label: str) -> None:
        """A caller's verdict; a second one replaces the first. A label that names a task type overrules the judged one.

        Raises `RequestNotFound` when no such answer is remembered for this tenant.
        """
        lesson = self._answers.get((tenant, request_id))
        if lesson is None:
            raise RequestNotFound
        lesson = lesson._replace(task=_TASKS.get(label, lesson.task))
        verdict = Verdict(request_id, tenant, lesson, score, self._clock.now())
        self._enter(verdict)
        self._log.append(verdict)
        self._elsewhere.tell(verdict)

    def learn(self, verdicts: Iterable[Verdict]) -> None:
        """Takes in verdicts that other processes were told; what is known already, or was replaced, changes nothing."""
        for verdict in verdicts:
            known = self._given.get((verdict.tenant, verdict.request_id))
            if known is None or known.given_at < verdict.given_at:
                self._enter(verdict)

    def experience(self, task: TaskType, band: Tier) -> Experience:
        """What the verdicts on requests of this kind taught so far."""
        now = self._clock.now()
        if now >= self._shown_until and self._cells:
            self._shown = {kind: _sum_up(models, now) for kind, models in self._cells.items()}
            self._shown_until = now + VIEW_SECONDS
        return self._shown.get((task, band), NO_EXPERIENCE)

    def own(self, tenant: str, lesson: Lesson) -> Verdicts:
        """What of this tenant's verdicts on this lesson is beyond the bound under which they teach the decision."""
        cell = self._cells.get((lesson.task, lesson.band), {}).get(lesson.model_id, {}).get(tenant)
        return NO_VERDICTS if cell is None else cell.beyond_bound(self._clock.now())

    def _remember(self, request_id: str, tenant: str, lesson: Lesson) -> None:
        self._answers[tenant, request_id] = lesson
        if len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)

    def _enter(self, verdict: Verdict) -> None:
        key = (verdict.tenant, verdict.request_id)
        earlier = self._given.pop(key, None)
        if earlier is not None:
            self._cell(earlier).add(earlier.score, earlier.given_at, -1.0)
        self._cell(verdict).add(verdict.score, verdict.given_at, 1.0)
        self._given[key] = verdict
        if len(self._given) > MOST_ANSWERS:
            self._given.popitem(last=False)
        self._shown_until = 0.0  # the next view shows it

    def _cell(self, verdict: Verdict) -> _Cell:
        model_id, task, band = verdict.lesson
        models = self._cells.setdefault((task, band), {})
        return models.setdefault(model_id, {}).setdefault(verdict.tenant, _Cell())


def _sum_up(models: Mapping[str, Mapping[str, _Cell]], now: float) -> Experience:
    return Experience({model_id: _sum(cells.values(), now) for model_id, cells in models.items()})


def _sum(cells: Iterable[_Cell], now: float) -> Verdicts:
    bounded = [cell.bounded(now) for cell in cells]
    return Verdicts(sum(one.total for one in bounded), sum(one.weight for one in bounded))


def _decay(age_seconds: float) -> float:
    return float(0.5 ** (max(0.0, age_seconds) / HALF_LIFE_SECONDS))
