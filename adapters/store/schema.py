"""The tables, as SQLAlchemy Core. The migrations create them; this is what queries are written against.

``event_headers`` has one column for each member of the hashed header, and nothing else: the header is rebuilt from
its columns, so a changed column is a changed leaf. Payloads lie apart, since they can be destroyed.

PostgreSQL has two tables more, which its triggers and functions keep (migrations/postgresql.py): stream_heads, and
log_partitions. Its event_headers are partitioned, so that its unique constraints are kept by a trigger.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

metadata = MetaData()

# SQLite gives a rowid of 64 bits to INTEGER PRIMARY KEY only.
_Position = BigInteger().with_variant(Integer(), "sqlite")

log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("log_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
)

event_headers = Table(
    "event_headers",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=False),
    Column("log_id", Text, nullable=False),
    Column("event_id", Text, nullable=False, unique=True),
    Column("type", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("stream_id", Text, nullable=False),
    Column("stream_version", Integer, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text),
    Column("correlation_id", Text),
    Column("causation_id", Text),
    Column("payload_digest", Text, nullable=False),
    UniqueConstraint("tenant", "stream_id", "stream_version", name="event_headers_stream"),
    Index("event_headers_tenant_position", "tenant", "position"),
    Index("event_headers_tenant_type_position", "tenant", "type", "position"),
    Index("event_headers_tenant_actor_type_position", "tenant", "actor", "type", "position"),
    Index("event_headers_tenant_actor_position", "tenant", "actor", "position"),
    Index("event_headers_request", "request_id", "position"),
    Index("event_headers_correlation", "correlation_id", "position"),
    Index("event_headers_recorded", "recorded_at_us", "position"),
)

# A projection for the filter by model: the events that name one.
event_models = Table(
    "event_models",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("position", _Position, primary_key=True, autoincrement=False),
)

event_payloads = Table(
    "event_payloads",
    metadata,
    Column("position", _Position, primary_key=True, autoincrement=False),
    Column("encoding", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

# Nodes of the tree at every eighth level (domain/merkle.py); the leaves are the headers themselves.
tree_nodes = Table(
    "tree_nodes",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("node", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

# Signed heads of the tree, as they were issued.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", _Position, primary_key=True, autoincrement=False),
    Column("issued_at_us", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("stream_version", BigInteger, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Index("idempotency_keys_recorded", "recorded_at_us"),
)

open_completions = Table(
    "open_completions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("completion_id", Text, primary_key=True),
    Column("stream_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("node", BigInteger),  # of the server that runs it, where several share the database
)

# A projection for finding a completion of a session by its id: where its CompletionRequested is.
completions = Table(
    "completions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("completion_id", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)

# A projection for finding sessions (session_index.py); ``position`` is that of the session's first event.
sessions = Table(
    "sessions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("session_id", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("ttl_s", Integer),
    Column("expires_at_us", BigInteger),
    Index("sessions_status", "tenant", "status", "position"),
    Index("sessions_owner", "tenant", "owner", "status", "position"),
    Index("sessions_expiry", "expires_at_us", "position"),
)

# Metadata, one row a pair, with what lists narrow by beside it. ``pair`` is a digest: a key and its value together may
# be longer than an index takes.
session_metadata = Table(
    "session_metadata",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("session_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("pair", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Index("session_metadata_pair", "tenant", "status", "pair", "position"),
    Index("session_metadata_owner", "tenant", "owner", "status", "pair", "position"),
)

# A projection for finding stored completions (stored_index.py); ``position`` is that of the completion's request.
stored_completions = Table(
    "stored_completions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("completion_id", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("ended_position", BigInteger),
    Column("owner", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("session_id", Text),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Index("stored_completions_owner", "tenant", "owner", "status", "position"),
    Index("stored_completions_model", "tenant", "owner", "status", "model_id", "position"),
    Index("stored_completions_session", "tenant", "session_id"),
)

stored_metadata = Table(
    "stored_metadata",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("completion_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("pair", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Index("stored_metadata_pair", "tenant", "owner", "status", "pair", "position"),
)

# A projection for finding files and batches (work_index.py); ``position`` is that of their first event.
files = Table(
    "files",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("file_id", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("expires_at_us", BigInteger),
    Index("files_owner", "tenant", "owner", "status", "position"),
    Index("files_purpose", "tenant", "owner", "status", "purpose", "position"),
    Index("files_expiry", "expires_at_us", "position"),
)

batches = Table(
    "batches",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("batch_id", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("status", Text, nullable=False),
    Index("batches_owner", "tenant", "owner", "position"),
    Index("batches_status", "status", "position"),
)

# The bytes of files, in pieces: no projection, since the log holds their digests alone.
file_chunks = Table(
    "file_chunks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("file_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("written_at_us", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("file_chunks_written", "number", "written_at_us"),
)

# Checkpoints of projectors, each leased to one worker at a time; the token fences a stale one off.
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("owner", Text),
    Column("token", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
)
