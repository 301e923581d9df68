"""A completion in the log, by its id: who asked for what, what the model saw of it, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import get_args

from manent.domain.access import Principal, may_audit, note_reading
from manent.domain.completion_input import DroppedMessages
from manent.domain.errors import CompletionNotFound, ContentErased, ContentNotRecorded, SessionNotFound
from manent.domain.events import (
    CompletionOutcome,
    CompletionRequested,
    ErasedEvent,
    completion_stream,
)
from manent.domain.messages import Message
from manent.domain.ports import EventStore
from manent.domain.prompts import TextPrompt
from manent.domain.records import EventFilter, EventHeader, RecordedEvent
from manent.domain.response_events import ResponseDeleted
from manent.domain.usecases.replay import AsOf, Replay
from manent.domain.usecases.stream_records import stream_records

OUTCOMES = frozenset(outcome.__name__ for outcome in get_args(CompletionOutcome))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRequest:
    """The request of a completion, and its place in the log."""

    header: EventHeader
    requested: CompletionRequested


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenMessages:
    """``messages`` in the order in which the model saw them, ``dropped`` to fit its window; or a ``prompt`` alone."""

    messages: tuple[Message, ...]
    dropped: tuple[Message, ...]
    prompt: TextPrompt | None = None


class FindCompletion:
    """Reads completions, for whoever may."""

    def __init__(self, *, store: EventStore, replay: Replay) -> None:
        self._store = store
        self._replay = replay

    async def request(self, principal: Principal, completion_id: str) -> FoundRequest:
        """What was asked for.

        Raises:
            CompletionNotFound: there is none with this id for this principal.
            ContentErased: what was asked for was erased.
        """
        found = await self._find(principal.tenant, completion_id)
        if found is None or not isinstance(found.event, CompletionRequested | ErasedEvent):
            raise _not_found(completion_id)
        erased = isinstance(found.event, ErasedEvent)
        in_session = found.header.stream_id != completion_stream(completion_id)
        own = found.header.actor == principal.subject
        # A session's completions are judged by the session's owner, in ``seen``.
        if (erased or not in_session) and not own and not may_audit(principal, tenant=found.header.tenant):
            raise _not_found(completion_id)
        if isinstance(found.event, ErasedEvent):
            raise ContentErased(f"the request of completion {completion_id!r} was erased")
        return FoundRequest(header=found.header, requested=found.event)

    async def seen(self, principal: Principal, found: FoundRequest) -> SeenMessages:
        """What the model saw.

        Raises:
            CompletionNotFound: its session is not there for this principal.
            ContentNotRecorded: it is recorded without its words, or (ContentErased) they were erased.
            SessionGone: its session expired, and ``principal`` is no auditor.
        """
        requested = found.requested
        if requested.session_id is None:
            await note_reading(principal, resource=found.header.stream_id, owner=found.header.actor)
        if requested.prompt is not None:
            if requested.prompt.content is None:
                raise _not_recorded(requested)
            return SeenMessages(messages=(), dropped=(), prompt=requested.prompt.content)
        if requested.session_id is None:
            return SeenMessages(messages=_recorded_input(requested), dropped=())
        instructions = () if requested.instructions is None else (requested.instructions,)
        at = AsOf(version=found.header.stream_version)
        try:
            messages = (await self._replay.at(principal, requested.session_id, at)).messages
        except SessionNotFound:
            raise _not_found(requested.completion_id) from None
        if requested.context is None:
            return SeenMessages(messages=(*instructions, *messages), dropped=())
        return SeenMessages(
            messages=(*instructions, *_chosen(messages, requested.context.message_ids)),
            dropped=_left_out(messages, requested.context.dropped),
        )

    async def outcome(self, found: FoundRequest) -> CompletionOutcome | None:
        """How it ended; None where it did not yet. A session has one open completion at a time.

        Raises:
            ContentErased: the event that says it was erased.
        """
        header = found.header
        records = stream_records(self._store, header.tenant, header.stream_id, after_version=header.stream_version)
        async with aclosing(records):
            async for recorded in records:
                if isinstance(recorded.event, ErasedEvent) and recorded.event.type in OUTCOMES:
                    raise ContentErased(f"the end of completion {found.requested.completion_id!r} was erased")
                if isinstance(recorded.event, CompletionOutcome):
                    return recorded.event
        return None

    async def _find(self, tenant: str, completion_id: str) -> RecordedEvent | None:
        alone = await self._store.read_stream(tenant, completion_stream(completion_id), limit=1)
        if alone and not isinstance(alone[0].event, ResponseDeleted):
            return alone[0]
        position = await self._store.find_completion(tenant, completion_id)
        if position is None:
            return None
        (entry,) = await self._store.query(EventFilter(), after_position=position - 1, limit=1)
        header = entry.header
        (recorded,) = await self._store.read_stream(
            tenant, header.stream_id, after_version=header.stream_version - 1, limit=1
        )
        return recorded


def _not_found(completion_id: str) -> CompletionNotFound:
    return CompletionNotFound(f"no completion {completion_id[:160]!r} was found")


def _recorded_input(requested: CompletionRequested) -> tuple[Message, ...]:
    messages = tuple(message.content for message in requested.input if message.content is not None)
    if len(messages) < len(requested.input) or not messages:
        raise _not_recorded(requested)
    return messages


def _not_recorded(requested: CompletionRequested) -> ContentNotRecorded:
    return ContentNotRecorded(
        f"completion {requested.completion_id!r} was recorded without its content; use a session, send store: true "
        "or set MANENT_RECORD=content to have it recorded"
    )


def _chosen(messages: Sequence[Message], message_ids: Sequence[str]) -> tuple[Message, ...]:
    known = {message.message_id: message for message in messages}
    missing = [message_id for message_id in message_ids if message_id not in known]
    if missing:
        raise ContentErased(f"the content of message {missing[0]!r} is not in the log any more: it was erased")
    return tuple(known[message_id] for message_id in message_ids)


def _left_out(messages: Sequence[Message], dropped: DroppedMessages | None) -> tuple[Message, ...]:
    if dropped is None:
        return ()
    ids = [message.message_id for message in messages]
    start = ids.index(dropped.first_message_id) if dropped.first_message_id in ids else len(ids)
    found = tuple(messages[start : start + dropped.count])
    if len(found) != dropped.count or found[-1].message_id != dropped.last_message_id:
        raise ContentErased("the content of a message that was left out is not in the log any more: it was erased")
    return found
