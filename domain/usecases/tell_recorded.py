"""A completion that runs on another server, or ran, told from the stream's buffer and from the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from manent.domain.delta_sizes import deltas_of
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    CompletionRequested,
)
from manent.domain.generation import TextDelta
from manent.domain.output import Alternative, PartialChoice, PartialOutput
from manent.domain.ports import Clock, EventStore
from manent.domain.recorded_output import output_of
from manent.domain.streams import StreamBuffer, StreamKey
from manent.domain.usecases.running import Accepted, RunningCompletion
from manent.domain.usecases.stream_records import stream_records

BUFFER_POLL_S = 0.05
OUTCOME_POLLS = 4
FOLLOW_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlace:
    """Where a CompletionRequested stands in the log."""

    tenant: str
    stream_id: str
    stream_version: int


class TellRecorded:
    """Lets a ``RunningCompletion`` tell what another one said, as it becomes known."""

    def __init__(self, store: EventStore, buffer: StreamBuffer, clock: Clock) -> None:
        self._store = store
        self._buffer = buffer
        self._clock = clock

    async def tell(
        self, running: RunningCompletion, requested: CompletionRequested, place: RequestPlace
    ) -> CompletionOutcome | None:
        """Accept ``running``, hand on what was produced, and return how it ended, which is left to tell.

        None where it did not end within fifteen minutes, or nobody wanted to hear more.
        """
        running.completion_id = requested.completion_id
        prompt = None if requested.prompt is None else requested.prompt.content
        running.accept(
            Accepted(
                requested=requested,
                stream_version=place.stream_version,
                prompt_text=(prompt and prompt.text) or "",
            )
        )
        stream = StreamKey(tenant=place.tenant, completion_id=requested.completion_id)
        polls = 0
        outcome: CompletionOutcome | None = None
        while outcome is None and running.stop_reason is None and polls * BUFFER_POLL_S < FOLLOW_S:
            # In this order: what the terminal event follows is in the buffer when that event is seen.
            if polls % OUTCOME_POLLS == 0:
                outcome = await self.outcome(place, requested.completion_id)
            for delta in await self._buffer.read(stream, len(running.produced)):
                running.produce(delta)
            polls += 1
            if outcome is None:
                await self._clock.sleep(BUFFER_POLL_S)
        if outcome is not None:
            for delta in _rest(outcome, running.output, len(running.produced)):
                running.produce(delta)
        return outcome

    async def outcome(self, place: RequestPlace, completion_id: str) -> CompletionOutcome | None:
        """How it ended; None where it did not yet."""
        records = stream_records(self._store, place.tenant, place.stream_id, after_version=place.stream_version)
        async with aclosing(records):
            async for recorded in records:
                match recorded.event:
                    case CompletionGenerated() | CompletionFailed() | CompletionCancelled() as outcome:
                        if outcome.completion_id == completion_id:
                            return outcome
        return None


def _rest(outcome: CompletionOutcome, told: PartialOutput, number: int) -> Sequence[TextDelta]:
    """What the log has beyond the ``number`` deltas that were told already, as its stream had it.

    Of a completion that was not streamed, or was recorded before its deltas were: one more delta for each choice.
    """
    sizes = outcome.piece_sizes
    if sizes is not None and sizes.deltas is None:
        return list(_pieces_behind(outcome, told.choices[0]))
    choices = [_whole(index, choice) for index, choice in enumerate([outcome, *outcome.alternatives])]
    if sizes is not None and sizes.deltas is not None:
        return deltas_of(sizes.deltas, choices)[number:]
    rest = []
    for choice, known in zip(choices, told.choices, strict=False):
        delta = TextDelta(
            index=choice.index,
            text=choice.text[len(known.text) :],
            token_ids=choice.token_ids[len(known.token_ids) :],
            logprobs=choice.logprobs[len(known.logprobs) :],
            reasoning=choice.reasoning[len(known.reasoning) :],
            tool_calls=choice.tool_calls[len(known.tool_calls) :],
        )
        if delta.text or delta.logprobs or delta.reasoning or delta.tool_calls or delta.token_ids:
            rest.append(delta)
    return rest


def _whole(index: int, choice: CompletionOutcome | Alternative) -> TextDelta:
    """All that the log has of a choice."""
    logprobs = None if isinstance(choice, CompletionFailed | CompletionCancelled) else choice.logprobs
    return TextDelta(
        index=index,
        text=choice.text or "",
        token_ids=choice.token_ids or (),
        logprobs=logprobs or (),
        reasoning=choice.reasoning or "",
        tool_calls=choice.tool_calls,
    )


def _pieces_behind(outcome: CompletionOutcome, known: PartialChoice) -> Iterator[TextDelta]:
    """The recorded pieces that are not in what was told."""
    text, reasoning, calls = len(known.text), len(known.reasoning), len(known.tool_calls)
    for piece in output_of(outcome).pieces():
        was_told = calls > 0 if piece.call is not None else text > 0 if piece.text else reasoning > 0
        text -= len(piece.text)
        reasoning -= len(piece.reasoning)
        calls -= piece.call is not None
        if not was_told:
            yield TextDelta(
                text=piece.text,
                token_ids=(),
                logprobs=piece.logprobs,
                reasoning=piece.reasoning,
                tool_calls=() if piece.call is None else (piece.call,),
            )
