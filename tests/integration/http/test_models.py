"""/v1/models over HTTP: how models stand, loading, unloading, pins, memory; and streams that wait for a load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.access import Principal, Scope
from manent.domain.admission import Priority, QueuePlace
from manent.domain.errors import InsufficientMemory, ModelInUse, ModelLoadError
from manent.domain.generation import ModelCard
from manent.domain.waiting import Gone
from tests.support.http import raw_connection, running_server, sse_events

HUB = "mlx-community/Llama-3.2-1B"
CARDS = (
    ModelCard(model_id=HUB, context_length=100, created_at_s=7, aliases=("llama", "default")),
    ModelCard(model_id="other", context_length=50, created_at_s=8),
)
MANAGER = Principal(tenant="default", subject="ann", scopes=frozenset({Scope.MODELS_MANAGE}))
READER = Principal(tenant="default", subject="bob", scopes=frozenset({Scope.AUDIT}))


class SlowToLoad(ScriptedEngine):
    """A model whose load ends when it is told to, well or with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.loaded = asyncio.Event()
        self.error = error

    @asynccontextmanager
    async def place(
        self,
        model: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        alone: bool = False,
        gone: Gone | None = None,
    ) -> AsyncGenerator[QueuePlace, None]:
        """A place once the model is loaded."""
        async with super().place(model, priority=priority, alone=alone, gone=gone) as place:
            await self.loaded.wait()
            if self.error is not None:
                raise self.error
            yield place


@pytest.mark.parametrize("name", [HUB, "llama", HUB.replace("/", "%2F")])
async def test_models_are_loaded_pinned_and_unloaded(name: str) -> None:
    """By id and by alias, with a slash in the id; each answer shows how the model stands."""
    async with running_server(engine=ScriptedEngine(cards=CARDS), principal=MANAGER) as running:
        http = running.http
        unloaded = await http.post(f"/v1/models/{name}/unload")
        assert unloaded.json() == {"id": HUB, "object": "model.unloaded", "unloaded": True}
        assert (await http.post(f"/v1/models/{name}/unload")).json()["unloaded"] is False
        assert (await http.get(f"/v1/models/{name}")).json()["status"] == "unloaded"
        assert (await http.post(f"/v1/models/{name}/load")).json()["status"] == "loaded"
        assert (await http.post(f"/v1/models/{name}/pin")).json()["pinned"] is True
        assert (await http.get("/v1/models")).json()["data"][0]["pinned"] is True
        assert (await http.post(f"/v1/models/{name}/unpin")).json()["pinned"] is False


async def test_memory_has_the_shape_of_the_seed_and_more() -> None:
    """total_gb, available_gb and models_loaded; a model cannot take the name from it."""
    async with running_server(engine=ScriptedEngine(cards=CARDS)) as running:
        memory = (await running.http.get("/api/v1/models/memory")).json()
        assert memory["total_gb"] > memory["available_gb"] > 0
        assert memory["models_loaded"] == {}
        assert set(memory) == {
            *("object", "total_gb", "available_gb", "models_loaded", "reserved_gb", "margin_gb", "models_gb", "used_gb")
        }


@pytest.mark.parametrize("action", ["load", "unload", "pin", "unpin"])
async def test_changing_what_is_in_memory_takes_a_scope(action: str) -> None:
    """Looking does not; and an unknown model is a 404."""
    async with running_server(engine=ScriptedEngine(cards=CARDS), principal=READER) as running:
        refused = await running.http.post(f"/v1/models/other/{action}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        assert (await running.http.get("/v1/models/memory")).status_code == 200
    async with running_server(engine=ScriptedEngine(cards=CARDS), principal=MANAGER) as running:
        missing = await running.http.post(f"/v1/models/nobody/{action}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (ModelInUse("2 requests use it"), 409, None),
        (InsufficientMemory("it needs 4 GB", retry_after_s=3.2), 503, "4"),
        (ModelLoadError("broken"), 503, None),
    ],
)
async def test_refusals_say_whether_to_come_again(error: Exception, status: int, retry: str | None) -> None:
    """In use is a conflict; no memory is a 503 with the time after which to ask again."""
    engine = ScriptedEngine(cards=CARDS)

    async def refuse(*_: object, **__: object) -> bool:
        raise error

    engine.unload = refuse  # type: ignore[method-assign]  # for this test
    async with running_server(engine=engine) as running:
        refused = await running.http.post("/v1/models/other/unload")
        assert (refused.status_code, refused.headers.get("retry-after")) == (status, retry)


async def test_a_stream_is_kept_alive_while_its_model_loads() -> None:
    """Comment lines from the first interval on, then the answer, as if nothing had been."""
    engine = SlowToLoad()
    async with (
        running_server(engine=engine, limits=HttpLimits(ping_interval_s=0.05)) as running,
        raw_connection(running.port) as connection,
    ):
        await connection.post_chat(stream=True)
        head = await connection.read_until(b": ping\n")
        assert head.startswith(b"HTTP/1.1 200")
        await connection.read_until(b": ping\n")
        engine.loaded.set()
        assert b"Hello" in await connection.read_until(b"[DONE]")


async def test_a_load_that_fails_after_that_is_told_in_the_stream() -> None:
    """The status is out; the error is the stream's last event. One that fails before has its own status."""
    engine = SlowToLoad(ModelLoadError("the weights are cut off"))
    async with running_server(engine=engine, limits=HttpLimits(ping_interval_s=0.05)) as running:
        asking = asyncio.create_task(running.chat(stream=True))
        await asyncio.sleep(0.2)
        engine.loaded.set()
        answer = await asking
        assert answer.status_code == 200
        (event,) = sse_events(answer.text)
        assert json.loads(event)["error"]["code"] == "model_load_failed"
        at_once = await running.chat(stream=True)
        assert (at_once.status_code, at_once.json()["error"]["code"]) == (503, "model_load_failed")
        assert await running.log() == []


async def test_a_client_that_leaves_while_the_model_loads_leaves_nothing_behind() -> None:
    """Nothing was accepted, so nothing is recorded, and its place is free again."""
    engine = SlowToLoad()
    async with running_server(engine=engine, limits=HttpLimits(ping_interval_s=0.05)) as running:
        async with raw_connection(running.port) as connection:
            await connection.post_chat(stream=True)
            await connection.read_until(b": ping\n")
            connection.break_off()
        await asyncio.sleep(0.1)
        engine.loaded.set()
        async with asyncio.timeout(5):
            while engine.admission["scripted"].in_flight:  # noqa: ASYNC110 (the queue sends no event)
                await asyncio.sleep(0.01)
        assert await running.log() == []
