"""A log on PostgreSQL whose owner took the triggers away and changed rows: found, and its place named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import URL

from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.frontier import HEADER_FIELDS
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.domain.usecases.verify_log import Verification, VerifyLog
from tests.support.audited import CONTEXT, five_events
from tests.support.fakes import CountingIds, FakeClock
from tests.support.postgres import PostgresServer

EVENTS = 60
DROP_TRIGGERS = """
DO $$ DECLARE t record; BEGIN
  FOR t IN SELECT tgname, tgrelid::regclass AS owner FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0 LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.owner);
  END LOOP;
END $$
"""
OTHER_TEXT = "UPDATE event_headers SET {0} = overlay({0} placing 'x' from 2 for 1) WHERE position = 23"
OTHER_NUMBER = "UPDATE event_headers SET {0} = {0} # 64 WHERE position = 23"
NUMBERS = {"position", "recorded_at_us", "schema_version", "stream_version"}
HEADER_CHANGES = [(OTHER_NUMBER if name in NUMBERS else OTHER_TEXT).format(name) for name in HEADER_FIELDS]


@dataclass
class Tampered:
    """A log of 60 events without triggers."""

    url: URL
    server: PostgresServer

    def damage(self, *statements: str) -> None:
        """Change the database as whoever owns it can."""
        self.server.run(*statements, url=self.url)

    async def verify(self) -> Verification:
        """Verify the whole log."""
        rows = open_rows(self.url)
        try:
            return await VerifyLog(SQLLogAudit(rows)).run()
        finally:
            await rows.aclose()


@pytest.fixture
async def log(postgres_url: URL, postgres: PostgresServer) -> Tampered:
    """Twelve sessions of five events, sound before anything is done to them."""
    ids = CountingIds()
    await ensure_postgres_log(postgres_url, ids)
    store = PostgresEventStore(postgres_url, clock=FakeClock(), ids=ids)
    for number in range(EVENTS // 5):
        await store.append(f"session-{number}", five_events(number), expected_version=0, context=CONTEXT)
    await store.aclose()
    tampered = Tampered(postgres_url, postgres)
    tampered.damage(DROP_TRIGGERS)
    assert (await tampered.verify()).sound
    return tampered


@pytest.mark.parametrize(
    ("statements", "position"),
    [
        *(([statement], 23) for statement in HEADER_CHANGES),
        (["DELETE FROM event_headers WHERE position = 20"], 20),
        ([f"DELETE FROM event_headers WHERE position = {EVENTS}"], EVENTS),
        (["TRUNCATE event_headers"], 1),
        (["UPDATE event_payloads SET payload = set_byte(payload, 9, 33) WHERE position = 37"], 37),
        (["UPDATE event_payloads SET salt = set_byte(salt, 31, get_byte(salt, 31) # 1) WHERE position = 37"], 37),
        (["UPDATE event_payloads SET encoding = 'jsom' WHERE position = 37"], 37),
        (["INSERT INTO event_payloads SELECT 99, encoding, salt, payload FROM event_payloads WHERE position = 1"], 99),
        (["UPDATE log_head SET root = set_byte(root, 0, get_byte(root, 0) # 1)"], EVENTS),
        (["UPDATE log_head SET frontier = set_byte(frontier, 0, get_byte(frontier, 0) # 1)"], 1),
        (["UPDATE log_head SET position = position - 1"], EVENTS),
        (["DELETE FROM log_head"], 1),
        ([f"UPDATE event_headers SET position = {b} WHERE position = {a}" for a, b in ((7, 99), (9, 7), (99, 9))], 7),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
async def test_what_was_changed_is_found(log: Tampered, statements: list[str], position: int) -> None:
    """Every column of a header, payloads, salts, the head, rows gone, moved or added: the named range holds it."""
    log.damage(*statements)
    result = await log.verify()
    assert not result.sound
    assert any(finding.position <= position <= finding.last_position for finding in result.findings)


async def test_erased_payloads_are_no_failure(log: Tampered) -> None:
    """The log still verifies without what was destroyed, and says how many there are."""
    log.damage("DELETE FROM event_payloads WHERE position IN (2, 3, 9)")
    result = await log.verify()
    assert (result.sound, result.erased) == (True, 3)
