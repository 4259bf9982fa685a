"""What is measured: the cases, their rounds, and what follows from their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench import policy
from bench.answers import CHAT, EVENTS_PER_STREAM, MESSAGES, WHOLE_END
from bench.floors import SERVICE
from bench.jobs import Job, Outcome, Percentiles
from bench.payloads import COUNTED_PROMPT, PROMPT, chat_body, complete_request, route_request, stream_request
from bench.processes import Server, run_job
from bench.upstream import STREAM_SECONDS

_ROUTER = "pointsman.v1.RouterService"
_STREAM_END = b"[DONE]"

ONE_WORKER, TWO_WORKERS = "Complete, one worker", "Complete, two workers"
LITELLM = "LiteLLM proxy"
LITELLM_STREAM = "LiteLLM proxy, stream"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a run takes: rounds of every case, the seconds of each kind of measurement, and starts of a server."""

    rounds: int
    warmup_seconds: float
    seconds: float
    paced_seconds: float
    half_load_seconds: float
    single_seconds: float
    settling_seconds: float
    starts: int


FULL = Plan(
    rounds=3, warmup_seconds=0.4, seconds=2.5, paced_seconds=2.5, half_load_seconds=1.5, single_seconds=1.0,
    settling_seconds=1.5, starts=3,
)  # fmt: skip
QUICK = Plan(
    rounds=1, warmup_seconds=0.1, seconds=0.3, paced_seconds=1.2, half_load_seconds=0.3, single_seconds=0.2,
    settling_seconds=0.2, starts=1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A job by name; `floor` names the case that it is compared with."""

    name: str
    job: Job
    floor: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """Medians over the rounds of a case; `busy` are shares of a core."""

    name: str
    calls_per_second: float
    cpu_micros_per_call: float
    cpu_micros_per_message: float
    latency: Percentiles
    first_token_added: Percentiles
    server_busy: float
    load_busy: float
    failures: int

    @classmethod
    def of(cls, name: str, outcomes: Sequence[Outcome]) -> Rate:
        """The medians."""

        def middle(value: Callable[[Outcome], float]) -> float:
            return median(value(outcome) for outcome in outcomes)

        return cls(
            name=name,
            calls_per_second=middle(lambda outcome: outcome.calls / outcome.seconds),
            cpu_micros_per_call=middle(lambda outcome: outcome.cpu_micros_each(outcome.calls)),
            cpu_micros_per_message=middle(lambda outcome: outcome.cpu_micros_each(outcome.messages)),
            latency=_middle(outcome.latency for outcome in outcomes),
            first_token_added=_middle(outcome.first_token_added for outcome in outcomes),
            server_busy=middle(lambda outcome: outcome.server_cpu_seconds / outcome.seconds),
            load_busy=middle(lambda outcome: outcome.load_cpu_seconds / outcome.seconds),
            failures=sum(outcome.failures for outcome in outcomes),
        )

    @property
    def cpu_micros_per_event(self) -> float:
        """For streams: processor time for each event of the upstream."""
        return self.cpu_micros_per_call / EVENTS_PER_STREAM


def _middle(found: Iterable[Percentiles]) -> Percentiles:
    all_found = list(found)
    return Percentiles(
        p50=median(one.p50 for one in all_found),
        p95=median(one.p95 for one in all_found),
        p99=median(one.p99 for one in all_found),
    )


def saturating_cases(floors: Server, pointsman: Server, plan: Plan) -> list[Case]:
    """Closed loops that keep the server's core busy, floors first."""

    def floor(method: str, expected: bytes, *, stream: bool = False) -> Job:
        return _job(floors, f"/{SERVICE}/{method}", route_request(), expected, plan, stream=stream)

    def ask(method: str, request: bytes, expected: bytes, *, stream: bool = False) -> Job:
        return _job(pointsman, f"/{_ROUTER}/{method}", request, expected, plan, stream=stream)

    return [
        Case("floor: echo", floor("Echo", PROMPT.encode())),
        Case("floor: relay", floor("Whole", WHOLE_END)),
        Case("floor: relay, stream by events", floor("Events", _STREAM_END, stream=True)),
        Case("floor: relay, stream by reads", floor("Reads", _STREAM_END, stream=True)),
        Case("Route", ask("Route", route_request(), policy.CHAT.encode()), "floor: echo"),
        Case("Route, new texts", ask("Route", route_request(COUNTED_PROMPT), policy.CHAT.encode()), "floor: echo"),
        Case("Complete, OpenAI chat", ask("Complete", complete_request(policy.CHAT), WHOLE_END), "floor: relay"),
        Case("Complete, Anthropic", ask("Complete", complete_request(policy.MESSAGES), WHOLE_END), "floor: relay"),
        Case(
            "StreamComplete, OpenAI chat",
            ask("StreamComplete", stream_request(policy.CHAT), CHAT.stream_end, stream=True),
            "floor: relay, stream by reads",
        ),
        Case(
            "StreamComplete, Anthropic",
            ask("StreamComplete", stream_request(policy.MESSAGES), MESSAGES.stream_end, stream=True),
            "floor: relay, stream by reads",
        ),
    ]


def litellm_cases(proxy: Server, plan: Plan) -> list[Case]:
    """The same answers through LiteLLM's proxy, over its own dialect."""

    def ask(*, stream: bool) -> Job:
        expected = _STREAM_END if stream else WHOLE_END
        job = _job(proxy, "/v1/chat/completions", chat_body(stream=stream), expected, plan, stream=stream)
        # Its calls take half a second under this load, and its first ones load what it needs.
        return replace(job, warmup_seconds=max(3.0, plan.warmup_seconds), seconds=max(2.0, plan.seconds))

    return [Case(LITELLM, ask(stream=False)), Case(LITELLM_STREAM, ask(stream=True))]


def crowded_cases(pointsman: Server, plan: Plan) -> list[Case]:
    """500 streams at a time, a tenth of them read slowly and a twentieth left in the middle."""
    method, expected = f"/{_ROUTER}/StreamComplete", CHAT.stream_end
    job = _job(pointsman, method, stream_request(policy.PACED_CHAT), expected, plan, stream=True)
    crowd = replace(job, concurrency=500, connections=8, restless=True)
    return [Case("500 streams", replace(crowd, warmup_seconds=2 * STREAM_SECONDS, seconds=plan.paced_seconds))]


def team_cases(one: Server, two: Server, plan: Plan) -> list[Case]:
    """The same calls to a server of one worker and to one of two, over connections enough for the kernel to spread."""

    def ask(server: Server) -> Job:
        job = _job(server, f"/{_ROUTER}/Complete", complete_request(policy.CHAT), WHOLE_END, plan, stream=False)
        return replace(job, connections=16)

    return [Case(ONE_WORKER, ask(one)), Case(TWO_WORKERS, ask(two))]


def thousand_streams(server: Server, plan: Plan) -> Case:
    """1,000 streams at a time; all are read to their end."""
    job = _job(
        server, f"/{_ROUTER}/StreamComplete", stream_request(policy.PACED_CHAT), CHAT.stream_end, plan, stream=True
    )
    # All of them have begun, and the first are over, before anything is measured.
    many = replace(job, concurrency=1_000, connections=20, warmup_seconds=4 * STREAM_SECONDS)
    return Case("1,000 streams", replace(many, seconds=2 * plan.paced_seconds))


def paced_cases(floors: Server, pointsman: Server, plan: Plan) -> list[Case]:
    """64 streams at a time whose events come in steps."""

    def ask(deployment: str, expected: bytes) -> Job:
        method = f"/{_ROUTER}/StreamComplete"
        return _job(pointsman, method, stream_request(deployment), expected, plan, stream=True)

    jobs = {
        "floor: relay": _job(floors, f"/{SERVICE}/Paced", route_request(), _STREAM_END, plan, stream=True),
        "OpenAI chat": ask(policy.PACED_CHAT, CHAT.stream_end),
        "Anthropic": ask(policy.PACED_MESSAGES, MESSAGES.stream_end),
    }
    # The warm-up is as long as a stream, so that the beginnings are spread evenly from the start.
    return [
        Case(name, replace(job, concurrency=64, warmup_seconds=STREAM_SECONDS, seconds=plan.paced_seconds))
        for name, job in jobs.items()
    ]


def single_cases(cases: Iterable[Case], plan: Plan) -> list[Case]:
    """The same with a single caller."""
    return [replace(case, job=replace(case.job, concurrency=1, seconds=plan.single_seconds)) for case in cases]


def half_loaded_cases(cases: Iterable[Case], rates: Mapping[str, Rate], plan: Plan) -> list[Case]:
    """The same with calls that begin at random, half as many as the server can do."""

    def halved(case: Case) -> Job:
        calls_per_second = rates[case.name].calls_per_second / 2
        return replace(case.job, calls_per_second=calls_per_second, seconds=plan.half_load_seconds)

    return [replace(case, job=halved(case)) for case in cases]


def in_rounds(cases: Sequence[Case], rounds: int) -> dict[str, Rate]:
    """Every case once in each round, so that what disturbs the machine for a while disturbs them all."""
    outcomes: dict[str, list[Outcome]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            outcomes[case.name].append(run_job(case.job))
    return {name: Rate.of(name, found) for name, found in outcomes.items()}


def _job(server: Server, method: str, request: bytes, expected: bytes, plan: Plan, *, stream: bool) -> Job:
    return Job(
        target=server.address,
        method=method,
        request=request,
        expected=expected,
        stream=stream,
        server_pid=server.pid,
        seconds=plan.seconds,
        warmup_seconds=plan.warmup_seconds,
    )
