"""The event log: headers, payloads, head, and the completions that are open."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the event log."""
    position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("log_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="log_head_one_row"),
    )
    op.create_table(
        "event_headers",
        sa.Column("position", position, primary_key=True, autoincrement=False),
        sa.Column("log_id", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False, unique=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("stream_version", sa.Integer, nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("correlation_id", sa.Text),
        sa.Column("causation_id", sa.Text),
        sa.Column("payload_digest", sa.Text, nullable=False),
        sa.UniqueConstraint("tenant", "stream_id", "stream_version", name="event_headers_stream"),
    )
    op.create_index("event_headers_tenant_position", "event_headers", ["tenant", "position"])
    op.create_index("event_headers_tenant_type_position", "event_headers", ["tenant", "type", "position"])
    op.create_table(
        "event_payloads",
        sa.Column("position", position, primary_key=True, autoincrement=False),
        sa.Column("encoding", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "open_completions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("completion_id", sa.Text, primary_key=True),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """The log is append-only: an older Manent is served from a backup."""
    raise NotImplementedError("Manent does not downgrade a database; restore a backup taken before the upgrade")
