"""A table for cached answers."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Float, LargeBinary, String, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "cache_entries",
        Column("key", LargeBinary(32), primary_key=True),
        Column("partition", LargeBinary(32), nullable=False),
        Column("tenant", String(64), nullable=False),
        Column("stored_at", Float, nullable=False),
        Column("expires_at", Float, nullable=False),
        Column("used_at", Float, nullable=False),
        Column("vector", LargeBinary, nullable=False),
        Column("traits_json", Text, nullable=False),
        Column("answer_json", Text, nullable=False),
    )
    op.create_index("ix_cache_entries_partition", "cache_entries", ["partition"])
    op.create_index("ix_cache_entries_expires_at", "cache_entries", ["expires_at"])
    op.create_index("ix_cache_entries_tenant", "cache_entries", ["tenant", "used_at"])
