"""The table by which completions are found is dropped and made again with those of sessions."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, delete, insert, select

from manent.adapters.store.database import open_node, open_subscription_engine
from manent.adapters.store.schema import completions
from manent.adapters.store.session_rebuild import rebuild_session_index
from manent.domain.events import DomainEvent, completion_stream
from manent.domain.records import EventContext
from tests.support.conversation import generated, requested, said, started
from tests.support.fakes import CountingIds, FakeClock

ANN = EventContext(tenant="acme", actor="ann")


async def test_completions_are_found_again_after_a_rebuild(database: Path | URL) -> None:
    """Those of sessions, where they were found before; what does not belong there is gone."""
    store = await open_node(database, clock=FakeClock(), ids=CountingIds())
    engine = open_subscription_engine(database)
    try:
        for number in range(3):
            events: list[DomainEvent] = [
                started(),
                said("user", "hi"),
                requested(f"c{number}"),
                generated("hello", f"c{number}"),
            ]
            await store.append(f"session-{number}", events, expected_version=0, context=ANN)
        await store.append(completion_stream("alone"), [requested("alone")], expected_version=0, context=ANN)
        before = [await store.find_completion("acme", f"c{number}") for number in range(3)]
        assert before == [3, 7, 11]
        async with engine.begin() as connection:
            await connection.execute(delete(completions).where(completions.c.completion_id == "c1"))
            await connection.execute(insert(completions).values(tenant="acme", completion_id="false", position=1))
        await rebuild_session_index(engine)
        assert [await store.find_completion("acme", f"c{number}") for number in range(3)] == before
        async with engine.begin() as connection:
            assert len((await connection.execute(select(completions))).all()) == 3
    finally:
        await engine.dispose()
        await store.aclose()
