"""The parent of several workers, over processes that only behave like workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from kit import stub_worker
from pointsman_server.bootstrap import workers
from pointsman_server.bootstrap.workers import Team, reserved, run_workers
from pointsman_server.config.settings import Address, Settings

STUB = (sys.executable, "-S", str(Path(stub_worker.__file__)))


class Trial:
    """A team of stubs that runs; `code` is its exit code after `over`."""

    def __init__(self, folder: Path, count: int, grace_seconds: float, scripts: dict[int, str]) -> None:
        self.folder = folder
        for number, script in scripts.items():
            (folder / f"script-{number}").write_text(script)
        environ = {"STUB_FOLDER": str(folder), "PATH": os.environ["PATH"]}
        self.team = Team(STUB, environ, count, grace_seconds)
        self.ups = 0
        self.task = asyncio.create_task(self.team.run(self._up))

    def _up(self) -> None:
        self.ups += 1

    async def is_up(self) -> None:
        await until(lambda: self.ups == 1)

    async def over(self) -> int:
        return await asyncio.wait_for(self.task, 20)

    async def end(self) -> int:
        self.team.end()
        return await self.over()

    def pids(self, number: int) -> list[int]:
        """The processes that were started in this place, oldest first."""
        file = self.folder / f"pids-{number}"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    def signals(self, number: int) -> list[str]:
        return (self.folder / f"signals-{number}").read_text().split()

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            os.kill(self.pids(number)[-1], signal.SIGKILL)

    async def serves_again(self, number: int, starts: int) -> None:
        await until(lambda: len(self.pids(number)) == starts and self.team._workers[number - 1].http_port > 0)

    @property
    def series(self) -> dict[str, str]:
        """The metrics by their names."""
        lines = self.team.exposition().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


async def until(holds: Callable[[], bool]) -> None:
    """Waits until it holds, for ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what it waits for happens in another process
            await asyncio.sleep(0.01)


@asynccontextmanager
async def trial(
    folder: Path, count: int = 2, grace_seconds: float = 5.0, **scripts: str
) -> AsyncGenerator[Trial, None]:
    named = {int(name.removeprefix("w")): script for name, script in scripts.items()}
    running = Trial(folder, count, grace_seconds, named)
    try:
        yield running
    finally:
        running.task.cancel()
        await asyncio.gather(running.task, *running.team._keepers, return_exceptions=True)
        for number in range(1, count + 1):
            for pid in running.pids(number):
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def logs() -> Any:
    with structlog.testing.capture_logs() as captured:
        yield captured


class TestStart:
    async def test_it_is_up_when_all_serve(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, 3) as team:
            assert team.team.not_ready_because == "no worker serves"
            await team.is_up()
            assert team.team.not_ready_because == ""
            assert [len(team.pids(number)) for number in (1, 2, 3)] == [1, 1, 1]
            assert await team.end() == 0
        assert team.ups == 1

    async def test_what_a_worker_says_besides_confuses_nobody_and_holds_up_nothing(
        self, tmp_path: Path, logs: Any
    ) -> None:
        async with trial(tmp_path, w1="talk") as team:
            await team.is_up()
            assert await team.end() == 0

    async def test_one_that_cannot_start_ends_all(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, w2="refuse") as team:
            assert await team.over() == 1
            assert team.ups == 0
        assert {"event": "workers_given_up", "reason": "a worker could not start", "log_level": "error"} in logs
        assert {"event": "worker_ended", "worker": 2, "exit_code": 4, "log_level": "error"} in logs

    async def test_an_end_before_it_began_is_a_good_one(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, w2="late") as team:
            await until(lambda: bool(team.pids(1) and team.pids(2)))
            assert await team.end() == 0
            assert team.ups == 0

    async def test_each_is_in_a_group_of_its_own(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path) as team:
            await team.is_up()
            assert [os.getpgid(team.pids(number)[0]) for number in (1, 2)] == [team.pids(1)[0], team.pids(2)[0]]
            await team.end()


class TestCrash:
    async def test_it_is_started_again_and_the_others_stay(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path) as team:
            await team.is_up()
            team.kill(1)
            await team.serves_again(1, starts=2)
            assert len(team.pids(2)) == 1
            assert team.series["pointsman_worker_restarts_total"] == "1"
            assert await team.end() == 0
        told = [one for one in logs if one["event"] == "worker_ended"]
        assert [(one["worker"], one["exit_code"], one["again_in_seconds"]) for one in told] == [(1, -9, 0.1)]

    async def test_the_pause_grows_while_it_ends_early(
        self, tmp_path: Path, logs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "LONGEST_PAUSE_SECONDS", 0.3)
        async with trial(tmp_path, w1="serve refuse refuse refuse") as team:
            await team.is_up()
            team.kill(1)
            await team.serves_again(1, starts=5)
            await team.end()
        pauses = [one["again_in_seconds"] for one in logs if one["event"] == "worker_ended"]
        assert pauses == [0.1, 0.2, 0.3, 0.3]

    async def test_and_is_short_again_after_it_lived_long(
        self, tmp_path: Path, logs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "STEADY_SECONDS", 0.0)
        async with trial(tmp_path, w1="serve refuse") as team:
            await team.is_up()
            team.kill(1)
            await team.serves_again(1, starts=3)
            await team.end()
        assert [one["again_in_seconds"] for one in logs if one["event"] == "worker_ended"] == [0.1, 0.1]

    async def test_an_end_during_the_pause_is_not_held_up(
        self, tmp_path: Path, logs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "FIRST_PAUSE_SECONDS", 60.0)
        async with trial(tmp_path) as team:
            await team.is_up()
            team.kill(1)
            await until(lambda: not team.team._workers[0].is_alive)
            assert await team.end() == 0

    async def test_when_all_end_at_once_it_gives_up(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, 3) as team:
            await team.is_up()
            team.kill(1, 2, 3)
            assert await team.over() == 1
            assert team.team.not_ready_because
        assert {"event": "workers_given_up", "reason": "all workers ended at once", "log_level": "error"} in logs

    async def test_one_after_the_other_is_no_reason_to_give_up(
        self, tmp_path: Path, logs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "FIRST_PAUSE_SECONDS", 0.6)
        monkeypatch.setattr(workers, "AT_ONCE_SECONDS", 0.1)
        async with trial(tmp_path) as team:
            await team.is_up()
            team.kill(1)
            await until(lambda: not team.team._workers[0].is_alive)
            await asyncio.sleep(0.2)
            team.kill(2)
            await team.serves_again(1, starts=2)
            await team.serves_again(2, starts=2)
            assert await team.end() == 0

    async def test_but_when_none_can_start_any_more_it_is(
        self, tmp_path: Path, logs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "FIRST_PAUSE_SECONDS", 0.6)
        monkeypatch.setattr(workers, "AT_ONCE_SECONDS", 0.1)
        async with trial(tmp_path, w1="serve refuse", w2="serve refuse") as team:
            await team.is_up()
            team.kill(1)
            await until(lambda: not team.team._workers[0].is_alive)
            await asyncio.sleep(0.2)
            team.kill(2)
            assert await team.over() == 1
        assert any(one.get("reason") == "no worker can start any more" for one in logs)


class TestEnd:
    async def test_each_gets_one_signal_and_its_time(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, w1="slow") as team:
            await team.is_up()
            assert await team.end() == 0
            assert team.team.not_ready_because == "draining"
            assert (team.signals(1), team.signals(2)) == (["SIGTERM"], ["SIGTERM"])

    async def test_asked_again_it_ends_them_at_once(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, grace_seconds=60.0, w1="deaf") as team:
            await team.is_up()
            team.team.end()
            await until(lambda: not team.team._workers[1].is_alive)
            assert await team.end() == 0
            assert (team.signals(1), team.signals(2)) == (["SIGTERM", "SIGINT"], ["SIGTERM"])
        assert any(one["event"] == "forced_to_end" for one in logs)

    async def test_one_that_hangs_is_killed_after_its_time(
        self, tmp_path: Path, logs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "CLOSING_SECONDS", 0.2)
        async with trial(tmp_path, grace_seconds=0.1, w1="deaf") as team:
            await team.is_up()
            assert await team.end() == 1
        assert {"event": "worker_ended", "worker": 1, "exit_code": -9, "log_level": "error"} in logs

    async def test_one_that_ends_badly_is_told_by_the_exit_code(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, w1="grudge") as team:
            await team.is_up()
            assert await team.end() == 1
        assert {"event": "worker_ended", "worker": 1, "exit_code": 3, "log_level": "error"} in logs


class TestMetrics:
    async def test_of_all_and_of_the_team(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path, w1="serve late") as team:
            await team.is_up()
            found = await asyncio.to_thread(lambda: team.series)
            assert found == {
                "pointsman_workers": "2",
                "pointsman_worker_restarts_total": "0",
                'up{worker="1"}': "1",
                'up{worker="2"}': "2",
            }
            team.kill(1)
            await until(lambda: len(team.pids(1)) == 2)
            found = await asyncio.to_thread(lambda: team.series)
            assert found == {
                "pointsman_workers": "1",
                "pointsman_worker_restarts_total": "1",
                'up{worker="2"}': "2",
            }
            await team.end()

    async def test_of_one_that_does_not_answer(self, tmp_path: Path, logs: Any) -> None:
        async with trial(tmp_path) as team:
            await team.is_up()
            with socket.socket() as deaf:
                deaf.bind(("127.0.0.1", 0))
                team.team._workers[0].http_port = deaf.getsockname()[1]
                found = await asyncio.to_thread(lambda: team.series)
            assert 'up{worker="1"}' not in found
            assert found['up{worker="2"}'] == "2"
            await team.end()


class TestReserved:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
    def test_the_port_is_ours_to_share(self, host: str) -> None:
        with reserved(Address(host, 0)) as address:
            assert (address.host, address.port > 0) == (host, True)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family) as alone, pytest.raises(OSError, match="in use"):
                alone.bind((host, address.port))
            for _ in range(2):
                with socket.socket(family) as shared:
                    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    shared.bind((host, address.port))
                    shared.listen()

    def test_a_port_that_somebody_listens_on_is_refused_although_he_would_share_it(self) -> None:
        with socket.socket() as theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            theirs.bind(("127.0.0.1", 0))
            theirs.listen()
            address = Address("127.0.0.1", theirs.getsockname()[1])
            with pytest.raises(OSError, match=f"cannot listen on {address}: is another"), reserved(address):
                pass

    def test_one_that_was_just_given_up_can_be_taken(self) -> None:
        with socket.socket() as theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            theirs.bind(("127.0.0.1", 0))
            theirs.listen()
            address = Address("127.0.0.1", theirs.getsockname()[1])
            with socket.create_connection((address.host, address.port)) as caller:
                accepted, _ = theirs.accept()
                accepted.close()  # who closes first has to wait before the port is free
                caller.recv(1)
        with reserved(address) as taken:
            assert taken == address

    def test_what_goes_wrong_meanwhile_is_told_as_it_is(self) -> None:
        with pytest.raises(OSError, match="the disk"), reserved(Address("127.0.0.1", 0)):
            raise OSError("the disk")


class TestRun:
    @pytest.fixture
    def settings(self, monkeypatch: pytest.MonkeyPatch) -> Settings:
        monkeypatch.setattr(workers, "COMMAND", STUB)
        return Settings(grpc_address=Address("127.0.0.1", 0), http_address=Address("127.0.0.1", 0), workers=2)

    def run(self, folder: Path, settings: Settings) -> tuple[int, list[int]]:
        """The exit code and the ports that were told; ends as soon as all serve."""
        ports: list[int] = []

        def ready(port: int) -> None:
            ports.append(port)
            os.kill(os.getpid(), signal.SIGTERM)

        environ = {"STUB_FOLDER": str(folder), "PATH": os.environ["PATH"]}
        return run_workers(settings, environ, on_ready=ready), ports

    def test_from_start_to_end(self, tmp_path: Path, settings: Settings, logs: Any) -> None:
        admin = replace(settings, admin_address=Address("127.0.0.1", 0))
        code, ports = self.run(tmp_path, admin)
        assert (code, len(ports), ports[0] > 0) == (0, 1, True)
        told = [json.loads((tmp_path / f"environ-{number}").read_text()) for number in (1, 2)]
        assert told[0] == told[1]
        assert told[0]["POINTSMAN_GRPC_ADDRESS"] == f"127.0.0.1:{ports[0]}"
        assert told[0]["POINTSMAN_HTTP_ADDRESS"] == "127.0.0.1:0"
        assert told[0]["POINTSMAN_ADMIN_ADDRESS"] not in (f"127.0.0.1:{ports[0]}", "127.0.0.1:0")
        (serving,) = [one for one in logs if one["event"] == "workers_serve"]
        assert (serving["workers"], serving["http_address"].startswith("127.0.0.1:")) == (2, True)

    def test_an_http_address_that_somebody_chose_must_be_free(self, tmp_path: Path, settings: Settings) -> None:
        with listening() as address, pytest.raises(OSError, match="for HTTP"):
            self.run(tmp_path, replace(settings, http_address=address))
        assert not list(tmp_path.iterdir())

    def test_the_usual_one_need_not(
        self, tmp_path: Path, settings: Settings, logs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with listening() as address:
            monkeypatch.setattr(workers, "USUAL_HTTP_ADDRESS", address)
            assert self.run(tmp_path, replace(settings, http_address=address))[0] == 0
        assert any(one["event"] == "http_not_served" for one in logs)
        assert [one["http_address"] for one in logs if one["event"] == "workers_serve"] == [""]


@contextmanager
def listening() -> Iterator[Address]:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        yield Address("127.0.0.1", theirs.getsockname()[1])
