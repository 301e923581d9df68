"""Imports of more messages than one append takes: written in parts, and seen as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from manent.adapters.http.import_messages import read_messages_file
from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.adapters.store.session_file import read_events_file
from manent.domain.errors import StoreUnavailable
from manent.domain.events import DomainEvent
from manent.domain.records import Appended, EventFilter
from manent.domain.session import SessionState, SessionStatus
from manent.domain.usecases.import_session import AT_ONCE_MAX, ImportCommand, SessionFile
from tests.support.conversation import ANN
from tests.support.fakes import CountingIds
from tests.support.manent import World
from tests.support.replays import events_file, folded, recorded, texts_of, world_of_two_models

IMAGES = CheckedImages(ImageFetcher("data"))


def conversation(count: int) -> bytes:
    """A file of so many messages, each of its number."""
    return json.dumps([{"role": "user", "content": str(number)} for number in range(count)]).encode()


async def imported(world: World, file: SessionFile, session_id: str) -> SessionState:
    """The session that the file becomes."""
    return await recorded(world).imports.run(ImportCommand(principal=ANN, file=file, session_id=session_id))


async def test_a_long_conversation_is_imported_whole() -> None:
    """Written in parts, and one fork of what nobody can use; its own export is read back, ancestor included."""
    world, count = world_of_two_models(), 2 * AT_ONCE_MAX + 1
    state = await imported(world, read_messages_file(conversation(count), CountingIds(), IMAGES), "copy")
    assert texts_of(state) == [str(number) for number in range(count)]
    assert await folded(world, "copy") == state
    assert await world.types("session-copy") == ["SessionStarted", "SessionImported"]
    assert state.parent is not None
    parts = await folded(world, state.parent.session_id)
    assert (parts.status, parts.version, len(parts.messages)) == (SessionStatus.DELETED, count + 2, count)
    assert texts_of(
        await imported(world, read_events_file(await events_file(world, "copy"), CountingIds()), "again")
    ) == texts_of(state)


@pytest.mark.parametrize("written", range(4))
async def test_an_interrupted_import_is_no_session(written: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it ends there is nothing to be taken for the conversation, and the import can be made again."""
    world = world_of_two_models()
    file = read_messages_file(conversation(AT_ONCE_MAX + 1), CountingIds(), IMAGES)
    append, left = world.store.append, [written]

    async def failing(stream_id: str, events: Sequence[DomainEvent], **kwargs: Any) -> Appended:
        left[0] -= 1
        if left[0] < 0:
            raise StoreUnavailable("the disk is gone")
        return await append(stream_id, events, **kwargs)

    monkeypatch.setattr(world.store, "append", failing)
    with pytest.raises(StoreUnavailable):
        await imported(world, file, "copy")
    monkeypatch.undo()
    assert await world.types("session-copy") == []
    for entry in await world.store.query(EventFilter(type="SessionStarted")):
        half = await folded(world, entry.header.stream_id.removeprefix("session-"))
        assert half.status is SessionStatus.DELETED
    assert len((await imported(world, file, "copy")).messages) == AT_ONCE_MAX + 1
