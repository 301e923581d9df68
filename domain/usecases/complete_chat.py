"""A chat completion: accept, generate, close. Its task outlives the request that started it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from manent.domain.errors import CompletionCancelledError, DomainError, EngineUnavailable, InternalError
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    CompletionRequested,
)
from manent.domain.generation import (
    GenerationRequest,
    GenerationResult,
    PartialOutput,
    RenderedPrompt,
    SaltedDigest,
    TextDelta,
    Usage,
)
from manent.domain.ports import Clock, Ids, InferenceEngine
from manent.domain.records import Appended
from manent.domain.usecases.accept_completion import AcceptCompletion, ChatCommand, Prepared, Repeated
from manent.domain.usecases.close_completion import CloseCompletion
from manent.domain.usecases.repeat_completion import RepeatCompletion
from manent.domain.usecases.running import LiveCompletions, RunningCompletion
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
    ) -> None:
        self._accept = accept
        self._repeat = repeat
        self._closing = closing
        self._engine = engine
        self._turns = turns
        self._live = live
        self._clock = clock
        self._ids = ids

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
            completion_id=self._ids.new("chatcmpl-"),
            tenant=command.principal.tenant,
            session_id=command.session_id,
            idempotency=command.idempotency,
        )
        self._live.run(running, self._live_through(running, command))
        return running

    async def _live_through(self, running: RunningCompletion, command: ChatCommand) -> None:
        try:
            async with AsyncExitStack() as stack:
                if command.idempotency is not None:
                    numbered, answered = await self._repeat.next_attempt(command.idempotency)
                    if answered is not None:
                        await self._repeat.tell_again(running, answered)
                        return
                    command = replace(command, idempotency=numbered)
                if command.session_id is not None:
                    turn = self._turns.take(running.tenant, command.session_id, gone=running.stop_requested)
                    await stack.enter_async_context(turn)
                card = self._engine.resolve(command.model)
                stack.enter_context(self._engine.place(card.model_id))
                await self._accept_generate_close(running, command)
        except Repeated as repeated:
            await self._tell_again(running, repeated.appended)
        except DomainError as error:
            running.fail(error)
        except Exception as error:  # noqa: BLE001 (the boundary)
            # The boundary of a completion: a defect must reach its reader as an error, and the server's log in full.
            _log.exception("completion %s ended in a defect", running.completion_id)
            running.fail(InternalError(f"internal error ({type(error).__name__}) in {running.completion_id}"))

    async def _tell_again(self, running: RunningCompletion, appended: Appended) -> None:
        """Another node accepted the same request between our look and our append."""
        try:
            await self._repeat.tell_again(running, appended)
        except DomainError as error:
            running.fail(error)

    async def _accept_generate_close(self, running: RunningCompletion, command: ChatCommand) -> None:
        prepared = await self._prepare(running, command)
        if prepared is None:
            raise CompletionCancelledError(f"cancelled before it was accepted ({running.stop_reason})")
        running.accept(prepared.accepted)
        outcome, error = await self._generate(running, prepared)
        context = context_of(
            command.principal,
            request_id=command.request_id,
            correlation_id=command.correlation_id,
            causation_id=running.completion_id,
        )
        if not await self._closing.close(outcome, context=context):
            raise EngineUnavailable("the completion was closed by somebody else before it ended")
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
        partial = PartialOutput()
        generation = asyncio.create_task(self._follow(running, requested, prepared.prompt, partial))
        stop = asyncio.create_task(running.stop_requested())
        try:
            await asyncio.wait({generation, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not generation.done():
                generation.cancel()
            await asyncio.wait({generation, stop})
        ending = _Ending(requested, partial, self._clock.now_us(), record_content=prepared.record_content)
        if generation.cancelled():
            return ending.cancelled(running.stop_reason or "cancelled")
        failure = generation.exception()
        if failure is None:
            salt = self._ids.salt()
            return ending.generated(generation.result(), message_id=self._ids.new("msg_"), salt=salt), None
        if isinstance(failure, DomainError):
            return ending.failed(failure)
        _log.error("generation of %s ended in a defect", requested.completion_id, exc_info=failure)
        return ending.failed(InternalError(f"internal error ({type(failure).__name__}) while generating"))

    async def _follow(
        self, running: RunningCompletion, requested: CompletionRequested, prompt: RenderedPrompt, partial: PartialOutput
    ) -> GenerationResult:
        request = GenerationRequest(
            completion_id=requested.completion_id,
            model_id=requested.model_id,
            prompt=prompt,
            parameters=requested.parameters,
        )
        async with aclosing(self._engine.generate(request)) as outputs:
            async for output in outputs:
                if isinstance(output, TextDelta):
                    partial.add(output)
                    running.produce(output)
                else:
                    return output
        raise EngineUnavailable("the engine ended a generation without a result")


class _Ending:
    """Makes terminal events, with or without content."""

    def __init__(
        self, requested: CompletionRequested, partial: PartialOutput, now_us: int, *, record_content: bool
    ) -> None:
        self._requested = requested
        self._partial = partial
        self._now_us = now_us
        self._content = record_content

    def generated(self, result: GenerationResult, *, message_id: str, salt: bytes) -> CompletionGenerated:
        return CompletionGenerated(
            completion_id=self._requested.completion_id,
            session_id=self._requested.session_id,
            model_id=self._requested.model_id,
            message_id=message_id,
            text=result.text if self._content else None,
            text_digest=SaltedDigest.of(result.text.encode(), salt=salt),
            token_ids=result.token_ids if self._content else None,
            finish_reason=result.finish_reason,
            usage=result.usage,
            timings=result.timings,
            provenance=result.provenance,
            generated_at_us=self._now_us,
        )

    def failed(self, error: DomainError) -> tuple[CompletionFailed, DomainError]:
        event = CompletionFailed(
            completion_id=self._requested.completion_id,
            session_id=self._requested.session_id,
            model_id=self._requested.model_id,
            code=error.code,
            reason=error.message,
            text=self._partial.text if self._content else None,
            token_ids=tuple(self._partial.token_ids) if self._content else None,
            usage=self._usage(),
            failed_at_us=self._now_us,
        )
        return event, error

    def cancelled(self, reason: str) -> tuple[CompletionCancelled, DomainError]:
        event = CompletionCancelled(
            completion_id=self._requested.completion_id,
            session_id=self._requested.session_id,
            model_id=self._requested.model_id,
            reason=reason,
            text=self._partial.text if self._content else None,
            token_ids=tuple(self._partial.token_ids) if self._content else None,
            usage=self._usage(),
            cancelled_at_us=self._now_us,
        )
        return event, CompletionCancelledError(f"the completion was cancelled ({reason})")

    def _usage(self) -> Usage:
        return Usage(prompt_tokens=self._requested.prompt_tokens, completion_tokens=len(self._partial.token_ids))
