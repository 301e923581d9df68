"""Accepting a completion: history reconciled, context chosen, prompt rendered, and all of it recorded, once."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.admission import Priority
from manent.domain.commitments import SaltedDigest
from manent.domain.completion_input import ContextUsed, InputMessage, InputPrompt
from manent.domain.errors import InvalidValue, SessionBusy, VersionConflict
from manent.domain.events import (
    CompletionRequested,
    MessageAppended,
    SessionEvent,
    completion_stream,
)
from manent.domain.generation import ModelCard, RequestedParameters, SamplingParameters, Truncation
from manent.domain.made_often import made_often
from manent.domain.messages import Message
from manent.domain.ports import Clock, EventStore, Ids, InferenceEngine
from manent.domain.prompts import TextPrompt
from manent.domain.reconcile import SessionMode, reconcile
from manent.domain.records import IdempotencyKey, OpenCompletion
from manent.domain.responses import ResponseDetails
from manent.domain.session import SessionState, SessionStatus, check_usable, decide_request, decide_start
from manent.domain.session_fold import fold
from manent.domain.session_limits import check_metadata, check_session_id
from manent.domain.session_upkeep import ExpectedVersion
from manent.domain.telemetry import Stage
from manent.domain.tool_messages import check_results
from manent.domain.usecases.close_completion import CloseCompletion
from manent.domain.usecases.model_view import Asked, ModelView, View, with_instructions, without_instructions
from manent.domain.usecases.prepared import Prepared, Repeated
from manent.domain.usecases.running import Accepted, RunningCompletion
from manent.domain.usecases.sessions import Sessions, context_of


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCommand:
    """A request for a chat completion, in the domain's words.

    ``store_content`` has the content of a completion without a session recorded; a session's always is.
    ``max_tokens_shrinks`` takes max_tokens for an upper bound, which the window's room may lower. ``keeps_results``
    takes tools' results as they are: those of a rerun answer the calls of another session. With a ``prompt`` there are
    no messages: it is continued as it stands. ``address`` is where the request came from; without ``within_limits`` it
    is counted, and not refused for what was counted before. The model sees ``instructions`` before a session;
    ``past`` is what a new session is to be a fork of. Responses bring ``completion_id`` and ``response``.
    """

    principal: Principal
    model: str
    messages: tuple[Message, ...]
    parameters: RequestedParameters
    session_id: str | None = None
    session_mode: SessionMode = SessionMode.AUTO
    truncation: Truncation = Truncation.DISABLED
    max_tokens_shrinks: bool = False
    keeps_results: bool = False
    address: str | None = None
    within_limits: bool = True
    store_content: bool = False
    stream: bool = False
    priority: Priority = Priority.INTERACTIVE
    timeout_s: float | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    idempotency: IdempotencyKey | None = None
    expected: ExpectedVersion | None = None
    completion_id: str | None = None
    response: ResponseDetails | None = None
    instructions: Message | None = None
    past: SessionState | None = None
    prompt: TextPrompt | None = None


class AcceptCompletion:
    """Records CompletionRequested, together with the session events that it brings."""

    def __init__(
        self,
        *,
        store: EventStore,
        sessions: Sessions,
        engine: InferenceEngine,
        closing: CloseCompletion,
        clock: Clock,
        ids: Ids,
        live: Container[str],
        record_content: bool,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._engine = engine
        self._closing = closing
        self._clock = clock
        self._ids = ids
        self._live = live
        self._record_content = record_content
        self._view = ModelView(engine, new_seed=ids.seed)

    async def alone(self, running: RunningCompletion, command: ChatCommand) -> Prepared | None:
        """Accept a completion without a session; None where its client left before anything was recorded."""
        check_metadata(command.metadata or {})
        check_results((), command.messages)
        card = self._engine.resolve(running.place.model_id)
        asked = _asked(command, tenant=None)
        said: TextPrompt | None = None
        if command.prompt is None:
            view = await running.unless_stopped(self._view.of(card, command.messages, asked))
        else:
            view, said = await running.unless_stopped(self._view.of_prompt(card, command.prompt, asked))
        if running.stop_reason is not None:
            return None
        recorded = tuple([self._input(message, command) for message in command.messages])
        requested = self._requested(running, command, card, view, context=None, recorded=recorded)
        if said is not None:
            requested = replace(requested, prompt=self._prompt(said, command))
        running.timeline.lap(Stage.CONTEXT)
        appended = await self._store.append(
            completion_stream(running.completion_id),
            [requested],
            expected_version=0,
            context=context_of(command.principal, request_id=command.request_id, correlation_id=command.correlation_id),
            idempotency=command.idempotency,
        )
        if appended.repeated:
            raise Repeated(appended)
        return Prepared(
            accepted=Accepted(
                requested=requested,
                stream_version=appended.stream_version,
                prompt_text=(said and said.text) or "",
            ),
            prompt=view.prompt,
            parameters=view.parameters,
            record_content=self._records_content(command),
        )

    async def in_session(self, running: RunningCompletion, command: ChatCommand, session_id: str) -> Prepared | None:
        """Accept a completion in a session, started here if it is new; None where its client left before.

        Raises:
            SessionNotFound, SessionClosed, SessionGone, SessionBusy, PreconditionFailed, HistoryConflict,
            ContextLengthExceeded, InvalidValue,
            ModelNotFound, ModelLoadError, EngineBusy, EngineUnavailable, StoreUnavailable: nothing was recorded.
        """
        check_session_id(session_id)
        _check_one_answer(command)
        check_metadata(command.metadata or {})
        card = self._engine.resolve(running.place.model_id)
        decided: list[tuple[CompletionRequested, View]] = []

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            await self._close_interrupted(state, command.principal)
            history = self._history(state, command)
            state_then = fold(state, history)
            kept = len(state_then.messages) - sum(isinstance(event, MessageAppended) for event in history)
            if not command.keeps_results:
                check_results(state_then.messages.truncated(kept), state_then.messages[kept:])
            asked = _asked(command, tenant=state.tenant)
            view = await running.unless_stopped(
                self._view.of(card, with_instructions(state_then.messages, command.instructions), asked)
            )
            if running.stop_reason is not None:
                return ()
            used = without_instructions(view.context, command.instructions)
            requested = self._requested(running, command, card, view, context=used, recorded=())
            decided.append((requested, view))
            running.timeline.lap(Stage.CONTEXT)
            return [*history, *decide_request(state_then, requested, by=command.principal)]

        context = context_of(command.principal, request_id=command.request_id, correlation_id=command.correlation_id)
        tenant, past = command.principal.tenant, None if command.past is None else command.past.messages
        after, appended = await self._sessions.decide_and_record(
            tenant, session_id, decide, context=context, idempotency=command.idempotency, past=past
        )
        if appended is None:
            return None
        if appended.repeated:
            raise Repeated(appended)
        requested, view = decided[-1]
        return Prepared(
            accepted=Accepted(requested=requested, stream_version=after.version),
            prompt=view.prompt,
            parameters=view.parameters,
            record_content=True,
        )

    async def _close_interrupted(self, state: SessionState, by: Principal) -> None:
        """Close a completion that nobody runs any more and that would block the session for ever.

        Raises:
            SessionBusy: it runs.
            VersionConflict: it was closed; the session is another one now.
        """
        if state.open_completion_id is None:
            return
        check_usable(state, by, now_us=self._clock.now_us())
        open_id = state.open_completion_id
        orphaned: Sequence[OpenCompletion] = ()
        if open_id not in self._live:
            orphaned = await self._store.orphaned_completions(completion_id=open_id)
        if not orphaned:
            raise SessionBusy(f"completion {open_id} of this session is still open")
        if await self._closing.close_interrupted(orphaned[0]):
            raise VersionConflict(f"completion {open_id} of session {state.session_id!r} was closed")

    def _history(self, state: SessionState, command: ChatCommand) -> list[SessionEvent]:
        now_us = self._clock.now_us()
        started: list[SessionEvent] = []
        if state.status is SessionStatus.ABSENT:
            parent, by = None if command.past is None else command.past.here, command.principal
            started = decide_start(state, metadata={}, ttl_s=None, messages=(), by=by, now_us=now_us, parent=parent)
        else:
            check_usable(state, command.principal, now_us=now_us)
        if command.expected is not None:
            command.expected.check(state)
        changed = reconcile(state, command.messages, mode=command.session_mode, by=command.principal, now_us=now_us)
        return [*started, *changed]

    def _records_content(self, command: ChatCommand) -> bool:
        wanted = command.session_id is not None or command.store_content or self._record_content
        return wanted or command.idempotency is not None  # a retry is answered from the record

    def _recorded_parameters(self, parameters: SamplingParameters, command: ChatCommand) -> SamplingParameters:
        if parameters.shape is None or self._records_content(command):
            return parameters
        return replace(parameters, shape=parameters.shape.without_content())

    def _input(self, message: Message, command: ChatCommand) -> InputMessage:
        return InputMessage(
            role=message.role,
            digest=SaltedDigest.of(message.committed_bytes, salt=self._ids.salt()),
            content=message if self._records_content(command) else None,
        )

    def _prompt(self, said: TextPrompt, command: ChatCommand) -> InputPrompt:
        return InputPrompt(
            digest=SaltedDigest.of((said.text or "").encode(), salt=self._ids.salt()),
            content=said if self._records_content(command) else None,
        )

    def _requested(
        self,
        running: RunningCompletion,
        command: ChatCommand,
        card: ModelCard,
        view: View,
        *,
        context: ContextUsed | None,
        recorded: tuple[InputMessage, ...],
    ) -> CompletionRequested:
        return CompletionRequested(
            completion_id=running.completion_id,
            session_id=running.session_id,
            model_asked=command.model,
            model_id=card.model_id,
            parameters=self._recorded_parameters(view.parameters, command),
            context=context,
            input=recorded,
            prompt_tokens=len(view.prompt.token_ids),
            prompt_digest=SaltedDigest.of(view.prompt.committed_bytes, salt=self._ids.salt()),
            stream=command.stream,
            user=command.user,
            metadata=dict(command.metadata or {}),
            requested_at_us=self._clock.now_us(),
            priority=command.priority,
            timeout_s=running.timeout_s,
            queue_wait_s=running.place.waited_s,
            instructions=None if context is None else command.instructions,
            response=command.response,
            stored=command.response is None and (command.store_content or running.session_id is not None),
        )


def _check_one_answer(command: ChatCommand) -> None:
    if command.parameters.n > 1:
        raise InvalidValue(
            f"n is {command.parameters.n}, but a session goes on with one answer; send n 1, or leave session_id out",
            param="n",
        )


def _asked(command: ChatCommand, *, tenant: str | None) -> Asked:
    return Asked(
        tenant=tenant,
        parameters=command.parameters,
        truncation=command.truncation,
        max_tokens_shrinks=command.max_tokens_shrinks,
    )
