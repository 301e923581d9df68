"""Verification, checkpoints and proofs on every database: the same words, the same findings."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL

from manent.adapters.merkle.signer import FileSigner
from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.checkpoints import SQLCheckpoints
from manent.adapters.store.codec import header_bytes
from manent.adapters.store.database import open_node
from manent.adapters.store.open_rows import open_rows
from manent.adapters.store.rows import Rows
from manent.domain.errors import InvalidValue
from manent.domain.events import DomainEvent
from manent.domain.merkle import leaf_hash, verify_consistency, verify_inclusion
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from manent.domain.usecases.prove_log import ProveLog
from manent.domain.usecases.verify_log import Verification, VerifyLog
from tests.support.conversation import generated, requested, said, started
from tests.support.fakes import CountingIds, FakeClock

CONTEXT = EventContext(tenant="acme", actor='änn "\\"\t\u2028', request_id="r1")
SESSIONS = 60


@dataclass
class World:
    """A log of 300 events, and plain rows of it."""

    store: EventStore
    rows: Rows
    folder: Path

    async def signer(self) -> FileSigner:
        """The log's signer."""
        return FileSigner(self.folder / "keys", await SQLCheckpoints(self.rows).log_id())

    async def issuing(self) -> IssueCheckpoint:
        """Checkpoints of the log."""
        kept = SQLCheckpoints(self.rows)
        return IssueCheckpoint(store=self.store, signer=await self.signer(), kept=kept, clock=FakeClock())

    async def verify(self) -> Verification:
        """What verification finds."""
        signer = await self.signer()
        last = await signer.last()
        verifying = VerifyLog(SQLLogAudit(self.rows), kept=SQLCheckpoints(self.rows), verifier=signer)
        return await verifying.run(known=[] if last is None else [last])

    async def damage(self, table: str, statement: str) -> None:
        """Change what triggers protect."""
        if self.rows.dialect == "postgresql":
            await self.rows.fetch(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        else:
            for (name,) in await self.rows.fetch("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                await self.rows.fetch(f"DROP TRIGGER {name}")
        await self.rows.fetch(statement)


@pytest.fixture
async def world(database: Path | URL, tmp_path: Path) -> AsyncGenerator[World, None]:
    """The same log on one of the databases."""
    store, rows = await open_node(database, clock=FakeClock(), ids=CountingIds()), open_rows(database)
    for number in range(SESSIONS):
        completion = f"c{number}"
        events: list[DomainEvent] = [
            started(),
            said("user", "é"),
            requested(completion),
            generated("hi", completion),
            said("user", "x"),
        ]
        await store.append(f"session-{number}", events, expected_version=0, context=CONTEXT)
    yield World(store, rows, tmp_path)
    await rows.aclose()
    await store.aclose()


async def test_a_sound_log_is_found_sound(world: World) -> None:
    """Escapes and non-ASCII included; the root is the store's own."""
    result = await world.verify()
    assert result.findings == []
    assert result.tree.root == (await world.store.head()).root
    assert (result.tree.size, result.open_completions, result.erased) == (5 * SESSIONS, 0, 0)


async def test_checkpoints_are_issued_once_for_each_size_and_kept(world: World) -> None:
    """A log that did not grow has one checkpoint, the first; pages go by size."""
    issuing = await world.issuing()
    first = await issuing.run()
    assert await issuing.run() == first
    await world.store.append("session-x", [started()], expected_version=0, context=CONTEXT)
    second = await issuing.run()
    assert await issuing.page(after_size=-1, limit=1) == ([first], True)
    assert await issuing.page(after_size=first.size, limit=1) == ([second], False)
    assert (await world.verify()).checkpoints == 3
    for limit in (0, 1001):
        with pytest.raises(InvalidValue, match="limit"):
            await issuing.page(after_size=0, limit=limit)


async def test_proofs_hold_at_every_size(world: World) -> None:
    """Inclusion and consistency, also across stored nodes; what the log has not is refused."""
    proofs = ProveLog(world.store)
    for position, size in ((1, 1), (1, 300), (256, 256), (257, 257), (300, 300), (13, 299)):
        proof = await proofs.inclusion(position, size=size)
        leaf = leaf_hash(header_bytes((await proofs.entry(position)).header))
        assert verify_inclusion(leaf, position - 1, size, proof.hashes, proof.tree.root)
    for old, new in ((0, 300), (1, 300), (255, 256), (256, 257), (300, 300), (0, 0)):
        shown = await proofs.consistency(old, new=new)
        assert verify_consistency(old, new, shown.hashes, shown.old.root, shown.new.root)
    for position, size in ((0, 5), (6, 5), (1, 301)):
        with pytest.raises(InvalidValue):
            await proofs.inclusion(position, size=size)
    with pytest.raises(InvalidValue):
        await proofs.consistency(5, new=4)


@pytest.mark.parametrize(
    ("table", "statement", "first", "last"),
    [
        ("event_headers", "UPDATE event_headers SET actor = 'eve' WHERE position = 290", 289, 296),
        ("event_headers", "UPDATE event_headers SET actor = 'eve' WHERE position = 7", 1, 256),
        ("event_headers", "UPDATE event_headers SET stream_version = 9 WHERE position = 299", 299, 299),
        ("event_headers", "DELETE FROM event_headers WHERE position = 9", 9, 9),
        ("event_headers", "UPDATE event_headers SET recorded_at_us = 1 WHERE position = 300", 300, 300),
        ("event_payloads", "UPDATE event_payloads SET payload = salt WHERE position = 8", 8, 8),
        ("event_payloads", "UPDATE event_payloads SET encoding = 'xml' WHERE position = 8", 8, 8),
        ("tree_nodes", "UPDATE tree_nodes SET level = 16", 1, 256),
        ("log_head", "UPDATE log_head SET recorded_at_us = 1", 300, 300),
    ],
)
async def test_damage_is_named(world: World, table: str, statement: str, first: int, last: int) -> None:
    """Each database tells the same."""
    await world.damage(table, statement)
    findings = [(finding.position, finding.last_position) for finding in (await world.verify()).findings]
    assert (first, last) in findings
