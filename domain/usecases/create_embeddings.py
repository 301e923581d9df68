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
from manent.domain.errors import DeadlineExceeded, DomainError
from manent.domain.generation import ModelCard, Usage
from manent.domain.limits import Level
from manent.domain.model_access import permitted
from manent.domain.ports import InferenceEngine
from manent.domain.telemetry import (
    NO_TELEMETRY,
    REQUEST,
    Operation,
    OperationEnded,
    Outcome,
    Stage,
    Telemetry,
    Timeline,
)
from manent.domain.usecases.count_requests import BYTES_PER_TOKEN, CountRequests, Reservation
from manent.domain.usecases.places import PlaceAtOneOf, PlaceWish


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

    def __init__(
        self,
        engine: InferenceEngine,
        counting: CountRequests,
        *,
        timeout_s: float | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self._engine = engine
        self._counting = counting
        self._timeout_s = timeout_s
        self._telemetry = telemetry

    async def run(self, command: EmbeddingCommand) -> CreatedEmbeddings:
        """The vectors of the inputs. Cancelling it gives up the place in the queue, or stops the evaluation.

        Raises:
            ModelNotFound, WrongModelType, InvalidValue: the request is wrong.
            RateLimited: a limit is reached.
            DeadlineExceeded: it took longer than the server allows.
            EngineBusy, ModelLoadError, InsufficientMemory, ModelUnavailable, EngineUnavailable, GenerationFailed: it
                cannot be done now.
        """
        measured = _Measured(command, Timeline(self._telemetry.now_s))
        try:
            created = measured.created = await self._run(command, measured)
        except DomainError as error:
            measured.error = error.code
            raise
        finally:
            self._telemetry.operation_ended(measured.ended())
        return created

    async def _run(self, command: EmbeddingCommand, measured: _Measured) -> CreatedEmbeddings:
        check_inputs(command.inputs)
        card = permitted(command.principal, command.model, self._engine.resolve)
        check_type(command.model, card.type, ModelType.EMBEDDING)
        reservation = Reservation(sum(map(_estimated_tokens, command.inputs)))
        counted = self._counting.completion(
            reservation, principal=command.principal, address=command.address, model_id=card.model_id
        )
        async with counted:
            created = await self._create(command, card, measured)
            reservation.used_tokens = created.result.prompt_tokens
            return replace(created, levels=reservation.levels)

    async def _create(self, command: EmbeddingCommand, card: ModelCard, measured: _Measured) -> CreatedEmbeddings:
        try:
            wish = PlaceWish(priority=command.priority)
            held = PlaceAtOneOf(self._engine, command.principal, [card.model_id], wish)
            async with asyncio.timeout(self._timeout_s), held as place:
                measured.timeline.lap(Stage.QUEUE)
                request = EmbeddingRequest(
                    model_id=place.model_id,
                    inputs=command.inputs,
                    tokens_max=self._engine.resolve(place.model_id).context_length,
                    dimensions=command.dimensions,
                )
                result = await self._engine.embed(request)
                measured.timeline.lap(Stage.PREFILL)
                return CreatedEmbeddings(result=result, place=place)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the embeddings were not there after {self._timeout_s:g} s; send fewer inputs at once", param="input"
            ) from None


class _Measured:
    """What is told of embeddings once they ended."""

    def __init__(self, command: EmbeddingCommand, timeline: Timeline) -> None:
        self.timeline = timeline
        self.created: CreatedEmbeddings | None = None
        self.error: str | None = None
        self._command = command

    def ended(self) -> OperationEnded:
        """It ends now."""
        created, began = self.created, bool(self.timeline.laps)
        outcome = Outcome.GENERATED if created is not None else Outcome.FAILED if began else Outcome.REFUSED
        if created is None and self.error is None:
            outcome, self.error = Outcome.CANCELLED, "client_disconnected"
        return OperationEnded(
            operation=Operation.EMBEDDINGS,
            outcome=outcome,
            operation_id="",
            model_asked=self._command.model,
            model_id=None if created is None else created.place.model_id,
            began_s=self.timeline.began_s,
            ended_s=self.timeline.now_s(),
            laps=self.timeline.laps,
            error=self.error,
            usage=None if created is None else Usage(prompt_tokens=created.result.prompt_tokens, completion_tokens=0),
            scope=REQUEST.get(),
        )


def _estimated_tokens(given: EmbeddingInput) -> int:
    return 1 + (len(given.encode("utf-8", "replace")) // BYTES_PER_TOKEN if isinstance(given, str) else len(given))
