"""A chat completion: accept, generate, close. Its task outlives the request that started it."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace

from manent.domain.caching import CacheScope
from manent.domain.embedding import CHAT_TYPES, check_type
from manent.domain.errors import CompletionCancelledError, DomainError, EngineUnavailable, InternalError
from manent.domain.events import (
    CompletionGenerated,
    CompletionOutcome,
)
from manent.domain.generation import GenerationRequest, GenerationResult, ModelCard, TextDelta
from manent.domain.model_access import models_to_try
from manent.domain.output_shape import OutputShape
from manent.domain.parameters import output_reserve_tokens
from manent.domain.ports import Clock, Ids, InferenceEngine
from manent.domain.records import Appended
from manent.domain.responses import CHAT_IDS, TEXT_IDS, answer_id
from manent.domain.streams import StreamBuffer, StreamKey
from manent.domain.telemetry import NO_TELEMETRY, Stage, Telemetry
from manent.domain.usecases.accept_completion import AcceptCompletion, ChatCommand
from manent.domain.usecases.close_completion import CloseCompletion
from manent.domain.usecases.count_requests import CountRequests, Reservation, estimated_tokens
from manent.domain.usecases.ending import Ending
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.measuring import completion_ended
from manent.domain.usecases.places import PlaceAtOneOf, PlaceWish
from manent.domain.usecases.prepared import Prepared, Repeated
from manent.domain.usecases.recent_completions import RecentCompletions
from manent.domain.usecases.repeat_completion import RepeatCompletion
from manent.domain.usecases.running import RunningCompletion
from manent.domain.usecases.sessions import context_of
from manent.domain.usecases.turns import Turns

_log = logging.getLogger("manent.completions")


class CompleteChat:
    """Starts completions and carries each to its one terminal event."""

    def __init__(
        self,
        *,
        accept: AcceptCompletion,
        repeat: RepeatCompletion,
        closing: CloseCompletion,
        engine: InferenceEngine,
        turns: Turns,
        live: LiveCompletions,
        clock: Clock,
        ids: Ids,
        counting: CountRequests,
        recent: RecentCompletions,
        buffer: StreamBuffer,
        timeout_max_s: float | None = None,
        alone_max_s: float | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self._accept = accept
        self._repeat = repeat
        self._closing = closing
        self._engine = engine
        self._turns = turns
        self._live = live
        self._clock = clock
        self._ids = ids
        self._counting = counting
        self._recent = recent
        self._buffer = buffer
        self._timeout_max_s = timeout_max_s
        self._alone_max_s = alone_max_s
        self._telemetry = telemetry

    def start(self, command: ChatCommand) -> RunningCompletion:
        """Start a completion in a task of its own; its ``accepted()`` tells whether it was accepted.

        With an idempotency key under which a completion runs already, that one is returned, with one more reader.

        Raises:
            ShuttingDown: the server drains.
            IdempotencyConflict: the key is in use for another request.
        """
        same = self._live.with_key(command.idempotency) if command.idempotency is not None else None
        if same is not None:
            same.join()
            return same
        running = RunningCompletion(
            completion_id=command.completion_id or self._ids.new(CHAT_IDS if command.prompt is None else TEXT_IDS),
            tenant=command.principal.tenant,
            subject=command.principal.subject,
            session_id=command.session_id,
            idempotency=command.idempotency,
            now_s=self._telemetry.now_s,
            timeout_s=_shorter(command.timeout_s, self._timeout_max_s),
            comes_back=command.stream,
        )
        self._live.run(running, self._kept(running, command))
        return running

    async def _kept(self, running: RunningCompletion, command: ChatCommand) -> None:
        """Live through it, and keep it for a reader who may have lost the connection before its end."""
        await self._live_through(running, command)
        if running.is_buffered:
            await self._buffer.end(StreamKey(tenant=running.tenant, completion_id=running.completion_id))
        if running.comes_back and running.request is not None:
            self._recent.keep(running)

    async def _live_through(self, running: RunningCompletion, command: ChatCommand) -> None:
        try:
            running.limit(running.timeout_s)
            if command.idempotency is not None:
                numbered, answered = await self._repeat.next_attempt(command.idempotency)
                if answered is not None:
                    await self._repeat.tell_again(running, answered)
                    return
                command = replace(command, idempotency=numbered)
            models = models_to_try(command.principal, command.model, self._engine.resolve)
            card = self._engine.resolve(models[0])
            check_type(command.model, card.type, *CHAT_TYPES)
            alone = command.parameters.deterministic
            wish = PlaceWish(priority=command.priority, alone=alone, gone=running.stop_requested)
            async with self._counted(running, command, card), self._turn(running):
                if running.session_id is not None:
                    running.timeline.lap(Stage.TURN)
                async with PlaceAtOneOf(self._engine, command.principal, models, wish) as running.place:
                    running.timeline.lap(Stage.QUEUE)
                    running.limit(self._alone_max_s if alone else None)
                    await self._accept_generate_close(running, command)
        except Repeated as repeated:
            await self._tell_again(running, repeated.appended)
        except DomainError as error:
            running.fail(running.deadline_error or error)
        except Exception as error:  # noqa: BLE001 (the boundary)
            # The boundary of a completion: a defect must reach its reader as an error, and the server's log in full.
            _log.exception("completion %s ended in a defect", running.completion_id)
            running.fail(InternalError(f"internal error ({type(error).__name__}) in {running.completion_id}"))
        finally:
            running.unlimited()
            self._telemetry.operation_ended(completion_ended(running, command))

    def _counted(
        self, running: RunningCompletion, command: ChatCommand, card: ModelCard
    ) -> AbstractAsyncContextManager[None]:
        """Have the completion counted until its end, in the limits of whoever asked for it and of its model."""
        output_tokens = min(output_reserve_tokens(card, command.parameters), card.context_length)
        running.reservation = Reservation(
            estimated_tokens(command.messages, output_tokens=output_tokens, choices=command.parameters.n)
        )
        return self._counting.completion(
            running.reservation,
            principal=command.principal,
            address=command.address,
            model_id=card.model_id,
            enforced=command.within_limits,
        )

    def _turn(self, running: RunningCompletion) -> AbstractAsyncContextManager[None]:
        """The turn of the session, if there is one."""
        if running.session_id is None:
            return nullcontext()
        return self._turns.take(running.tenant, running.session_id, gone=running.stop_requested)

    async def _tell_again(self, running: RunningCompletion, appended: Appended) -> None:
        """Another node accepted the same request between our look and our append."""
        try:
            await self._repeat.tell_again(running, appended)
        except DomainError as error:
            running.fail(running.deadline_error or error)

    async def _accept_generate_close(self, running: RunningCompletion, command: ChatCommand) -> None:
        prepared = await self._prepare(running, command)
        if prepared is None:
            raise CompletionCancelledError(f"cancelled before it was accepted ({running.stop_reason})")
        running.timeline.lap(Stage.APPEND)
        running.is_buffered = prepared.record_content
        running.accept(prepared.accepted)
        outcome, error = await self._generate(running, prepared)
        running.timeline.lap(Stage.DECODE if running.began else Stage.PREFILL)
        running.outcome = outcome
        if outcome.usage is not None:
            running.reservation.used_tokens = outcome.usage.total_tokens
        context = context_of(
            command.principal,
            request_id=command.request_id,
            correlation_id=command.correlation_id,
            causation_id=running.completion_id,
        )
        if not await self._closing.close(outcome, context=context):
            raise EngineUnavailable("the completion was closed by somebody else before it ended")
        running.timeline.lap(Stage.APPEND)
        if error is not None:
            raise error
        if isinstance(outcome, CompletionGenerated):
            running.finish(outcome)

    async def _prepare(self, running: RunningCompletion, command: ChatCommand) -> Prepared | None:
        if running.stop_reason is not None:
            return None
        if command.session_id is None:
            return await self._accept.alone(running, command)
        return await self._accept.in_session(running, command, command.session_id)

    async def _generate(
        self, running: RunningCompletion, prepared: Prepared
    ) -> tuple[CompletionOutcome, DomainError | None]:
        """Generate until the end, an error, or somebody's wish to stop; what to record, and what to tell."""
        requested = prepared.accepted.requested
        result, failure = None, None
        if running.stop_reason is None:
            try:
                with running.calling_off():
                    result = await self._follow(running, prepared)
            except DomainError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 (the boundary)
                # A defect of an engine ends its completion as any failure does; the server's log has it in full.
                _log.exception("generation of %s ended in a defect", requested.completion_id)
                failure = InternalError(f"internal error ({type(error).__name__}) while generating")
        ending = Ending(
            requested,
            running.output,
            now_us=self._clock.now_us(),
            salt=self._ids.salt,
            record_content=prepared.record_content,
            made_by=prepared.prompt.made_by,
            deltas=running.produced,
        )
        if result is not None:
            return ending.generated(result, message_id=answer_id(requested.completion_id)), None
        if failure is None and running.deadline_error is None:
            return ending.cancelled(running.stop_reason or "cancelled")
        return ending.failed(failure or running.deadline_error or InternalError("nothing was generated"))

    async def _follow(self, running: RunningCompletion, prepared: Prepared) -> GenerationResult:
        requested = prepared.accepted.requested
        scope = CacheScope(tenant=running.tenant, conversation=requested.session_id, durable=prepared.record_content)
        request = GenerationRequest(
            completion_id=requested.completion_id,
            model_id=requested.model_id,
            prompt=prepared.prompt,
            parameters=prepared.parameters,
            cache=None if prepared.parameters.deterministic else scope,
        )
        stream = StreamKey(tenant=running.tenant, completion_id=requested.completion_id)
        async with aclosing(self._engine.generate(request)) as outputs:
            async for output in outputs:
                if not isinstance(output, TextDelta):
                    return output
                delta = self._named(output, requested.parameters.shape) if output.tool_calls else output
                if not running.is_buffered:
                    running.produce(delta)
                    continue
                try:
                    await self._buffer.append(stream, len(running.produced), (delta,))
                finally:  # also where it is stopped here: others may have the delta from the buffer already
                    running.produce(delta)
        raise EngineUnavailable("the engine ended a generation without a result")

    def _named(self, delta: TextDelta, shape: OutputShape | None) -> TextDelta:
        """Give the tool calls that have no id one, and say which of them are of custom tools."""
        custom = set() if shape is None else {tool.name for tool in shape.tools if tool.custom}
        calls = tuple(
            replace(call, id=call.id or self._ids.new("call_"), custom=call.name in custom) for call in delta.tool_calls
        )
        return replace(delta, tool_calls=calls)


def _shorter(one_s: float | None, other_s: float | None) -> float | None:
    return other_s if one_s is None else one_s if other_s is None else min(one_s, other_s)
