"""Stored completions, for their owners: pages of them, one of them, its messages, its metadata, its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from manent.domain.access import Principal, may_use
from manent.domain.errors import (
    CompletionNotFound,
    ContentErased,
    DomainError,
    InvalidValue,
    SessionGone,
    StoreUnavailable,
    VersionConflict,
)
from manent.domain.events import CompletionCancelled, CompletionFailed, CompletionGenerated, CompletionRequested
from manent.domain.messages import Message
from manent.domain.ports import Clock, EventStore
from manent.domain.records import IdempotencyKey
from manent.domain.session_limits import check_metadata
from manent.domain.stored_completions import CompletionRunning, StoredCompletion, StoredFilter
from manent.domain.stored_events import (
    StoredCompletionChanged,
    StoredCompletionDeleted,
    StoredCompletionEvent,
    stored_stream,
)
from manent.domain.usecases.find_completion import FindCompletion
from manent.domain.usecases.sessions import context_of

CONFLICTS_MAX = 8
RUNNING_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuery:
    """What to list; ``after`` is a completion's id."""

    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    after: str | None = None
    limit: int = 20
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stored completion whose content is there."""

    requested: CompletionRequested
    generated: CompletionGenerated
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPage:
    """A page of stored completions; ``has_more`` tells whether others follow in the asked order."""

    completions: Sequence[Stored]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessages:
    """A page of the messages that a completion answered; ``has_more`` as in ``StoredPage``."""

    messages: Sequence[Message]
    has_more: bool


class StoredCompletions:
    """What an owner sees of the completions that were stored; to everybody else they are not there."""

    def __init__(self, *, store: EventStore, find: FindCompletion, clock: Clock) -> None:
        self._store = store
        self._find = find
        self._clock = clock

    async def page(self, principal: Principal, query: StoredQuery) -> StoredPage:
        """A page in the order in which the completions were asked for.

        Raises:
            InvalidValue: ``after`` is no completion of theirs, or no metadata is like what is asked for.
        """
        check_metadata(query.metadata)
        wanted = StoredFilter(
            tenant=principal.tenant, owner=principal.subject, model_id=query.model, metadata=query.metadata
        )
        position = None if query.after is None else await self._position(principal, query.after)
        found: list[Stored] = []
        while True:  # each round is behind the last one; a second is needed only where content was erased
            page = await self._store.stored.page(
                wanted, after_position=position, limit=query.limit + 1, descending=query.descending
            )
            found += [stored for stored in map(_with_content, page) if stored is not None]
            if len(found) > query.limit or len(page) <= query.limit:
                return StoredPage(completions=found[: query.limit], has_more=len(found) > query.limit)
            position = page[-1].position

    async def get(self, principal: Principal, completion_id: str) -> Stored:
        """One of them.

        Raises:
            CompletionNotFound: there is none with this id for ``principal``, it was deleted, or erased.
            CompletionRunning: it has not ended yet.
        """
        return self._shown(await self._own(principal, completion_id), completion_id)

    async def messages(
        self, principal: Principal, completion_id: str, *, after: str | None, limit: int, descending: bool
    ) -> StoredMessages:
        """A page of the messages that the model saw, in their order or backwards, behind message ``after``.

        Raises:
            CompletionNotFound: as ``get``.
            ContentErased: a message of it was erased.
            InvalidValue: ``after`` is no message of it.
        """
        await self.get(principal, completion_id)
        try:
            seen = await self._find.seen(principal, await self._find.request(principal, completion_id))
        except SessionGone:
            raise _not_found(completion_id) from None
        messages = seen.messages[::-1] if descending else seen.messages
        start = 0
        if after is not None:
            ids = [message.message_id for message in messages]
            if after not in ids:
                raise InvalidValue(f"after is {after!r}, which is no message of this completion", param="after")
            start = ids.index(after) + 1
        return StoredMessages(messages=messages[start : start + limit], has_more=len(messages) > start + limit)

    async def change(
        self,
        principal: Principal,
        completion_id: str,
        metadata: Mapping[str, str],
        *,
        request_id: str | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Stored:
        """Replace the metadata of one of them.

        Raises:
            CompletionNotFound: as ``get``.
            InvalidValue: no metadata is like that.
            StoreUnavailable: others kept changing it.
        """
        check_metadata(metadata)
        event = StoredCompletionChanged(
            completion_id=completion_id,
            metadata=dict(metadata),
            changed_by=principal.subject,
            changed_at_us=self._clock.now_us(),
        )
        before = await self._record(principal, event, request_id=request_id, idempotency=idempotency)
        return replace(before, metadata=event.metadata)

    async def delete(self, principal: Principal, completion_id: str, *, request_id: str | None = None) -> None:
        """Show one of them no more; the log keeps it. Raises as ``change``."""
        event = StoredCompletionDeleted(
            completion_id=completion_id, deleted_by=principal.subject, deleted_at_us=self._clock.now_us()
        )
        await self._record(principal, event, request_id=request_id)

    async def _record(
        self,
        principal: Principal,
        event: StoredCompletionEvent,
        *,
        request_id: str | None,
        idempotency: IdempotencyKey | None = None,
    ) -> Stored:
        context = context_of(principal, request_id=request_id, causation_id=event.completion_id)
        for _ in range(CONFLICTS_MAX):
            found = await self._own(principal, event.completion_id)
            try:
                await self._store.append(
                    stored_stream(event.completion_id),
                    [event],
                    expected_version=found.version,
                    context=context,
                    idempotency=idempotency,
                )
            except VersionConflict:
                continue
            return self._shown(found, event.completion_id)
        raise StoreUnavailable(f"completion {event.completion_id!r} was changed {CONFLICTS_MAX} times meanwhile")

    async def _own(self, principal: Principal, completion_id: str) -> StoredCompletion:
        found = await self._store.stored.find(principal.tenant, completion_id)
        if found is None:
            raise await self._why_not(principal, completion_id)
        if not may_use(principal, tenant=principal.tenant, owner=found.owner):
            raise _not_found(completion_id)
        return found

    async def _why_not(self, principal: Principal, completion_id: str) -> DomainError:
        """Why one is not there: for who asked for it, one that runs or that ended in an error is not just unknown."""
        try:
            found = await self._find.request(principal, completion_id)
            is_own = found.header.actor == principal.subject and found.requested.stored
            outcome = await self._find.outcome(found) if is_own else None
        except (CompletionNotFound, ContentErased):
            return _not_found(completion_id)
        if is_own and outcome is None:
            return CompletionRunning(
                f"completion {completion_id!r} has not ended; ask again, or follow it at "
                f"/v1/chat/completions/{completion_id}/stream",
                retry_after_s=RUNNING_RETRY_S,
            )
        match outcome:
            case CompletionFailed(code=code):
                return CompletionNotFound(f"completion {completion_id!r} was not stored: it ended in {code}")
            case CompletionCancelled(reason=reason):
                return CompletionNotFound(f"completion {completion_id!r} was not stored: it was cancelled ({reason})")
        return _not_found(completion_id)

    def _shown(self, found: StoredCompletion, completion_id: str) -> Stored:
        stored = _with_content(found)
        if stored is None:
            raise _not_found(completion_id)
        return stored

    async def _position(self, principal: Principal, completion_id: str) -> int:
        position = await self._store.stored.place(principal.tenant, principal.subject, completion_id)
        if position is None:
            raise InvalidValue(f"after is {completion_id!r}, which is no stored completion of yours", param="after")
        return position


def _with_content(found: StoredCompletion) -> Stored | None:
    """None where what was said is not in the log any more."""
    if not isinstance(found.requested, CompletionRequested) or not isinstance(found.generated, CompletionGenerated):
        return None
    return Stored(requested=found.requested, generated=found.generated, metadata=found.metadata)


def _not_found(completion_id: str) -> CompletionNotFound:
    return CompletionNotFound(f"no stored completion {completion_id[:160]!r} was found")
