"""Answering a repeated request from the record: the same idempotency key, the same answer, one generation."""

from __future__ import annotations

from dataclasses import replace

from manent.domain.errors import StoreUnavailable
from manent.domain.events import CompletionCancelled, CompletionFailed, CompletionGenerated, CompletionRequested
from manent.domain.ports import EventStore
from manent.domain.records import Appended, EventFilter, IdempotencyKey
from manent.domain.usecases.running import RunningCompletion
from manent.domain.usecases.tell_recorded import RequestPlace, TellRecorded

ATTEMPTS_MAX = 16


class RepeatCompletion:
    """Finds what an idempotency key was answered with, and tells it again."""

    def __init__(self, store: EventStore, recorded: TellRecorded) -> None:
        self._store = store
        self._recorded = recorded

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
            outcome = await self._recorded.outcome(place, request.completion_id)
            if not isinstance(outcome, CompletionFailed | CompletionCancelled):
                return numbered, appended
        raise StoreUnavailable(f"{ATTEMPTS_MAX} attempts under this idempotency key failed; use a new one")

    async def tell_again(self, running: RunningCompletion, appended: Appended) -> None:
        """Let ``running`` tell the recorded completion: its id, its text, its end.

        The completion may still run on another node; then it is followed.

        Raises:
            StoreUnavailable: it did not end in time, or ended without an answer.
        """
        place, request = await self._request(appended)
        outcome = await self._recorded.tell(running, request, place)
        if not isinstance(outcome, CompletionGenerated):
            raise StoreUnavailable(f"completion {request.completion_id} has no answer; repeat the request")
        running.finish(outcome)

    async def _request(self, appended: Appended) -> tuple[RequestPlace, CompletionRequested]:
        """The request is the last event of the append that the key stands for."""
        (entry,) = await self._store.query(EventFilter(), after_position=appended.position - 1, limit=1)
        place = RequestPlace(
            tenant=entry.header.tenant, stream_id=entry.header.stream_id, stream_version=entry.header.stream_version
        )
        (recorded,) = await self._store.read_stream(
            place.tenant, place.stream_id, after_version=place.stream_version - 1, limit=1
        )
        if not isinstance(recorded.event, CompletionRequested):
            raise StoreUnavailable("this idempotency key was used for something that was no completion")
        return place, recorded.event
