"""Batches, for their owners: made, looked at, called off; to everybody else they are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from manent.domain.access import Principal, may_use
from manent.domain.batch_events import BatchCreated, BatchGrant, batch_stream
from manent.domain.batch_work import WorkDirectory
from manent.domain.batches import (
    BATCH_ID,
    WINDOW_S,
    BatchNotFound,
    BatchState,
    TooManyBatches,
    check_endpoint,
    check_window,
    decide_cancel,
)
from manent.domain.errors import InvalidValue
from manent.domain.files import BATCH_INPUT, check_expiry
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.session_limits import check_metadata
from manent.domain.usecases.batch_records import BatchRecords
from manent.domain.usecases.manage_files import ManageFiles
from manent.domain.usecases.sessions import context_of


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWish:
    """A batch that is to be made."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_expires_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    """A page of batches; ``has_more`` tells whether others follow in the asked order."""

    batches: Sequence[BatchState]
    has_more: bool


class ManageBatches:
    """What owners do with their batches. Who works on them is told of each by ``observe``."""

    def __init__(
        self,
        *,
        store: EventStore,
        directory: WorkDirectory,
        records: BatchRecords,
        files: ManageFiles,
        clock: Clock,
        ids: Ids,
        open_max: int = 100,
    ) -> None:
        self._store = store
        self._directory = directory
        self._records = records
        self._files = files
        self._clock = clock
        self._ids = ids
        self._open_max = open_max
        self._observers: list[Callable[[], None]] = []

    def observe(self, observer: Callable[[], None]) -> None:
        """Have ``observer`` called after each change."""
        self._observers.append(observer)

    async def create(self, principal: Principal, wish: BatchWish, *, request_id: str | None = None) -> BatchState:
        """Make a batch; its input is looked at in the background.

        Raises:
            FileNotFound: the input file is not there for ``principal``.
            InvalidValue: something of the wish is wrong, the file's purpose too.
            TooManyBatches: as many of its batches have not ended as may be.
        """
        check_endpoint(wish.endpoint)
        check_window(wish.completion_window)
        check_metadata(wish.metadata)
        check_expiry(wish.output_expires_after_s, param="output_expires_after.seconds")
        kept = await self._files.get(principal, wish.input_file_id)
        if kept.added.purpose != BATCH_INPUT:
            raise InvalidValue(
                f"file {wish.input_file_id} is for {kept.added.purpose!r}; a batch needs one for {BATCH_INPUT!r}",
                param="input_file_id",
            )
        waiting = await self._directory.count_open(principal.tenant, principal.subject)
        if waiting >= self._open_max:
            raise TooManyBatches(f"{waiting} of your batches have not ended; wait for one, or cancel one")
        now_us = self._clock.now_us()
        created = BatchCreated(
            batch_id=self._ids.new("batch_"),
            owner=principal.subject,
            grant=BatchGrant(
                credential_id=principal.credential_id,
                scopes=tuple(sorted(principal.scopes)),
                models=principal.models,
                limits=principal.limits,
            ),
            input_file_id=wish.input_file_id,
            output_file_id=self._ids.new("file-"),
            error_file_id=self._ids.new("file-"),
            endpoint=wish.endpoint,
            completion_window=wish.completion_window,
            metadata=dict(wish.metadata),
            output_expires_after_s=wish.output_expires_after_s,
            expires_at_us=now_us + WINDOW_S * 1_000_000,
            created_at_us=now_us,
        )
        context = context_of(principal, request_id=request_id, correlation_id=created.batch_id)
        await self._store.append(batch_stream(created.batch_id), [created], expected_version=0, context=context)
        self._changed()
        return BatchState(tenant=principal.tenant, created=created)

    async def get(self, principal: Principal, batch_id: str) -> BatchState:
        """A batch.

        Raises:
            BatchNotFound: there is none with this id for ``principal``.
        """
        if not BATCH_ID.fullmatch(batch_id):
            raise BatchNotFound(f"no batch {batch_id!r:.100} was found")
        state = await self._records.load(principal.tenant, batch_id)
        if not may_use(principal, tenant=state.tenant, owner=state.created.owner):
            raise BatchNotFound(f"no batch {batch_id!r:.100} was found")
        return state

    async def page(self, principal: Principal, *, after: str | None, limit: int, descending: bool = True) -> BatchPage:
        """A page, the newest first unless asked otherwise.

        Raises:
            InvalidValue: ``after`` is no batch of theirs.
        """
        tenant, owner, position = principal.tenant, principal.subject, None
        if after is not None and BATCH_ID.fullmatch(after):
            position = await self._directory.place(tenant, owner, after)
        if after is not None and position is None:
            raise InvalidValue(f"after is {after!r:.100}, which is no batch of yours", param="after")
        found = await self._directory.batches(
            tenant, owner, after_position=position, limit=limit + 1, descending=descending
        )
        batches = [await self._records.load(tenant, batch_id) for _, batch_id in found[:limit]]
        return BatchPage(batches=batches, has_more=len(found) > limit)

    async def cancel(self, principal: Principal, batch_id: str, *, request_id: str | None = None) -> BatchState:
        """Call a batch off; what is answered stays.

        Raises:
            BatchNotFound: as ``get``; BatchIsOver: nothing is left to call off.
        """
        state = await self.get(principal, batch_id)
        context = context_of(principal, request_id=request_id, correlation_id=batch_id)
        by, now_us = principal.subject, self._clock.now_us()
        state = await self._records.record(state, lambda seen: decide_cancel(seen, by=by, now_us=now_us), context)
        self._changed()
        return state

    def _changed(self) -> None:
        for observer in self._observers:
            observer()
