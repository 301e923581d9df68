"""The one place that chooses adapters: settings in, a whole Manent out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from manent.adapters.http.app import create_app
from manent.adapters.http.context import HttpLimits, HttpServices
from manent.adapters.http.principal import everybody_is
from manent.adapters.http.request import App
from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.exchange import RunnerLimits
from manent.adapters.inference.registry import Registry, load_registry
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.inference.supervisor import SupervisorSettings
from manent.adapters.store.database import open_node
from manent.app.projections import context_cache, projector, shared_projections
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.app.transparency import Transparency, provable
from manent.app.usecases import UseCases, build_use_cases
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.errors import DomainError
from manent.domain.ports import EventStore, InferenceEngine
from manent.domain.usecases.project_contexts import ProjectContexts
from manent.domain.usecases.record_models import RecordModelEvents

ENGINE_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manent:
    """A Manent, ready to be served."""

    settings: Settings
    use_cases: UseCases
    transparency: Transparency
    projector: ProjectContexts | None = None

    def web_app(self) -> App:
        """The HTTP application over the use cases."""
        settings, use_cases = self.settings, self.use_cases
        return create_app(
            HttpServices(
                chat=use_cases.complete_chat,
                sessions=use_cases.manage_sessions,
                session_list=use_cases.list_sessions,
                session_messages=use_cases.session_messages,
                log=use_cases.query_log,
                follow=use_cases.follow_log,
                replays=use_cases.replays,
                proofs=self.transparency.proofs,
                checkpoints=self.transparency.checkpoints,
                engine=use_cases.engine,
                ids=RandomIds(),
                authenticate=everybody_is(LOCAL_OPERATOR),
                ready=self.problems,
                version=version("manent"),
            ),
            HttpLimits(body_bytes_max=settings.body_bytes_max, stall_timeout_s=settings.write_timeout_s),
        )

    def background(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What its server does beside answering, by name: loops that run until it has drained."""
        projecting = {} if self.projector is None else {"projecting contexts": self.projector.run}
        return projecting | {
            "closing what could not be recorded": self.use_cases.closing.keep_closing,
            "closing what a crash left open": self.use_cases.close_interrupted.keep_sweeping,
            "expiring sessions": self.use_cases.expire_sessions.keep_sweeping,
        }

    async def problems(self) -> Mapping[str, str]:
        """What keeps this Manent from answering, by name; empty is ready."""
        problems: dict[str, str] = {}
        try:
            await self.use_cases.store.ping()
        except DomainError as error:
            problems["store"] = error.message
        if self.use_cases.closing.kept:
            problems["store"] = f"{self.use_cases.closing.kept} completions ended and could not be recorded yet"
        if not any(card.available for card in self.use_cases.engine.models()):
            problems["models"] = "no model of the registry is installed; run `manent models install`"
        return problems


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncGenerator[Manent, None]:
    """A Manent on the real adapters that the settings choose; everything is closed at the end, in order.

    Raises:
        RegistryError: models.toml is wrong.
        StoreUnavailable: the database does not answer.
        KeyUnusable: the log's signing key cannot be read or made.
    """
    clock, ids = SystemClock(), RandomIds()
    registry = load_registry(settings.models_file, settings.models_folder)
    store = await open_node(settings.database, clock=clock, ids=ids)
    try:
        async with (
            provable(settings, store, clock) as transparency,
            shared_projections(settings, await transparency.kept.log_id(), clock) as projections,
            _assembled_engine(settings, registry, store, clock) as engine,
        ):
            cache = context_cache(settings, projections)
            use_cases = build_use_cases(settings, store=store, engine=engine, clock=clock, ids=ids, cache=cache)
            yield Manent(
                settings=settings,
                use_cases=use_cases,
                transparency=transparency,
                projector=None if projections is None else projector(settings, projections, store, clock),
            )
    finally:
        await store.aclose()


@asynccontextmanager
async def _assembled_engine(
    settings: Settings, registry: Registry, store: EventStore, clock: SystemClock
) -> AsyncGenerator[InferenceEngine, None]:
    if settings.engine == "scripted":
        yield ScriptedEngine()
        return
    engine = RunnerEngine(
        registry,
        settings=SupervisorSettings(
            digest_folder=settings.home / "cache",
            limits=RunnerLimits(load_timeout_s=settings.load_timeout_s, stall_timeout_s=settings.stall_timeout_s),
            in_flight_max=settings.requests_max,
        ),
        clock=clock,
        on_event=RecordModelEvents(store, tenant=LOCAL_OPERATOR.tenant).record,
    )
    try:
        yield engine
    finally:
        await engine.aclose(ENGINE_CLOSE_S)
