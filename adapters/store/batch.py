"""A batch of appends, judged one by one against the head of the log; pure, and the same for every database.

The database hands in where the log and the streams stand, and writes what the batch then holds, in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import msgspec

from manent.adapters.store.codec import JSON_ENCODING, HeaderRow, header_row_bytes
from manent.adapters.store.records import Draft, draft_events, model_of
from manent.adapters.store.session_index import IndexedEvent, Placed, Statement, index_statements
from manent.adapters.store.stored_index import StoredEvent, concerns_stored, stored_statements
from manent.adapters.store.work_index import WorkEvent, work_statements
from manent.domain.errors import DomainError, VersionConflict
from manent.domain.events import CompletionOutcome, CompletionRequested, DomainEvent
from manent.domain.merkle import STORED_LEVEL_STEP, Frontier, leaf_hash
from manent.domain.ports import Ids
from manent.domain.records import Appended, EventContext, IdempotencyKey, OpenCompletion
from manent.domain.replay_events import RerunEnded, RerunStarted

StreamKey = tuple[str, str]
"""Tenant and stream id."""

# What a record takes in memory beside its payload: a draft, a header, a place in the queue.
RECORD_BYTES = 1024
# Most events are in no look-up table but that of models: what opens or closes what runs, what is always listed, and
# what is, where it is stored.
_RUNS = frozenset({CompletionRequested, *get_args(CompletionOutcome), RerunStarted, RerunEnded})
_LISTED = frozenset(get_args(IndexedEvent | WorkEvent))
_STORED = frozenset(get_args(StoredEvent))


class AppendRequest(msgspec.Struct, frozen=True, gc=False):
    """One append, encoded and waiting to be judged; ``size_bytes`` is about what it takes in memory."""

    stream_id: str
    drafts: list[Draft]
    expected_version: int
    context: EventContext
    idempotency: IdempotencyKey | None
    size_bytes: int

    @classmethod
    def of(
        cls,
        stream_id: str,
        events: Sequence[DomainEvent],
        *,
        expected_version: int,
        context: EventContext,
        idempotency: IdempotencyKey | None,
        ids: Ids,
    ) -> AppendRequest:
        """Encode and digest ``events``, before any database is touched; EventTooLarge beyond the bounds."""
        drafts = draft_events(events, ids)
        size_bytes = RECORD_BYTES * len(drafts)
        for draft in drafts:
            size_bytes += len(draft.payload)
        return cls(stream_id, drafts, expected_version, context, idempotency, size_bytes)

    @property
    def stream(self) -> StreamKey:
        """Where the events go."""
        return self.context.tenant, self.stream_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the log stands."""

    log_id: str
    recorded_at_us: int
    frontier: Frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """What an idempotency key was answered with: the digest of its request and where the append landed."""

    request_digest: str
    appended: Appended
    recorded_at_us: int


@dataclass(slots=True)
class Batch:
    """The appends that were admitted, as rows to write; each verdict is an Appended or why it was refused.

    ``head`` and ``versions`` are where the log and its streams stand behind them, once all are judged.
    """

    head: Head
    now_us: int
    versions: dict[StreamKey, int]
    kept_answers: Mapping[tuple[str, str], KeptAnswer]
    verdicts: list[Appended | DomainError] = field(default_factory=list)
    headers: list[HeaderRow] = field(default_factory=list)
    payloads: list[tuple[int, str, bytes, bytes]] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    nodes: list[tuple[int, int, bytes]] = field(default_factory=list)
    models: list[tuple[str, int]] = field(default_factory=list)
    opened: list[tuple[OpenCompletion, int]] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    in_sessions: list[tuple[str, str, int]] = field(default_factory=list)
    indexed: list[tuple[Placed, DomainEvent]] = field(default_factory=list)
    answers: dict[tuple[str, str], KeptAnswer] = field(default_factory=dict)

    @property
    def last_event(self) -> tuple[int, str]:
        """Position and id of the last event that was admitted: where the log holds it, it holds them all."""
        return self.head.frontier.size, self.drafts[-1].event_id

    def judge(self, requests: Iterable[AppendRequest]) -> None:
        """Admit each of ``requests`` behind what was admitted before, or note why not; then grow the tree."""
        # The clock may be set back; times in the log never run backwards, so that a range of times is a range of it.
        recorded_at_us = max(self.now_us, self.head.recorded_at_us)
        for request in requests:
            try:
                self.verdicts.append(self._admit(request, recorded_at_us))
            except DomainError as refusal:
                self.verdicts.append(refusal)
        if self.headers:
            leaves = [leaf_hash(header_row_bytes(row)) for row in self.headers]
            frontier = self.head.frontier.extended(leaves, self._keep_node)
            self.head = Head(log_id=self.head.log_id, recorded_at_us=recorded_at_us, frontier=frontier)

    def session_statements(self) -> list[Statement]:
        """What the batch changes in the tables that list sessions, stored completions, files and batches."""
        events = self.indexed
        return [*index_statements(events), *stored_statements(events), *work_statements(events)] if events else []

    def _admit(self, request: AppendRequest, recorded_at_us: int) -> Appended:
        kept = self._kept_answer(request.idempotency)
        if kept is not None:
            return kept
        stream = request.stream
        version = self.versions.get(stream, 0)
        if version != request.expected_version:
            raise VersionConflict(
                f"stream {request.stream_id!r} is at version {version}, not {request.expected_version}"
            )
        last = self.head.frontier.size + len(self.headers) + len(request.drafts)
        self._place(request, recorded_at_us, version)
        self.versions[stream] = version = version + len(request.drafts)
        last_event_id = request.drafts[-1].event_id if request.drafts else ""
        appended = Appended(position=last, stream_version=version, last_event_id=last_event_id)
        if request.idempotency is not None:
            key = request.idempotency
            self.answers[key.place] = KeptAnswer(
                request_digest=key.request_digest, appended=appended, recorded_at_us=recorded_at_us
            )
        return appended

    def _kept_answer(self, key: IdempotencyKey | None) -> Appended | None:
        if key is None:
            return None
        kept = self.answers.get(key.place) or self.kept_answers.get(key.place)
        if kept is None:
            return None
        key.check_same_request(kept.request_digest)
        return kept.appended.as_repeated()

    def _place(self, request: AppendRequest, recorded_at_us: int, version: int) -> None:
        """The rows of an append that is admitted."""
        context, log_id, stream_id = request.context, self.head.log_id, request.stream_id
        position = self.head.frontier.size + len(self.headers)
        last = position + len(request.drafts)
        for draft in request.drafts:
            position += 1
            version += 1
            row: HeaderRow = (
                context.actor,
                context.causation_id,
                context.correlation_id,
                draft.event_id,
                log_id,
                draft.payload_digest,
                position,
                recorded_at_us,
                context.request_id,
                draft.schema_version,
                stream_id,
                version,
                context.tenant,
                draft.type,
            )
            self.headers.append(row)
            self.payloads.append((position, JSON_ENCODING, draft.salt, draft.payload))
            model_id = model_of(draft.event)
            if model_id is not None:
                self.models.append((model_id, position))
            kind = type(draft.event)
            if kind in _RUNS:
                self._open_or_close(request, draft.event, position, last)
            if kind in _LISTED or (kind in _STORED and concerns_stored(draft.event)):
                self.indexed.append((Placed(context.tenant, position, context.actor, version), draft.event))
        self.drafts += request.drafts

    def _open_or_close(self, request: AppendRequest, event: DomainEvent, position: int, last: int) -> None:
        """What an event changes in the tables of what runs; ``last`` is its append's last position."""
        tenant, stream_id = request.stream
        if isinstance(event, CompletionRequested):
            opened = OpenCompletion(tenant=tenant, stream_id=stream_id, completion_id=event.completion_id)
            self.opened.append((opened, last))
            if event.session_id is not None:
                self.in_sessions.append((tenant, event.completion_id, position))
        elif isinstance(event, CompletionOutcome):
            self.closed.append((tenant, event.completion_id))
        elif isinstance(event, RerunStarted):
            opened = OpenCompletion(tenant=tenant, stream_id=stream_id, completion_id=event.rerun_id)
            self.opened.append((opened, last))
        elif isinstance(event, RerunEnded):
            self.closed.append((tenant, event.rerun_id))

    def _keep_node(self, level: int, index: int, node: bytes) -> None:
        if level % STORED_LEVEL_STEP == 0:
            self.nodes.append((level, index, node))
