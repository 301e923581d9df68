"""The event log: headers, payloads, tree, head, idempotency keys, open completions, subscriptions."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op

from manent.migrations import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STREAM_KEY = "event_headers_stream"
POSITION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Every filter of the log is served by one of these, in log order; positions and times grow together.
HEADER_INDEXES = {
    "tenant_position": ["tenant", "position"],
    "tenant_type_position": ["tenant", "type", "position"],
    "tenant_actor_type_position": ["tenant", "actor", "type", "position"],
    "tenant_actor_position": ["tenant", "actor", "position"],
    "request": ["request_id", "position"],
    "correlation": ["correlation_id", "position"],
    "recorded": ["recorded_at_us", "position"],
}

# RAISE(ABORT) undoes the statement. The checks before an insert also stop INSERT OR REPLACE, which deletes rows
# without firing delete triggers unless the connection asked for recursive ones.
SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER event_headers_next BEFORE INSERT ON event_headers
    WHEN NEW.position <> (SELECT coalesce(max(position), 0) + 1 FROM event_headers)
      OR EXISTS (SELECT 1 FROM event_headers WHERE event_id = NEW.event_id)
      OR EXISTS (SELECT 1 FROM event_headers WHERE tenant = NEW.tenant AND stream_id = NEW.stream_id
                 AND stream_version = NEW.stream_version)
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: a header goes to the next position'); END
    """,
    """
    CREATE TRIGGER event_headers_no_update BEFORE UPDATE ON event_headers
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: headers do not change'); END
    """,
    """
    CREATE TRIGGER event_headers_no_delete BEFORE DELETE ON event_headers
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: headers stay'); END
    """,
    """
    CREATE TRIGGER event_payloads_no_update BEFORE UPDATE ON event_payloads
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: payloads do not change, they can only be erased'); END
    """,
    """
    CREATE TRIGGER event_payloads_next BEFORE INSERT ON event_payloads
    WHEN NEW.position <= (SELECT coalesce(max(position), 0) FROM event_payloads)
      OR NEW.position <= (SELECT position FROM log_head)
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: a payload comes with its header'); END
    """,
    """
    CREATE TRIGGER tree_nodes_no_update BEFORE UPDATE ON tree_nodes
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: the tree only grows'); END
    """,
    """
    CREATE TRIGGER tree_nodes_no_delete BEFORE DELETE ON tree_nodes
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: the tree only grows'); END
    """,
    """
    CREATE TRIGGER tree_nodes_new BEFORE INSERT ON tree_nodes
    WHEN EXISTS (SELECT 1 FROM tree_nodes WHERE level = NEW.level AND node = NEW.node)
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: the tree only grows'); END
    """,
    """
    CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: checkpoints do not change'); END
    """,
    """
    CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: checkpoints stay'); END
    """,
    """
    CREATE TRIGGER checkpoints_new BEFORE INSERT ON checkpoints
    WHEN EXISTS (SELECT 1 FROM checkpoints WHERE size = NEW.size)
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: checkpoints do not change'); END
    """,
    """
    CREATE TRIGGER log_head_forward BEFORE UPDATE ON log_head
    WHEN NEW.position <= OLD.position OR NEW.log_id <> OLD.log_id OR NEW.id <> OLD.id
      OR NEW.recorded_at_us < OLD.recorded_at_us
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: its head only moves forward'); END
    """,
    """
    CREATE TRIGGER log_head_no_delete BEFORE DELETE ON log_head
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: its head stays'); END
    """,
    """
    CREATE TRIGGER log_head_one BEFORE INSERT ON log_head
    WHEN EXISTS (SELECT 1 FROM log_head)
    BEGIN SELECT RAISE(ABORT, 'the log is append-only: it has one head'); END
    """,
)


def upgrade() -> None:
    """Create the tables of the event log."""
    partitioned = op.get_bind().dialect.name == "postgresql"
    _create_log(partitioned=partitioned)
    _create_tree()
    _create_look_ups()
    if partitioned:
        _create_stream_heads()
        _protect_postgresql()
    else:
        for trigger in SQLITE_TRIGGERS:
            op.execute(trigger)


def _create_log(*, partitioned: bool) -> None:
    # A unique constraint of a partitioned table must contain the partition's key: decisions, 0013.
    unique = () if partitioned else (sa.UniqueConstraint("tenant", "stream_id", "stream_version", name=STREAM_KEY),)
    op.create_table(
        "event_headers",
        sa.Column("position", POSITION, primary_key=True, autoincrement=False),
        sa.Column("log_id", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False, unique=not partitioned),
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
        *unique,
        postgresql_partition_by="RANGE (position)",
    )
    if partitioned:
        op.create_index(STREAM_KEY, "event_headers", ["tenant", "stream_id", "stream_version"])
    for name, columns in HEADER_INDEXES.items():
        op.create_index(f"event_headers_{name}", "event_headers", columns)
    op.create_table(
        "event_payloads",
        sa.Column("position", POSITION, primary_key=True, autoincrement=False),
        sa.Column("encoding", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        postgresql_partition_by="RANGE (position)",
    )


def _create_tree() -> None:
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("log_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("id = 1", name="log_head_one_row"),
    )
    op.create_table(
        "tree_nodes",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("node", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", POSITION, primary_key=True, autoincrement=False),
        sa.Column("issued_at_us", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )


def _create_look_ups() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("stream_version", sa.BigInteger, nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_keys_recorded", "idempotency_keys", ["recorded_at_us"])
    op.create_table(
        "event_models",
        sa.Column("model_id", sa.Text, primary_key=True),
        sa.Column("position", POSITION, primary_key=True, autoincrement=False),
    )
    op.create_table(
        "open_completions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("completion_id", sa.Text, primary_key=True),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("node", sa.BigInteger),
    )
    op.create_table(
        "completions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("completion_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    _create_session_index()
    op.create_table(
        "subscriptions",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    )


def _create_session_index() -> None:
    op.create_table(
        "sessions",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("ttl_s", sa.Integer),
        sa.Column("expires_at_us", sa.BigInteger),
    )
    op.create_index("sessions_status", "sessions", ["tenant", "status", "position"])
    op.create_index("sessions_owner", "sessions", ["tenant", "owner", "status", "position"])
    op.create_index("sessions_expiry", "sessions", ["expires_at_us", "position"])
    op.create_table(
        "session_metadata",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("pair", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
    )
    narrowing = ["tenant", "status", "pair", "position"]
    op.create_index("session_metadata_pair", "session_metadata", narrowing)
    op.create_index("session_metadata_owner", "session_metadata", ["tenant", "owner", *narrowing[1:]])


def _create_stream_heads() -> None:
    op.create_table(
        "stream_heads",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("stream_id", sa.Text, primary_key=True),
        sa.Column("stream_version", sa.Integer, nullable=False),
    )
    op.create_table(
        "log_partitions",
        sa.Column("first_position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
    )


def _protect_postgresql() -> None:
    connection = op.get_bind()
    schema: str = connection.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for statement in postgresql.protection(schema):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(postgresql.CREATE_ROLE)
    if connection.exec_driver_sql(postgresql.HAS_ROLE).scalar_one():
        for statement in postgresql.role(schema):
            connection.exec_driver_sql(statement)
    else:
        logging.getLogger("manent.store").warning(
            "the role %s was not created, for want of the right to: Manent works as the tables' owner; how to make "
            "the role later is in docs/how-to/postgresql.md",
            postgresql.ROLE,
        )


def downgrade() -> None:
    """The log is append-only: an older Manent is served from a backup."""
    raise NotImplementedError("Manent does not downgrade a database; restore a backup taken before the upgrade")
