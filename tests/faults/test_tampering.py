"""A log that was tampered with, in every way that SQL allows: each is found, and its place named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from manent.adapters.merkle.signer import FileSigner
from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.checkpoints import SQLCheckpoints
from manent.adapters.store.frontier import HEADER_FIELDS
from manent.adapters.store.rows import SQLiteRows
from manent.domain.transparency import CheckpointRefused, Finding
from manent.domain.usecases.verify_log import VerifyLog
from tests.support.audited import Audited, new_log
from tests.support.tampering import Table, hash_again

SESSIONS = 12
EVENTS = SESSIONS * 5
ROWS = (1, 23, 37, EVENTS)


@pytest.fixture
async def log(tmp_path: Path) -> Audited:
    """A log of 60 events, without a checkpoint."""
    return await new_log(tmp_path / "log", sessions=SESSIONS)


async def first_findings(log: Audited, table: str, column: str, where: str) -> list[Finding | None]:
    """The first finding for each byte of a value, while it is turned."""
    rows, damaged = SQLiteRows(log.path), Table(log.path, table)
    verify = VerifyLog(SQLLogAudit(rows))
    found: list[Finding | None] = []
    try:
        for _ in damaged.damaged(column, where):
            result = await verify.run()
            found.append(next(iter(result.findings), None))
        assert (await verify.run()).sound, "the damage was not undone"
    finally:
        damaged.close()
        await rows.aclose()
    return found


@pytest.mark.parametrize("column", HEADER_FIELDS)
async def test_every_byte_of_every_header_column_is_covered(log: Audited, column: str) -> None:
    """A turned bit anywhere in a header is found, and the range that is named holds it."""
    for position in ROWS:
        found = await first_findings(log, "event_headers", column, f"position = {position}")
        assert found
        for finding in found:
            assert finding is not None
            assert finding.position <= position <= finding.last_position
            if column == "payload_digest":
                assert finding.last_position <= EVENTS


async def test_a_byte_of_every_row_is_covered(log: Audited) -> None:
    """No row is left out: an actor's name changed in any of them is found in the subtree that holds it."""
    for position in range(1, EVENTS + 1):
        for finding in await first_findings(log, "event_headers", "actor", f"position = {position}"):
            assert finding is not None
            assert finding.position <= position <= finding.last_position
            assert finding.last_position - finding.position < 32


@pytest.mark.parametrize("column", ["payload", "salt", "encoding"])
async def test_every_byte_of_every_payload_is_covered(log: Audited, column: str) -> None:
    """A turned bit in a payload or its salt is found at its very position."""
    for position in ROWS:
        found = await first_findings(log, "event_payloads", column, f"position = {position}")
        assert len(found) > 3
        assert {finding and (finding.position, finding.last_position) for finding in found} == {(position, position)}


async def test_a_payload_that_was_moved_is_found(log: Audited) -> None:
    """A payload at a position that has no event, or another's, does not pass for erased."""
    for position in ROWS:
        assert all(await first_findings(log, "event_payloads", "position", f"position = {position}"))


@pytest.mark.parametrize("column", ["id", "log_id", "position", "recorded_at_us", "frontier", "root"])
async def test_every_byte_of_the_head_is_covered(log: Audited, column: str) -> None:
    """A head that was changed does not pass for the log's."""
    found = await first_findings(log, "log_head", column, "1")
    assert len(found) >= 8
    assert all(finding is not None for finding in found)


async def test_every_byte_of_the_tree_is_covered(tmp_path: Path) -> None:
    """A stored node that was changed, moved or is missing is found by the headers below it."""
    log = await new_log(tmp_path / "log", sessions=60)
    for column, bytes_count in (("hash", 32), ("level", 8), ("node", 8)):
        found = await first_findings(log, "tree_nodes", column, "level = 8 AND node = 0")
        assert [finding and (finding.position, finding.last_position) for finding in found] == [(1, 256)] * bytes_count
    log.damage("DELETE FROM tree_nodes")
    assert (await log.verify()).findings[0].last_position == 256


async def test_every_byte_of_a_kept_checkpoint_is_covered(log: Audited) -> None:
    """A note that was changed no longer verifies; one under another size says so."""
    await log.checkpoint()
    rows, damaged = SQLiteRows(log.path), Table(log.path, "checkpoints")
    kept = SQLCheckpoints(rows)
    signer = FileSigner(log.keys, await kept.log_id())
    for column in ("note", "size"):
        for _ in damaged.damaged(column, "1"):
            result = await VerifyLog(SQLLogAudit(rows), kept=kept, verifier=signer).run()
            assert result.checkpoints == 0
            assert not result.sound or column == "size"
    damaged.close()
    await rows.aclose()


SHIFT = (
    "UPDATE event_headers SET position = -position WHERE position > {0}",
    "UPDATE event_headers SET position = -position {1} WHERE position < 0",
    "UPDATE event_payloads SET position = -position WHERE position > {0}",
    "UPDATE event_payloads SET position = -position {1} WHERE position < 0",
)
COLUMNS = ", ".join(HEADER_FIELDS)
SWAP = [f"UPDATE event_headers SET position = {b} WHERE position = {a}" for a, b in ((7, -1), (9, 7), (-1, 9))]
SWAP_PAYLOADS = [statement.replace("headers", "payloads") for statement in SWAP]


def inserted(position: int) -> str:
    """An event that nobody appended."""
    own = {"event_id": "'evt_x'", "stream_id": "'session-x'", "stream_version": "1", "position": str(position)}
    values = ", ".join(own.get(name, name) for name in HEADER_FIELDS)
    return f"INSERT INTO event_headers ({COLUMNS}) SELECT {values} FROM event_headers WHERE position = 1"


def closed_up(position: int) -> list[str]:
    """A row deleted, and what follows moved up."""
    gone = [f"DELETE FROM {table} WHERE position = {position}" for table in ("event_headers", "event_payloads")]
    return [*gone, *(statement.format(position, "- 1") for statement in SHIFT)]


@pytest.mark.parametrize(
    ("statements", "position"),
    [
        (["DELETE FROM event_headers WHERE position = 20"], 20),
        ([f"DELETE FROM event_headers WHERE position = {EVENTS}"], EVENTS),
        (["DELETE FROM event_headers"], 1),
        (closed_up(20), 20),
        (SWAP, 7),
        (SWAP_PAYLOADS, 7),
        ([*SWAP, *SWAP_PAYLOADS], 7),
        ([inserted(61)], 61),
        ([*(statement.format(20, "+ 1") for statement in SHIFT), inserted(21)], 21),
        (["INSERT INTO event_payloads SELECT 99, encoding, salt, payload FROM event_payloads WHERE position = 1"], 99),
        (["INSERT INTO tree_nodes VALUES (8, 0, x'00')"], EVENTS),
        (["UPDATE event_headers SET actor = CAST(actor AS BLOB) WHERE position = 30"], 30),
        (["UPDATE event_headers SET recorded_at_us = 1 WHERE position = 41"], 41),
        (["DELETE FROM log_head"], 1),
        (["UPDATE event_headers SET type = 'SessionDeleted' WHERE position = 4"], 4),
    ],
    ids=lambda value: value if isinstance(value, int) else value[0][:48],
)  # fmt: skip
async def test_rows_deleted_moved_or_added_are_found(log: Audited, statements: Sequence[str], position: int) -> None:
    """The position where the log departs from what was recorded is in the range that is named."""
    log.damage(*statements)
    result = await log.verify()
    assert not result.sound
    assert any(finding.position <= position <= finding.last_position for finding in result.findings)
    assert result.findings[0].position <= position


@pytest.mark.parametrize(
    ("statements", "position"),
    [
        (closed_up(18), 18),
        ([*SWAP, *SWAP_PAYLOADS], 7),
        (["UPDATE event_headers SET stream_version = 9 WHERE position = 30"], 30),
        ([f"UPDATE event_headers SET type = 'CompletionGenerated' WHERE position = {EVENTS}"], EVENTS),
    ],
    ids=["deleted", "swapped", "renumbered", "closed twice"],
)
async def test_a_forger_who_hashes_again_is_still_held_to_the_rules(
    log: Audited, statements: Sequence[str], position: int
) -> None:
    """Streams without gaps and completions closed once are checked for themselves, at the very position."""
    log.damage(*statements)
    hash_again(log.path)
    result = await log.verify()
    assert [finding.position for finding in result.findings] in ([position], [position, position])


async def test_a_tree_rewritten_consistently_is_found_by_what_was_signed(log: Audited) -> None:
    """Whoever rewrites rows, tree and head together leaves a sound log, which is not the one that was signed."""
    saved = await log.tree_head(40)
    await log.checkpoint()
    log.damage("UPDATE event_headers SET actor = 'eve' WHERE position = 33", "DELETE FROM checkpoints")
    hash_again(log.path)
    assert (await log.verify(remembered=False)).sound
    by_memory = (await log.verify()).findings
    assert "signed last" in by_memory[0].what
    assert by_memory[0].position <= 33 <= by_memory[0].last_position
    by_saved = (await log.verify(saved=saved, remembered=False)).findings
    assert "saved checkpoint" in by_saved[0].what
    assert by_saved[0].last_position == 40
    with pytest.raises(CheckpointRefused):
        await log.checkpoint()


async def test_a_value_of_another_kind_does_not_pass_for_the_same(log: Audited) -> None:
    """A text replaced by bytes would hide a row from filters; also where both would be written alike in JSON."""
    log.damage("UPDATE event_headers SET actor = 'YW5u' WHERE position = 30")
    hash_again(log.path)
    assert (await log.verify()).sound
    log.damage("UPDATE event_headers SET actor = x'616e6e' WHERE position = 30")
    assert (
        Finding(position=30, last_position=30, what="its actor is of the wrong kind") in (await log.verify()).findings
    )


async def test_kept_checkpoints_narrow_the_range(log: Audited) -> None:
    """The first checkpoint that no longer fits says between which two the log was changed."""
    await log.checkpoint()
    await log.converse(2, first=SESSIONS)
    await log.checkpoint()
    log.damage(f"UPDATE event_headers SET actor = 'eve' WHERE position = {EVENTS + 3}")
    finding = (await log.verify()).findings[0]
    assert (finding.position, finding.last_position) == (EVENTS + 1, EVENTS + 10)


async def test_an_old_backup_is_noticed(log: Audited, tmp_path: Path) -> None:
    """The signer refuses a log that ends before what it signed, and one that went another way since."""
    shutil.copy(log.path, tmp_path / "backup.db")
    await log.converse(2, first=SESSIONS)
    await log.checkpoint()
    for suffix in ("-wal", "-shm"):
        log.path.with_name(log.path.name + suffix).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", log.path)
    with pytest.raises(CheckpointRefused, match="old backup"):
        await log.checkpoint()
    findings = (await log.verify()).findings
    assert (findings[0].position, "signed last has 70" in findings[0].what) == (EVENTS + 1, True)
    await log.converse(3, first=SESSIONS + 5)
    with pytest.raises(CheckpointRefused, match="not a continuation"):
        await log.checkpoint()


async def test_a_log_that_was_cut_off_is_found_by_its_kept_checkpoints(log: Audited) -> None:
    """Also where the signer's memory went with it, a checkpoint beyond the end says that more was there."""
    await log.checkpoint()
    log.damage(*(f"DELETE FROM {table} WHERE position > {EVENTS - 5}" for table in ("event_headers", "event_payloads")))
    hash_again(log.path)
    rows = SQLiteRows(log.path)
    kept = SQLCheckpoints(rows)
    signer = FileSigner(log.keys, await kept.log_id())
    findings = (await VerifyLog(SQLLogAudit(rows), kept=kept, verifier=signer).run()).findings
    assert [(finding.position, finding.last_position) for finding in findings] == [(EVENTS - 4, EVENTS)]
    await rows.aclose()


async def test_erased_payloads_are_reported_and_no_failure(log: Audited) -> None:
    """The log still verifies without what was destroyed, completions included."""
    log.damage("DELETE FROM event_payloads WHERE position IN (2, 3, 9)")
    result = await log.verify()
    assert result.sound
    assert (result.erased, result.open_completions) == (3, 0)


async def test_verification_goes_on_from_a_saved_checkpoint(log: Audited) -> None:
    """Only what follows is judged; the past has to fit the checkpoint's root."""
    saved = await log.tree_head(EVENTS - 2)
    await log.converse(70, first=SESSIONS)
    assert (await log.verify(saved=saved)).sound
    middle = await log.tree_head(256)
    log.damage("UPDATE event_payloads SET payload = x'7b7d' WHERE position = 9")
    assert (await log.verify(saved=middle)).sound
    log.damage("UPDATE event_payloads SET payload = x'7b7d' WHERE position = 300")
    assert [finding.position for finding in (await log.verify(saved=middle)).findings] == [300]
    assert [finding.position for finding in (await log.verify()).findings] == [9]


@pytest.mark.parametrize(
    "statement",
    [
        *(f"UPDATE {table} SET {column} = {column}" for table, column in (
            ("event_headers", "actor"), ("event_payloads", "salt"), ("tree_nodes", "hash"), ("checkpoints", "note"),
            ("log_head", "root"))),
        *(f"DELETE FROM {table}" for table in ("event_headers", "tree_nodes", "checkpoints", "log_head")),
        *(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"
          for table in ("event_headers", "event_payloads", "tree_nodes", "checkpoints", "log_head")),
        inserted(1000),
        "INSERT INTO event_payloads SELECT 0, encoding, salt, payload FROM event_payloads LIMIT 1",
    ],
)  # fmt: skip
async def test_triggers_refuse_what_is_no_append(tmp_path: Path, statement: str) -> None:
    """With the triggers in place nothing is changed, taken away, replaced, or put behind a gap."""
    log = await new_log(tmp_path / "log", sessions=52)
    await log.checkpoint()
    with sqlite3.connect(log.path) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()
    assert (await log.verify()).sound
