"""What only PostgreSQL has of the event log: partitions, triggers, functions and the application's role.

Part of revision 0001. The reasons are in docs/decisions/0013-partitions-and-uniqueness-on-postgresql.md. ``{schema}``
is the schema that the log lives in: functions that run with their owner's rights must not search any other.
"""

from __future__ import annotations

from collections.abc import Iterator

ROLE = "manent_app"
FIRST_PARTITION_POSITIONS = 10_000_000
PARTITIONED = ("event_headers", "event_payloads")

_REFUSE = """
CREATE FUNCTION manent_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the log is append-only: %', TG_ARGV[0];
END $$
"""

# The headers of a transaction come in one statement, right behind the head and behind the last of each stream. The
# table of stream heads stands for the unique constraint that a partitioned table cannot have.
_HEADERS_FOLLOW = """
CREATE FUNCTION manent_headers_follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {schema}, pg_temp AS $$
DECLARE
  head bigint;
  lowest bigint;
  highest bigint;
  total bigint;
BEGIN
  SELECT position INTO head FROM log_head;
  SELECT min(position), max(position), count(*) INTO lowest, highest, total FROM added;
  IF total = 0 THEN
    RETURN NULL;
  END IF;
  IF head IS NULL OR lowest <> head + 1 OR highest <> head + total THEN
    RAISE EXCEPTION 'the log is append-only: a header goes to the next position';
  END IF;
  IF EXISTS (
    SELECT FROM (
      SELECT tenant, stream_id, stream_version,
             row_number() OVER (PARTITION BY tenant, stream_id ORDER BY position) AS number
      FROM added
    ) a LEFT JOIN stream_heads h ON h.tenant = a.tenant AND h.stream_id = a.stream_id
    WHERE a.stream_version <> coalesce(h.stream_version, 0) + a.number
  ) THEN
    RAISE EXCEPTION 'the log is append-only: a stream goes to its next version';
  END IF;
  INSERT INTO stream_heads (tenant, stream_id, stream_version)
  SELECT tenant, stream_id, max(stream_version) FROM added GROUP BY tenant, stream_id ORDER BY tenant, stream_id
  ON CONFLICT (tenant, stream_id) DO UPDATE SET stream_version = excluded.stream_version;
  RETURN NULL;
END $$
"""

_PAYLOADS_FOLLOW = """
CREATE FUNCTION manent_payloads_follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {schema}, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM added WHERE position <= (SELECT position FROM log_head)) THEN
    RAISE EXCEPTION 'the log is append-only: a payload comes with its header';
  END IF;
  RETURN NULL;
END $$
"""

_HEAD_FORWARD = """
CREATE FUNCTION manent_head_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.position <= OLD.position OR NEW.log_id <> OLD.log_id OR NEW.id <> OLD.id
     OR NEW.recorded_at_us < OLD.recorded_at_us THEN
    RAISE EXCEPTION 'the log is append-only: its head only moves forward';
  END IF;
  RETURN NEW;
END $$
"""

# ATTACH, unlike CREATE TABLE … PARTITION OF, does not wait for readers. Runs with the owner's rights, so that the
# application needs none to create tables; the head's lock keeps two nodes from making the same partition.
_MAKE_PARTITIONS = """
CREATE FUNCTION manent_make_partitions(wanted bigint, size bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {schema}, pg_temp AS $$
DECLARE
  made bigint;
  parent text;
  child text;
BEGIN
  PERFORM 1 FROM log_head FOR UPDATE;
  SELECT coalesce(max(last_position), 0) INTO made FROM log_partitions;
  IF size < 1 OR wanted - made > size * 100 THEN
    RAISE EXCEPTION 'partitions of % positions up to % are not made at once, behind %', size, wanted, made;
  END IF;
  WHILE made < wanted LOOP
    FOREACH parent IN ARRAY ARRAY['event_headers', 'event_payloads'] LOOP
      child := parent || '_' || made + 1;
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL EXCLUDING INDEXES)', child, parent);
      EXECUTE format(
        'CREATE TRIGGER no_insert BEFORE INSERT ON %I FOR EACH STATEMENT EXECUTE FUNCTION manent_refuse(%L)',
        child, 'rows come through ' || parent);
      EXECUTE format(
        'CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION manent_refuse(%L)',
        child, 'it is not emptied');
      EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER no_insert, ENABLE ALWAYS TRIGGER no_truncate', child);
      IF parent = 'event_headers' THEN
        EXECUTE format('CREATE UNIQUE INDEX ON %I (event_id)', child);
      END IF;
      EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
        parent, child, made + 1, made + size + 1);
    END LOOP;
    INSERT INTO log_partitions (first_position, last_position) VALUES (made + 1, made + size);
    made := made + size;
  END LOOP;
  RETURN made;
END $$
"""

_FUNCTIONS = (_REFUSE, _HEADERS_FOLLOW, _PAYLOADS_FOLLOW, _HEAD_FORWARD, _MAKE_PARTITIONS)

# Table, name, what fires it, and what it says.
_REFUSALS = (
    ("event_headers", "no_update", "UPDATE", "ROW", "headers do not change"),
    ("event_headers", "no_delete", "DELETE", "ROW", "headers stay"),
    ("event_headers", "no_truncate", "TRUNCATE", "STATEMENT", "headers stay"),
    ("event_payloads", "no_update", "UPDATE", "ROW", "payloads do not change, they can only be erased"),
    ("event_payloads", "no_truncate", "TRUNCATE", "STATEMENT", "payloads are erased one by one"),
    ("tree_nodes", "no_change", "UPDATE OR DELETE", "ROW", "the tree only grows"),
    ("tree_nodes", "no_truncate", "TRUNCATE", "STATEMENT", "the tree only grows"),
    ("checkpoints", "no_change", "UPDATE OR DELETE", "ROW", "checkpoints do not change"),
    ("checkpoints", "no_truncate", "TRUNCATE", "STATEMENT", "checkpoints stay"),
    ("log_head", "no_delete", "DELETE", "ROW", "its head stays"),
    ("log_head", "no_truncate", "TRUNCATE", "STATEMENT", "its head stays"),
)
_CHECKS = (
    ("event_headers", "follow", "AFTER INSERT", "REFERENCING NEW TABLE AS added FOR EACH STATEMENT", "headers_follow"),
    (
        "event_payloads",
        "follow",
        "AFTER INSERT",
        "REFERENCING NEW TABLE AS added FOR EACH STATEMENT",
        "payloads_follow",
    ),
    ("log_head", "forward", "BEFORE UPDATE", "FOR EACH ROW", "head_forward"),
)

CREATE_ROLE = f"""
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
    CREATE ROLE {ROLE} NOLOGIN;
  END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
  NULL;
END $$
"""

_GRANTS = {
    "event_headers": "SELECT, INSERT",
    "event_payloads": "SELECT, INSERT, DELETE",
    "event_models": "SELECT, INSERT, DELETE",
    "tree_nodes": "SELECT, INSERT",
    "checkpoints": "SELECT, INSERT",
    "log_head": "SELECT, INSERT, UPDATE",
    "stream_heads": "SELECT",
    "log_partitions": "SELECT",
    "idempotency_keys": "SELECT, INSERT, UPDATE, DELETE",
    "open_completions": "SELECT, INSERT, UPDATE, DELETE",
    "completions": "SELECT, INSERT, DELETE",
    "sessions": "SELECT, INSERT, UPDATE, DELETE",
    "session_metadata": "SELECT, INSERT, UPDATE, DELETE",
    "subscriptions": "SELECT, INSERT, UPDATE",
    "alembic_version": "SELECT",
}


def protection(schema: str) -> Iterator[str]:
    """The statements that make the tables append-only, and give them their first partitions."""
    for function in _FUNCTIONS:
        yield function.replace("{schema}", schema)
    for table, name, events, level, words in _REFUSALS:
        yield (
            f"CREATE TRIGGER {table}_{name} BEFORE {events} ON {table} FOR EACH {level} "
            f"EXECUTE FUNCTION manent_refuse('{words}')"
        )
        yield f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}"
    for table, name, when, scope, function in _CHECKS:
        yield f"CREATE TRIGGER {table}_{name} {when} ON {table} {scope} EXECUTE FUNCTION manent_{function}()"
        yield f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}"
    yield "REVOKE ALL ON FUNCTION manent_make_partitions FROM PUBLIC"
    yield f"SELECT manent_make_partitions({FIRST_PARTITION_POSITIONS}, {FIRST_PARTITION_POSITIONS})"


def role(schema: str) -> Iterator[str]:
    """The rights of the application's role, which exists or was created by CREATE_ROLE."""
    yield f"GRANT USAGE ON SCHEMA {schema} TO {ROLE}"
    for table, rights in _GRANTS.items():
        yield f"GRANT {rights} ON {table} TO {ROLE}"
    yield f"GRANT EXECUTE ON FUNCTION manent_make_partitions TO {ROLE}"


HAS_ROLE = f"SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}')"  # noqa: S608 (a constant)
