"""Any providers in any mood, and any caller: whatever they do, one dispatch keeps its promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis import event, given
from hypothesis import strategies as st

from kit.catalog import EVERYTHING, call, deployment, plan, request, snapshot
from kit.clock import in_virtual_time
from kit.properties import examples
from kit.scripted import END, PING, Hang, Step, Wait, says, used
from kit.stage import Stage
from kit.witness import Reader, WitnessedCall
from pointsman_server.domain.call import FailoverMode
from pointsman_server.domain.catalog import Deployment, Timeouts
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from pointsman_server.domain.request import Capability, CompletionRequest, GenerationConfig, Tool
from pointsman_server.domain.resilience import BreakerPolicy, HedgePolicy, Resilience, RetryPolicy

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TIMEOUTS = Timeouts(first_token_seconds=8.0, idle_seconds=4.0, total_seconds=40.0)
PROSE = request("Tell me a story.")
STRUCTURED = request("Count.", generation=GenerationConfig(response_schema=SCHEMA))
WITH_TOOLS = request("What is the weather?", generation=GenerationConfig(tools=(Tool("f", "", {"type": "object"}),)))

Script = tuple[Step, ...]

_pieces: st.SearchStrategy[Step] = st.sampled_from(
    (
        says("one "),
        says("two. "),
        says(" three"),
        says("and once upon a time there was more "),
        says('{"n": 1}'),
        (ReasoningDelta("r", "let me see"),),
        (TextDelta(0, "four "), ReasoningDelta("r", "hm")),
        (ReasoningDelta("s", "hm", signature="signed"),),
        (ToolCallDelta("t", "id", "f", "{"), ToolCallDelta("t", arguments_json="}")),
        (OpaqueDelta("o", "d", "k", "{}"),),
        (TextDelta("other", "aside "), CitationFound(Citation(url="https://a.test", start_index=0, end_index=1))),
    )
)
_silences: st.SearchStrategy[Step] = st.sampled_from((PING, used(5, 1), Wait(0.5), Wait(3.0), Wait(5.0), Wait(9.0)))
_wishes = st.sampled_from((None, None, 0.0, 1.0, 5.0, 86_400.0))
_kinds = st.sampled_from(
    (FaultKind.UNAVAILABLE, FaultKind.RATE_LIMITED, FaultKind.CONTEXT_WINDOW, FaultKind.INVALID_REQUEST, *FaultKind)
)
_faults = st.builds(ProviderFault, _kinds, st.just("scripted"), retry_after_seconds=_wishes)
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
_breaks: st.SearchStrategy[Sequence[Step]] = st.sampled_from(
    ([], [Hang()], [ProviderFault(FaultKind.UNAVAILABLE, "broke off")], [ProviderFault(FaultKind.TOO_SLOW, "crept")])
)
_creeping: Script = (*(step for n in range(12) for step in (says(f"{n} "), Wait(2.0))), END)
_scripts: st.SearchStrategy[Script] = st.one_of(
    st.builds(lambda body, end: (*body, *end), st.lists(_pieces | _silences, max_size=5), _ends),
    st.builds(lambda body, end: (*body, *end), st.lists(_pieces, min_size=1, max_size=3), _breaks),
    st.builds(lambda silence, end: (silence, *end), _silences, _ends),
    st.just(_creeping),
)


@dataclass(frozen=True)
class Scene:
    """Who would be asked, what each would do when asked for the first, the second … time, and what the caller wants."""

    scripts: Mapping[str, tuple[Script, ...]]
    deployments: tuple[Deployment, ...]
    resilience: Resilience
    request: CompletionRequest
    stream: bool
    failover: FailoverMode
    allowed_seconds: float
    known_seconds: tuple[float, ...]
    reader: Reader
    leaves_after_seconds: tuple[float, ...]
    close_seconds: float


@st.composite
def _deployments(draw: st.DrawFn, name: str) -> Deployment:
    able = EVERYTHING
    for capability in draw(st.sampled_from(((), (), (Capability.STREAMING,), (Capability.PREFILL,)))):
        able -= {capability}
    return deployment(
        name,
        of={"context_window_tokens": draw(st.sampled_from((1_000, 2_000, 3_000))), "capabilities": able},
        timeouts=replace(TIMEOUTS, least_tokens_per_second=draw(st.sampled_from((0.0, 1.0)))),
        max_concurrent_calls=draw(st.sampled_from((0, 0, 1))),
    )


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """One to six providers, and a caller with a wish."""
    names = [f"d{place}" for place in range(draw(st.integers(1, 6)))]
    return Scene(
        scripts={name: tuple(draw(st.lists(_scripts, min_size=1, max_size=3))) for name in names},
        deployments=tuple(draw(_deployments(name)) for name in names),
        resilience=Resilience(
            draw(st.sampled_from((RetryPolicy(), RetryPolicy(), RetryPolicy(1), RetryPolicy(2, 3, budget_floor=1)))),
            draw(st.sampled_from((BreakerPolicy(), BreakerPolicy(failures_in_a_row=2)))),
            draw(st.sampled_from((HedgePolicy(), HedgePolicy(0.5, 1.0, 1), HedgePolicy(0.9, 0.0, 1)))),
        ),
        request=draw(st.sampled_from((PROSE, PROSE, PROSE, STRUCTURED, WITH_TOOLS))),
        stream=draw(st.booleans()),
        failover=draw(st.sampled_from((*FailoverMode, FailoverMode.CONTINUE))),
        allowed_seconds=draw(st.sampled_from((*(1_000.0,) * 6, 30.0, 7.0, 1.0, 0.05, 0.01))),
        known_seconds=draw(st.sampled_from(((), (0.25, 0.4)))),
        reader=draw(st.sampled_from((*(Reader(),) * 6, Reader(0.5), Reader(0.0, 1), Reader(5.0, 3)))),
        leaves_after_seconds=draw(st.sampled_from((*((),) * 12, (0.0,), (0.5,), (3.0, 0.005), (6.0, 0.0)))),
        close_seconds=draw(st.sampled_from((0.0, 0.01))),
    )


def run(scene: Scene, seed: int = 7) -> tuple[WitnessedCall, Stage]:
    """The call, after every promise to it was checked."""
    stages: list[Stage] = []

    def answer(provider_call: ProviderCall) -> Sequence[Step]:
        name = provider_call.deployment.id
        before = sum(one.call.deployment.id == name for one in stages[0].wires.exchanges) - 1
        scripts = scene.scripts[name]
        return scripts[min(before, len(scripts) - 1)]

    async def go() -> WitnessedCall:
        policy = snapshot(*scene.deployments, resilience=scene.resilience)
        stage = Stage(policy, answer, seed, scene.close_seconds)
        stages.append(stage)
        stage.warm_up(scene.known_seconds)
        deadline = stage.clock.monotonic() + scene.allowed_seconds
        one_call = call(policy, deadline, request=scene.request, failover=scene.failover)
        seen = WitnessedCall(one_call, plan(scene.deployments), scene.stream, stage.referee)
        await stage.serve(seen, scene.reader, scene.leaves_after_seconds)
        stage.check_all()
        return seen

    seen = in_virtual_time(go())
    event("left" if seen.left else "answer" if seen.error is None else type(seen.error).__name__)
    return seen, stages[0]


@examples(600)
@given(scenes())
def test_promises(scene: Scene) -> None:
    seen, _ = run(scene)
    assert [one.deployment.id for one in seen.attempts[:1]] == (["d0"] if scene.allowed_seconds >= 0.05 else [])
    event(f"{len(seen.attempts)} attempts")
    for purpose in {one.purpose for one in seen.attempts[1:]}:
        event(purpose.value)


@examples(60)
@given(scenes())
def test_the_same_providers_in_the_same_mood_give_the_same(scene: Scene) -> None:
    (first, one), (second, other) = run(scene), run(scene)
    assert one.referee.log == other.referee.log
    assert first.events == second.events
    assert (type(first.error), str(first.error)) == (type(second.error), str(second.error))


@examples(100)
@given(scenes())
def test_a_sound_provider_that_comes_first_answers(scene: Scene) -> None:
    sound = deployment("sound", timeouts=TIMEOUTS)
    said = '{"n": 1}' if scene.request is STRUCTURED else "Hello"
    seen, _ = run(
        replace(
            scene,
            deployments=(sound, *scene.deployments),
            scripts={**scene.scripts, "sound": ((says(said), END),)},
            allowed_seconds=30.0,
            reader=Reader(),
            leaves_after_seconds=(),
        )
    )
    assert [one.deployment.id for one in seen.attempts] == ["sound"]
    assert seen.record.reply is not None


@examples(100)
@given(scenes())
def test_without_a_sound_provider_there_is_no_answer(scene: Scene) -> None:
    broken = {name: tuple(map(_without_end, scripts)) for name, scripts in scene.scripts.items()}
    seen, _ = run(replace(scene, scripts=broken))
    assert seen.record.reply is None
    assert seen.error is not None or seen.left


@examples(100)
@given(scenes(), st.sampled_from(tuple(FaultKind)))
def test_a_sound_provider_that_comes_last_answers_if_it_is_asked(scene: Scene, kind: FaultKind) -> None:
    """Everybody before it fails at once, in a way after which others are asked."""
    fault = ProviderFault(kind, "scripted")
    before = scene.deployments[:4]
    sound = deployment("sound", of={"context_window_tokens": 10_000}, timeouts=TIMEOUTS)
    said = '{"n": 1}' if scene.request is STRUCTURED else "Hello"
    seen, _ = run(
        replace(
            scene,
            deployments=(*before, sound),
            scripts={**{one.id: ((fault,),) for one in before}, "sound": ((says(said), END),)},
            resilience=replace(scene.resilience, retries=RetryPolicy()),
            allowed_seconds=30.0,
            reader=Reader(),
            leaves_after_seconds=(),
        )
    )
    assert (seen.record.reply is not None) == fault.rule.try_next


def _without_end(steps: Script) -> Script:
    return tuple(
        step for step in steps if not (isinstance(step, tuple) and any(isinstance(one, Finished) for one in step))
    )
