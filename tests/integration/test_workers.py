"""Several serving processes behind one address: who answers, what is lost when one dies, how they go down together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from kit.command_line import COMMAND, environment
from kit.running import MODEL, RichError, router, spec
from kit.scraping import Scrape
from kit.upstream import HELLO, Script, Upstream, json_script, running_upstream
from pointsman.v1.router_service_pb2 import CompleteRequest
from pointsman_server.adapters.stores.decision_file import read_decisions

pytestmark = pytest.mark.slow

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
QUICK = json_script(HELLO)
SLOW = Script(pieces=[(0.2, json.dumps(HELLO).encode())])


class Team:
    """A server of several processes."""

    def __init__(self, process: Process, address: str, log_file: Path) -> None:
        self.process = process
        self.address = address
        self.log_file = log_file
        told = next(line for line in self.log if line["event"] == "workers_serve")
        self.http = f"http://{told['http_address']}"

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    @property
    def workers(self) -> list[psutil.Process]:
        """Its serving processes."""
        return psutil.Process(self.process.pid).children()

    async def get(self, path: str) -> tuple[int, str]:
        """What it answers over HTTP."""

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(self.http + path, timeout=10) as answer:
                    return int(answer.status), answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return await asyncio.to_thread(ask)

    async def answered(self) -> dict[str, float]:
        """How many calls each worker answered well, by its number."""
        scrape = Scrape((await self.get("/metrics"))[1])
        found: Counter[str] = Counter()
        for sample in scrape.samples:
            if sample.name == "pointsman_requests_total" and sample.labels["code"] == "OK":
                found[sample.labels["worker"]] += int(sample.value)
        return dict(found)

    async def ended(self, within_seconds: float) -> int:
        """The exit code; it must end in time, and leave nobody behind."""
        workers = self.workers
        code = await asyncio.wait_for(self.process.wait(), within_seconds)
        assert not [one for one in workers if one.is_running()]
        return code


@asynccontextmanager
async def serving(directory: Path, upstream: Upstream, count: int = 2, **environ: str) -> AsyncGenerator[Team, None]:
    """A server with so many processes, which keep their state in this directory."""
    policy = {
        "version": 1,
        "providers": {"up": {"dialect": "openai_chat", "base_url": upstream.base_url}},
        "models": {"m": MODEL},
        "deployments": {"only": {"provider": "up", "model": "m", "model_name": "m-1"}},
    }
    (directory / "policy.yaml").write_text(json.dumps(policy))
    log_file = directory / "log"
    settings = {"POINTSMAN_WORKERS": str(count), "POINTSMAN_STATE_DIR": "state", **environ}
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "serve", "--policy", "policy.yaml", "--grpc-address", "127.0.0.1:0",
            stdout=PIPE, stderr=log, cwd=directory, env=environment(**settings),
        )  # fmt: skip
    workers: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        said = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert said.startswith("pointsman listens on "), log_file.read_text()
        team = Team(process, said.split()[3].rstrip(";"), log_file)
        workers = team.workers
        yield team
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


class Callers:
    """Callers that ask again and again, each over a connection of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False
        self.good = 0
        self.failures: list[grpc.aio.AioRpcError] = []

    def start(self, count: int) -> None:
        """So many more."""
        self._tasks += [asyncio.create_task(self._call()) for _ in range(count)]

    async def stop(self) -> None:
        """Lets each finish the call it makes."""
        self._over = True
        await asyncio.gather(*self._tasks)

    async def have(self, good: int) -> None:
        """Returns when so many calls more than by now were answered."""
        goal = self.good + good
        await until(lambda: self.good >= goal)

    async def _call(self) -> None:
        async with grpc.aio.insecure_channel(self._address, options=OWN_CONNECTION) as channel:
            while not self._over:
                try:
                    answer = await router(channel).Complete(CompleteRequest(completion=spec()), timeout=30)
                    assert answer.message.parts[0].text == "Hello world"
                    self.good += 1
                except grpc.aio.AioRpcError as error:
                    self.failures.append(error)
                    await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    """Waits until it holds, for half a minute at most."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what it waits for happens in another process
            await asyncio.sleep(0.02)


async def each_answers(team: Team, count: int) -> int:
    """Calls over new connections until so many workers have answered; gives how many calls it took."""
    for made in range(1, 200):
        async with grpc.aio.insecure_channel(team.address, options=OWN_CONNECTION) as channel:
            await router(channel).Complete(CompleteRequest(completion=spec()), timeout=20)
        if made >= count and len(await team.answered()) == count:
            return made
    raise AssertionError("some workers never answered")


def was_refused(error: grpc.aio.AioRpcError) -> bool:
    """Whether the call was not taken: the server said that it goes down, or had closed by then.

    A call that comes while the library closes its connections ends as CANCELLED, before any handler hears of it.
    """
    if "grpc-status-details-bin" in dict(error.trailing_metadata()):
        return RichError(error).reason == "DRAINING"
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_all_of_them_answer_on_one_port_and_their_metrics_and_records_add_up(tmp_path: Path) -> None:
    async with running_upstream(QUICK) as upstream, serving(tmp_path, upstream) as team:
        assert len(team.workers) == 2
        made = await each_answers(team, 2)
        answered = await team.answered()
        assert (set(answered), sum(answered.values())) == ({"1", "2"}, made)
        assert (await team.get("/readyz"))[0] == (await team.get("/healthz"))[0] == 200
        team.process.send_signal(signal.SIGTERM)
        assert await team.ended(within_seconds=20) == 0
        assert sorted(file.name for file in (tmp_path / "state").glob("decisions*")) == [
            "decisions-1.jsonl",
            "decisions-2.jsonl",
        ]
        decided = [record.decided_at for record in read_decisions(tmp_path / "state")]
        assert decided == sorted(decided)
        assert len(decided) == made


async def test_one_that_is_killed_under_load_comes_back_and_the_others_go_on(tmp_path: Path) -> None:
    async with running_upstream(QUICK) as upstream, serving(tmp_path, upstream) as team:
        await each_answers(team, 2)
        callers = Callers(team.address)
        callers.start(8)
        await callers.have(20)
        victim, other = team.workers
        os.kill(victim.pid, signal.SIGKILL)
        await callers.have(50)
        assert other.is_running()
        await until(lambda: len(team.workers) == 2 and victim.pid not in {one.pid for one in team.workers})
        await until(lambda: len([one for one in team.log if one["event"] == "serving"]) == 3)
        await callers.stop()
        # Only the calls that were with the dead one failed, each caller's at most once or twice.
        assert all(error.code() is grpc.StatusCode.UNAVAILABLE for error in callers.failures)
        assert len(callers.failures) <= 16
        await each_answers(team, 2)
        metrics = Scrape((await team.get("/metrics"))[1])
        assert metrics.value("pointsman_worker_restarts_total") == 1
        assert metrics.value("pointsman_workers") == 2
        team.process.send_signal(signal.SIGTERM)
        assert await team.ended(within_seconds=20) == 0


@pytest.mark.parametrize("attempt", range(5))
async def test_a_signal_under_load_loses_no_call_that_was_taken(tmp_path: Path, attempt: int) -> None:
    """Some send the signal to the parent, some to every process of a service."""
    to_all = attempt % 2 == 1
    async with running_upstream(SLOW) as upstream, serving(tmp_path, upstream) as team:
        await each_answers(team, 2)
        before = upstream.calls
        callers = Callers(team.address)
        callers.start(16)
        await callers.have(20)
        for one in [psutil.Process(team.process.pid), *(team.workers if to_all else [])]:
            one.terminate()
        await asyncio.sleep(0.3)
        await callers.stop()
        assert await team.ended(within_seconds=20) == 0
        assert [error for error in callers.failures if not was_refused(error)] == []
        assert callers.good == upstream.calls - before
        assert len(list(read_decisions(tmp_path / "state"))) == upstream.calls


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    endless = Script(end="stall")
    async with (
        running_upstream(endless) as upstream,
        serving(tmp_path, upstream) as team,
        AsyncExitStack() as open_calls,
    ):
        for _ in range(4):
            channel = grpc.aio.insecure_channel(team.address, options=OWN_CONNECTION)
            await open_calls.enter_async_context(channel)
            call = asyncio.ensure_future(router(channel).Complete(CompleteRequest(completion=spec())))
            open_calls.callback(call.cancel)
        await until(lambda: upstream.open_connections == 4)
        team.process.send_signal(signal.SIGINT)
        await until(lambda: any(one["event"] == "draining" for one in team.log))
        assert (await team.get("/readyz")) == (503, '{"status":"not_ready","reason":"draining"}\n')
        team.process.send_signal(signal.SIGINT)
        assert await team.ended(within_seconds=10) == 0
        assert any(one["event"] == "forced_to_end" for one in team.log)


async def test_when_the_parent_is_killed_nobody_stays(tmp_path: Path) -> None:
    async with running_upstream(QUICK) as upstream, serving(tmp_path, upstream) as team:
        workers = team.workers
        team.process.kill()
        await until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers))


async def test_an_address_that_is_taken_is_told_once(tmp_path: Path) -> None:
    async with running_upstream(QUICK) as upstream, serving(tmp_path, upstream) as team:
        for variable, address in (
            ("POINTSMAN_GRPC_ADDRESS", team.address),
            ("POINTSMAN_HTTP_ADDRESS", team.http.removeprefix("http://")),
        ):
            free = {"POINTSMAN_GRPC_ADDRESS": "127.0.0.1:0", "POINTSMAN_WORKERS": "2"}
            second = await asyncio.create_subprocess_exec(
                *COMMAND, "serve", "--policy", "policy.yaml",
                stderr=PIPE, cwd=tmp_path, env=environment(**free | {variable: address}),
            )  # fmt: skip
            assert second.stderr is not None
            said = (await asyncio.wait_for(second.stderr.read(), 30)).decode()
            assert (await second.wait(), said.count("cannot listen on")) == (1, 1)
            assert address in said
