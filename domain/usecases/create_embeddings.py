"""Texts to vectors. Nothing is recorded: an embedding changes no conversation, and whoever asks keeps it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

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
from manent.domain.model_access import permitted
from manent.domain.ports import InferenceEngine
from manent.domain.usecases.places import PlaceAtOneOf, PlaceWish


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCommand:
    """A request for embeddings, in the domain's words; ``EmbeddingRequest`` says what they mean."""

    principal: Principal
    model: str
    inputs: tuple[EmbeddingInput, ...]
    dimensions: int | None = None
    priority: Priority = Priority.INTERACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedEmbeddings:
    """What was made, by which model, and how long its queue was."""

    result: EmbeddingResult
    place: QueuePlace


class CreateEmbeddings:
    """Asks the engine, from the same bounded places as chats have, within a bounded time."""

    def __init__(self, engine: InferenceEngine, *, timeout_s: float | None = None) -> None:
        self._engine = engine
        self._timeout_s = timeout_s

    async def run(self, command: EmbeddingCommand) -> CreatedEmbeddings:
        """The vectors of the inputs. Cancelling it gives up the place in the queue, or stops the evaluation.

        Raises:
            ModelNotFound, WrongModelType, InvalidValue: the request is wrong.
            DeadlineExceeded: it took longer than the server allows.
            EngineBusy, ModelLoadError, InsufficientMemory, ModelUnavailable, EngineUnavailable, GenerationFailed: it
                cannot be done now.
        """
        check_inputs(command.inputs)
        card = permitted(command.principal, command.model, self._engine.resolve)
        check_type(command.model, card.type, ModelType.EMBEDDING)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                PlaceAtOneOf(self._engine, command.principal, [card.model_id]).taken(
                    PlaceWish(priority=command.priority)
                ) as place,
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
