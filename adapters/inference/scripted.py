"""An engine that says what it is told: for tests of everything but the engine, and for load tests without a model.

It keeps the port's contract (the same suite runs over it), takes no time of its own and is deterministic. A test
decides when and how things happen through hooks, never through sleeping.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from manent.adapters.inference.admission import Admission, AdmissionLimits
from manent.adapters.inference.always_loaded import AlwaysLoaded
from manent.adapters.inference.script import Playing, Script, token_of
from manent.adapters.inference.scripted_embeddings import scripted_embeddings
from manent.domain.admission import Priority, QueuePlace
from manent.domain.embedding import EmbeddingRequest, EmbeddingResult
from manent.domain.errors import DomainError, InvalidValue
from manent.domain.generation import (
    GenerationRequest,
    GenerationResult,
    ModelCard,
    Provenance,
    RenderedPrompt,
    TextDelta,
    Timings,
    Usage,
)
from manent.domain.images import check_images
from manent.domain.messages import Message
from manent.domain.model_status import ModelStatus
from manent.domain.output_shape import OutputShape
from manent.domain.prompts import ExplainedPrompt, TextPrompt, check_vocabulary
from manent.domain.waiting import Gone

SCRIPTED_CARD = ModelCard(model_id="scripted", context_length=4096, created_at_s=0, aliases=("default",))
SCRIPTED_PROVENANCE = Provenance(
    weights_digest="sha256:" + "0" * 64,
    tokenizer_digest="sha256:" + "1" * 64,
    template_digest="sha256:" + "2" * 64,
    versions={"manent": "scripted"},
    device="none",
    dtype="none",
    quantization=None,
)
_NO_TIME = Timings(queue_s=0.0, prefill_s=0.0, decode_s=0.0)
_ROOM_FOR_EVERYBODY = AdmissionLimits(running_max=100_000, in_flight_max=100_000)
_ENVELOPE_TOKENS = 2
_REMEMBERED_MAX = 64


class ScriptedEngine(AlwaysLoaded):
    """Implements ``manent.domain.ports.InferenceEngine`` from scripts.

    ``script`` is one for all, or a function of the request. What was asked is kept, up to a bound, in ``rendered``
    and ``requests``; ``cancelled`` holds the completion ids of generations that were closed before their end.
    """

    def __init__(
        self,
        script: Script | Callable[[GenerationRequest], Script] | None = None,
        *,
        cards: Sequence[ModelCard] = (SCRIPTED_CARD,),
        refuses: Callable[[Sequence[Message]], str | None] = lambda _: None,
        limits: AdmissionLimits | None = None,
    ) -> None:
        self.script = script or Script()
        self.provenance = SCRIPTED_PROVENANCE
        self._last_made_by = SCRIPTED_PROVENANCE, SCRIPTED_PROVENANCE
        self.rendered: deque[tuple[Message, ...]] = deque(maxlen=_REMEMBERED_MAX)
        self.requests: deque[GenerationRequest] = deque(maxlen=_REMEMBERED_MAX)
        self.cancelled: deque[str] = deque(maxlen=_REMEMBERED_MAX)
        self.admission = {card.model_id: Admission(card.model_id, limits or _ROOM_FOR_EVERYBODY) for card in cards}
        super().__init__(cards)
        self._refuses = refuses

    def place(
        self,
        model: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        alone: bool = False,
        gone: Gone | None = None,
    ) -> AbstractAsyncContextManager[QueuePlace]:
        """One of the places of the model's queue; see ``InferenceEngine.place``."""
        return self.admission[self.resolve(model).model_id].place(priority, alone=alone, gone=gone)

    def status(self, model: str) -> ModelStatus:
        """See ``ModelHost.status``."""
        admission = self.admission[self.resolve(model).model_id]
        return replace(super().status(model), requests=admission.in_flight, waiting=admission.waiting)

    async def render(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> RenderedPrompt:
        """One token per word, two around each message, and one that asks for the answer; a shape is taken as given."""
        card = self.resolve(model_id)
        check_images(card.model_id, messages, reads_images=card.reads_images)
        if (refusal := self._refuses(messages)) is not None:
            raise InvalidValue(refusal, param="messages")
        self.rendered.append(tuple(messages))
        token_ids = tuple(map(token_of, _words(messages)))
        return RenderedPrompt(token_ids=token_ids, vocabulary_size=2**32, made_by=self.provenance)

    async def explain(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> ExplainedPrompt:
        """The words, with spaces between them."""
        rendered = await self.render(model_id, messages, shape=shape)
        return ExplainedPrompt(
            text=" ".join(_words(messages)),
            rendered=rendered,
            made_by=self.provenance,
        )

    async def tokenize(self, model_id: str, prompt: TextPrompt) -> ExplainedPrompt:
        """One token per word; tokens that were given are called by their numbers."""
        self.resolve(model_id)
        check_vocabulary(prompt, 2**32)
        token_ids = prompt.token_ids
        text = prompt.text if token_ids is None else "".join(f"<{token_id}>" for token_id in token_ids)
        if token_ids is None:
            token_ids = tuple(map(token_of, (prompt.text or "").split())) or (token_of("<begin>"),)
        rendered = RenderedPrompt(token_ids=token_ids, vocabulary_size=2**32, made_by=self.provenance, raw=True)
        return ExplainedPrompt(text=text or "", rendered=rendered, made_by=self.provenance)

    async def count_tokens(self, model_id: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """The words of each message, and two."""
        self.resolve(model_id)
        return tuple(len(message.text.split()) + _ENVELOPE_TOKENS for message in messages)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
        """Play the script, within ``max_tokens`` and up to a stop string."""
        self.resolve(request.model_id)
        self.requests.append(request)
        script = self.script(request) if callable(self.script) else self.script
        choices = [Playing(script, request.parameters, index) for index in range(request.parameters.n)]
        number, ended = 0, False
        try:
            while playing := [choice for choice in choices if choice.finish_reason is None]:
                await script.before_delta(number)
                if script.failure is not None and number == script.fails_at:
                    raise script.failure
                for choice in playing:
                    yield choice.next()
                number += 1
            await script.before_delta(number)
            if script.failure is not None and script.fails_at >= number:
                raise script.failure
            ended = True
            yield _result(choices, request, self._made_by(len(choices)))
        except DomainError:
            ended = True
            raise
        finally:
            if not ended:
                self.cancelled.append(request.completion_id)

    def _made_by(self, batch_size: int) -> Provenance:
        """The provenance of a batch of so many; made anew where it is another than that of the last one."""
        alone, made_by = self._last_made_by
        if alone is not self.provenance or made_by.batch_size_max != batch_size:
            made_by = replace(self.provenance, batch_size_max=batch_size)
            self._last_made_by = self.provenance, made_by
        return made_by

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors of eight numbers that depend on the input alone; a token is a word."""
        self.resolve(request.model_id)
        return scripted_embeddings(request)

    async def forget(self, tenant: str, conversation: str | None = None) -> None:
        """Nothing is kept."""

    async def aclose(self, deadline_s: float) -> None:
        """Nothing to stop."""


def _result(choices: Sequence[Playing], request: GenerationRequest, made_by: Provenance) -> GenerationResult:
    return GenerationResult(
        choices=tuple(choice.result() for choice in choices),
        usage=Usage(
            prompt_tokens=len(request.prompt.token_ids),
            completion_tokens=sum(choice.tokens for choice in choices),
            reasoning_tokens=sum(choice.reasoning_tokens for choice in choices),
        ),
        timings=_NO_TIME,
        provenance=made_by,
    )


def _words(messages: Sequence[Message]) -> list[str]:
    words = [word for message in messages for word in (f"<{message.role}>", *message.text.split(), "<end>")]
    return [*words, "<assistant>"]
