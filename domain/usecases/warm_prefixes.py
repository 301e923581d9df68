"""Conversations that the log says were active are made warm again where a model was loaded."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from manent.domain.admission import Priority
from manent.domain.caching import CacheScope
from manent.domain.errors import DomainError
from manent.domain.events import is_session_stream, session_of
from manent.domain.generation import GenerationRequest, SamplingParameters
from manent.domain.model_events import ModelEvent, ModelLoaded
from manent.domain.ports import Clock, EventStore, InferenceEngine
from manent.domain.records import EventFilter
from manent.domain.session import SessionState, SessionStatus
from manent.domain.usecases.sessions import Sessions

LOOK_BACK_EVENTS = 10_000
PAGE = 1000
LOADED_MAX = 64
WITHIN_US = 3600 * 1_000_000

_log = logging.getLogger("manent.models")


class WarmPrefixes:
    """Has a model evaluate what recent conversations will begin with, before they go on.

    A restart empties the prefix cache in memory; what is on disk is read, and what is not is evaluated again, after all
    requests that somebody waits for. Nothing is recorded of it, because nobody asked for it and nothing is answered.
    """

    def __init__(
        self, *, store: EventStore, sessions: Sessions, engine: InferenceEngine, clock: Clock, sessions_max: int
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._engine = engine
        self._clock = clock
        self._sessions_max = sessions_max
        self._loaded: asyncio.Queue[str] = asyncio.Queue(LOADED_MAX)

    def observe(self, event: ModelEvent) -> None:
        """Take note of a model that was loaded; beyond a bound it is left cold."""
        if isinstance(event, ModelLoaded) and self._sessions_max and not self._loaded.full():
            self._loaded.put_nowait(event.model_id)

    async def keep_warming(self) -> None:
        """Warm every model that is loaded, one after another; runs as long as the server does."""
        while True:
            model_id = await self._loaded.get()
            if warmed := await self.run(model_id):
                _log.info("model %s is warm for %d conversations", model_id, warmed)

    async def run(self, model_id: str) -> int:
        """Warm a model for the conversations that it answered in last, the latest first; how many there were."""
        warmed = 0
        for tenant, session_id in await self._active(model_id):
            try:
                state = await self._sessions.load(tenant, session_id)
                if state.status is SessionStatus.OPEN and state.open_completion_id is None and state.messages:
                    await self._warm(model_id, state)
                    warmed += 1
            except DomainError as error:
                _log.info("session %s is not warmed: %s", session_id, error.message)
        return warmed

    async def _active(self, model_id: str) -> list[tuple[str, str]]:
        """Tenants and ids of the sessions in which the model answered lately."""
        after = max(0, (await self._store.head()).size - LOOK_BACK_EVENTS)
        since_us = self._clock.now_us() - WITHIN_US
        asked = EventFilter(type="CompletionGenerated", model_id=model_id, since_us=since_us)
        latest: dict[tuple[str, str], int] = {}
        while page := await self._store.query(asked, after_position=after, limit=PAGE):
            after = page[-1].header.position
            latest |= {(entry.header.tenant, entry.header.stream_id): entry.header.position for entry in page}
        by_time = sorted(latest, key=lambda found: -latest[found])
        found = [(tenant, session_of(stream_id)) for tenant, stream_id in by_time if is_session_stream(stream_id)]
        return found[: self._sessions_max]

    async def _warm(self, model_id: str, state: SessionState) -> None:
        """Have the conversation evaluated: the shortest answer to it is generated, and dropped."""
        async with self._engine.place(model_id, priority=Priority.BATCH) as place:
            if place.model_id != model_id:
                return
            prompt = await self._engine.render(model_id, tuple(state.messages))
            if len(prompt.token_ids) >= self._engine.resolve(model_id).context_length:
                return
            request = GenerationRequest(
                completion_id=f"warm_{state.session_id}",
                model_id=model_id,
                prompt=prompt,
                parameters=SamplingParameters(temperature=0, top_p=1, max_tokens=1, seed=0),
                cache=CacheScope(tenant=state.tenant, conversation=state.session_id, durable=True),
            )
            async with aclosing(self._engine.generate(request)) as outputs:
                async for _ in outputs:
                    pass
