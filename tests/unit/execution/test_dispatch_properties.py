"""Any providers in any mood: whatever they do, a dispatch keeps its promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import event, given
from hypothesis import strategies as st

from kit.catalog import EVERYTHING, deployment
from kit.dispatching import Dispatched, dispatch
from kit.properties import examples
from kit.scripted import END, PING, Hang, Step, Wait, says, used
from pointsman_server.domain.call import AttemptOutcome, FailoverMode
from pointsman_server.domain.catalog import Deployment, Timeouts
from pointsman_server.domain.errors import AttemptsFailed, DeadlineExceeded, StreamInterrupted
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.reply import (
    ContentDelta,
    Finished,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    Reply,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    fold,
)
from pointsman_server.domain.request import Capability
from pointsman_server.execution.dispatch import MAX_ATTEMPTS

CONTENT = (TextDelta, ReasoningDelta, ToolCallDelta, OpaqueDelta)
TIMEOUTS = Timeouts(first_token_seconds=8.0, idle_seconds=4.0, total_seconds=40.0)
SLACK_SECONDS = 0.01

_pieces: st.SearchStrategy[Step] = st.sampled_from(
    (
        says("one "),
        says("two "),
        (TextDelta(0, "three "), ReasoningDelta("r", "hm")),
        (ToolCallDelta("t", "id", "f", "{"), ToolCallDelta("t", arguments_json="}")),
        (OpaqueDelta("o", "d", "k", "{}"),),
    )
)
_silences: st.SearchStrategy[Step] = st.sampled_from((PING, used(5, 1), Wait(0.5), Wait(3.0), Wait(5.0), Wait(9.0)))
_faults = st.builds(
    ProviderFault,
    st.sampled_from((FaultKind.UNAVAILABLE, FaultKind.CONTEXT_WINDOW, FaultKind.INVALID_REQUEST, *FaultKind)),
    st.just("scripted"),
    retry_after_seconds=st.none() | st.sampled_from((0.0, 5.0)),
)
_ends: st.SearchStrategy[Sequence[Step]] = st.one_of(
    st.just([END]),
    st.just([END]),
    st.just([END, used(5, 1)]),
    st.just([(Finished(FinishReason.LENGTH),), Hang()]),
    st.just([]),
    st.just([Hang()]),
    _faults.map(lambda fault: [fault]),
    _faults.map(lambda fault: [fault]),
)


@st.composite
def _scripts(draw: st.DrawFn) -> tuple[Step, ...]:
    return (*draw(st.lists(_pieces | _silences, max_size=5)), *draw(_ends))


@dataclass(frozen=True)
class Scene:
    """Who would be asked, what each would do, and how the caller wants it."""

    scripts: tuple[tuple[Deployment, tuple[Step, ...]], ...]
    stream: bool
    failover: FailoverMode
    deadline: float

    def script_of(self, name: str) -> tuple[Step, ...]:
        """What this deployment does."""
        return next(steps for one, steps in self.scripts if one.id == name)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """One to eight providers."""
    scripts = []
    for place in range(draw(st.integers(1, 8))):
        streams = draw(st.sampled_from((True, True, True, False)))
        of = {
            "context_window_tokens": draw(st.sampled_from((1_000, 2_000, 3_000))),
            "capabilities": EVERYTHING if streams else EVERYTHING - {Capability.STREAMING},
        }
        scripts.append((deployment(f"d{place}", of=of, timeouts=TIMEOUTS), draw(_scripts())))
    return Scene(
        tuple(scripts),
        draw(st.booleans()),
        draw(st.sampled_from(FailoverMode)),
        draw(st.sampled_from((1_000.0, 1_000.0, 1_000.0, 30.0, 7.0, 1.0, 0.01))),
    )


def run(scene: Scene) -> Dispatched:
    done = dispatch(scene.scripts, stream=scene.stream, failover=scene.failover, deadline=scene.deadline)
    event("answer" if done.error is None else type(done.error).__name__)
    return done


def all_events(steps: Sequence[Step]) -> list[ReplyEvent]:
    return [one for step in steps if isinstance(step, tuple) for one in step]


@examples(600)
@given(scenes())
def test_promises(scene: Scene) -> None:
    done = run(scene)
    _ends_once_and_in_time(scene, done)
    _asks_each_once_and_in_order(scene, done)
    _goes_on_only_where_that_can_help(scene, done)
    _accounts_for_every_attempt(done)
    _tells_no_half_answer_as_a_whole(scene, done)
    _never_starts_again_unasked(scene, done)


def _ends_once_and_in_time(scene: Scene, done: Dispatched) -> None:
    record = done.record
    assert (record.reply is None) == (record.answered_by is None) == (done.error is not None)
    assert done.error is None or type(done.error) in (AttemptsFailed, StreamInterrupted, DeadlineExceeded)
    assert done.seconds <= scene.deadline + SLACK_SECONDS


def _asks_each_once_and_in_order(scene: Scene, done: Dispatched) -> None:
    assert len(done.asked) <= MAX_ATTEMPTS
    assert done.asked == sorted(set(done.asked))
    for name, adapter in done.adapters.items():
        assert len(adapter.calls) == done.asked.count(name)
    assert done.asked[:1] == ["d0"] or isinstance(done.error, DeadlineExceeded)


def _goes_on_only_where_that_can_help(scene: Scene, done: Dispatched) -> None:
    windows = {one.id: one.model.context_window_tokens for one, _ in scene.scripts}
    too_small = 0
    for attempt, following in zip(done.record.attempts, done.asked[1:], strict=False):
        assert attempt.fault is not None
        assert attempt.fault.rule.try_next
        if attempt.fault.rule.larger_window_only:
            too_small = max(too_small, windows[attempt.deployment.id])
        assert windows[following] > too_small
    last = done.record.attempts[-1] if done.record.attempts else None
    if last is not None and last.fault is not None and type(done.error) is AttemptsFailed and last.fault.rule.try_next:
        left_out = [name for name in windows if name not in done.asked and name > last.deployment.id]
        if last.fault.rule.larger_window_only:
            too_small = max(too_small, windows[last.deployment.id])
        assert len(done.asked) == MAX_ATTEMPTS or all(windows[name] <= too_small for name in left_out)


def _accounts_for_every_attempt(done: Dispatched) -> None:
    attempts = done.record.attempts
    outcomes = [attempt.outcome for attempt in attempts]
    assert all(outcome is AttemptOutcome.FAILED for outcome in outcomes[:-1])
    assert all((attempt.outcome is AttemptOutcome.FAILED) == (attempt.fault is not None) for attempt in attempts)
    assert (AttemptOutcome.SUCCEEDED in outcomes) == (done.error is None)
    assert done.record.cost_micro_usd == sum(attempt.cost_micro_usd for attempt in attempts)
    for attempt in attempts:
        assert attempt.cost_micro_usd in (0, 7)
        assert attempt.first_token_seconds is None or 0 <= attempt.first_token_seconds <= attempt.latency_seconds
    if isinstance(done.error, AttemptsFailed):
        assert [one.deployment_id for one in done.error.attempts] == done.asked
    if isinstance(done.error, StreamInterrupted):
        assert done.error.cost_micro_usd == done.record.cost_micro_usd


def _tells_no_half_answer_as_a_whole(scene: Scene, done: Dispatched) -> None:
    if done.record.answered_by is None:
        return
    said = all_events(scene.script_of(done.record.answered_by.deployment.id))
    assert any(isinstance(one, Finished) for one in said)
    assert done.record.reply == fold(said)
    if scene.stream:
        assert _folded(done.deltas).parts == done.record.reply.parts


def _folded(deltas: Sequence[tuple[int, ContentDelta]]) -> Reply:
    """What a reader makes of the pieces, by the indices that were sent with them."""
    parts = [fold([delta for place, delta in deltas if place == index]) for index in range(_part_count(deltas))]
    return Reply(
        parts=tuple(part for reply in parts for part in reply.parts),
        finish_reason=FinishReason.UNKNOWN,
        raw_finish_reason="",
        usage=fold([]).usage,
        citations=(),
        response_id="",
        model="",
    )


def _part_count(deltas: Sequence[tuple[int, ContentDelta]]) -> int:
    return max((place for place, _ in deltas), default=-1) + 1


def _never_starts_again_unasked(scene: Scene, done: Dispatched) -> None:
    if not scene.stream:
        assert done.events == []
    if scene.failover is FailoverMode.TERMINATE:
        assert done.failovers == []
    for moved in done.failovers:
        assert (moved.mode, moved.characters_kept) == (FailoverMode.RESTART, 0)
        assert moved.from_deployment_id < moved.to_deployment_id
    if type(done.error) is AttemptsFailed:
        assert done.deltas == []
    if isinstance(done.error, StreamInterrupted):
        assert done.deltas
        last = all_events(scene.script_of(done.asked[-1]))
        assert any(isinstance(one, CONTENT) for one in last)


@examples(60)
@given(scenes())
def test_the_same_providers_in_the_same_mood_give_the_same(scene: Scene) -> None:
    first, second = run(scene), run(scene)
    assert (first.asked, first.outcomes, first.events, first.seconds) == (
        second.asked,
        second.outcomes,
        second.events,
        second.seconds,
    )
    assert (type(first.error), str(first.error)) == (type(second.error), str(second.error))


@examples(100)
@given(scenes())
def test_a_sound_provider_that_comes_first_answers(scene: Scene) -> None:
    sound = Scene(
        ((deployment("d", timeouts=TIMEOUTS), (says("Hello"), END)), *scene.scripts), scene.stream, scene.failover, 30.0
    )
    assert run(sound).asked == ["d"]


@examples(100)
@given(scenes())
def test_without_a_sound_provider_there_is_no_answer(scene: Scene) -> None:
    broken = tuple((one, steps) for one, steps in scene.scripts if not _finishes(steps))
    if broken:
        assert run(Scene(broken, scene.stream, scene.failover, scene.deadline)).error is not None


def _finishes(steps: Sequence[Step]) -> bool:
    return any(isinstance(one, Finished) for one in all_events(steps))
