"""Files and batches: the tables by which their owners find them, and the bytes of files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from manent.migrations import postgresql

revision = "0003_files_and_batches"
down_revision = "0002_stored_completions"
branch_labels = None
depends_on = None

RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "files",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("file_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger),
    )
    op.create_index("files_owner", "files", ["tenant", "owner", "status", "position"])
    op.create_index("files_purpose", "files", ["tenant", "owner", "status", "purpose", "position"])
    op.create_index("files_expiry", "files", ["expires_at_us", "position"])
    op.create_table(
        "batches",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("batch_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
    )
    op.create_index("batches_owner", "batches", ["tenant", "owner", "position"])
    op.create_index("batches_status", "batches", ["status", "position"])
    op.create_table(
        "file_chunks",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("file_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("written_at_us", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("file_chunks_written", "file_chunks", ["number", "written_at_us"])
    if op.get_bind().dialect.name == "postgresql":
        _grant()


def _grant() -> None:
    connection = op.get_bind()
    if connection.exec_driver_sql(postgresql.HAS_ROLE).scalar_one():
        for table in ("files", "batches", "file_chunks"):
            connection.exec_driver_sql(f"GRANT {RIGHTS} ON {table} TO {postgresql.ROLE}")
        connection.exec_driver_sql(f"GRANT DELETE ON subscriptions TO {postgresql.ROLE}")


def downgrade() -> None:
    """The log is append-only: an older Manent is served from a backup."""
    raise NotImplementedError("Manent does not downgrade a database; restore a backup taken before the upgrade")
