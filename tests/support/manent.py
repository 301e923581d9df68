"""A whole Manent in memory: real use cases over the memory store and the scripted engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.store.memory import MemoryEventStore
from manent.app.settings import Settings
from manent.app.use_case_set import UseCases
from manent.app.usecases import build_use_cases
from manent.domain.access import Principal
from manent.domain.errors import StoreUnavailable
from manent.domain.events import DomainEvent
from manent.domain.generation import RequestedParameters
from manent.domain.messages import Message
from manent.domain.records import Appended, EventContext, IdempotencyKey
from manent.domain.usecases.accept_completion import ChatCommand
from tests.support.conversation import ANN
from tests.support.fakes import CountingIds, FakeClock


class FragileEventStore(MemoryEventStore):
    """A memory store that refuses appends as often as it is told to."""

    refusals = 0

    async def append(
        self,
        stream_id: str,
        events: Sequence[DomainEvent],
        *,
        expected_version: int,
        context: EventContext,
        idempotency: IdempotencyKey | None = None,
    ) -> Appended:
        """Refuse, or append."""
        if self.refusals > 0:
            self.refusals -= 1
            raise StoreUnavailable("disk full")
        return await super().append(
            stream_id, events, expected_version=expected_version, context=context, idempotency=idempotency
        )


@dataclass
class World:
    """A Manent with what a test turns and looks at."""

    manent: UseCases
    store: FragileEventStore
    engine: ScriptedEngine
    clock: FakeClock

    async def types(self, stream_id: str, tenant: str = "acme") -> list[str]:
        """The types of a stream's events, in order."""
        return [record.header.type for record in await self.store.read_stream(tenant, stream_id)]

    async def events(self, stream_id: str, tenant: str = "acme") -> list[DomainEvent]:
        """A stream's events, in order."""
        return [record.event for record in await self.store.read_stream(tenant, stream_id)]


def make_world(script: Script | ScriptedEngine | None = None, **settings: object) -> World:
    """A new world; ``settings`` are those of Manent."""
    engine = script if isinstance(script, ScriptedEngine) else ScriptedEngine(script)
    clock, ids = FakeClock(), CountingIds()
    store = FragileEventStore(clock=clock, ids=ids)
    manent = build_use_cases(Settings(**settings), store=store, engine=engine, clock=clock, ids=ids)  # type: ignore[arg-type]  # by name
    return World(manent=manent, store=store, engine=engine, clock=clock)


def ask(
    *messages: Message,
    session_id: str | None = None,
    principal: Principal = ANN,
    parameters: RequestedParameters | None = None,
    **others: object,
) -> ChatCommand:
    """A chat command of Ann's."""
    return ChatCommand(
        principal=principal,
        model="default",
        messages=messages,
        parameters=parameters or RequestedParameters(),
        session_id=session_id,
        **others,  # type: ignore[arg-type]  # by name
    )
