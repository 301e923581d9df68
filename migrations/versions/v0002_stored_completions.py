"""Stored completions: the tables by which their owners find them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from manent.migrations import postgresql

revision = "0002_stored_completions"
down_revision = "0001"
branch_labels = None
depends_on = None

RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    """Create the tables; `manent projections rebuild --sessions` fills them from a log that is older."""
    op.create_table(
        "stored_completions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("completion_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("ended_position", sa.BigInteger),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    narrowing = ["tenant", "owner", "status"]
    op.create_index("stored_completions_owner", "stored_completions", [*narrowing, "position"])
    op.create_index("stored_completions_model", "stored_completions", [*narrowing, "model_id", "position"])
    op.create_index("stored_completions_session", "stored_completions", ["tenant", "session_id"])
    op.create_table(
        "stored_metadata",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("completion_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("pair", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    op.create_index("stored_metadata_pair", "stored_metadata", [*narrowing, "pair", "position"])
    if op.get_bind().dialect.name == "postgresql":
        _grant()


def _grant() -> None:
    connection = op.get_bind()
    if connection.exec_driver_sql(postgresql.HAS_ROLE).scalar_one():
        for table in ("stored_completions", "stored_metadata"):
            connection.exec_driver_sql(f"GRANT {RIGHTS} ON {table} TO {postgresql.ROLE}")


def downgrade() -> None:
    """The log is append-only: an older Manent is served from a backup."""
    raise NotImplementedError("Manent does not downgrade a database; restore a backup taken before the upgrade")
