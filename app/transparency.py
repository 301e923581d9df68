"""The log's provable side put together: the key in the home, checkpoints beside the log, and the timer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from manent.adapters.merkle.signer import FileSigner
from manent.adapters.store.checkpoints import SQLCheckpoints
from manent.adapters.store.open_rows import open_rows
from manent.app.background import end
from manent.app.settings import Settings
from manent.domain.errors import DomainError
from manent.domain.ports import Clock, EventStore
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from manent.domain.usecases.prove_log import ProveLog

_log = logging.getLogger("manent.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transparency:
    """What proves the log to outsiders."""

    proofs: ProveLog
    checkpoints: IssueCheckpoint
    signer: FileSigner
    kept: SQLCheckpoints


@asynccontextmanager
async def provable(settings: Settings, store: EventStore, clock: Clock) -> AsyncGenerator[Transparency, None]:
    """The provable side of the log in ``store``, for as long as the context lasts.

    Raises:
        KeyUnusable: the signing key cannot be read or made.
        StoreUnavailable: the database does not answer.
    """
    rows = open_rows(settings.database)
    try:
        kept = SQLCheckpoints(rows)
        signer = await asyncio.to_thread(FileSigner, settings.keys_folder, await kept.log_id())
        checkpoints = IssueCheckpoint(store=store, signer=signer, kept=kept, clock=clock)
        yield Transparency(proofs=ProveLog(store), checkpoints=checkpoints, signer=signer, kept=kept)
    finally:
        await rows.aclose()


@asynccontextmanager
async def issuing(checkpoints: IssueCheckpoint, interval_s: float) -> AsyncGenerator[None, None]:
    """Issue a checkpoint now and every ``interval_s``, as long as the context lasts."""
    timer = asyncio.create_task(checkpoints.run_every(interval_s, failed=_tell), name="checkpoints")
    try:
        yield
    finally:
        await end(timer)


def _tell(error: DomainError) -> None:
    _log.error("no checkpoint was issued (%s): %s", error.code, error.message)
