"""A whole Manent to which everything happens that a metric can tell of, and what a scraper saw before and after."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from manent.adapters.http.server import HttpServer
from manent.adapters.inference.admission import Admission, AdmissionLimits
from manent.adapters.inference.script import Script, Thought
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.logs import setup
from manent.adapters.logs.writer import BackgroundHandler
from manent.adapters.store.batch import AppendRequest
from manent.adapters.store.committer import BatchRefused, Verdicts
from manent.adapters.store.migrate import upgrade
from manent.adapters.store.sql import SQLEventStore
from manent.app.background import in_background
from manent.app.bootstrap import Manent, assembled
from manent.app.settings import Settings
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.errors import GenerationFailed, ModelLoadError
from manent.domain.usecases.manage_webhooks import WebhookWish
from tests.support.engines import supervisor_settings
from tests.support.fake_runners import managed, model
from tests.support.hooks import Held
from tests.support.http import NO_TLS, USER
from tests.support.valkey import ValkeyServer

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def samples_of(text: str, parse: Callable[[str], object] = prometheus) -> Samples:
    """The values of an exposition by name and labels."""
    found: defaultdict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for family in parse(text):  # type: ignore[attr-defined]  # the two parsers of the library have no common type
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found[sample.name], f"{sample.name}{labels} is there twice"
            found[sample.name][labels] = sample.value
    return dict(found)


@asynccontextmanager
async def served(settings: Settings) -> AsyncGenerator[tuple[Manent, httpx.AsyncClient], None]:
    """A Manent on real adapters behind a real socket, in this process."""
    upgrade(settings.database)
    async with assembled(settings) as manent:
        server = HttpServer(manent.web_app(), listening := socket.create_server(("127.0.0.1", 0)))
        await server.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=address, timeout=10, verify=NO_TLS) as http:
                yield manent, http
        finally:
            manent.use_cases.follow_log.close()
            await manent.use_cases.live.drain(finish_s=0, close_s=1)
            await server.close(0.2)


class Scraped:
    """A Manent with a Redis, and the scrapes that were made of it."""

    def __init__(self, manent: Manent, http: httpx.AsyncClient, patch: pytest.MonkeyPatch) -> None:
        self.manent = manent
        self.http = http
        self.patch = patch
        self.scrapes: list[Samples] = []
        self.texts: list[str] = []
        engine = manent.use_cases.engine
        assert isinstance(engine, ScriptedEngine)
        self.engine = engine

    async def scrape(self) -> None:
        """Look again at what is sampled, and scrape in both formats, which must agree."""
        await self.manent.monitoring.sampler.sample()
        self.patch.setattr(self.manent.monitoring.metrics.exposition, "_rendered", {})
        answer = await self.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        other = await self.http.get("/metrics", headers=OPENMETRICS)
        assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert samples_of(answer.text).keys() <= samples_of(other.text, openmetrics).keys()
        self.scrapes.append(samples_of(answer.text))
        self.texts.append(answer.text)

    async def chat(self, **members: object) -> httpx.Response:
        """One completion."""
        return await self.http.post("/v1/chat/completions", json={"model": "default", "messages": [USER], **members})

    async def talk(self) -> None:
        """Completions that end in every way, some while others hold the only place, and a webhook of nobody."""
        await self.manent.webhooks.manage.create(LOCAL_OPERATOR, WebhookWish(url="http://127.0.0.1:1/"))
        self.engine.script = Script(pieces=(Thought("hm"), "Hel", "lo"))
        assert (await self.chat(session_id="ada")).status_code == 200
        assert (await self.chat(session_id="ada", stream=True)).status_code == 200
        assert (await self.chat(model="nobody knows this one")).status_code == 404
        self.engine.admission["scripted"] = Admission("scripted", AdmissionLimits(running_max=1, in_flight_max=4))
        hold = Held(1)
        self.engine.script = Script(before_delta=hold)
        async with self.http.stream("GET", "/v1/events/stream") as tail:
            waiting = [asyncio.create_task(self.chat()) for _ in range(2)]
            await asyncio.wait_for(hold.reached.wait(), 5)
            await self.scrape()
            waiting[1].cancel()
            hold.released.set()
            await waiting[0]
            await tail.aclose()
        self.engine.script = Script(failure=GenerationFailed("no"), fails_at=1)
        assert (await self.chat()).status_code == 500

    async def break_store(self) -> None:
        """The database hangs, then refuses: appends wait, an end is not recorded, and the server is not ready."""
        store = self.manent.use_cases.store
        assert isinstance(store, SQLEventStore)
        hung = asyncio.Event()

        async def refusing(_: Sequence[AppendRequest]) -> Verdicts:
            await hung.wait()
            raise BatchRefused("disk full", retry_alone=False)

        hold = Held(1)
        self.engine.script = Script(before_delta=hold)
        self.engine.admission["scripted"] = Admission("scripted", AdmissionLimits())
        asked = [asyncio.create_task(self.chat())]
        await asyncio.wait_for(hold.reached.wait(), 5)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("manent.domain.usecases.despite_outages.RETRY_DELAYS_S", (0.01,))
            patch.setattr(store._committer._writer, "write", refusing)
            asked += [asyncio.create_task(self.chat()) for _ in range(2)]
            async with asyncio.timeout(5):
                while not store.waiting:  # noqa: ASYNC110 (the queue sends no event)
                    await asyncio.sleep(0.005)
            await self.scrape()
            hold.released.set()
            hung.set()
            assert [(await answer).status_code for answer in asked] == [503, 503, 503]
            await self.scrape()

    async def break_parts(self, valkey: ValkeyServer) -> None:
        """Redis goes away, a part cannot be looked at, nobody reads the log, limits hold, the disk fills up."""
        self.engine.script = Script()
        valkey.kill()
        assert (await self.chat(session_id="bob")).status_code == 200
        handler = BackgroundHandler(None)
        handler.handle(logging.makeLogRecord({"msg": "nobody reads this"}))
        handler.close()
        self.patch.setattr(setup, "_handler", handler)
        sampler = self.manent.monitoring.sampler
        sampler.loop_lag_s = 0.3
        self.patch.setattr(sampler, "_parts", {**sampler._parts, "broken": _broken})
        self.manent.monitoring.telemetry.limited("requests_per_minute")
        (self.manent.settings.home / "ballast").write_bytes(b"x" * 10**6)

    async def change_models(self) -> None:
        """Models are loaded, evicted, crash and come back, under a real manager."""
        models = [model("a", size_bytes=60), model("b", size_bytes=60), model("broken", size_bytes=10)]

        def fails(model_id: str) -> Exception | None:
            return ModelLoadError("no such file") if model_id == "broken" else None

        async with managed(models, settings=supervisor_settings(Path("/none"), memory_bytes=100), fails=fails) as world:
            await world.use("a", "b", "a")
            await world.runners.of("a").crash()
            await world.use("a")
            with pytest.raises(ModelLoadError):
                await world.use("broken")
            world.runners.of("a").prefix_bytes = 1000
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self.engine, "memory", world.manager.memory)
                await self.scrape()
        for event in world.events:
            self.manent.monitoring.metrics.recorder.model_event(event)


async def _broken() -> float:
    raise ConnectionError


async def everything_happens(home: Path, valkey: ValkeyServer) -> Scraped:
    """A day in the life of a server, in a second or two."""
    settings = Settings(
        home=home,
        engine="scripted",
        redis_url=valkey.url,
        redis_timeout_s=0.5,
        limits_per_subject="requests_per_hour=100000",
        webhook_urls="private",
        webhook_attempts_max=1,
        _env_file=None,
    )
    with pytest.MonkeyPatch.context() as patch:
        async with served(settings) as (manent, http):
            scraped = Scraped(manent, http, patch)
            await scraped.scrape()
            async with in_background(manent.background()):
                await manent.transparency.checkpoints.run()
                await scraped.talk()
                await scraped.scrape()
                await scraped.change_models()
                await scraped.break_store()
                await scraped.break_parts(valkey)
                await manent.transparency.checkpoints.run()
                await scraped.scrape()
            return scraped
