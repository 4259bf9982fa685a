"""The tables, one schema for SQLite and PostgreSQL. Changes need a migration in `migrations/versions`.

Money is whole micro-USD. Times are seconds since the Unix epoch. Texts that callers choose are bounded by the contract.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BIG = BigInteger().with_variant(Integer, "sqlite")
"""SQLite's own row number is an INTEGER of 64 bits."""

control_revision = Table(
    "control_revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", _BIG, nullable=False),
)
"""One row, with id 1; `revision` grows with every change of what operators set."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("tenant", String(64), nullable=False),
    Column("roles", String(128), nullable=False),
    Column("note", String(256), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)
"""`roles` are joined with commas."""

flags = Table(
    "flags",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("value_json", Text, nullable=False),
)

kill_switches = Table(
    "kill_switches",
    metadata,
    Column("scope", String(16), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("comment", String(1024), nullable=False),
)
"""Those that are on."""

policies = Table(
    "policies",
    metadata,
    Column("version", String(64), primary_key=True),
    Column("yaml", Text, nullable=False),
)

policy_applications = Table(
    "policy_applications",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("version", String(64), nullable=False),
    Column("author", Text, nullable=False),
    Column("applied_at", Float, nullable=False),
    Column("comment", String(1024), nullable=False),
)
"""The last row names the policy in force; a rollback is one more application of an earlier version."""

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("percent", Integer, nullable=False),
)
"""At most one row, with id 1: the policy that is being tried."""

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(256), nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("comment", String(1024), nullable=False),
)

budget_states = Table(
    "budget_states",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("budget", String(64), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("settled_micro_usd", _BIG, nullable=False),
    Column("leased_micro_usd", _BIG, nullable=False),
    Column("lost_micro_usd", _BIG, nullable=False),
    Column("alerted_percent", Integer, nullable=False),
)
"""`period` is the day or month as YYYY-MM-DD or YYYY-MM. Settled and leased together never pass the limit.

What was lost is part of what was settled: what a writer that died might have spent, and nobody can tell any more.
"""

budget_leases = Table(
    "budget_leases",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("writer", String(64), nullable=False, index=True),
    Column("tenant", String(64), nullable=False),
    Column("budget", String(64), nullable=False),
    Column("period", String(10), nullable=False),
    Column("amount_micro_usd", _BIG, nullable=False),
    Column("is_lost", Boolean, nullable=False),
)
"""What a process may spend of a budget without asking again.

Of one that `is_lost` all is booked as spent, because its writer seems to have died; if that turns out to live, or its
trail is found, what is known then puts it right.
"""

ledger_writers = Table(
    "ledger_writers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("beats", _BIG, nullable=False),
    Column("applied", _BIG, nullable=False),
    Column("seen_at", Float, nullable=False),
)
"""The processes that keep accounts. `beats` grows while one lives; whoever sees it stand still takes its leases away.

`applied` is the number of its last booking that is in the tables: none is ever applied twice.
"""

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("request_id", String(128), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("tenant", String(64), nullable=False),
    Column("deployment", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("input_tokens", _BIG, nullable=False),
    Column("cached_input_tokens", _BIG, nullable=False),
    Column("cache_write_input_tokens", _BIG, nullable=False),
    Column("output_tokens", _BIG, nullable=False),
    Column("reasoning_tokens", _BIG, nullable=False),
    Column("cost_micro_usd", _BIG, nullable=False),
    Column("price_version", Text, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("labels_json", Text, nullable=False),
    Column("budgets_json", Text, nullable=False),
    Index("ix_ledger_entries_request", "tenant", "request_id"),
)
"""One row for each attempt that was billed or ended; kept for longer than any month.

`calls` is 1 for the attempt that its call ended with and 0 for those before it. `budgets_json` lists the budgets that
the cost was booked on, each with its period.
"""

usage_daily = Table(
    "usage_daily",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("labels_digest", LargeBinary(16), primary_key=True),
    Column("labels_json", Text, nullable=False),
    Column("calls", _BIG, nullable=False),
    Column("input_tokens", _BIG, nullable=False),
    Column("cached_input_tokens", _BIG, nullable=False),
    Column("cache_write_input_tokens", _BIG, nullable=False),
    Column("output_tokens", _BIG, nullable=False),
    Column("reasoning_tokens", _BIG, nullable=False),
    Column("cost_micro_usd", _BIG, nullable=False),
    Column("estimated_cost_micro_usd", _BIG, nullable=False),
)
"""Sums that stay when the entries are gone. The estimated cost is a part of the cost.

`labels_digest` stands for `labels_json` in the key (16 bytes of a hash): 32 labels are longer than an index can hold.
"""

counters = Table(
    "counters",
    metadata,
    Column("name", String(256), primary_key=True),
    Column("window", _BIG, primary_key=True),
    Column("used", _BIG, nullable=False),
)
"""What was admitted in a window of a rate limit, over all processes."""

idempotent_calls = Table(
    "idempotent_calls",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("digest", LargeBinary(16), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("answer", LargeBinary),
)
"""Calls that were named by their callers; `answer` is empty while `owner` is still at it."""

cache_entries = Table(
    "cache_entries",
    metadata,
    Column("key", LargeBinary(32), primary_key=True),
    Column("partition", LargeBinary(32), nullable=False, index=True),
    Column("tenant", String(64), nullable=False),
    Column("stored_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("used_at", Float, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("traits_json", Text, nullable=False),
    Column("answer_json", Text, nullable=False),
    Index("ix_cache_entries_tenant", "tenant", "used_at"),
)
"""Answers for who asks the same again. Of what was asked there are hashes alone: no text can be read from them."""

request_traces = Table(
    "request_traces",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("request_id", String(128), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("latency_seconds", Float, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("cost_micro_usd", _BIG, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("labels_json", Text, nullable=False),
    Column("account", LargeBinary, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Index("ix_request_traces_request", "request_id"),
    Index("ix_request_traces_tenant", "tenant", "started_at", "id"),
    Index("ix_request_traces_time", "started_at", "id", "tenant", "model", "outcome"),
)
"""Calls for operators to look at. Prompts and answers are empty or masked; `account` is a message of the contract."""

shared_notes = Table(
    "shared_notes",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("ix_shared_notes_kind", "kind", "expires_at"),
)
"""What processes may want to know of each other: decisions that can be followed, answers that can be judged, verdicts,
and which deployment served a conversation last. No word of a prompt or an answer."""

canary_tallies = Table(
    "canary_tallies",
    metadata,
    Column("process", String(64), primary_key=True),
    Column("trial", String(256), nullable=False),
    Column("told_at", Float, nullable=False),
    Column("tally_json", Text, nullable=False),
)
"""How the calls of each process went while a canary runs; `trial` names both policies."""
