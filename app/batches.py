"""Files and batches put together: what their owners do with them, and what works batches off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from manent.adapters.store.database import open_subscription_engine
from manent.adapters.store.file_content import SQLFileContent
from manent.adapters.store.sql import SQLEventStore
from manent.app.settings import Settings
from manent.app.system import RandomIds
from manent.domain.batch_work import BatchRequests
from manent.domain.files import FileContent, FileLimits
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.subscriptions import SubscriptionStore
from manent.domain.usecases.batch_grants import BatchGrants
from manent.domain.usecases.batch_records import BatchRecords
from manent.domain.usecases.key_table import KeyTable
from manent.domain.usecases.manage_batches import ManageBatches
from manent.domain.usecases.manage_files import ManageFiles
from manent.domain.usecases.work_batch import BatchPorts
from manent.domain.usecases.work_batches import BatchLimits, WorkBatches


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCases:
    """What owners do with files and batches, and what the work on them goes by."""

    store: EventStore
    files: ManageFiles
    batches: ManageBatches
    records: BatchRecords
    content: FileContent
    clock: Clock
    ids: Ids

    def working(
        self,
        settings: Settings,
        requests: BatchRequests,
        subscriptions: SubscriptionStore,
        keys: KeyTable | None = None,
        limits: BatchLimits | None = None,
    ) -> WorkBatches:
        """What works batches off; after a crash they rest as long as what it left open does."""
        working = WorkBatches(
            ports=BatchPorts(
                store=self.store,
                records=self.records,
                files=self.files,
                content=self.content,
                requests=requests,
                grants=BatchGrants(self.clock, keys),
                clock=self.clock,
                slots=asyncio.Semaphore(settings.batch_lines_max),
                lines_max=settings.batch_lines_max,
            ),
            directory=self.store.work,
            subscriptions=subscriptions,
            ids=self.ids,
            limits=limits or BatchLimits(ttl_s=settings.sweep_interval_s),
        )
        self.batches.observe(working.changed)
        return working


def build_batch_cases(
    settings: Settings, store: EventStore, content: FileContent, *, clock: Clock, ids: Ids
) -> BatchCases:
    """Files and batches over the given adapters."""
    files = ManageFiles(
        store=store,
        directory=store.work,
        content=content,
        clock=clock,
        ids=ids,
        limits=FileLimits(
            bytes_max=settings.file_bytes_max,
            files_max=settings.files_max,
            owner_bytes_max=settings.files_bytes_max,
        ),
        every_s=settings.sweep_interval_s,
    )
    records = BatchRecords(store)
    batches = ManageBatches(
        store=store,
        directory=store.work,
        records=records,
        files=files,
        clock=clock,
        ids=ids,
        open_max=settings.batches_open_max,
    )
    return BatchCases(store=store, files=files, batches=batches, records=records, content=content, clock=clock, ids=ids)


@asynccontextmanager
async def batch_cases(settings: Settings, store: SQLEventStore, clock: Clock) -> AsyncGenerator[BatchCases, None]:
    """The files and batches of the log in ``store``, for as long as the context lasts; nobody works on them here."""
    engine = open_subscription_engine(settings.database)
    try:
        content = SQLFileContent(engine, store.work, clock=clock)
        yield build_batch_cases(settings, store, content, clock=clock, ids=RandomIds())
    finally:
        await engine.dispose()
