"""The life of a rerun: its turns one after another, each an ordinary completion in the fork's stream, and its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from manent.domain.access import Principal
from manent.domain.errors import (
    CompletionCancelledError,
    DomainError,
    EngineBusy,
    InternalError,
    InvalidValue,
    SessionBusy,
    ShuttingDown,
    StoreUnavailable,
)
from manent.domain.events import CompletionGenerated, SessionEvent
from manent.domain.generation import RequestedParameters, Truncation
from manent.domain.messages import Message
from manent.domain.ports import Clock, Ids
from manent.domain.reconcile import SessionMode
from manent.domain.records import EventContext, IdempotencyKey
from manent.domain.replay_events import RerunEnded
from manent.domain.rerun_plan import RerunPlan, RerunTurn
from manent.domain.session import SessionState, appended, check_usable
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.answered import Answered
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.end_rerun import EndRerun
from manent.domain.usecases.running_reruns import RunningRerun, RunningReruns
from manent.domain.usecases.sessions import Sessions

BUSY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0, 30.0, 30.0)
DEFAULT_MODEL = "default"
_NAMES = (
    *("temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "stop_token_ids", "seed", "logit_bias"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty"),
)
"""Parameters that a rerun may name; what it does not name is as it was recorded."""
_AS_RECORDED = ("logprobs", "top_logprobs", "deterministic", "shape")

_log = logging.getLogger("manent.reruns")


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunCommand:
    """A wish to have what follows ``from_version`` generated again.

    ``model`` None is the model that answered each turn, and what ``parameters`` leaves open is as it was recorded.
    """

    principal: Principal
    session_id: str
    from_version: int
    model: str | None = None
    parameters: RequestedParameters = field(default_factory=RequestedParameters)
    rerun_session_id: str | None = None
    request_id: str | None = None
    idempotency: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A rerun that was recorded, and all that its task needs."""

    command: RerunCommand
    plan: RerunPlan
    completions: Mapping[str, Answered]
    running: RunningRerun
    context: EventContext


class RunRerun:
    """Generates what a rerun asks for, through the one path that every completion takes."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        chat: CompleteChat,
        ending: EndRerun,
        reruns: RunningReruns,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._sessions = sessions
        self._chat = chat
        self._ending = ending
        self._reruns = reruns
        self._clock = clock
        self._ids = ids

    async def live_through(self, work: Rerun) -> None:
        """Wait for room, generate, and record how it ended."""
        error: DomainError | None = None
        try:
            await self._reruns.turn_to_run()
            try:
                await self._generate(work)
            finally:
                self._reruns.end_turn()
        except DomainError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 (the boundary: logged in full, and recorded as a defect)
            _log.exception("rerun %s ended in a defect", work.running.rerun_id)
            error = InternalError(f"internal error ({type(failure).__name__}) in {work.running.rerun_id}")
        try:
            await self._ending.run(self._ended(work, error), context=work.context)
        except DomainError as failure:
            _log.error("the end of rerun %s could not be recorded: %s", work.running.rerun_id, failure.message)

    def _ended(self, work: Rerun, error: DomainError | None) -> RerunEnded:
        status = "completed" if error is None else "interrupted" if isinstance(error, ShuttingDown) else "failed"
        return RerunEnded(
            session_id=work.running.session_id,
            rerun_id=work.running.rerun_id,
            status=status,
            turns_done=work.running.turns_done,
            code=None if error is None else error.code,
            reason=None if error is None else error.message,
            ended_at_us=self._clock.now_us(),
        )

    async def _generate(self, work: Rerun) -> None:
        work.running.started = True
        for turn in work.plan.turns:
            generated = await self._answer(work, self._asked(work, turn))
            work.running.turns_done += 1
            if generated.tool_calls and (turn is not work.plan.turns[-1] or work.plan.rest):
                raise _unanswered(generated, number=work.running.turns_done)
        if work.plan.rest:
            await self._say(work, self._renamed(work.plan.rest))

    async def _answer(self, work: Rerun, command: ChatCommand) -> CompletionGenerated:
        """One turn, tried again while there is no room for it; what was accepted is never repeated."""
        busy: DomainError | None = None
        for delay_s in (0.0, *BUSY_DELAYS_S):
            if delay_s:
                await self._reruns.pause(self._clock.sleep(delay_s))
            completion = self._chat.start(command)
            try:
                await completion.accepted()
            except (EngineBusy, SessionBusy, StoreUnavailable) as error:
                busy = error
                continue
            work.running.completion_id = completion.completion_id
            try:
                return await completion.generated()
            except CompletionCancelledError:
                if completion.stop_reason == "shutting_down":
                    raise ShuttingDown("the server shut down before the rerun was finished") from None
                raise
        raise busy or EngineBusy("there was no room for the next turn")

    async def _say(self, work: Rerun, messages: tuple[Message, ...]) -> None:
        """Append what follows the last answer."""
        by, session_id = work.command.principal, work.running.session_id

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            now_us = self._clock.now_us()
            check_usable(state, by, now_us=now_us)
            return appended(session_id, messages, by=by, now_us=now_us)

        await self._sessions.decide_and_record(by.tenant, session_id, decide, context=work.context)

    def _asked(self, work: Rerun, turn: RerunTurn) -> ChatCommand:
        command, before = work.command, work.completions.get(turn.answer.message_id)
        return ChatCommand(
            principal=command.principal,
            model=model_of(command, before),
            messages=self._renamed(turn.messages),
            parameters=_parameters(command.parameters, before),
            session_id=work.running.session_id,
            session_mode=SessionMode.APPEND,
            truncation=Truncation.DISABLED if before is None else before.truncation,
            max_tokens_shrinks=command.parameters.max_tokens is None and before is not None,
            keeps_results=True,
            instructions=None if before is None else before.instructions,
            within_limits=False,  # what was begun is finished; whoever asked for it pays with the next request
            request_id=command.request_id,
            correlation_id=work.running.rerun_id,
        )

    def _renamed(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The same words under new ids: they are messages of another session."""
        return tuple(replace(message, message_id=self._ids.new("msg_")) for message in messages)


def model_of(command: RerunCommand, before: Answered | None) -> str:
    """The model that answers a turn."""
    return command.model or (DEFAULT_MODEL if before is None else before.model_id)


def _parameters(asked: RequestedParameters, before: Answered | None) -> RequestedParameters:
    """What was asked for and, where it is silent, what was recorded."""
    if before is None:
        return asked
    then = before.parameters
    named = {name: value for name in _NAMES if (value := getattr(asked, name)) not in (None, (), {})}
    recorded = {name: getattr(then, name) for name in (*_NAMES, *_AS_RECORDED)}
    return RequestedParameters(**{**recorded, **named})


def _unanswered(generated: CompletionGenerated, *, number: int) -> InvalidValue:
    names = ", ".join(sorted({call.name for call in generated.tool_calls}))
    return InvalidValue(
        f"answer {number} of the rerun calls {names}, where the original did not, and nobody runs tools here; "
        "it ends there"
    )
