"""What happens to models as events, and what these say of the next load."""

from __future__ import annotations

import logging

import pytest

from manent.adapters.store.memory import MemoryEventStore
from manent.domain.model_events import (
    ModelEvent,
    ModelLoaded,
    ModelLoadFailed,
    ModelPinChanged,
    ModelSuspended,
    ModelUnloaded,
    RunnerCrashed,
    model_stream,
)
from manent.domain.usecases.record_models import RecordModelEvents
from tests.support.fakes import CountingIds, FakeClock


def loaded(memory_bytes: int, model_id: str = "m") -> ModelLoaded:
    """A load."""
    return ModelLoaded(
        model_id=model_id, weights_digest="sha256:0", memory_bytes=memory_bytes, load_s=1.0, pid=1, loaded_at_us=1
    )


async def test_the_memory_of_the_last_load_is_recalled_after_a_restart() -> None:
    """Of each model the latest, from the log alone; of a model that was never loaded nothing."""
    store = MemoryEventStore(clock=FakeClock(), ids=CountingIds())
    recorder = RecordModelEvents(store, tenant="default")
    for event in (
        loaded(5),
        ModelUnloaded(model_id="m", reason="idle", unloaded_at_us=2),
        loaded(7),
        loaded(9, "other"),
        ModelUnloaded(model_id="m", reason="idle", unloaded_at_us=3),
    ):
        await recorder.record(event)
    assert await recorder.memory_of("m") == 7
    after_restart = RecordModelEvents(store, tenant="default")
    assert await after_restart.memory_of("m") == 7
    assert await after_restart.memory_of("other") == 9
    assert await after_restart.memory_of("none") is None


async def test_two_recorders_write_one_stream() -> None:
    """Two servers on one log: each goes on behind what the other wrote."""
    store = MemoryEventStore(clock=FakeClock(), ids=CountingIds())
    one, other = RecordModelEvents(store, tenant="default"), RecordModelEvents(store, tenant="default")
    for recorder, size_bytes in ((one, 1), (other, 2), (one, 3)):
        await recorder.record(loaded(size_bytes))
    records = await store.read_stream("default", model_stream("m"))
    assert [record.event for record in records] == [loaded(1), loaded(2), loaded(3)]


@pytest.mark.parametrize(
    ("event", "level", "says"),
    [
        (loaded(5), logging.INFO, "model m was loaded in 1.0 s"),
        (ModelUnloaded(model_id="m", reason="idle", unloaded_at_us=2), logging.INFO, "model m was unloaded: idle"),
        (ModelLoadFailed(model_id="m", reason="no file", failed_at_us=1), logging.WARNING, "not be loaded: no file"),
        (
            RunnerCrashed(model_id="m", reason="was killed by SIGABRT (my words)", requests=2, crashed_at_us=1),
            logging.WARNING,
            "the runner of m ended: it was killed by SIGABRT",
        ),
        (
            ModelSuspended(model_id="m", reason="it (my words)", failures=3, suspended_s=30.0, suspended_at_us=1),
            logging.ERROR,
            "model m failed too often and is not tried for 30 s",
        ),
        (ModelPinChanged(model_id="m", pinned=True, changed_by="ann", changed_at_us=1), logging.INFO, "pinned is True"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_operators_read_of_it(event: ModelEvent, level: int, says: str, caplog: pytest.LogCaptureFixture) -> None:
    """A line in the server's log for each; what a runner's libraries wrote last is in the event alone."""
    caplog.set_level(logging.INFO)
    await RecordModelEvents(MemoryEventStore(clock=FakeClock(), ids=CountingIds()), tenant="default").record(event)
    (record,) = caplog.records
    assert (record.levelno, says in record.getMessage()) == (level, True), record.getMessage()
    assert "my words" not in record.getMessage()
