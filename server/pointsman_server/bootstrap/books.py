"""What all processes of a service share through the database and Redis: controls, accounts, limits, named calls,
cached answers, recorded calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pointsman_server.adapters.embedders.local import LocalEmbedder
from pointsman_server.adapters.stores.ledger_trail import FolderTrails, NoTrails
from pointsman_server.adapters.stores.redis_counters import RedisCounters
from pointsman_server.adapters.stores.sql.cache_store import SqlCache
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.counter_store import SqlCounters
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.idempotency_store import SqlAnswers
from pointsman_server.adapters.stores.sql.ledger_store import SqlLedgerStore
from pointsman_server.adapters.stores.sql.note_store import SqlNotes
from pointsman_server.adapters.stores.sql.tally_store import SqlTallies
from pointsman_server.adapters.stores.sql.trace_store import SqlTraces
from pointsman_server.adapters.stores.sql.usage import UsageReader
from pointsman_server.bootstrap.guards import shipped_scanner
from pointsman_server.config.settings import Settings
from pointsman_server.domain.ledger import BudgetAlert
from pointsman_server.domain.ports import Clock, Ids
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution.accounts import Accounts
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.idempotency import Idempotency
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.question_vectors import QuestionVectors
from pointsman_server.execution.recall import Recall
from pointsman_server.execution.shared_answers import SharedAnswers
from pointsman_server.execution.shared_memory import Alone, Notes, SharedMemory
from pointsman_server.execution.shared_verdicts import VerdictReader
from pointsman_server.execution.trace_text import TraceMasker
from pointsman_server.execution.trace_writer import TraceWriter
from pointsman_server.rpc.admin_traces import account_of
from pointsman_server.rpc.judged_trace import lesson_of


class Books:
    """open → start → close; for `on_alert` see `Accounts`. Raises `ValueError` for a URL that is none.

    `has_neighbours` says that other processes of this machine serve the same callers; those of other machines follow
    from the database.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        on_alert: Callable[[BudgetAlert], None],
        *,
        has_neighbours: bool = False,
    ) -> None:
        self._clock = clock
        self._database = Database(settings.database_url)
        self.store = ControlStore(self._database, clock)
        self.control = ControlBook(self.store, clock)
        self.usage = UsageReader(self._database)
        self._counters = SqlCounters(self._database, clock)
        self._shared_counters = RedisCounters(settings.redis_url) if settings.redis_url else None
        trails = FolderTrails(Path(settings.state_dir)) if settings.state_dir else NoTrails()
        self.accounts = Accounts(SqlLedgerStore(self._database, clock), trails, clock, ids, on_alert)
        self.named_calls = Idempotency(SqlAnswers(self._database, clock), clock, ids)
        self._limits: Limits | None = None
        self._cache = SqlCache(self._database)
        self.recall = Recall(clock)
        self.questions = QuestionVectors(LocalEmbedder(), ids)
        self.trace_store = SqlTraces(self._database)
        self.traces = TraceWriter(self.trace_store, account_of, TraceMasker(shipped_scanner()), clock)
        self._note_store = SqlNotes(self._database, clock)
        self._shared = SharedMemory(self._note_store, clock)
        self._verdicts: VerdictReader | None = None
        self._is_shared = has_neighbours or not self._database.is_sqlite
        self.notes: Notes = self._shared if self._is_shared else Alone()
        self.tallies = SqlTallies(self._database, ids.new("process"), clock) if self._is_shared else None
        self.answers = SharedAnswers(self.notes, self.trace_store, lesson_of, waits=self._is_shared)

    @property
    def dropped_notes(self) -> int:
        """Notes for other processes that were given up so far."""
        return self._shared.dropped

    async def open(self) -> Governing:
        """Brings the database up to date and reads what operators set. Raises `StoreUnavailableError`."""
        await self._database.open()
        await self.control.load()
        salt = await self._counters.salt()
        counters = self._shared_counters or self._counters
        with suppress(Exception):  # whatever it is, calls will find out, and it is no reason not to serve
            await counters.check()  # so that the first of them need not wait for a connection
        self._limits = Limits(counters, self._clock, salt)
        self.recall = Recall(self._clock, self._cache, self.questions.embedder_of, salt)
        governing = Governing(lambda: self.control.current, self._limits)
        self.control.subscribe(governing.changed)
        return governing

    async def start(self) -> None:
        """Begins what goes on in the background."""
        await self.accounts.start()
        self.control.start()
        self.named_calls.start()
        self.recall.start()
        self.traces.start()
        if self._is_shared:
            self._shared.start()

    def learn_from_others(self, learn: Callable[[Iterable[Verdict]], None]) -> None:
        """Has verdicts that other processes were told learned, if there are any."""
        if self._is_shared:
            self._verdicts = VerdictReader(self._note_store, learn)
            self._verdicts.start()

    async def close(self) -> None:
        """Writes everything down; to be called when no call runs any more."""
        if self._verdicts is not None:
            await self._verdicts.close()
        await self._shared.close()
        await self.traces.close()
        await self.recall.close()
        await self.named_calls.close()
        await self.accounts.close()
        await self.control.close()
        if self._limits is not None:
            await self._limits.close()
        if self._shared_counters is not None:
            await self._shared_counters.close()
        await self._database.close()
