"""Real processes spend from one budget while a nemesis kills them, stops them and takes their store away.

Each process logs what it did, with the machine's monotonic clock, before and after it asks for it; an offline checker
reads the logs and the database afterwards. `python -m kit.budget_trial --help` runs a long one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from sqlalchemy import select

from kit.databases import PostgresServer
from kit.ledgers import asked, attempt, budget
from pointsman_server.adapters.stores.ledger_trail import FolderTrails
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.ledger_store import SqlLedgerStore
from pointsman_server.adapters.stores.sql.schema import ledger_entries
from pointsman_server.adapters.stores.sql.usage import UsageReader, Verification
from pointsman_server.bootstrap.identity import RandomIds
from pointsman_server.domain.errors import BudgetExceeded, LedgerUnavailable
from pointsman_server.domain.governance import Budget, Period
from pointsman_server.execution.accounts import Accounts

_EPOCH = 1_781_500_000.0
"""In the middle of June 2026, so that no trial meets the end of a month."""


@dataclass(frozen=True)
class Spender:
    """What one process does: its callers make `calls` calls each, or go on until none is admitted.

    A call may cost `worst` and costs a part of it, after a pause of up to `pause_seconds`.
    """

    url: str
    folder: str
    log: str
    seed: int
    limit: int
    worst: int = 100
    callers: int = 64
    calls: int = 0
    pause_seconds: float = 0.01
    costs_worst: bool = False
    jumps: bool = False
    starts_at: float = 0.0


class _JumpingClock:
    """The wall clock is set at random, by up to an hour, whenever somebody looks."""

    def __init__(self, seed: int, *, jumps: bool) -> None:
        self._random = random.Random(seed)
        self._jumps = jumps
        self._ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        if self._jumps and self._random.random() < 0.001:
            self._ahead = self._random.uniform(-3_600, 3_600)
        return _EPOCH + time.monotonic() % 86_400 + self._ahead


class _Log:
    """One line for each event, which outlives the process."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, event: str, name: str, amount: int) -> None:
        os.write(self._file, f"{time.monotonic():.9f} {event} {name} {amount}\n".encode())


class _Caller:
    """Makes calls until it has made enough, or none is admitted any more."""

    def __init__(self, spender: Spender, accounts: Accounts, log: _Log, number: int) -> None:
        self._spender = spender
        self._accounts = accounts
        self._log = log
        self._number = number
        self._random = random.Random(f"{spender.seed} {number}")

    async def run(self) -> None:
        refused = made = 0
        while not self._spender.calls or made < self._spender.calls:
            if await self._call(f"{self._spender.seed}-{self._number}-{made}"):
                refused = 0
            else:
                refused += 1
                if not self._spender.calls and refused > 20:
                    return
                await asyncio.sleep(self._random.uniform(0, 0.2))
            made += 1

    async def _call(self, name: str) -> bool:
        spender = self._spender
        worst = spender.worst if spender.costs_worst else self._random.randint(1, spender.worst)
        cost = worst if spender.costs_worst else self._random.randint(0, worst)
        call = replace(asked(*budgets_of(spender.limit), deadline=time.monotonic() + 30), request_id=name)
        try:
            async with self._accounts.reserve(call, worst) as reservation:
                self._log("reserved", name, worst)
                await asyncio.sleep(self._random.uniform(0, spender.pause_seconds))
                self._log("settling", name, cost)
                reservation.settle([attempt(cost)])
                self._log("settled", name, cost)
        except (BudgetExceeded, LedgerUnavailable) as refusal:
            self._log(type(refusal).__name__, name, worst)
            return False
        return True


def budgets_of(limit: int) -> Sequence[Budget]:
    """One for the month and one that never refuses anybody, so that calls take from two at once."""
    return budget(limit, "month", Period.MONTH), budget(100 * limit, "other", Period.MONTH)


async def spend(spender: Spender) -> None:
    """The life of one process."""
    database = Database(spender.url)
    clock = _JumpingClock(spender.seed, jumps=spender.jumps)
    store = SqlLedgerStore(database, clock)
    accounts = Accounts(store, FolderTrails(Path(spender.folder)), clock, RandomIds(), lambda _: None)
    await accounts.start()
    await asyncio.sleep(max(0.0, spender.starts_at - time.monotonic()))
    log = _Log(spender.log)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(spender.callers):
                group.create_task(_Caller(spender, accounts, log, number).run())
    finally:
        await accounts.close()
        await database.close()


class Crowd:
    """The processes of a trial."""

    def __init__(self, spender: Spender, count: int) -> None:
        self._spender = spender
        self._seeds = iter(range(spender.seed * 1_000, spender.seed * 1_000 + 1_000))
        self._logs: list[Path] = []
        self.running: list[subprocess.Popen[str]] = [self.start() for _ in range(count)]

    def start(self) -> subprocess.Popen[str]:
        """One more process."""
        seed = next(self._seeds)
        log = Path(self._spender.folder) / f"spender-{seed}.log"
        self._logs.append(log)
        said = json.dumps(asdict(replace(self._spender, seed=seed, log=str(log))))
        errors = log.with_suffix(".err").open("wb")
        with errors:
            return subprocess.Popen(
                [sys.executable, "-m", "kit.budget_trial", "--spend", said],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            )

    @property
    def is_running(self) -> bool:
        """Whether any of them has not ended by itself."""
        return any(process.poll() is None for process in self.running)

    async def wait(self) -> None:
        """Until all have ended in order."""
        for process in self.running:
            assert await asyncio.to_thread(process.wait) == 0, self.errors()

    def kill(self, place: int) -> None:
        """kill -9, and another process in its place."""
        process = self.running[place]
        if process.poll() is None:
            process.kill()
            process.wait()
            self.running[place] = self.start()

    def pause(self, place: int, *, on: bool) -> None:
        """The process stands still, or goes on."""
        if self.running[place].poll() is None:
            self.running[place].send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def end(self) -> None:
        """Whatever still runs."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()

    def errors(self) -> str:
        """What the processes said."""
        return "\n".join(log.with_suffix(".err").read_text()[-2_000:] for log in self._logs)

    def events(self) -> list[tuple[float, str, str, int]]:
        """All that they did, in the order of the machine's clock."""
        events: list[tuple[float, str, str, int]] = []
        for log in self._logs:
            if log.exists():
                for line in log.read_text().splitlines():
                    at, event, name, amount = line.split()
                    events.append((float(at), event, name, int(amount)))
        return sorted(events)


@dataclass
class Finding:
    """What the checker found; `problems` empty is as it should be."""

    operations: int = 0
    admitted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    settled_micro_usd: int = 0
    lost_micro_usd: int = 0
    most_committed_micro_usd: int = 0
    problems: list[str] = field(default_factory=list)


async def check(url: str, events: Sequence[tuple[float, str, str, int]], spender: Spender) -> Finding:
    """Compares what the processes say they did with what the database has."""
    database = Database(url)
    try:
        verification = await UsageReader(database).verify(0.0)
        async with database.read() as connection:
            statement = select(ledger_entries.c.request_id, ledger_entries.c.cost_micro_usd)
            entries = [(name, cost) for name, cost in await connection.execute(statement)]
    finally:
        await database.close()
    finding = Finding(problems=list(verification.problems))
    _follow(events, spender.limit, finding)
    _compare(events, entries, verification, spender, finding)
    return finding


def _follow(events: Sequence[tuple[float, str, str, int]], limit: int, finding: Finding) -> None:
    """What was settled and what was under way, together, never pass the limit."""
    under_way: dict[str, int] = {}
    committed = 0
    for _, event, name, amount in events:
        if event == "reserved":
            under_way[name] = amount
            committed += amount
            finding.admitted += 1
            finding.most_committed_micro_usd = max(finding.most_committed_micro_usd, committed)
            if committed > limit:
                finding.problems.append(f"{name}: {committed} micro-USD are committed of {limit}")
        elif event == "settling":
            committed += amount - under_way.pop(name)
        elif event != "settled":
            finding.refused[event] += 1
    finding.operations = finding.admitted + sum(finding.refused.values())


def _compare(
    events: Sequence[tuple[float, str, str, int]],
    entries: Sequence[tuple[str, int]],
    verification: Verification,
    spender: Spender,
    finding: Finding,
) -> None:
    said = {kind: {name: amount for _, event, name, amount in events if event == kind} for kind in _KINDS}
    booked = Counter(name for name, _ in entries)
    finding.problems += [f"{name} is booked {times} times" for name, times in booked.items() if times > 1]
    finding.problems += [f"{name} was settled and is lost" for name in said["settled"].keys() - booked.keys()]
    for name, cost in entries:
        if said["settling"].get(name) != cost:
            finding.problems.append(f"{name} is booked with {cost}, its caller said {said['settling'].get(name)}")
    known_to_be_lost = sum(worst for name, worst in said["reserved"].items() if name not in booked)
    for one in verification.budgets:
        view = one.view
        if view.leased_micro_usd:
            finding.problems.append(f"{one.key.budget}: {view.leased_micro_usd} micro-USD are still leased")
        if view.settled_micro_usd != sum(cost for _, cost in entries) + view.lost_micro_usd:
            finding.problems.append(f"{one.key.budget}: what remains is not the limit less what was spent")
        # A process may be killed after a call was admitted and before it could say so.
        if not known_to_be_lost <= view.lost_micro_usd <= known_to_be_lost + spender.callers * spender.worst:
            finding.problems.append(f"{one.key.budget}: {view.lost_micro_usd} lost, {known_to_be_lost} known")
        if one.key.budget == "month":
            finding.settled_micro_usd, finding.lost_micro_usd = view.settled_micro_usd, view.lost_micro_usd
            if view.settled_micro_usd > spender.limit:
                finding.problems.append(f"{view.settled_micro_usd} micro-USD are spent of {spender.limit}")


_KINDS = ("reserved", "settling", "settled")


class Nemesis:
    """Kills, stops and cuts off at random, from beginning to `end`; `cut` takes the store away for so many seconds."""

    def __init__(self, crowd: Crowd, seed: int, cut: Callable[[float], None] | None) -> None:
        self._crowd = crowd
        self._random = random.Random(seed)
        self._cut = cut
        self._done = asyncio.Event()
        self.deeds: Counter[str] = Counter()

    async def rage(self, every_seconds: float, deeds: Sequence[str]) -> None:
        """Does one of the deeds every now and then."""
        while not self._done.is_set() and self._crowd.is_running:
            deed = self._random.choice(deeds)
            await self._do(deed)
            self.deeds[deed] += 1
            try:
                async with asyncio.timeout(self._random.uniform(0.5, 1.5) * every_seconds):
                    await self._done.wait()
            except TimeoutError:
                continue

    def end(self) -> None:
        """Lets them live."""
        self._done.set()

    async def _do(self, deed: str) -> None:
        place = self._random.randrange(len(self._crowd.running))
        if deed == "kill":
            await asyncio.to_thread(self._crowd.kill, place)
        elif deed == "pause":
            self._crowd.pause(place, on=True)
            await asyncio.sleep(self._random.uniform(0.1, 2))
            self._crowd.pause(place, on=False)
        elif deed == "cut" and self._cut is not None:
            await asyncio.to_thread(self._cut, self._random.uniform(0.2, 2))


async def hold_trial(
    spender: Spender,
    processes: int,
    *,
    deeds: Sequence[str] = (),
    every_seconds: float = 1.0,
    most_seconds: float = 0.0,
    cut: Callable[[float], None] | None = None,
) -> Finding:
    """Lets so many processes spend, with or without a nemesis for at most so long, and checks what came of it."""
    database = Database(spender.url)
    await database.open()
    crowd = Crowd(spender, processes)
    nemesis = Nemesis(crowd, spender.seed, cut)
    try:
        if deeds:
            rage = asyncio.create_task(nemesis.rage(every_seconds, deeds))
            await asyncio.wait([rage], timeout=most_seconds)
            nemesis.end()
            await rage
        await crowd.wait()
        await _clear_up(database, spender)
        finding = await check(spender.url, crowd.events(), spender)
        finding.refused.update(nemesis.deeds)
        return finding
    finally:
        crowd.end()
        await database.close()


async def _clear_up(database: Database, spender: Spender) -> None:
    """What the next start of any process does."""
    clock = _JumpingClock(spender.seed, jumps=False)
    store = SqlLedgerStore(database, clock)
    accounts = Accounts(store, FolderTrails(Path(spender.folder)), clock, RandomIds(), lambda _: None)
    await accounts.start()
    await accounts.close()


def lock_sqlite(url: str) -> Callable[[float], None]:
    """Takes an SQLite database away by holding its lock."""
    path = url.removeprefix("sqlite:///")

    def cut(seconds: float) -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds + 4)  # longer than anybody waits for it
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    return cut


def stop_postgres(server: PostgresServer) -> Callable[[float], None]:
    """Takes a PostgreSQL database away: all connections end, and new ones are refused for a while."""

    def cut(seconds: float) -> None:
        server.stop()
        time.sleep(seconds)
        server.start()

    return cut


def main() -> int:
    """A long trial with a nemesis."""
    options = argparse.ArgumentParser(prog="python -m kit.budget_trial", description=main.__doc__)
    options.add_argument("--operations", type=int, default=100_000, help="calls that all processes make together")
    options.add_argument("--processes", type=int, default=4)
    options.add_argument("--callers", type=int, default=64, help="in each process")
    options.add_argument("--postgres", action="store_true", help="instead of SQLite")
    options.add_argument("--nemesis-seconds", type=float, default=0.0, help="how long it rages")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--spend", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.spend:
        asyncio.run(spend(Spender(**json.loads(chosen.spend))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer() if chosen.postgres else None
        url = server.make() if server is not None else f"sqlite:///{folder}/ledger.db"
        calls = -(-chosen.operations // (chosen.processes * chosen.callers))
        spender = Spender(
            url, folder, "", chosen.seed, chosen.operations * 20, callers=chosen.callers, calls=calls,
            pause_seconds=0.002, jumps=True,
        )  # fmt: skip
        cut = stop_postgres(server) if server is not None else lock_sqlite(url)
        deeds = ("kill", "kill", "pause", "cut") if chosen.nemesis_seconds else ()
        began = time.monotonic()
        try:
            trial = hold_trial(
                spender, chosen.processes, deeds=deeds, every_seconds=1.5, most_seconds=chosen.nemesis_seconds, cut=cut
            )
            finding = asyncio.run(trial)
        finally:
            if server is not None:
                server.remove()
    for name in (one.name for one in fields(finding)):
        value = getattr(finding, name)
        print(f"{name}: {dict(value) if isinstance(value, Counter) else value}")
    print(f"seconds: {time.monotonic() - began:.1f}")
    return 1 if finding.problems else 0


if __name__ == "__main__":
    sys.exit(main())
