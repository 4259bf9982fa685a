"""What hurt the users of other gateways must not happen here: one test for each public report."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from kit.mishaps import CONTINUE, RESTART, scene
from kit.running import one_deployment_each, running_service
from kit.upstream import HELLO, Script, chunk, json_script, running_upstream, sse_script
from pointsman.v1 import completion_pb2
from pointsman_client import AsyncClient, StreamInterrupted
from pointsman_server.execution import attempt

HELLO_STREAM = sse_script(chunk("Hello"), chunk(" world"), chunk(finish="stop"))
ROLE_CHUNK = {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
ERROR_CHUNK = 'data: {"error": {"message": "x", "type": "server_error"}}\n\n'
HALF = (chunk("The river carries "), chunk("the winter out to "))
REST = "sea, and in spring it comes back."
TEXT = "The river carries the winter out to " + REST
WHOLE_STORY = sse_script(chunk(TEXT), chunk(finish="stop"))
REST_STREAM = sse_script(chunk(REST), chunk(finish="stop"))
CUT = sse_script(*HALF, end="reset", done=False)
SILENT = Script(status=0, end="stall")
BROKEN = json_script({"error": {"message": "boom"}}, 500)
SOUND = json_script(HELLO)

NO_RETRIES = {"retries": {"attempts_per_deployment": 1}}
QUICK_BREAKER = {"breaker": {"open_seconds": 0.4, "longest_open_seconds": 4, "window_seconds": 2}}


def limited(milliseconds: int) -> Script:
    return json_script({"error": {"message": "slow down"}}, 429, **{"retry-after-ms": str(milliseconds)})


def weather_tool() -> completion_pb2.Tool:
    tool = completion_pb2.Tool(name="weather")
    tool.parameters.update({"type": "object"})
    return tool


def tool_chunk(arguments: str) -> dict[str, object]:
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


# Streams


@pytest.mark.parametrize(
    "abnormal",
    [
        sse_script(ROLE_CHUNK, end="reset", done=False),
        sse_script(ROLE_CHUNK, end="stall", done=False),
        sse_script(ROLE_CHUNK, "data: {oops\n\n", done=False),
        sse_script(ROLE_CHUNK, done=False),
    ],
    ids=["cut", "stalled", "malformed", "ended"],
)
async def test_a_stream_that_ends_abnormally_asks_the_fallback(abnormal: Script) -> None:
    """LiteLLM #40404: the fallback gets no request when the stream is cut, stalls or turns malformed."""
    patience = {"first_token_seconds": 0.4, "idle_seconds": 0.4}
    async with scene({"primary": abnormal, "fallback": HELLO_STREAM}, timeouts=patience) as on:
        seen = await on.stream()
        assert on.calls()["fallback"] == 1
    assert seen.error is None
    assert seen.text == "Hello world"


@pytest.mark.parametrize("abnormal", [CUT, sse_script(*HALF, end="stall", done=False)], ids=["cut", "stalled"])
async def test_a_stream_that_breaks_midway_asks_the_fallback_when_that_is_wanted(abnormal: Script) -> None:
    """LiteLLM #40404: the same after the first text."""
    async with scene({"primary": abnormal, "fallback": WHOLE_STORY}, timeouts={"idle_seconds": 0.4}) as on:
        seen = await on.stream(RESTART)
        assert on.calls()["fallback"] == 1
    assert seen.text == TEXT


async def test_a_fallback_without_prefill_is_not_sent_one() -> None:
    """LiteLLM #27967, PR #30242: the continuation ends with the assistant's turn, which many models refuse."""
    async with scene({"primary": CUT, "fallback": REST_STREAM}) as on:
        seen = await on.stream(CONTINUE)
        messages = on.upstreams["fallback"].bodies[0]["messages"]
    assert messages[-1]["role"] == "user"
    assert seen.text == TEXT


async def test_a_fallback_with_prefill_goes_on_from_it() -> None:
    """LiteLLM #27967: where the model takes a prefill, it gets the text so far as its own turn."""
    model = {"capabilities": ["streaming", "prefill"]}
    async with scene({"primary": CUT, "fallback": REST_STREAM}, model=model) as on:
        seen = await on.stream(CONTINUE)
        last = on.upstreams["fallback"].bodies[0]["messages"][-1]
    assert last["role"] == "assistant"
    assert seen.text == TEXT


async def test_the_first_failure_is_not_swallowed_by_the_failover() -> None:
    """LiteLLM #27967: what the caller is told in the end is why the continuation failed, not why it was needed."""
    async with scene({"primary": CUT, "fallback": BROKEN}, resilience=NO_RETRIES) as on:
        seen = await on.stream(CONTINUE)
    assert seen.error is not None
    assert seen.error.code is grpc.StatusCode.ABORTED
    told = seen.error.details["ErrorInfo"].metadata["attempts"]
    assert "primary" in told
    assert "fallback" in told


async def test_a_cut_tool_call_is_not_gone_on_with_in_prose() -> None:
    """LiteLLM #31067: the continuation's prompt makes the fallback answer in prose instead of calling the tool."""
    cut_call = sse_script(tool_chunk('{"city": "Ha'), end="reset", done=False)
    async with scene({"primary": cut_call, "fallback": REST_STREAM}) as on:
        seen = await on.stream(CONTINUE, generation=completion_pb2.GenerationConfig(tools=[weather_tool()]))
        assert on.calls()["fallback"] == 0
    assert seen.completed is None
    assert seen.error is not None
    assert seen.error.code is grpc.StatusCode.ABORTED


async def test_prose_before_a_possible_tool_call_is_not_gone_on_with() -> None:
    """LiteLLM #31067: silent, because the tools are still offered and the text alone looks harmless."""
    async with scene({"primary": CUT, "fallback": REST_STREAM}) as on:
        seen = await on.stream(CONTINUE, generation=completion_pb2.GenerationConfig(tools=[weather_tool()]))
        assert on.calls()["fallback"] == 0
    assert seen.error is not None


async def test_nobody_gets_a_continuation_who_did_not_ask_for_one() -> None:
    """LiteLLM #18229: the mid-stream continuation and its prompt cannot be switched off."""
    async with scene({"primary": CUT, "fallback": REST_STREAM}) as on:
        seen = await on.stream()
        assert on.calls()["fallback"] == 0
    assert seen.failovers == []
    assert seen.text + REST == TEXT
    assert seen.error is not None


async def test_the_continuations_prompt_is_the_policys() -> None:
    """LiteLLM #18229: the prompt is one sentence of English that nobody can change."""
    own = {"continuation_prompt": "Weiter im Text, ohne Wiederholung."}
    async with scene({"primary": CUT, "fallback": REST_STREAM}, resilience=own) as on:
        await on.stream(CONTINUE)
        messages = on.upstreams["fallback"].bodies[0]["messages"]
    assert messages[-1]["content"] == own["continuation_prompt"]


async def test_a_pinned_stream_has_no_fallback_midway_either() -> None:
    """LiteLLM #19077: disable_fallbacks is not respected in the middle of a stream."""
    async with scene({"primary": CUT, "fallback": WHOLE_STORY}, resilience=NO_RETRIES) as on:
        seen = await on.stream(RESTART, deployment="primary")
        assert on.calls()["fallback"] == 0
    assert seen.error is not None


async def test_an_error_midway_is_tried_again() -> None:
    """LiteLLM #29808, #28216: an error in the middle of a stream is never retried, on some paths not even handled."""
    midway = sse_script(*HALF, ERROR_CHUNK, done=False)
    async with scene({"primary": midway, "fallback": WHOLE_STORY}) as on:
        seen = await on.stream(RESTART)
    assert seen.error is None
    assert seen.text == TEXT
    assert [failover.characters_kept for failover in seen.failovers] == [0]


async def test_nothing_is_told_before_the_first_text() -> None:
    """LiteLLM PR #26067: providers that fail at their first chunk raise past the code that would have retried."""
    late = Script(200, {"content-type": "text/event-stream"}, [(0.1, ERROR_CHUNK.encode())])
    async with scene({"primary": late, "fallback": HELLO_STREAM}) as on:
        seen = await on.stream()
    assert seen.error is None
    assert seen.failovers == []
    assert seen.text == "Hello world"


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_an_upstream_lost_midway_is_never_a_clean_end(end: str) -> None:
    """Portkey #1797, #267: the upstream drops in mid-answer, the caller gets a 200, no error and no end marker."""
    async with scene({"primary": sse_script(*HALF, end=end, done=False)}) as on:
        seen = await on.stream()
    assert seen.completed is None
    assert seen.error is not None
    assert (seen.error.code, seen.error.reason) == (grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED")
    assert int(seen.error.details["ErrorInfo"].metadata["outputTokens"]) > 0


async def test_an_upstream_that_sends_no_headers_is_left_in_time() -> None:
    """Bifrost #7034: no timeout runs while headers are awaited: 120 s of silence, the fallback is not tried."""
    async with scene({"primary": SILENT, "fallback": HELLO_STREAM}, timeouts={"first_token_seconds": 0.3}) as on:
        seen = await on.stream()
        assert on.calls()["fallback"] == 1
    assert seen.text == "Hello world"
    assert seen.seconds < 3


async def test_a_silent_upstream_leaves_time_for_the_fallback_of_a_whole_answer() -> None:
    """Bifrost #7034: the same where nothing is streamed."""
    async with scene({"primary": SILENT, "fallback": SOUND}, timeouts={"total_seconds": 0.5}) as on:
        answer = await on.complete(within_seconds=6)
    assert answer.message.parts[0].text == "Hello world"


async def test_an_error_after_the_first_event_asks_the_fallback() -> None:
    """Bifrost #5395: no fallback when the error comes inside a 200, after an event that says nothing."""
    async with scene({"primary": sse_script(ROLE_CHUNK, ERROR_CHUNK, done=False), "fallback": HELLO_STREAM}) as on:
        seen = await on.stream()
    assert seen.error is None
    assert seen.text == "Hello world"


async def test_a_crawling_stream_is_left_for_a_faster_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bifrost #6472: less than two tokens a second for minutes, and the idle timer never fires."""
    monkeypatch.setattr(attempt, "RATE_WINDOW_SECONDS", 0.5)
    events = sse_script(*(chunk(letter) for letter in "abcdefghijklmnop"), done=False).pieces
    letters = [(0.15, event) for _, event in events]
    crawl = Script(200, {"content-type": "text/event-stream"}, letters, "stall")
    fast_enough = {"least_tokens_per_second": 50}
    async with scene({"primary": crawl, "fallback": WHOLE_STORY}, timeouts=fast_enough) as on:
        seen = await on.stream(RESTART, within_seconds=30)
        assert on.calls()["fallback"] == 1
    assert seen.text == TEXT


async def test_a_caller_who_leaves_is_noticed_at_once() -> None:
    """Bifrost PR #7106: the caller's departure is found by asking the socket twice a second."""
    async with scene({"primary": sse_script(*HALF, end="stall", done=False)}) as on:
        events = on.events()
        async for event in events:
            if event.WhichOneof("event") == "delta":
                break
        events.cancel()
        assert await on.until_left("primary", 0.2)


async def test_going_on_midway_loses_and_doubles_nothing() -> None:
    """AISIX PR #882, #896: mid-stream continuation merged, and reverted a day later."""
    again = sse_script(
        chunk("carries the winter out to sea, "), chunk("and in spring it comes back."), chunk(finish="stop")
    )
    for fallback in (REST_STREAM, again):
        async with scene({"primary": CUT, "fallback": fallback}) as on:
            seen = await on.stream(CONTINUE)
        assert seen.completed is not None
        assert seen.text == seen.completed.message.parts[0].text == TEXT
        assert [(one.mode, one.from_deployment, one.to_deployment) for one in seen.failovers] == [
            (CONTINUE, "primary", "fallback")
        ]


async def test_a_reader_cannot_take_a_cut_answer_for_whole() -> None:
    """Preloop #117, open-webui #29628, llm-rosetta #481: the same truncation found anew by everybody downstream."""
    async with (
        running_upstream(CUT) as upstream,
        running_service(one_deployment_each({"primary": upstream.base_url})) as service,
        AsyncClient(f"127.0.0.1:{service.port}") as client,
    ):
        stream = client.stream("Tell me.")
        with pytest.raises(StreamInterrupted):
            _ = [piece async for piece in stream.text_deltas()]
        with pytest.raises(StreamInterrupted):
            await client.stream("Tell me.").finish()


async def test_a_stream_carries_a_megabyte_of_prompt_and_answer() -> None:
    """Envoy AI Gateway #805, #494: a 1 MB body is never processed, and streams fail as too large a response."""
    block = "0123456789abcdef" * 64
    long = sse_script(*[chunk(block)] * 2_000, chunk(finish="stop"))
    model = {"context_window_tokens": 8_000_000, "max_output_tokens": 4_000_000}
    generation = completion_pb2.GenerationConfig(max_output_tokens=4_000_000)
    async with scene({"primary": long}, model=model) as on:
        seen = await on.stream(text="word " * 200_000, within_seconds=30, generation=generation)
    assert seen.error is None
    assert len(seen.text) == 2_000 * len(block)


# Cooldown, health, fallback


async def test_a_lone_primary_in_an_outage_costs_nothing_once_it_is_known() -> None:
    """LiteLLM #40405: with one deployment in the group it is never cooled; every call pays three attempts and 5-6 s."""
    async with scene({"primary": BROKEN, "fallback": SOUND}) as on:
        for _ in range(12):
            await on.complete()
        asked = on.calls()["primary"]
        assert asked <= 6
        for _ in range(5):
            await on.complete()
        assert on.calls() == {"primary": asked, "fallback": 17}


async def test_many_errors_in_a_row_take_a_deployment_out() -> None:
    """LiteLLM PR #34836: after 25 consecutive errors the deployment is still in rotation."""
    async with scene({"primary": BROKEN}) as on:
        errors = [await on.refused() for _ in range(25)]
        assert on.calls()["primary"] <= 6
    assert {error.code for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert errors[-1].details["RetryInfo"].retry_delay.ToMilliseconds() > 0


async def test_a_cooldown_holds_from_the_next_call_on() -> None:
    """LiteLLM PR #34836, #40025: a 429's cooldown is honoured, and known to the others, up to ten seconds late."""
    async with scene({"primary": [limited(5_000), SOUND], "fallback": SOUND}) as on:
        await on.complete()
        await asyncio.gather(*(on.complete() for _ in range(10)))
        assert on.calls() == {"primary": 1, "fallback": 11}


async def test_a_longer_cooldown_replaces_a_shorter_one() -> None:
    """LiteLLM #40130: cooling again keeps the first, shorter deadline."""
    slow_long = Script(429, {"retry-after-ms": "30000"}, [(0.15, b"{}")])
    async with scene({"primary": [slow_long, limited(250), SOUND], "fallback": SOUND}) as on:
        # Both are under way before either answers: the short one is told first, the long one after it.
        first = asyncio.ensure_future(on.complete())
        await asyncio.sleep(0.03)
        await on.complete()
        await first
        await asyncio.sleep(0.5)
        await on.complete()
        assert on.calls()["primary"] == 2


async def test_a_shorter_cooldown_does_not_replace_a_longer_one() -> None:
    """LiteLLM #40130, the other way round."""
    slow_short = Script(429, {"retry-after-ms": "10"}, [(0.15, b"{}")])
    async with scene({"primary": [slow_short, limited(30_000), SOUND], "fallback": SOUND}) as on:
        first = asyncio.ensure_future(on.complete())
        await asyncio.sleep(0.03)
        await on.complete()
        await first
        await asyncio.sleep(0.3)
        await on.complete()
        assert on.calls()["primary"] == 2


async def test_a_fallback_that_fails_is_left_alone_too() -> None:
    """LiteLLM #31876, PR #35104: failed fallback targets are never cooled."""
    scripts = {"primary": BROKEN, "fallback": limited(30_000), "last": SOUND}
    async with scene(scripts) as on:
        for _ in range(8):
            await on.complete()
        assert on.calls()["fallback"] == 1
        assert on.calls()["last"] == 8


async def test_a_breaker_that_half_opens_lets_one_call_through() -> None:
    """LiteLLM's breaker over Redis (1.82): once its timer ends, everybody is admitted."""
    slow = Script(200, {"content-type": "application/json"}, [(2.0, SOUND.pieces[0][1])])
    async with scene({"primary": [*[BROKEN] * 5, slow], "fallback": SOUND}, resilience=QUICK_BREAKER) as on:
        for _ in range(6):
            await on.complete()
        assert on.calls()["primary"] == 5
        await asyncio.sleep(0.5)
        await asyncio.gather(*(on.complete() for _ in range(40)))
        assert on.calls()["primary"] == 6


async def test_a_rate_limited_provider_is_fallen_back_from() -> None:
    """Envoy AI Gateway #1866: provider fallback and token rate limiting do not work together."""
    async with scene({"primary": limited(30_000), "fallback": SOUND}) as on:
        began_at = time.monotonic()
        answers = [await on.complete() for _ in range(5)]
        assert on.calls() == {"primary": 1, "fallback": 5}
    assert {answer.message.parts[0].text for answer in answers} == {"Hello world"}
    assert time.monotonic() - began_at < 2


async def test_a_named_deployment_gets_no_fallback() -> None:
    """arbr #77, Bifrost: fallbacks are added to a call that named one provider."""
    async with scene({"primary": BROKEN, "fallback": SOUND}, resilience=NO_RETRIES) as on:
        error = await on.refused(deployment="primary")
        assert on.calls()["fallback"] == 0
    assert error.code is grpc.StatusCode.UNAVAILABLE


async def test_allowed_deployments_are_never_added_to() -> None:
    """arbr #77: the same for a list of them."""
    constraints = completion_pb2.RoutingConstraints(allowed_deployments=["primary"])
    async with scene({"primary": BROKEN, "fallback": SOUND}, resilience=NO_RETRIES) as on:
        await on.refused(constraints=constraints)
        assert on.calls()["fallback"] == 0


async def test_calls_fail_over_without_being_declared_safe_to_repeat() -> None:
    """Kong: POST is left out of failover unless non_idempotent is set, and so is every call to a model."""
    async with scene({"primary": Script(status=0, end="reset"), "fallback": SOUND}) as on:
        answer = await on.complete()
    assert answer.message.parts[0].text == "Hello world"


async def test_a_failover_does_not_exceed_the_fallbacks_limit() -> None:
    """Kong: limits count the model that was asked for, so that a failover exceeds those of the one that answers."""
    slow = Script(200, {"content-type": "application/json"}, [(2.0, SOUND.pieces[0][1])])
    scripts = {"primary": BROKEN, "fallback": slow, "last": SOUND}
    one_at_a_time = {"max_concurrent_calls": 1}
    async with scene(scripts, deployment=one_at_a_time, only_for="fallback") as on:
        await asyncio.gather(*(on.complete() for _ in range(4)))
        assert on.calls()["fallback"] == 1
        assert on.calls()["last"] == 3
