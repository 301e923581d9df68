"""An engine that says what it is told: for tests of everything but the engine, and for load tests without a model.

It keeps the port's contract (the same suite runs over it), takes no time of its own and is deterministic. A test
decides when and how things happen through hooks, never through sleeping.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from manent.adapters.inference.stop_text import StopMatcher
from manent.domain.errors import DomainError, InvalidValue, ModelNotFound
from manent.domain.generation import (
    ExplainedPrompt,
    FinishReason,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    Provenance,
    RenderedPrompt,
    TextDelta,
    Timings,
    Usage,
)
from manent.domain.messages import Message

SCRIPTED_CARD = ModelCard(model_id="scripted", context_length=4096, created_at_s=0, aliases=("default",))
SCRIPTED_PROVENANCE = Provenance(
    weights_digest="sha256:" + "0" * 64,
    tokenizer_digest="sha256:" + "1" * 64,
    template_digest="sha256:" + "2" * 64,
    versions={"manent": "scripted"},
    device="none",
    dtype="none",
    quantization=None,
    batch_size_max=1,
)
_ENVELOPE_TOKENS = 2
_REMEMBERED_MAX = 1000

Hook = Callable[[int], Awaitable[None]]


async def at_once(_delta: int) -> None:
    """The hook that waits for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What one generation does.

    Attributes:
        pieces: the reply; each piece is a token and a delta.
        before_delta: awaited with a delta's number, from 0, before it is yielded; wait here to hold a stream.
        failure: raised instead of delta number ``fails_at`` (or of the result, where there are fewer).
        fails_at: see ``failure``.
    """

    pieces: tuple[str, ...] = ("Hello", ",", " this", " is", " scripted", ".")
    before_delta: Hook = at_once
    failure: DomainError | None = None
    fails_at: int = 0


class ScriptedEngine:
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
    ) -> None:
        self.script = script or Script()
        self.rendered: deque[tuple[Message, ...]] = deque(maxlen=_REMEMBERED_MAX)
        self.requests: deque[GenerationRequest] = deque(maxlen=_REMEMBERED_MAX)
        self.cancelled: deque[str] = deque(maxlen=_REMEMBERED_MAX)
        self._cards = tuple(cards)
        self._refuses = refuses

    def models(self) -> Sequence[ModelCard]:
        """The cards that it was given."""
        return self._cards

    def resolve(self, model: str) -> ModelCard:
        """The card of an id or alias; ModelNotFound if there is none."""
        for card in self._cards:
            if model == card.model_id or model in card.aliases:
                return card
        raise ModelNotFound(f"there is no model {model!r:.200}")

    def place(self, model_id: str) -> AbstractContextManager[None]:
        """There is room for everybody."""
        self.resolve(model_id)
        return nullcontext()

    async def render(self, model_id: str, messages: Sequence[Message]) -> RenderedPrompt:
        """One token per word, two around each message, and one that asks for the answer."""
        self.resolve(model_id)
        if (refusal := self._refuses(messages)) is not None:
            raise InvalidValue(refusal, param="messages")
        self.rendered.append(tuple(messages))
        return RenderedPrompt(token_ids=tuple(map(token_of, _words(messages))))

    async def explain(self, model_id: str, messages: Sequence[Message]) -> ExplainedPrompt:
        """The words, with spaces between them."""
        rendered = await self.render(model_id, messages)
        return ExplainedPrompt(
            text=" ".join(_words(messages)),
            rendered=rendered,
            weights_digest=SCRIPTED_PROVENANCE.weights_digest,
            tokenizer_digest=SCRIPTED_PROVENANCE.tokenizer_digest,
            template_digest=SCRIPTED_PROVENANCE.template_digest,
        )

    async def count_tokens(self, model_id: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """The words of each message, and two."""
        self.resolve(model_id)
        return tuple(len(message.text.split()) + _ENVELOPE_TOKENS for message in messages)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
        """Play the script, within ``max_tokens`` and up to a stop string."""
        self.resolve(request.model_id)
        self.requests.append(request)
        script = self.script(request) if callable(self.script) else self.script
        ended = False
        try:
            async for output in _play(script, request):
                ended = isinstance(output, GenerationResult)
                yield output
        except DomainError:
            ended = True
            raise
        finally:
            if not ended:
                self.cancelled.append(request.completion_id)

    async def aclose(self, deadline_s: float) -> None:
        """Nothing to stop."""


async def _play(script: Script, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
    stops = StopMatcher(request.parameters.stop)
    pieces = script.pieces[: request.parameters.max_tokens]
    texts: list[str] = []
    token_ids: list[int] = []
    for number, piece in enumerate(pieces):
        await script.before_delta(number)
        if script.failure is not None and number == script.fails_at:
            raise script.failure
        text = stops.push(piece) + (stops.finish() if number == len(pieces) - 1 else "")
        texts.append(text)
        token_ids.append(token_of(piece))
        yield TextDelta(text=text, token_ids=(token_ids[-1],))
        if stops.stopped:
            break
    await script.before_delta(len(token_ids))
    if script.failure is not None and script.fails_at >= len(token_ids):
        raise script.failure
    whole = stops.stopped or len(pieces) == len(script.pieces)
    yield GenerationResult(
        text="".join(texts),
        token_ids=tuple(token_ids),
        finish_reason=FinishReason.STOP if whole else FinishReason.LENGTH,
        usage=Usage(prompt_tokens=len(request.prompt.token_ids), completion_tokens=len(token_ids)),
        timings=Timings(queue_s=0.0, prefill_s=0.0, decode_s=0.0),
        provenance=SCRIPTED_PROVENANCE,
    )


def _words(messages: Sequence[Message]) -> list[str]:
    words = [word for message in messages for word in (f"<{message.role}>", *message.text.split(), "<end>")]
    return [*words, "<assistant>"]


def token_of(word: str) -> int:
    """The token id that stands for a word or piece."""
    return zlib.crc32(word.encode())
