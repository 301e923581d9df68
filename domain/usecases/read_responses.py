"""Responses in the log: one by its id, what it was asked, deleting it."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.errors import (
    CompletionNotFound,
    ContentErased,
    SessionBusy,
    SessionClosed,
    SessionGone,
    SessionNotFound,
    VersionConflict,
)
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    CompletionRequested,
    ErasedEvent,
    MessageAppended,
    completion_stream,
    session_stream,
)
from manent.domain.generation import FinishReason
from manent.domain.messages import Message
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventHeader
from manent.domain.response_errors import ResponseNotFound
from manent.domain.response_events import ResponseDeleted
from manent.domain.responses import RESPONSE_IDS, ResponseDetails, ResponseStatus
from manent.domain.session import SessionState, check_usable
from manent.domain.session_upkeep import check_readable
from manent.domain.streams import StreamBuffer, StreamKey
from manent.domain.usecases.find_completion import OUTCOMES, FindCompletion, FoundRequest
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.manage_sessions import ManageSessions
from manent.domain.usecases.running import RunningCompletion
from manent.domain.usecases.sessions import Sessions, context_of
from manent.domain.usecases.stream_records import stream_records

POLL_S = 0.2
POSSIBLE_ID = re.compile(RESPONSE_IDS + r"[A-Za-z0-9]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedResponse:
    """A response as the log has it.

    ``ended_version`` is that of its session once all that it says is in it; it and ``outcome`` are None until then.
    One that was asked for in the background is queued until it ``began`` to say something.
    """

    header: EventHeader
    requested: CompletionRequested
    details: ResponseDetails
    session_id: str
    outcome: CompletionOutcome | None
    ended_version: int | None
    began: bool = True

    @property
    def response_id(self) -> str:
        """Its id."""
        return self.requested.completion_id

    @property
    def status(self) -> ResponseStatus:
        """How it stands."""
        if self.outcome is None and self.details.background and not self.began:
            return ResponseStatus.QUEUED
        return status_of(self.outcome)


def status_of(outcome: CompletionOutcome | None) -> ResponseStatus:
    """How a response stands that ended so; None where it began and did not end yet."""
    match outcome:
        case None:
            return ResponseStatus.IN_PROGRESS
        case CompletionGenerated(finish_reason=FinishReason.LENGTH):
            return ResponseStatus.INCOMPLETE
        case CompletionGenerated():
            return ResponseStatus.COMPLETED
        case CompletionCancelled(reason=reason) if reason != "shutting_down":
            return ResponseStatus.CANCELLED
        case CompletionCancelled() | CompletionFailed():
            return ResponseStatus.FAILED


class ReadResponses:
    """What can be done with a response once it was accepted."""

    def __init__(
        self,
        *,
        store: EventStore,
        sessions: Sessions,
        completions: FindCompletion,
        manage: ManageSessions,
        live: LiveCompletions,
        streams: StreamBuffer,
        clock: Clock,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._completions = completions
        self._manage = manage
        self._live = live
        self._streams = streams
        self._clock = clock

    async def get(self, principal: Principal, response_id: str) -> RecordedResponse:
        """A response as it stands.

        Raises:
            ResponseNotFound: it was not stored, was deleted, or ``principal`` may not read it.
            ContentErased: what the log had of it was erased.
        """
        found = await self._recorded(principal, response_id)
        return replace(found, began=found.outcome is not None or await self._began(principal, found))

    async def _recorded(self, principal: Principal, response_id: str) -> RecordedResponse:
        found = await self._request(principal, response_id)
        details, session_id = found.requested.response, found.requested.session_id
        if details is None or session_id is None:
            raise _not_found(response_id)
        state = await self._sessions.load(principal.tenant, session_id)
        try:
            check_readable(state, principal, now_us=self._clock.now_us())
        except (SessionNotFound, SessionGone):
            raise _not_found(response_id) from None
        outcome, ended_version = await self._end(found)
        return RecordedResponse(
            header=found.header,
            requested=found.requested,
            details=details,
            session_id=session_id,
            outcome=outcome,
            ended_version=ended_version,
        )

    async def ended(self, principal: Principal, response_id: str) -> RecordedResponse:
        """The response once it ended, wherever it runs; raises as ``get``."""
        while (found := await self._recorded(principal, response_id)).outcome is None:
            await self._clock.sleep(POLL_S)
        return found

    def running(self, principal: Principal, response_id: str) -> RunningCompletion | None:
        """The response where it runs in this process."""
        return self._live.find(principal.tenant, response_id)

    async def _began(self, principal: Principal, found: RecordedResponse) -> bool:
        """Whether a response that did not end has said anything; what nobody waits for in the background always has."""
        if not found.details.background:
            return True
        running = self.running(principal, found.response_id)
        if running is not None:
            return running.began
        return bool(await self._streams.read(StreamKey(tenant=principal.tenant, completion_id=found.response_id), 0))

    async def input(self, principal: Principal, response_id: str) -> tuple[Message, ...]:
        """The messages of the conversation that the model saw, oldest first; instructions are none of them.

        Raises:
            ResponseNotFound, ContentErased: as ``get``.
        """
        found = await self.get(principal, response_id)
        seen = await self._completions.seen(principal, FoundRequest(header=found.header, requested=found.requested))
        return seen.messages if found.requested.instructions is None else seen.messages[1:]

    async def delete(self, principal: Principal, response_id: str, *, request_id: str | None) -> None:
        """Have a response told no more. The last one of a chain takes the chain's session with it.

        Raises:
            ResponseNotFound: it is not ``principal``'s.
            SessionBusy: it is being generated.
        """
        found = await self.get(principal, response_id)
        state = await self.usable(principal, found)
        if found.outcome is None:
            raise SessionBusy(f"response {response_id!r} is in progress; cancel it, or wait for its end")
        event = ResponseDeleted(
            response_id=response_id,
            session_id=found.session_id,
            deleted_by=principal.subject,
            deleted_at_us=self._clock.now_us(),
        )
        context = context_of(principal, request_id=request_id, causation_id=response_id)
        try:
            await self._store.append(completion_stream(response_id), [event], expected_version=0, context=context)
        except VersionConflict:
            raise _not_found(response_id) from None
        if state.open_completion_id is None and await self._is_left_behind(principal.tenant, found.session_id):
            await self._manage.delete(principal, found.session_id, request_id=request_id)

    async def _is_left_behind(self, tenant: str, session_id: str) -> bool:
        """Whether a session is nothing but responses that were deleted."""
        records = stream_records(self._store, tenant, session_stream(session_id))
        async with aclosing(records):
            async for recorded in records:
                if isinstance(recorded.event, CompletionRequested):
                    details = recorded.event.response
                    if details is None or details.in_conversation:
                        return False
                    if not await self._is_deleted(tenant, recorded.event.completion_id):
                        return False
        return True

    async def _is_deleted(self, tenant: str, response_id: str) -> bool:
        own = await self._store.read_stream(tenant, completion_stream(response_id), limit=1)
        return bool(own) and (isinstance(own[0].event, ResponseDeleted) or own[0].header.type == "ResponseDeleted")

    async def usable(self, principal: Principal, found: RecordedResponse) -> SessionState:
        """The session of a response that ``principal`` may change; raises ResponseNotFound to everybody else."""
        state = await self._sessions.load(principal.tenant, found.session_id)
        try:
            check_usable(state, principal, now_us=self._clock.now_us())
        except (SessionNotFound, SessionClosed, SessionGone):
            raise _not_found(found.response_id) from None
        return state

    async def _request(self, principal: Principal, response_id: str) -> FoundRequest:
        if not POSSIBLE_ID.fullmatch(response_id) or await self._is_deleted(principal.tenant, response_id):
            raise _not_found(response_id)
        try:
            return await self._completions.request(principal, response_id)
        except CompletionNotFound:
            raise _not_found(response_id) from None

    async def _end(self, found: FoundRequest) -> tuple[CompletionOutcome | None, int | None]:
        header, response_id = found.header, found.requested.completion_id
        outcome: CompletionOutcome | None = None
        version = header.stream_version
        records = stream_records(self._store, header.tenant, header.stream_id, after_version=version)
        async with aclosing(records):
            async for recorded in records:
                event = recorded.event
                if outcome is not None:
                    said = isinstance(event, MessageAppended) and event.completion_id == response_id
                    return outcome, version + 1 if said else version
                version = recorded.header.stream_version
                if isinstance(event, ErasedEvent) and event.type in OUTCOMES:
                    raise ContentErased(f"the end of response {response_id!r} was erased")
                if isinstance(event, CompletionOutcome):
                    outcome = event
        return outcome, None if outcome is None else version


def _not_found(response_id: str) -> ResponseNotFound:
    return ResponseNotFound(f"Response with id '{response_id[:160]}' not found.")
