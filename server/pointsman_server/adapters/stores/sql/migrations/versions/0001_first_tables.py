"""The first tables."""

from __future__ import annotations

from alembic import op
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

revision = "0001"
down_revision = None

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""As it was then; `schema.py` is how it is now."""

_BIG = BigInteger().with_variant(Integer, "sqlite")

control_revision = Table(
    "control_revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", _BIG, nullable=False),
)
Table(
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
Table(
    "flags",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("value_json", Text, nullable=False),
)
Table(
    "kill_switches",
    metadata,
    Column("scope", String(16), primary_key=True),
    Column("target", String(64), primary_key=True),
    Column("comment", String(1024), nullable=False),
)
Table(
    "policies",
    metadata,
    Column("version", String(64), primary_key=True),
    Column("yaml", Text, nullable=False),
)
Table(
    "policy_applications",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("version", String(64), nullable=False),
    Column("author", Text, nullable=False),
    Column("applied_at", Float, nullable=False),
    Column("comment", String(1024), nullable=False),
)
Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("percent", Integer, nullable=False),
)
Table(
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
Table(
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
Table(
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
Table(
    "ledger_writers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("beats", _BIG, nullable=False),
    Column("applied", _BIG, nullable=False),
    Column("seen_at", Float, nullable=False),
)
Table(
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
Table(
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
Table(
    "counters",
    metadata,
    Column("name", String(256), primary_key=True),
    Column("window", _BIG, primary_key=True),
    Column("used", _BIG, nullable=False),
)
Table(
    "idempotent_calls",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("digest", LargeBinary(16), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("answer", LargeBinary),
)


def upgrade() -> None:
    """Makes the tables, and the row that counts changes."""
    metadata.create_all(op.get_bind(), checkfirst=False)
    op.bulk_insert(control_revision, [{"id": 1, "revision": 0}])
