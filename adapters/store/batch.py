"""A batch of appends, judged one by one against the head of the log; pure, and the same for every database.

The database hands in where the log and the streams stand, and writes what the batch then holds, in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from manent.adapters.store.codec import JSON_ENCODING, header_bytes
from manent.adapters.store.records import (
    Draft,
    Place,
    closed_completions,
    draft_events,
    model_of,
    opened_completions,
    place_headers,
)
from manent.adapters.store.session_index import Statement, index_statements
from manent.domain.errors import DomainError, VersionConflict
from manent.domain.events import DomainEvent
from manent.domain.merkle import STORED_LEVEL_STEP, Frontier, leaf_hash
from manent.domain.ports import Ids
from manent.domain.records import Appended, EventContext, EventHeader, IdempotencyKey, OpenCompletion

StreamKey = tuple[str, str]
"""Tenant and stream id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendRequest:
    """One append, encoded and waiting to be judged."""

    stream_id: str
    drafts: list[Draft]
    expected_version: int
    context: EventContext
    idempotency: IdempotencyKey | None

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
        return cls(
            stream_id=stream_id,
            drafts=draft_events(events, ids),
            expected_version=expected_version,
            context=context,
            idempotency=idempotency,
        )

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
    """The appends that were admitted, as rows to write; each verdict is an Appended or why it was refused."""

    head: Head
    now_us: int
    versions: dict[StreamKey, int]
    kept_answers: Mapping[tuple[str, str], KeptAnswer]
    verdicts: list[Appended | DomainError] = field(default_factory=list)
    headers: list[EventHeader] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    nodes: list[tuple[int, int, bytes]] = field(default_factory=list)
    models: list[tuple[str, int]] = field(default_factory=list)
    opened: list[tuple[OpenCompletion, int]] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    answers: dict[tuple[str, str], KeptAnswer] = field(default_factory=dict)

    def judge(self, request: AppendRequest) -> None:
        """Admit ``request`` behind what was admitted before, or note why not."""
        try:
            self.verdicts.append(self._admit(request))
        except DomainError as refusal:
            self.verdicts.append(refusal)

    def _admit(self, request: AppendRequest) -> Appended:
        kept = self._kept_answer(request.idempotency)
        if kept is not None:
            return kept
        version = self.versions.get(request.stream, 0)
        if version != request.expected_version:
            raise VersionConflict(
                f"stream {request.stream_id!r} is at version {version}, not {request.expected_version}"
            )
        # The clock may be set back; times in the log never run backwards, so that a range of times is a range of it.
        recorded_at_us = max(self.now_us, self.head.recorded_at_us)
        place = Place(
            log_id=self.head.log_id,
            position=self.head.frontier.size + 1,
            stream_version=version + 1,
            recorded_at_us=recorded_at_us,
        )
        headers = place_headers(request.drafts, place, request.stream_id, request.context)
        self._write(request, headers)
        frontier = self.head.frontier.extended([leaf_hash(header_bytes(header)) for header in headers], self._keep_node)
        self.head = Head(log_id=self.head.log_id, recorded_at_us=recorded_at_us, frontier=frontier)
        self.versions[request.stream] = version + len(headers)
        appended = Appended(position=frontier.size, stream_version=version + len(headers))
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

    def _write(self, request: AppendRequest, headers: list[EventHeader]) -> None:
        tenant, stream_id = request.stream
        events = [draft.event for draft in request.drafts]
        self.headers += headers
        self.drafts += request.drafts
        named = [(model_of(event), header.position) for event, header in zip(events, headers, strict=True)]
        self.models += [(model_id, position) for model_id, position in named if model_id is not None]
        for completion_id in opened_completions(events):
            opened = OpenCompletion(tenant=tenant, stream_id=stream_id, completion_id=completion_id)
            self.opened.append((opened, headers[-1].position))
        self.closed += [(tenant, completion_id) for completion_id in closed_completions(events)]

    def _keep_node(self, level: int, index: int, node: bytes) -> None:
        if level % STORED_LEVEL_STEP == 0:
            self.nodes.append((level, index, node))


def session_statements(batch: Batch) -> list[Statement]:
    """What the batch changes in the tables that list sessions."""
    return index_statements(zip(batch.headers, (draft.event for draft in batch.drafts), strict=True))


def payload_rows(batch: Batch) -> list[tuple[int, str, bytes, bytes]]:
    """Position, encoding, salt and payload of each admitted event."""
    return [
        (header.position, JSON_ENCODING, draft.salt, draft.encoded.payload)
        for header, draft in zip(batch.headers, batch.drafts, strict=True)
    ]
