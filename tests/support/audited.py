"""A small real log on SQLite with its key and checkpoints, and ways to damage it behind every trigger's back."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from manent.adapters.merkle.signer import FileSigner
from manent.adapters.store.audit import SQLLogAudit
from manent.adapters.store.checkpoints import SQLCheckpoints
from manent.adapters.store.rows import SQLiteRows
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.domain.events import DomainEvent
from manent.domain.records import EventContext
from manent.domain.transparency import KeptCheckpoint, TreeHead
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from manent.domain.usecases.prove_log import ProveLog
from manent.domain.usecases.verify_log import Verification, VerifyLog
from tests.support.conversation import generated, requested, said, started
from tests.support.database import empty_database
from tests.support.fakes import CountingIds, FakeClock

CONTEXT = EventContext(tenant="acme", actor="ann", request_id="r1", correlation_id="k1", causation_id="c0")


def five_events(number: int) -> list[DomainEvent]:
    """A session with one completion."""
    return [
        started(),
        said("user", f"hello {number}"),
        requested(f"c{number}"),
        generated(f"hi {number}", f"c{number}"),
        said("assistant", f"hi {number}"),
    ]


@dataclass
class Audited:
    """A log in a folder."""

    folder: Path
    clock: FakeClock

    @property
    def path(self) -> Path:
        """The database."""
        return self.folder / "manent.db"

    @property
    def keys(self) -> Path:
        """The signer's folder, outside the database."""
        return self.folder / "keys"

    @property
    def _signed(self) -> bool:
        return self.keys.exists()

    async def converse(self, sessions: int, *, first: int = 0) -> None:
        """Sessions of five events each."""
        store = SQLiteEventStore(self.path, clock=self.clock, ids=CountingIds() if not first else ShiftedIds(first))
        for number in range(first, first + sessions):
            self.clock.advance(0.001)
            await store.append(f"session-{number}", five_events(number), expected_version=0, context=CONTEXT)
        await store.aclose()

    async def checkpoint(self) -> KeptCheckpoint:
        """Sign the log as it stands."""
        rows = SQLiteRows(self.path)
        store = SQLiteEventStore(self.path, clock=self.clock, ids=CountingIds())
        kept = SQLCheckpoints(rows)
        try:
            signer = FileSigner(self.keys, await kept.log_id())
            return await IssueCheckpoint(store=store, signer=signer, kept=kept, clock=self.clock).run()
        finally:
            await rows.aclose()
            await store.aclose()

    async def tree_head(self, size: int) -> TreeHead:
        """The tree of the first events."""
        store = SQLiteEventStore(self.path, clock=self.clock, ids=CountingIds())
        try:
            return await ProveLog(store).tree_head(size)
        finally:
            await store.aclose()

    async def verify(self, *, saved: TreeHead | None = None, remembered: bool = True) -> Verification:
        """Verify the log, with the key and the signer's memory or without."""
        rows = SQLiteRows(self.path)
        try:
            audit, kept = SQLLogAudit(rows), SQLCheckpoints(rows)
            if not remembered or not self._signed:
                return await VerifyLog(audit).run(saved=saved)
            signer = self._signer()
            last = await signer.last()
            known = [] if last is None else [last]
            return await VerifyLog(audit, kept=kept, verifier=signer).run(saved=saved, known=known)
        finally:
            await rows.aclose()

    def _signer(self) -> FileSigner:
        return FileSigner(self.keys, next(self.keys.glob("*.checkpoint")).stem)

    def damage(self, *statements: str) -> None:
        """Run statements with every trigger out of the way."""
        with sqlite3.connect(self.path) as connection:
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                connection.execute(statement)
        connection.close()


class ShiftedIds(CountingIds):
    """Ids that do not repeat those of an earlier store."""

    def __init__(self, start: int) -> None:
        super().__init__()
        for _ in range(start * 1000):
            self.seed()


async def new_log(folder: Path, *, sessions: int) -> Audited:
    """A log of ``sessions`` conversations."""
    await asyncio.to_thread(folder.mkdir)
    log = Audited(folder, FakeClock())
    empty_database(log.path)
    await ensure_log(log.path, CountingIds())
    await log.converse(sessions)
    return log
