"""The inference port over runner processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace

from manent.adapters.inference.embedding_frames import Embed, Embedded
from manent.adapters.inference.exchange import RunnerKilled
from manent.adapters.inference.manager import ModelManager
from manent.adapters.inference.prefix_disk import forget_files
from manent.adapters.inference.protocol import (
    Counted,
    CountTokens,
    Delta,
    Explain,
    Explained,
    Finished,
    Generate,
    Render,
    Rendered,
    Tokenize,
)
from manent.adapters.inference.registry import Registry
from manent.adapters.inference.runner_answers import error_of, provenance_of, result_of
from manent.adapters.inference.supervision import SupervisorSettings
from manent.adapters.inference.supervisor import RunnerSupervisor
from manent.adapters.inference.telling import OnModelEvent, Recall, Teller, nothing_is_known
from manent.domain.admission import Priority, QueuePlace
from manent.domain.embedding import EmbeddingRequest, EmbeddingResult
from manent.domain.generation import GenerationRequest, GenerationResult, ModelCard, RenderedPrompt, TextDelta
from manent.domain.images import check_images
from manent.domain.messages import Message
from manent.domain.model_status import MemoryReport, ModelStatus
from manent.domain.output import PartialOutput
from manent.domain.output_shape import OutputShape
from manent.domain.ports import Clock
from manent.domain.prompts import ExplainedPrompt, TextPrompt, check_vocabulary
from manent.domain.telemetry import REQUEST
from manent.domain.waiting import Gone


class RunnerEngine:
    """Implements ``manent.domain.ports.InferenceEngine`` with a runner process per model. Belongs to one event loop."""

    def __init__(
        self,
        registry: Registry,
        *,
        settings: SupervisorSettings,
        clock: Clock,
        on_event: OnModelEvent,
        recall: Recall = nothing_is_known,
    ) -> None:
        self._registry = registry
        self._prefix = settings.prefix
        self._manager = ModelManager(registry, settings=settings, teller=Teller(on_event, clock=clock, recall=recall))

    def start(self) -> None:
        """Begin to look after the models, and to load those that are to be loaded at the start."""
        self._manager.start()

    def models(self) -> Sequence[ModelCard]:
        """The registry, in its order; whether a model's folder is there is looked up now."""
        return self._registry.cards()

    def resolve(self, model: str) -> ModelCard:
        """The card of an id or alias; ModelNotFound if there is none."""
        return self._registry.resolve(model)

    def supervisor(self, model_id: str) -> RunnerSupervisor:
        """What looks after a model's runner: for tests that break runners."""
        return self._manager.supervisor(model_id)

    def place(
        self,
        model: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        alone: bool = False,
        gone: Gone | None = None,
    ) -> AbstractAsyncContextManager[QueuePlace]:
        """A place at a loaded model; see ``InferenceEngine.place``."""
        return self._manager.place(model, priority=priority, alone=alone, gone=gone)

    async def render(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> RenderedPrompt:
        """Apply the model's chat template and tokenize, in the runner."""
        self._check_images(model_id, messages)
        async with self.supervisor(model_id).exchange() as (runner, exchange):
            await exchange.send(Render(id=exchange.id, messages=tuple(messages), shape=shape))
            match await exchange.receive():
                case Rendered(token_ids=token_ids, history_tokens=history_tokens):
                    return RenderedPrompt(
                        token_ids=token_ids,
                        vocabulary_size=runner.facts.vocabulary_size,
                        history_tokens=history_tokens,
                        made_by=provenance_of(runner.facts),
                        messages=_seen_again(messages),
                    )
                case frame:
                    raise error_of(frame, param="messages")

    async def explain(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> ExplainedPrompt:
        """Apply the model's chat template and tokenize, in the runner, and say what did it."""
        self._check_images(model_id, messages)
        async with self.supervisor(model_id).exchange() as (runner, exchange):
            await exchange.send(Explain(id=exchange.id, messages=tuple(messages), shape=shape))
            match await exchange.receive():
                case Explained(text=text, token_ids=token_ids):
                    return ExplainedPrompt(
                        text=text,
                        rendered=RenderedPrompt(token_ids=token_ids, messages=_seen_again(messages)),
                        made_by=provenance_of(runner.facts),
                    )
                case frame:
                    raise error_of(frame, param="messages")

    async def tokenize(self, model_id: str, prompt: TextPrompt) -> ExplainedPrompt:
        """Tokenize in the runner, without a template."""
        async with self.supervisor(model_id).exchange() as (runner, exchange):
            size = runner.facts.vocabulary_size
            check_vocabulary(prompt, size)
            await exchange.send(Tokenize(id=exchange.id, text=prompt.text, token_ids=prompt.token_ids))
            match await exchange.receive():
                case Explained(text=text, token_ids=token_ids):
                    rendered = RenderedPrompt(
                        token_ids=token_ids, vocabulary_size=size, made_by=provenance_of(runner.facts), raw=True
                    )
                    return ExplainedPrompt(text=text, rendered=rendered, made_by=provenance_of(runner.facts))
                case frame:
                    raise error_of(frame, param="prompt")

    async def count_tokens(self, model_id: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """What each message adds to a prompt, measured in the runner."""
        async with self.supervisor(model_id).exchange() as (_, exchange):
            await exchange.send(CountTokens(id=exchange.id, messages=tuple(map(_without_data, messages))))
            match await exchange.receive():
                case Counted(token_counts=token_counts):
                    return token_counts
                case frame:
                    raise error_of(frame, param="messages")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
        """Yield deltas, one per token with text that may be empty, and last the result; closing it cancels.

        Where the system killed the runner before there was any output, for want of memory most likely, unused models
        are unloaded and it is tried once more.
        """
        began = False
        try:
            async with aclosing(self._generate(request)) as outputs:
                async for output in outputs:
                    began = True
                    yield output
                return
        except RunnerKilled:
            if began:
                raise
        await self._manager.recover(request.model_id)
        async with aclosing(self._generate(request)) as outputs:
            async for output in outputs:
                yield output

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        """A vector for each input; where the system killed the runner, for want of memory, it is tried once more."""
        try:
            return await self._embed(request)
        except RunnerKilled:
            await self._manager.recover(request.model_id)
        return await self._embed(request)

    async def forget(self, tenant: str, conversation: str | None = None) -> None:
        """Have the runners drop what they keep of it, and remove what is on disk, of models that are not loaded too."""
        if self._prefix is None:
            return
        tags = self._prefix.tags
        tenant_tag = tags.tenant(tenant)
        conversation_tag = None if conversation is None else tags.conversation(tenant, conversation)
        for card in self._registry.cards():
            if (runner := self.supervisor(card.model_id).runner) is not None:
                runner.forget(tenant_tag, conversation_tag)
        await asyncio.to_thread(forget_files, self._prefix.folder, tenant_tag, conversation_tag)

    async def load(self, model: str) -> ModelStatus:
        """See ``ModelHost.load``."""
        return await self._manager.load(model)

    async def unload(self, model: str, *, by: str) -> bool:
        """See ``ModelHost.unload``."""
        return await self._manager.unload(model, by=by)

    async def pin(self, model: str, *, pinned: bool, by: str) -> ModelStatus:
        """See ``ModelHost.pin``."""
        return await self._manager.pin(model, pinned=pinned, by=by)

    def status(self, model: str) -> ModelStatus:
        """See ``ModelHost.status``."""
        return self.supervisor(model).status()

    def memory(self) -> MemoryReport:
        """See ``ModelHost.memory``."""
        return self._manager.memory()

    def problems(self) -> Mapping[str, str]:
        """See ``ModelHost.problems``."""
        return self._manager.problems()

    async def aclose(self, deadline_s: float) -> None:
        """Stop all runners, at the same time; what they still work on fails with EngineUnavailable."""
        await self._manager.aclose(deadline_s)

    async def _embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        supervisor, ended = self.supervisor(request.model_id), False
        async with supervisor.exchange() as (runner, exchange):
            try:
                await exchange.send(
                    Embed(
                        id=exchange.id,
                        inputs=request.inputs,
                        tokens_max=request.tokens_max,
                        dimensions=request.dimensions,
                    )
                )
                answer = await exchange.receive()
                ended = True
            finally:
                if not ended:
                    runner.cancel(exchange.id)
            if isinstance(answer, Embedded):
                supervisor.circuit.forgive()
                return EmbeddingResult(vectors=answer.vectors, prompt_tokens=answer.prompt_tokens)
            raise error_of(answer, param="input")

    def _check_images(self, model_id: str, messages: Sequence[Message]) -> None:
        card = self._registry.resolve(model_id)
        check_images(card.model_id, messages, reads_images=card.reads_images)

    async def _generate(self, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
        async with self.supervisor(request.model_id).exchange() as (runner, exchange):
            ended = False
            try:
                prefix, scope = self._prefix, REQUEST.get()
                await exchange.send(
                    Generate(
                        id=exchange.id,
                        token_ids=request.prompt.token_ids,
                        parameters=request.parameters,
                        prefix=None if prefix is None or request.cache is None else prefix.tags.scope(request.cache),
                        history_tokens=request.prompt.history_tokens,
                        messages=request.prompt.messages,
                        raw=request.prompt.raw,
                        request_id=None if scope is None else scope.request_id,
                        correlation_id=None if scope is None else scope.correlation_id,
                    )
                )
                partial = PartialOutput(request.parameters.n)
                while not ended:
                    match await exchange.receive():
                        case Delta() as told:
                            delta = TextDelta(
                                text=told.text,
                                token_ids=told.token_ids,
                                index=told.index,
                                logprobs=told.logprobs,
                                reasoning=told.reasoning,
                                tool_calls=told.tool_calls,
                            )
                            partial.add(delta)
                            yield delta
                        case Finished() as finished:
                            ended = True
                            self.supervisor(request.model_id).circuit.forgive()
                            yield result_of(finished, partial, runner.facts)
                        case frame:
                            ended = True
                            raise error_of(frame)
            finally:
                if not ended:
                    runner.cancel(exchange.id)


def _seen_again(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, where the model has to be shown their images once more to generate."""
    return tuple(messages) if any(message.images for message in messages) else ()


def _without_data(message: Message) -> Message:
    if not message.images:
        return message
    return replace(message, images=tuple(replace(image, data=b"") for image in message.images))
