"""A table for recorded calls."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, String, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Makes the table."""
    big = BigInteger().with_variant(Integer, "sqlite")
    op.create_table(
        "request_traces",
        Column("id", big, primary_key=True, autoincrement=True),
        Column("request_id", String(128), nullable=False),
        Column("started_at", Float, nullable=False),
        Column("latency_seconds", Float, nullable=False),
        Column("tenant", String(64), nullable=False),
        Column("model", String(64), nullable=False),
        Column("outcome", String(32), nullable=False),
        Column("cost_micro_usd", big, nullable=False),
        Column("expires_at", Float, nullable=False),
        Column("labels_json", Text, nullable=False),
        Column("account", LargeBinary, nullable=False),
        Column("prompt", Text, nullable=False),
        Column("answer", Text, nullable=False),
    )
    op.create_index("ix_request_traces_expires_at", "request_traces", ["expires_at"])
    op.create_index("ix_request_traces_request", "request_traces", ["request_id"])
    op.create_index("ix_request_traces_tenant", "request_traces", ["tenant", "started_at", "id"])
    op.create_index("ix_request_traces_time", "request_traces", ["started_at", "id", "tenant", "model", "outcome"])
