"""The rooms of a call, put together: what a process remembers, who stands at the attempts' door, and the journey."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.adapters.embedders.sentence_encoder import SentenceEncoder
from pointsman_server.adapters.stores.decision_file import StateFolder
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.bootstrap.guards import build_guards
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.decision.encoder import ENCODER
from pointsman_server.domain.control import Control
from pointsman_server.domain.ports import Clock, DecisionLog, Ids, Ledger, ProviderAdapter, Telemetry, TokenCounter
from pointsman_server.execution.admission import DeploymentPlaces
from pointsman_server.execution.agenda import Doorkeepers
from pointsman_server.execution.decisions import DecisionBook
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.embedding import EmbeddingPipeline
from pointsman_server.execution.feedback import FeedbackBook
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.guarding import Guards
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.pipeline import Memory, Pipeline
from pointsman_server.execution.recall import Recall
from pointsman_server.execution.retrying import ShareBudget
from pointsman_server.execution.second_look import SecondLooks
from pointsman_server.execution.sessions import SessionBook
from pointsman_server.execution.shared_answers import Answers
from pointsman_server.execution.shared_memory import Notes


def build_memory(
    clock: Clock,
    state: StateFolder,
    telemetry: Telemetry,
    log: DecisionLog | None = None,
    notes: Notes | None = None,
    answers: Answers | None = None,
) -> Memory:
    """What the process remembers between calls, with the verdicts of earlier ones; decisions go to `log`.

    `notes` and `answers` are those of the other processes.
    """
    feedback = FeedbackBook(clock, state.verdicts, answers)
    feedback.recall(state.earlier_verdicts())
    return Memory(
        health=HealthBoard(clock, telemetry.breaker_changed),
        places=DeploymentPlaces(),
        sessions=SessionBook(clock, notes),
        feedback=feedback,
        decisions=DecisionBook(clock, notes),
        log=log or state.decisions,
    )


def build_pipeline(
    memory: Memory,
    adapters: Mapping[str, ProviderAdapter],
    telemetry: Telemetry,
    governing: Governing,
    ledger: Ledger,
    counter: TokenCounter,
    clock: Clock,
    ids: Ids,
    recall: Recall | None = None,
    guards: Guards | None = None,
) -> Pipeline:
    """The journey of calls over these adapters; without `recall` no answer is remembered.

    Whoever builds the other journey too hands the same `guards` to both: they remember what texts held.
    """
    dispatcher = _build_dispatcher(memory, adapters, telemetry, governing, counter, clock)
    guards = guards or build_guards(telemetry)
    looks = SecondLooks(SentenceEncoder(ENCODER))
    return Pipeline(
        dispatcher, judge_complexity, memory, governing, guards, ledger, telemetry, counter, clock, ids, recall, looks
    )


def build_embeddings(
    memory: Memory,
    adapters: Mapping[str, ProviderAdapter],
    telemetry: Telemetry,
    governing: Governing,
    ledger: Ledger,
    counter: TokenCounter,
    clock: Clock,
    ids: Ids,
    guards: Guards,
) -> EmbeddingPipeline:
    """The journey of texts that become vectors, over the same adapters; its retries have a budget of their own."""
    dispatcher = _build_dispatcher(memory, adapters, telemetry, governing, counter, clock)
    return EmbeddingPipeline(dispatcher, memory, governing, guards, ledger, telemetry, counter, clock, ids)


def _build_dispatcher(
    memory: Memory,
    adapters: Mapping[str, ProviderAdapter],
    telemetry: Telemetry,
    governing: Governing,
    counter: TokenCounter,
    clock: Clock,
) -> Dispatcher:
    keepers = Doorkeepers(
        health=memory.health,
        places=memory.places,
        retries=ShareBudget(clock),
        hedges=ShareBudget(clock),
        telemetry=telemetry,
        random=Random(),  # noqa: S311 - pauses need to differ, not to be secret
        is_stopped=governing.is_stopped,
        may_hedge=governing.may_hedge,
    )
    return Dispatcher(adapters, keepers, SchemaAnswerChecker(), counter, clock)


def ungoverned(clock: Clock) -> Governing:
    """For a process that nobody operates, such as a benchmark: no switch is set, limits count in this process alone."""
    return Governing(Control, Limits(MemoryCounters(clock), clock, b""))
