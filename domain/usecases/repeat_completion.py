"""Answering a repeated request from the record: the same idempotency key, the same answer, one generation."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace

from manent.domain.errors import StoreUnavailable
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    CompletionRequested,
    output_of,
)
from manent.domain.generation import TextDelta
from manent.domain.output import Alternative
from manent.domain.ports import Clock, EventStore
from manent.domain.records import Appended, EventFilter, IdempotencyKey
from manent.domain.usecases.running import Accepted, RunningCompletion
from manent.domain.usecases.stream_records import stream_records

ATTEMPTS_MAX = 16
POLL_S = 0.2
FOLLOW_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    tenant: str
    stream_id: str
    stream_version: int


class RepeatCompletion:
    """Finds what an idempotency key was answered with, and tells it again."""

    def __init__(self, store: EventStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def next_attempt(self, key: IdempotencyKey) -> tuple[IdempotencyKey, Appended | None]:
        """Where the answer to ``key`` landed, or the key under which to try (again) where there is none.

        A completion that failed or was cancelled is no answer: a client that repeats its request wants one. Attempt
        number n runs under the key with n behind it, so that every attempt has its own place in the record.

        Raises:
            IdempotencyConflict: the key was used with another request.
            StoreUnavailable: sixteen attempts failed; a new key is needed.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            numbered = key if attempt == 1 else replace(key, key=f"{key.key} {attempt}")
            appended = await self._store.find_answer(numbered)
            if appended is None:
                return numbered, None
            place, request = await self._request(appended)
            outcome = await self._outcome(place, request.completion_id)
            if not isinstance(outcome, CompletionFailed | CompletionCancelled):
                return numbered, appended
        raise StoreUnavailable(f"{ATTEMPTS_MAX} attempts under this idempotency key failed; use a new one")

    async def tell_again(self, running: RunningCompletion, appended: Appended) -> None:
        """Let ``running`` tell the recorded completion: its id, its text, its end.

        The completion may still run on another node; then its end is waited for.

        Raises:
            StoreUnavailable: it did not end in time, or ended without an answer.
        """
        place, request = await self._request(appended)
        running.completion_id = request.completion_id
        running.accept(Accepted(requested=request, stream_version=place.stream_version))
        waited_s = 0.0
        while (outcome := await self._outcome(place, request.completion_id)) is None and waited_s < FOLLOW_S:
            if running.stop_reason is not None:
                break
            await self._clock.sleep(POLL_S)
            waited_s += POLL_S
        if not isinstance(outcome, CompletionGenerated):
            raise StoreUnavailable(f"completion {request.completion_id} has no answer; repeat the request")
        for delta in _recorded_deltas(outcome):
            running.produce(delta)
        running.finish(outcome)

    async def _request(self, appended: Appended) -> tuple[_Place, CompletionRequested]:
        """The request is the last event of the append that the key stands for."""
        (entry,) = await self._store.query(EventFilter(), after_position=appended.position - 1, limit=1)
        place = _Place(
            tenant=entry.header.tenant, stream_id=entry.header.stream_id, stream_version=entry.header.stream_version
        )
        (recorded,) = await self._store.read_stream(
            place.tenant, place.stream_id, after_version=place.stream_version - 1, limit=1
        )
        if not isinstance(recorded.event, CompletionRequested):
            raise StoreUnavailable("this idempotency key was used for something that was no completion")
        return place, recorded.event

    async def _outcome(self, place: _Place, completion_id: str) -> CompletionOutcome | None:
        records = stream_records(self._store, place.tenant, place.stream_id, after_version=place.stream_version)
        async with aclosing(records):
            async for recorded in records:
                match recorded.event:
                    case CompletionGenerated() | CompletionFailed() | CompletionCancelled() as outcome:
                        if outcome.completion_id == completion_id:
                            return outcome
        return None


def _recorded_deltas(outcome: CompletionGenerated) -> list[TextDelta]:
    """What was recorded of each choice, as one delta; of a response, as the deltas that its stream had."""
    if outcome.piece_sizes is not None:
        return [
            TextDelta(
                text=piece.text,
                token_ids=(),
                logprobs=piece.logprobs,
                reasoning=piece.reasoning,
                tool_calls=() if piece.call is None else (piece.call,),
            )
            for piece in output_of(outcome).pieces()
        ]
    choices: list[CompletionGenerated | Alternative] = [outcome, *outcome.alternatives]
    return [
        TextDelta(
            index=index,
            text=choice.text or "",
            token_ids=choice.token_ids or (),
            logprobs=choice.logprobs or (),
            reasoning=choice.reasoning or "",
            tool_calls=choice.tool_calls,
        )
        for index, choice in enumerate(choices)
    ]
