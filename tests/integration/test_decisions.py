"""Decisions over the wire: named and followed, taught by verdicts, held to a conversation, steered by rules, kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.command_line import Cli
from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from kit.upstream import HELLO, Upstream, chunk, json_script, running_upstream, sse_script
from pointsman.v1 import answer_pb2, completion_pb2, decision_pb2, feedback_service_pb2_grpc
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_client import function_tool
from pointsman_client.messages import struct
from pointsman_server.adapters.stores.decision_file import DECISIONS, POLICIES, VERDICTS, read_decisions
from pointsman_server.config.policy_file import LoadedPolicy

STREAMED = sse_script(chunk("Hello "), chunk("world"), chunk(finish="stop"))
EQUAL_PRICES = (1.0, 1.0)


def policy(upstreams: Mapping[str, Upstream], prices: tuple[float, ...], routing: Mapping[str, Any]) -> LoadedPolicy:
    """A deployment for each provider, alike but for the price."""
    models = {
        f"{name}-model": {**MODEL, "price": [{"input_usd_per_mtok": price, "output_usd_per_mtok": price}]}
        for name, price in zip(upstreams, prices, strict=True)
    }
    deployments = {name: {"provider": name, "model": f"{name}-model", "model_name": f"{name}-1"} for name in upstreams}
    providers = {name: {"dialect": "openai_chat", "base_url": one.base_url} for name, one in upstreams.items()}
    return load_for_test(
        {"providers": providers, "models": models, "deployments": deployments, "routing": dict(routing)}
    )


@dataclass
class House:
    """A service over the providers `one` and `two`."""

    channel: Any
    upstreams: Mapping[str, Upstream]

    @property
    def router(self) -> Any:
        return router(self.channel)

    async def route(self, text: str = "Hello?", **fields: Any) -> decision_pb2.RouteDecision:
        answer = await self.router.Route(RouteRequest(completion=spec(text, **fields)))
        decision: decision_pb2.RouteDecision = answer.decision
        return decision

    async def complete(self, text: str = "Hello?", decision_id: str = "", **fields: Any) -> answer_pb2.CompleteResponse:
        asked = CompleteRequest(completion=spec(text, **fields), decision_id=decision_id)
        answer: answer_pb2.CompleteResponse = await self.router.Complete(asked)
        return answer

    async def judge(self, **fields: Any) -> None:
        stub: Any = feedback_service_pb2_grpc.FeedbackServiceStub(self.channel)
        await stub.RecordFeedback(RecordFeedbackRequest(**fields))

    async def expected(self, **fields: Any) -> dict[str, float]:
        """The quality expected of each deployment."""
        return {one.deployment: one.expected_quality for one in (await self.route(**fields)).ranked}


@asynccontextmanager
async def house(
    *, prices: tuple[float, ...] = (1.0, 2.0), state: Path | None = None, script: Any = None, **routing: Any
) -> AsyncGenerator[House, None]:
    async with AsyncExitStack() as stack:
        upstreams = {
            name: await stack.enter_async_context(running_upstream(script or json_script(HELLO)))
            for name in ("one", "two")
        }
        loaded = policy(upstreams, prices, routing)
        running = running_service(loaded, state_dir=str(state) if state else "")
        service = await stack.enter_async_context(running)
        yield House(await stack.enter_async_context(connected(service)), upstreams)


class TestNamedDecision:
    async def test_complete_follows_it(self) -> None:
        async with house() as built:
            decision = await built.route(deployment="two")
            answer = await built.complete(decision_id=decision.decision_id, deployment="two")
            assert answer.decision == decision
            assert [one.deployment for one in answer.attempts] == ["two"]

    async def test_a_stream_follows_it(self) -> None:
        async with house(script=STREAMED) as built:
            decision = await built.route()
            asked = StreamCompleteRequest(completion=spec("Hello?"), decision_id=decision.decision_id)
            events = [event async for event in built.router.StreamComplete(asked)]
            assert events[0].decision == events[-1].completed.decision == decision
            assert events[-1].completed.message.parts[0].text == "Hello world"

    @pytest.mark.parametrize(("text", "known"), [("Hello?", False), ("Something else?", True)])
    async def test_what_cannot_be_followed_is_refused_and_calls_nobody(self, text: str, known: bool) -> None:
        async with house() as built:
            decision_id = (await built.route()).decision_id if known else "dec_unknown"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await built.complete(text, decision_id)
            error = RichError(caught.value)
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DECISION_EXPIRED")
            assert error.details["PreconditionFailure"].violations[0].subject == "decision_id"
            assert text not in error.everything()
            assert not any(one.calls for one in built.upstreams.values())


class TestVerdicts:
    async def test_they_change_what_is_expected_of_the_model(self) -> None:
        async with house() as built:
            before = await built.expected()
            answer = await built.complete()
            for score in (1.0, 0.0):  # the second replaces the first
                await built.judge(request_id=answer.request_id, score=score)
            after = await built.expected()
            assert after["one"] == pytest.approx(before["one"] * 20 / 21, rel=1e-6)
            assert after["two"] == before["two"]

    async def test_unless_the_policy_does_not_learn(self) -> None:
        async with house(learn_from_feedback=False) as built:
            before = await built.expected()
            answer = await built.complete()
            await built.judge(request_id=answer.request_id, score=0.0)
            assert await built.expected() == before

    async def test_enough_of_them_move_the_pick(self) -> None:
        async with house(prices=EQUAL_PRICES) as built:
            assert (await built.route()).chosen.deployment == "one"
            for _ in range(5):
                answer = await built.complete()
                await built.judge(request_id=answer.request_id, score=0.0)
            assert (await built.route(quality_bias=1.0)).chosen.deployment == "two"

    async def test_what_was_learned_survives_a_restart(self, tmp_path: Path) -> None:
        async with house(state=tmp_path) as built:
            answer = await built.complete()
            await built.judge(request_id=answer.request_id, score=0.0)
            learned = await built.expected()
        async with house(state=tmp_path) as built:
            assert await built.expected() == pytest.approx(learned, rel=1e-4)
        async with house() as built:
            assert (await built.expected())["one"] > learned["one"] + 0.01

    async def test_what_cannot_be_judged_is_told(self) -> None:
        async with house() as built:
            answer = await built.complete()
            for fields, code, reason in (
                ({"request_id": "req_9", "score": 1.0}, grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND"),
                ({"request_id": answer.request_id, "score": 2.0}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await built.judge(**fields)
                error = RichError(caught.value)
                assert (error.code, error.reason) == (code, reason)


class TestConversation:
    async def test_its_next_turn_goes_where_the_last_one_went(self) -> None:
        async with house(prices=EQUAL_PRICES) as built:
            only_two = completion_pb2.RoutingConstraints(allowed_deployments=["two"])
            await built.complete(session_id="s", constraints=only_two)
            assert (await built.route(session_id="s")).chosen.deployment == "two"
            assert (await built.route(session_id="another")).chosen.deployment == "one"
            assert (await built.route()).chosen.deployment == "one"
            never_two = completion_pb2.RoutingConstraints(denied_deployments=["two"])
            assert (await built.route(session_id="s", constraints=never_two)).chosen.deployment == "one"


RULES = (
    {"name": "research", "when": {"labels": {"agent": ["research"]}}, "tier": "advanced", "prefer": ["two"]},
    {"name": "private", "when": {"labels": {"project": ["*"]}}, "deny": ["one"], "quality_bias": 1},
)


class TestRules:
    async def test_labels_choose_them_and_the_decision_names_them(self) -> None:
        async with house(rules=list(RULES)) as built:
            plain = await built.route()
            assert (plain.chosen.deployment, list(plain.applied_rules), plain.quality_bias) == ("one", [], 0.0)
            research = await built.route(labels={"agent": "research"})
            assert (research.chosen.deployment, list(research.applied_rules)) == ("two", ["research"])
            assert "rule_preference" in [part.name for part in research.ranked[0].score_parts]
            both = await built.route(labels={"agent": "research", "project": "x"})
            assert (list(both.applied_rules), both.quality_bias) == (["research", "private"], 1.0)
            (out,) = both.excluded
            assert (out.deployment, out.reason) == ("one", decision_pb2.EXCLUSION_REASON_RULE)
            assert "'private'" in out.detail

    async def test_a_pin_does_not_get_around_them(self) -> None:
        async with house(rules=list(RULES)) as built:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await built.complete(labels={"project": "x"}, deployment="one")
            assert RichError(caught.value).reason == "NO_ELIGIBLE_DEPLOYMENT"


EVERY_TEXT: Mapping[str, Any] = {
    "end_user": "canary-user",
    "session_id": "canary-session",
    "generation": completion_pb2.GenerationConfig(
        stop_sequences=["canary-stop"],
        response_schema=struct({"type": "object", "description": "canary-schema"}),
        tools=[function_tool("canary_tool", "canary-description", {"type": "object", "title": "canary-parameters"})],
    ),
}
"""Every field but the messages that may hold a caller's words."""


def files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


class TestRecords:
    async def test_everything_is_kept_but_the_prompt_and_comes_out_the_same_again(self, tmp_path: Path) -> None:
        async with house(state=tmp_path, rules=list(RULES)) as built:
            for place in range(3):
                answer = await built.complete("canary-prompt", session_id="canary-session", end_user="canary-user")
                await built.judge(request_id=answer.request_id, score=place / 2)
            with pytest.raises(grpc.aio.AioRpcError):
                await built.route("canary-prompt", constraints=completion_pb2.RoutingConstraints(max_cost_micro_usd=1))
        kept = list(read_decisions(tmp_path))
        assert [one.outcome.chosen for one in kept] == ["one", "one", "one", ""]
        assert kept[-1].outcome.refusal == "NoEligibleDeployment"
        assert kept[1].circumstances.session_deployment_id == "one"
        assert kept[1].circumstances.experience.verdicts
        files = files_in(tmp_path)
        assert {file.relative_to(tmp_path).parts[0] for file in files} == {DECISIONS, VERDICTS, POLICIES}
        for file in files:
            assert b"canary" not in file.read_bytes()
            assert b"Hello world" not in file.read_bytes()
        replayed = Cli()("replay", str(tmp_path))
        assert replayed.exit_code == 0, replayed.output
        assert "skipped" not in replayed.stdout

    async def test_no_text_of_a_request_is_kept_or_told_but_its_labels_are(self, tmp_path: Path) -> None:
        async with house(state=tmp_path, rules=list(RULES)) as built:
            asked = {**EVERY_TEXT, "labels": {"agent": "kept-label", "project": "x"}}
            decided = await built.route("canary-prompt", **asked)
            assert [one.deployment for one in decided.excluded] == ["one"]
            mars = completion_pb2.RoutingConstraints(regions=["mars"])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await built.route("canary-prompt", constraints=mars, **asked)
        told = [*(one.detail for one in decided.excluded), RichError(caught.value).everything()]
        assert all(told)
        kept = (tmp_path / DECISIONS).read_text()
        assert "canary" not in kept + str(told)
        assert kept.count("kept-label") == 2

    async def test_without_a_folder_nothing_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        async with house() as built:
            await built.complete()
        assert files_in(tmp_path) == []

    async def test_a_folder_that_cannot_be_written_fails_no_call(self, tmp_path: Path) -> None:
        in_the_way = tmp_path / "file"
        in_the_way.write_text("")
        async with house(state=in_the_way) as built:
            assert (await built.complete()).message.parts[0].text == "Hello world"
