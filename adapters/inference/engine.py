"""The inference port over runner processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager

from manent.adapters.inference.protocol import (
    Counted,
    CountTokens,
    Delta,
    Explain,
    Explained,
    Failed,
    Finished,
    Generate,
    Render,
    Rendered,
    RunnerFacts,
    RunnerFrame,
)
from manent.adapters.inference.registry import Registry
from manent.adapters.inference.supervisor import OnModelEvent, RunnerSupervisor, SupervisorSettings
from manent.domain.errors import DomainError, EngineBusy, EngineUnavailable, GenerationFailed, InvalidValue
from manent.domain.generation import (
    ExplainedPrompt,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    Provenance,
    RenderedPrompt,
    TextDelta,
)
from manent.domain.messages import Message
from manent.domain.ports import Clock

_ERRORS: dict[str, type[DomainError]] = {
    error.code: error for error in (InvalidValue, EngineBusy, GenerationFailed, EngineUnavailable)
}


class RunnerEngine:
    """Implements ``manent.domain.ports.InferenceEngine`` with a runner process per model. Belongs to one event loop."""

    def __init__(
        self, registry: Registry, *, settings: SupervisorSettings, clock: Clock, on_event: OnModelEvent
    ) -> None:
        self._registry = registry
        self._supervisors = {
            model.card.model_id: RunnerSupervisor(model, settings=settings, clock=clock, on_event=on_event)
            for model in registry.models
        }

    def models(self) -> Sequence[ModelCard]:
        """The registry, in its order; whether a model's folder is there is looked up now."""
        return self._registry.cards()

    def resolve(self, model: str) -> ModelCard:
        """The card of an id or alias; ModelNotFound if there is none."""
        return self._registry.resolve(model)

    def supervisor(self, model_id: str) -> RunnerSupervisor:
        """What looks after a model's runner: for operators, and for tests that break runners."""
        return self._supervisors[self._registry.resolve(model_id).model_id]

    def place(self, model_id: str) -> AbstractContextManager[None]:
        """One of the places of the model's queue; see ``InferenceEngine.place``."""
        return self.supervisor(model_id).place()

    async def render(self, model_id: str, messages: Sequence[Message]) -> RenderedPrompt:
        """Apply the model's chat template and tokenize, in the runner."""
        async with self.supervisor(model_id).exchange() as (_, exchange):
            await exchange.send(Render(id=exchange.id, messages=tuple(messages)))
            match await exchange.receive():
                case Rendered(token_ids=token_ids):
                    return RenderedPrompt(token_ids=token_ids)
                case frame:
                    raise _error(frame, param="messages")

    async def explain(self, model_id: str, messages: Sequence[Message]) -> ExplainedPrompt:
        """Apply the model's chat template and tokenize, in the runner, and say what did it."""
        async with self.supervisor(model_id).exchange() as (runner, exchange):
            await exchange.send(Explain(id=exchange.id, messages=tuple(messages)))
            match await exchange.receive():
                case Explained(text=text, token_ids=token_ids):
                    return ExplainedPrompt(
                        text=text,
                        rendered=RenderedPrompt(token_ids=token_ids),
                        weights_digest=runner.facts.weights_digest,
                        tokenizer_digest=runner.facts.tokenizer_digest,
                        template_digest=runner.facts.template_digest,
                    )
                case frame:
                    raise _error(frame, param="messages")

    async def count_tokens(self, model_id: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """What each message adds to a prompt, measured in the runner."""
        async with self.supervisor(model_id).exchange() as (_, exchange):
            await exchange.send(CountTokens(id=exchange.id, messages=tuple(messages)))
            match await exchange.receive():
                case Counted(token_counts=token_counts):
                    return token_counts
                case frame:
                    raise _error(frame, param="messages")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
        """Yield deltas, one per token with text that may be empty, and last the result; closing it cancels."""
        async with self.supervisor(request.model_id).exchange() as (runner, exchange):
            ended = False
            try:
                await exchange.send(
                    Generate(id=exchange.id, token_ids=request.prompt.token_ids, parameters=request.parameters)
                )
                texts: list[str] = []
                token_ids: list[int] = []
                while not ended:
                    match await exchange.receive():
                        case Delta() as delta:
                            texts.append(delta.text)
                            token_ids += delta.token_ids
                            yield TextDelta(text=delta.text, token_ids=delta.token_ids)
                        case Finished() as finished:
                            ended = True
                            yield _result(finished, "".join(texts), tuple(token_ids), runner.facts)
                        case frame:
                            ended = True
                            raise _error(frame)
            finally:
                if not ended:
                    runner.cancel(exchange.id)

    async def aclose(self, deadline_s: float) -> None:
        """Stop all runners, at the same time; what they still work on fails with EngineUnavailable."""
        async with asyncio.TaskGroup() as closing:
            for supervisor in self._supervisors.values():
                closing.create_task(supervisor.aclose(deadline_s))


def _error(frame: RunnerFrame, *, param: str | None = None) -> DomainError:
    """What a runner's refusal means in the domain's words."""
    if isinstance(frame, Failed):
        return _ERRORS.get(frame.code, GenerationFailed)(frame.message, param=param)
    return EngineUnavailable(f"the model's runner answered with an unexpected {type(frame).__name__} frame")


def _result(finished: Finished, text: str, token_ids: tuple[int, ...], facts: RunnerFacts) -> GenerationResult:
    return GenerationResult(
        text=text,
        token_ids=token_ids,
        finish_reason=finished.finish_reason,
        usage=finished.usage,
        timings=finished.timings,
        provenance=Provenance(
            weights_digest=facts.weights_digest,
            tokenizer_digest=facts.tokenizer_digest,
            template_digest=facts.template_digest,
            versions=dict(facts.versions),
            device=facts.device,
            dtype=facts.dtype,
            quantization=facts.quantization,
            batch_size_max=finished.batch_size_max,
        ),
    )
