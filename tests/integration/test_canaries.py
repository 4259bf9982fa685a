"""Sensitive strings of every kind, sent through every method: none is where it must not be, none is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import orjson
import pytest

from kit.canaries import CANARIES
from kit.collector import Collector, running_collector
from kit.parrot import Parrot, running_parrot
from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec, user
from pointsman.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    answer_pb2,
    completion_pb2,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
)
from pointsman.v1.completion_pb2 import CompletionSpec, Document, Message, Part, ToolCall, ToolResult
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest

VALUES = [canary.value for canary in CANARIES]
KINDS = {canary.kind for canary in CANARIES}
EVERYTHING = "\n".join(canary.said for canary in CANARIES)
SECONDS = 20


def found_in(content: bytes | str) -> list[str]:
    """The canaries in there."""
    raw = content if isinstance(content, bytes) else content.encode()
    return [value for value in VALUES if value.encode() in raw]


def found_in_files(directory: Path) -> dict[str, list[str]]:
    """The canaries in each file, by the file's name."""
    return {path.name: found_in(path.read_bytes()) for path in directory.rglob("*") if path.is_file()}


@dataclass
class House:
    """A service over a parrot, and everything that it writes to."""

    router: Any
    feedback: Any
    admin: Any
    parrot: Parrot
    collector: Collector
    directory: Path
    http_port: int

    async def complete(self, asked: CompletionSpec) -> answer_pb2.CompleteResponse:
        answer: answer_pb2.CompleteResponse = await self.router.Complete(
            CompleteRequest(completion=asked), timeout=SECONDS
        )
        return answer

    async def stream(self, asked: CompletionSpec) -> tuple[str, answer_pb2.CompleteResponse]:
        """The text of the deltas, and the end."""
        call = self.router.StreamComplete(StreamCompleteRequest(completion=asked), timeout=SECONDS)
        events = [event async for event in call]
        text = "".join(event.delta.text for event in events if event.WhichOneof("event") == "delta")
        return text, events[-1].completed

    async def refused(self, asked: CompletionSpec) -> RichError:
        with pytest.raises(grpc.RpcError) as caught:
            await self.complete(asked)
        return RichError(caught.value)

    async def traced(self, count: int) -> list[admin_service_pb2.Trace]:
        """Recorded calls as operators see them, as soon as there are so many."""
        lines: list[Any] = []
        gives_up_at = time.monotonic() + SECONDS
        while len(lines) < count and time.monotonic() < gives_up_at:
            await asyncio.sleep(0.1)
            lines = (await self.admin.ListTraces(admin_service_pb2.ListTracesRequest(page_size=1000))).traces
        assert len(lines) == count
        wanted = [admin_service_pb2.GetTraceRequest(request_id=line.request_id) for line in lines]
        return [(await self.admin.GetTrace(one)).trace for one in wanted]

    async def metrics(self) -> bytes:
        url = f"http://127.0.0.1:{self.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.read()


@asynccontextmanager
async def open_house(
    directory: Path, monkeypatch: pytest.MonkeyPatch, safety: Mapping[str, Any], traces: Mapping[str, Any] | None = None
) -> AsyncGenerator[House, None]:
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        async with running_parrot() as parrot:
            policy = load_for_test(
                {
                    "providers": {"p": {"dialect": "openai_chat", "base_url": parrot.base_url}},
                    "models": {"m": MODEL},
                    "deployments": {"d": {"provider": "p", "model": "m", "model_name": "m-1"}},
                    "cache": {"mode": "read_write"},
                    "safety": safety,
                    "traces": traces or {},
                }
            )
            stores = {"state_dir": str(directory / "state"), "database_url": f"sqlite:///{directory / 'db.sqlite'}"}
            async with running_service(policy, **stores) as service, connected(service) as channel:
                feedback = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
                admin = admin_service_pb2_grpc.AdminServiceStub(channel)
                yield House(router(channel), feedback, admin, parrot, collector, directory, service.http_port)


MASK = {"sensitive_data": {"mode": "mask"}}


class TestMasked:
    async def test_none_leaves_and_none_is_lost(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with open_house(tmp_path, monkeypatch, MASK) as house:
            for canary in CANARIES:
                answer = await house.complete(spec(canary.said))
                assert answer.message.parts[0].text == canary.said
                assert {one.type: one.count for one in answer.redactions} == {canary.kind: 1}
                text, completed = await house.stream(spec(canary.said))
                assert text == completed.message.parts[0].text == canary.said
            named = spec(EVERYTHING, request_id="everything", end_user="u", session_id="s")
            first, again = await house.complete(named), await house.complete(named)
            assert first == again
            assert first.message.parts[0].text == EVERYTHING
            assert first.cache == answer_pb2.CACHE_OUTCOME_BYPASS
            assert {one.type for one in first.redactions} == KINDS
            await house.router.Route(RouteRequest(completion=spec(EVERYTHING)), timeout=SECONDS)
            verdict = feedback_service_pb2.RecordFeedbackRequest(request_id="everything", score=1.0)
            await house.feedback.RecordFeedback(verdict, timeout=SECONDS)
            assert house.parrot.bodies
            assert found_in(orjson.dumps(house.parrot.bodies)) == []
            assert found_in(await house.metrics()) == []
        assert house.collector.raw
        assert found_in(b"".join(house.collector.raw)) == []
        written = found_in_files(tmp_path)
        assert {"db.sqlite", "decisions.jsonl"} <= set(written)
        assert not any(written.values()), written
        captured = capfd.readouterr()
        assert found_in(captured.out + captured.err + caplog.text) == []

    async def test_wherever_they_stand_in_a_request(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        call = ToolCall(id="c", name="look", arguments_json=orjson.dumps({"about": EVERYTHING}).decode())
        asked = CompletionSpec(
            messages=[
                Message(role=completion_pb2.ROLE_SYSTEM, parts=[Part(text=EVERYTHING)]),
                user(EVERYTHING),
                Message(role=completion_pb2.ROLE_ASSISTANT, parts=[Part(text=EVERYTHING), Part(tool_call=call)]),
                Message(
                    role=completion_pb2.ROLE_TOOL,
                    parts=[Part(tool_result=ToolResult(tool_call_id="c", text=EVERYTHING))],
                ),
                user("What did we find?"),
            ],
            documents=[Document(id="d", text=EVERYTHING, metadata={"title": CANARIES[0].said})],
        )
        async with open_house(tmp_path, monkeypatch, MASK) as house:
            await house.complete(asked)
            await house.stream(asked)
            (sent, again) = house.parrot.bodies
            assert found_in(orjson.dumps(sent)) == found_in(orjson.dumps(again)) == []
            assert sent["messages"] == again["messages"]
            for canary in CANARIES:
                assert orjson.dumps(sent).count(f"[{canary.kind}_1]".encode()) >= 5

    async def test_a_placeholder_of_the_caller_s_own_is_nobody_s_data(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_house(tmp_path, monkeypatch, MASK) as house:
            email = next(canary for canary in CANARIES if canary.kind == "EMAIL")
            await house.complete(spec(email.said))
            asked = f"What is [EMAIL_1]? {email.said}"
            assert (await house.complete(spec(asked))).message.parts[0].text == asked
            assert "[EMAIL_2]" in house.parrot.bodies[-1]["messages"][-1]["content"]
            assert (await house.complete(spec("And [EMAIL_1]?"))).message.parts[0].text == "And [EMAIL_1]?"


class TestRecorded:
    @pytest.mark.parametrize("mode", ["off", "detect", "mask"])
    async def test_operators_read_placeholders_and_the_database_holds_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mode: str
    ) -> None:
        safety = {"sensitive_data": {"mode": mode}, "injection": {"mode": "off"}}
        async with open_house(tmp_path, monkeypatch, safety, {"mode": "text"}) as house:
            for canary in CANARIES:
                assert (await house.complete(spec(canary.said))).message.parts[0].text == canary.said
                assert (await house.stream(spec(canary.said)))[0] == canary.said
            await house.complete(spec(EVERYTHING))
            traces = await house.traced(2 * len(CANARIES) + 1)
            everything, *others = traces
            assert {kind for kind in KINDS if f"[{kind}_1]" in everything.masked_prompt} == KINDS
            assert {kind for kind in KINDS if f"[{kind}_1]" in everything.masked_answer} == KINDS
            for canary, trace in zip(reversed(CANARIES), others[::2], strict=True):
                clean = canary.sentence.format(f"[{canary.kind}_1]")
                assert (trace.masked_prompt, trace.masked_answer) == (f"user: {clean}", clean)
            assert not any(found_in(trace.SerializeToString()) for trace in traces)
        written = found_in_files(tmp_path)
        assert "db.sqlite" in written
        assert not any(written.values()), written
        assert found_in("".join(capfd.readouterr())) == []


class TestErrors:
    async def test_none_is_in_an_error_of_a_provider_that_quotes_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with open_house(tmp_path, monkeypatch, {"sensitive_data": {"mode": "detect"}}) as house:
            house.parrot.status = 400
            error = await house.refused(spec(EVERYTHING))
            assert found_in(error.everything()) == []
            assert found_in(orjson.dumps(house.parrot.bodies)) == VALUES
        assert found_in("".join(capfd.readouterr())) == []

    async def test_none_is_in_the_refusal_of_a_policy_that_blocks_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with open_house(tmp_path, monkeypatch, {"sensitive_data": {"mode": "block"}}) as house:
            for canary in CANARIES:
                error = await house.refused(spec(canary.said))
                assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_REJECTED")
                assert error.fields == ["completion.messages[0].parts[0]"]
                assert canary.kind in error.everything()
                assert found_in(error.everything()) == []
            assert house.parrot.bodies == []
            assert found_in(await house.metrics()) == []
        assert found_in("".join(capfd.readouterr())) == []

    async def test_none_is_in_the_error_about_a_field_that_holds_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with open_house(tmp_path, monkeypatch, MASK) as house:
            for canary in CANARIES:
                for asked in (
                    spec("hello", deployment=canary.value),
                    spec("hello", labels={"agent": f"{canary.value}\n"}),
                    spec("hello", end_user=f"{canary.value}\n"),
                    spec("hello", session_id=f"{canary.value} "),
                ):
                    error = await house.refused(asked)
                    assert found_in(error.everything()) == []
        assert found_in("".join(capfd.readouterr())) == []


class TestAnswers:
    async def test_what_a_model_invents_is_taken_out_whole_and_streamed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What the parrot says was in no request that the guards saw: the policy ignores it there.
        guarded = {"sensitive_data": {"mode": "off", "answers": "mask"}}
        async with open_house(tmp_path, monkeypatch, guarded) as house:
            for canary in CANARIES:
                clean = canary.sentence.format(f"[{canary.kind}]")
                answer = await house.complete(spec(canary.said))
                assert answer.message.parts[0].text == clean
                assert {one.type: one.count for one in answer.redactions} == {canary.kind: 1}
                text, completed = await house.stream(spec(canary.said))
                assert text == completed.message.parts[0].text == clean
