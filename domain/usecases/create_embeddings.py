"""Texts to vectors. Nothing is recorded: an embedding changes no conversation, and whoever asks keeps it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from manent.domain.access import Principal
from manent.domain.admission import Priority, QueuePlace
from manent.domain.embedding import (
    EmbeddingInput,
    EmbeddingRequest,
    EmbeddingResult,
    ModelType,
    check_inputs,
    check_type,
)
from manent.domain.errors import DeadlineExceeded
from manent.domain.limits import Level
from manent.domain.ports import InferenceEngine
from manent.domain.usecases.count_requests import BYTES_PER_TOKEN, CountRequests, Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCommand:
    """A request for embeddings, in the domain's words; ``EmbeddingRequest`` says what they mean.

    ``address`` is where it came from.
    """

    principal: Principal
    model: str
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    priority: Priority = Priority.INTERACTIVE
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedEmbeddings:
    """What was made, by which model, how long its queue was, and where the limits stand that counted it."""

    result: EmbeddingResult
    place: QueuePlace
    levels: tuple[Level, ...] = ()


class CreateEmbeddings:
    """Asks the engine, from the same bounded places as chats have, within a bounded time."""

    def __init__(self, engine: InferenceEngine, counting: CountRequests, *, timeout_s: float | None = None) -> None:
        self._engine = engine
        self._counting = counting
        self._timeout_s = timeout_s

    async def run(self, command: EmbeddingCommand) -> CreatedEmbeddings:
        """The vectors of the inputs. Cancelling it gives up the place in the queue, or stops the evaluation.

        Raises:
            ModelNotFound, WrongModelType, InvalidValue: the request is wrong.
            RateLimited: a limit is reached.
            DeadlineExceeded: it took longer than the server allows.
            EngineBusy, ModelLoadError, InsufficientMemory, ModelUnavailable, EngineUnavailable, GenerationFailed: it
                cannot be done now.
        """
        check_inputs(command.inputs)
        card = self._engine.resolve(command.model)
        check_type(command.model, card.type, ModelType.EMBEDDING)
        reservation = Reservation(sum(map(_estimated_tokens, command.inputs)))
        counted = self._counting.completion(
            reservation, principal=command.principal, address=command.address, model_id=card.model_id
        )
        async with counted:
            created = await self._create(command)
            reservation.used_tokens = created.result.prompt_tokens
            return replace(created, levels=reservation.levels)

    async def _create(self, command: EmbeddingCommand) -> CreatedEmbeddings:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._engine.place(command.model, priority=command.priority) as place,
            ):
                request = EmbeddingRequest(
                    model_id=place.model_id,
                    inputs=command.inputs,
                    tokens_max=self._engine.resolve(place.model_id).context_length,
                    dimensions=command.dimensions,
                )
                return CreatedEmbeddings(result=await self._engine.embed(request), place=place)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the embeddings were not there after {self._timeout_s:g} s; send fewer inputs at once", param="input"
            ) from None


def _estimated_tokens(given: EmbeddingInput) -> int:
    return 1 + (len(given.encode("utf-8", "replace")) // BYTES_PER_TOKEN if isinstance(given, str) else len(given))
