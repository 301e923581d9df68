"""Creating a response: where in the log it belongs, and the completion that it is.

With a conversation it is a completion of that session. Without one it begins a session, its chain, or goes on with
that of the response before it: in the same session where nothing came behind that one, else in a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from manent.domain.access import Principal, may_use
from manent.domain.errors import InvalidValue, PreconditionFailed, SessionBusy
from manent.domain.messages import Message
from manent.domain.ports import Clock, Ids, InferenceEngine
from manent.domain.reconcile import SessionMode
from manent.domain.response_errors import PreviousResponseNotFound, ResponseNotFound
from manent.domain.responses import RESPONSE_IDS, ResponseDetails
from manent.domain.session import SessionState, SessionStatus, check_usable
from manent.domain.session_upkeep import ExpectedVersion
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.count_prompt import count_prompt
from manent.domain.usecases.fork_session import ForkSession
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.read_responses import ReadResponses, RecordedResponse
from manent.domain.usecases.replay import AsOf, Replay
from manent.domain.usecases.resolve_items import Part, ResolveItems
from manent.domain.usecases.running import RunningCompletion
from manent.domain.usecases.sessions import Sessions

Began = Callable[[RunningCompletion], None]
"""Told of a response that begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCommand:
    """A request for a response.

    ``chat`` has everything but messages, which are the items ``parts``; its ``session_id`` is the conversation, which
    has to exist unless it ``may_start``. Without ``store`` nothing of it can be asked for again.
    """

    chat: ChatCommand
    parts: Sequence[Part]
    details: ResponseDetails
    may_start: bool = False
    store: bool = True


class CreateResponse:
    """Starts responses, and counts what they would begin with."""

    def __init__(
        self,
        *,
        chat: CompleteChat,
        sessions: Sessions,
        responses: ReadResponses,
        items: ResolveItems,
        replay: Replay,
        fork: ForkSession,
        live: LiveCompletions,
        engine: InferenceEngine,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._chat = chat
        self._sessions = sessions
        self._responses = responses
        self._items = items
        self._replay = replay
        self._fork = fork
        self._live = live
        self._engine = engine
        self._clock = clock
        self._ids = ids

    async def start(self, command: ResponseCommand, began: Began) -> RunningCompletion:
        """Start a response; on return it is accepted and recorded.

        ``began`` is told of it before that: from then on it has one reader, whom the caller is to have leave it. It is
        told once more where a fork has to be begun instead.

        Raises:
            SessionNotFound, SessionClosed, SessionGone: the conversation is not there.
            PreviousResponseNotFound: the response that is to be gone on from is not there.
            InvalidValue: items or parameters cannot be what they are.
            DomainError: as ``RunningCompletion.accepted``.
        """
        command = replace(command, chat=replace(command.chat, completion_id=self._ids.new(RESPONSE_IDS)))
        by = command.chat.principal
        if command.chat.session_id is not None:
            state = await self._conversation(by, command.chat.session_id, may_start=command.may_start)
            return await self._accepted(self._in_session(command, await self._said(command, state.messages)), began)
        previous = await self._previous(command)
        past = None if previous is None else await self._past(by, previous)
        messages = await self._said(command, () if past is None else past.messages)
        if not command.store:
            return await self._accepted(self._alone(command, past, messages), began)
        chat = self._in_session(command, messages)
        if previous is None or past is None:
            return await self._accepted(replace(chat, session_id=self._ids.new("sess_")), began)
        return await self._continued(chat, previous, past, began)

    async def count_input(self, command: ResponseCommand) -> int:
        """How many tokens the model would be given; raises as ``start``, and records nothing."""
        by, chat = command.chat.principal, command.chat
        past: SessionState | None = None
        if chat.session_id is not None:
            past = await self._conversation(by, chat.session_id, may_start=False)
        elif (previous := await self._previous(command)) is not None:
            past = await self._past(by, previous)
        said = await self._said(command, () if past is None else past.messages)
        messages = self._alone(command, past, said).messages
        if not messages:
            raise InvalidValue("input is empty; send at least one item", param="input")
        return await count_prompt(self._engine, by, chat.model, messages, shape=chat.parameters.shape)

    async def _continued(
        self, chat: ChatCommand, previous: RecordedResponse, past: SessionState, began: Began
    ) -> RunningCompletion:
        by, session_id = chat.principal, previous.session_id
        now = await self._sessions.load(by.tenant, session_id)
        is_own = may_use(by, tenant=now.tenant, owner=now.owner)
        goes_on = now.version == past.version and not previous.details.in_conversation
        if is_own and goes_on and not self._is_busy(by.tenant, session_id):
            expected = ExpectedVersion.of(past.version)
            with suppress(PreconditionFailed, SessionBusy):  # somebody else was faster: that is a fork
                return await self._accepted(replace(chat, session_id=session_id, expected=expected), began)
        await self._fork.check_depth(past)
        return await self._accepted(replace(chat, session_id=self._ids.new("sess_"), past=past), began)

    def _is_busy(self, tenant: str, session_id: str) -> bool:
        """Whether a completion of the session runs here, or waits for its turn."""
        return any(running.tenant == tenant and running.session_id == session_id for running in self._live)

    async def _accepted(self, chat: ChatCommand, began: Began) -> RunningCompletion:
        running = self._chat.start(chat)
        began(running)
        await running.accepted()
        return running

    def _in_session(self, command: ResponseCommand, messages: tuple[Message, ...]) -> ChatCommand:
        return replace(command.chat, messages=messages, session_mode=SessionMode.APPEND, response=command.details)

    def _alone(self, command: ResponseCommand, past: SessionState | None, messages: tuple[Message, ...]) -> ChatCommand:
        """Without a session, the model is simply given everything."""
        instructions = () if command.chat.instructions is None else (command.chat.instructions,)
        before = () if past is None else tuple(past.messages)
        return replace(command.chat, messages=(*instructions, *before, *messages), instructions=None)

    async def _said(self, command: ResponseCommand, past: Sequence[Message]) -> tuple[Message, ...]:
        return await self._items.run(command.chat.principal, command.parts, past)

    async def _conversation(self, by: Principal, session_id: str, *, may_start: bool) -> SessionState:
        state = await self._sessions.load(by.tenant, session_id)
        if not (may_start and state.status is SessionStatus.ABSENT):
            check_usable(state, by, now_us=self._clock.now_us())
        return state

    async def _previous(self, command: ResponseCommand) -> RecordedResponse | None:
        wanted = command.details.previous_response_id
        if wanted is None:
            return None
        try:
            found = await self._responses.get(command.chat.principal, wanted)
        except ResponseNotFound:
            raise PreviousResponseNotFound(f"Previous response with id '{wanted[:160]}' not found.") from None
        if found.ended_version is None:
            raise InvalidValue(
                f"response {wanted!r} is still in progress; wait for its end to go on from it",
                param="previous_response_id",
            )
        return found

    async def _past(self, by: Principal, previous: RecordedResponse) -> SessionState:
        return await self._replay.at(by, previous.session_id, AsOf(version=previous.ended_version))
