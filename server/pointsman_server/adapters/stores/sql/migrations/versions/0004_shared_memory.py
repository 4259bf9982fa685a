"""Tables for what processes tell each other: notes, and how the calls under a canary went."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Float, LargeBinary, String, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "shared_notes",
        Column("kind", String(16), primary_key=True),
        Column("tenant", String(64), primary_key=True),
        Column("name", String(256), primary_key=True),
        Column("value", LargeBinary, nullable=False),
        Column("expires_at", Float, nullable=False),
    )
    op.create_index("ix_shared_notes_kind", "shared_notes", ["kind", "expires_at"])
    op.create_table(
        "canary_tallies",
        Column("process", String(64), primary_key=True),
        Column("trial", String(256), nullable=False),
        Column("told_at", Float, nullable=False),
        Column("tally_json", Text, nullable=False),
    )
