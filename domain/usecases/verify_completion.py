"""A completion generated again and compared with the record, token by token; the verification is recorded too."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.admission import Priority
from manent.domain.errors import (
    ContentErased,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidValue,
    ModelLoadError,
    ModelNotFound,
    StoreUnavailable,
    VersionConflict,
)
from manent.domain.events import CompletionRequested
from manent.domain.generation import GenerationRequest, Provenance, RenderedPrompt, SamplingParameters, TextDelta
from manent.domain.output import PartialOutput
from manent.domain.ports import Clock, EventStore, InferenceEngine
from manent.domain.usecases.explain_divergence import explained
from manent.domain.usecases.find_completion import FindCompletion, FoundRequest
from manent.domain.usecases.replayable import NotReplayable, Replayable, check_unchanged, replayable
from manent.domain.usecases.sessions import context_of
from manent.domain.verification import (
    Comparison,
    CompletionVerified,
    Difference,
    Divergence,
    Obstacle,
    Verdict,
    differences,
    verification_stream,
)

PAGE = 500
CONFLICTS_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyCommand:
    """A wish to have a completion verified; ``other_versions`` looks past other software and another device."""

    principal: Principal
    completion_id: str
    other_versions: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was recorded of a verification, what is told of it besides, and where it stands in the log."""

    event: CompletionVerified
    divergence: Divergence | None
    changed: tuple[Difference, ...]
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    verdict: Verdict
    obstacle: Obstacle | None = None
    reason: str | None = None
    compared_tokens: int = 0
    partial: bool = False
    divergence: Divergence | None = None
    changed: tuple[Difference, ...] = ()
    made_by: Provenance | None = None


class VerifyCompletion:
    """Reruns what was recorded as deterministic. A rerun has the model alone, for at most ``alone_max_s``."""

    def __init__(
        self, *, store: EventStore, find: FindCompletion, engine: InferenceEngine, clock: Clock, alone_max_s: float
    ) -> None:
        self._store = store
        self._completions = find
        self._engine = engine
        self._clock = clock
        self._alone_max_s = alone_max_s

    async def run(self, command: VerifyCommand) -> Verification:
        """Verify a completion and record what was found.

        Raises:
            CompletionNotFound, SessionGone: there is no such completion for this principal.
            EngineBusy, InsufficientMemory, ModelUnavailable, EngineUnavailable: not now.
            DeadlineExceeded: the rerun took longer than a rerun may.
            StoreUnavailable: the verification could not be recorded.
        """
        requested: CompletionRequested | None = None
        try:
            request = await self._request(command)
            requested = request.requested
            found = await self._rerun(await replayable(self._completions, command.principal, request), command)
        except NotReplayable as refused:
            found = _Finding(
                verdict=Verdict.NOT_REPLAYABLE,
                obstacle=refused.obstacle,
                reason=refused.reason,
                changed=refused.changed,
                made_by=refused.made_by,
            )
        event = self._event(command, requested, found)
        position = await self._append(event, command)
        return Verification(event=event, divergence=found.divergence, changed=found.changed, position=position)

    async def _request(self, command: VerifyCommand) -> FoundRequest:
        try:
            return await self._completions.request(command.principal, command.completion_id)
        except ContentErased as error:
            raise NotReplayable(Obstacle.ERASED, error.message) from error

    async def _prompt(self, model_id: str, record: Replayable) -> RenderedPrompt:
        if record.prompt is not None:
            return (await self._engine.tokenize(model_id, record.prompt)).rendered
        return await self._engine.render(model_id, record.messages, shape=record.requested.parameters.shape)

    async def _rerun(self, record: Replayable, command: VerifyCommand) -> _Finding:
        """Generate again, with the model for itself."""
        model_id = record.requested.model_id
        try:
            async with self._engine.place(model_id, priority=Priority.BATCH, alone=True) as place:
                if place.model_id != model_id:
                    raise NotReplayable(Obstacle.MODEL_UNUSABLE, f"model {model_id!r} cannot be used now")
                prompt = await self._prompt(model_id, record)
                changed = check_unchanged(record, prompt, other_versions=command.other_versions)
                async with asyncio.timeout(self._alone_max_s):
                    finding = await self._compared(record, prompt)
        except (ModelNotFound, ModelLoadError) as error:
            raise NotReplayable(Obstacle.MODEL_UNUSABLE, error.message) from error
        except InvalidValue as error:
            raise NotReplayable(Obstacle.OTHER_PROMPT, error.message) from error
        except TimeoutError:
            raise DeadlineExceeded(f"the rerun did not end within {self._alone_max_s:g} s") from None
        return replace(finding, changed=changed, made_by=prompt.made_by)

    async def _compared(self, record: Replayable, prompt: RenderedPrompt) -> _Finding:
        comparison = Comparison(record.choices)
        divergence = await self._divergence(comparison, _again(record, prompt, record.requested.parameters))
        verdict = Verdict.EXACT
        if divergence is not None:
            verdict = Verdict.DIVERGED
            # Asked for with the first rerun, log probabilities would make it another evaluation than the original's.
            looking = replace(
                record.requested.parameters, logprobs=True, top_logprobs=2, max_tokens=divergence.position + 1
            )
            divergence = await explained(self._engine, _again(record, prompt, looking), divergence)
        return _Finding(
            verdict=verdict,
            compared_tokens=comparison.compared_tokens,
            partial=comparison.partial,
            divergence=divergence,
        )

    async def _divergence(self, comparison: Comparison, request: GenerationRequest) -> Divergence | None:
        output = PartialOutput(request.parameters.n)
        async with aclosing(self._engine.generate(request)) as outputs:
            async for told in outputs:
                if not isinstance(told, TextDelta):
                    if request.prompt.made_by is None or differences(request.prompt.made_by, told.provenance):
                        raise EngineUnavailable("the model's runner was replaced during the rerun")
                    reasons = [choice.finish_reason for choice in told.choices]
                    return comparison.end(output.choices, reasons)
                output.add(told)
                divergence = comparison.take(told.index, told.token_ids)
                if divergence is not None or comparison.complete:
                    return divergence
        raise EngineUnavailable("the engine ended a generation without a result")

    def _event(
        self, command: VerifyCommand, requested: CompletionRequested | None, found: _Finding
    ) -> CompletionVerified:
        divergence = found.divergence
        return CompletionVerified(
            completion_id=command.completion_id,
            session_id=None if requested is None else requested.session_id,
            model_id=None if requested is None else requested.model_id,
            verdict=found.verdict,
            obstacle=found.obstacle,
            reason=found.reason,
            choice=None if divergence is None else divergence.choice,
            position=None if divergence is None else divergence.position,
            logit_gap=None if divergence is None else divergence.logit_gap,
            compared_tokens=found.compared_tokens,
            partial=found.partial,
            other_versions=command.other_versions,
            provenance=found.made_by,
            verified_by=command.principal.subject,
            verified_at_us=self._clock.now_us(),
        )

    async def _append(self, event: CompletionVerified, command: VerifyCommand) -> int:
        """Record the verification behind the earlier ones; its position in the log."""
        stream_id = verification_stream(event.completion_id)
        context = context_of(command.principal, request_id=command.request_id, causation_id=event.completion_id)
        version = 0
        for _ in range(CONFLICTS_MAX):
            while page := await self._store.read_events(
                command.principal.tenant, stream_id, after_version=version, limit=PAGE
            ):
                version += len(page)
            try:
                appended = await self._store.append(stream_id, [event], expected_version=version, context=context)
            except VersionConflict:
                continue
            return appended.position
        raise StoreUnavailable(f"completion {event.completion_id} is verified too often at once")


def _again(record: Replayable, prompt: RenderedPrompt, parameters: SamplingParameters) -> GenerationRequest:
    """The same request, cold."""
    requested = record.requested
    return GenerationRequest(
        completion_id=requested.completion_id, model_id=requested.model_id, prompt=prompt, parameters=parameters
    )
