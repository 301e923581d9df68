"""The one place that chooses adapters: settings in, a whole Manent out."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from time import monotonic

from manent.adapters.http.app import create_app
from manent.adapters.http.context import HttpLimits, HttpServices
from manent.adapters.http.metrics import monitoring_routes
from manent.adapters.http.principal import identified_by
from manent.adapters.http.request import App
from manent.adapters.http.routes import ROUTES
from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.adapters.inference.admission import AdmissionLimits
from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.exchange import RunnerLimits
from manent.adapters.inference.memory import machine_budget
from manent.adapters.inference.prefix_settings import PrefixSettings, PrefixTags
from manent.adapters.inference.registry import BYTES_PER_GB, Registry, load_registry
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.inference.supervision import SupervisorSettings
from manent.adapters.plugins.loading import Plugins, load_plugins
from manent.adapters.store.database import open_node
from manent.adapters.store.sql import SQLEventStore
from manent.app.http_services import http_services
from manent.app.identity import Identity, check_opening, identity
from manent.app.limits import Limits, counted, http_limits
from manent.app.monitoring import Metrics, Monitoring, Parts, watched
from manent.app.plugins import plugin_engine
from manent.app.projections import contexts, projector, shared_projections
from manent.app.settings import Settings
from manent.app.streams import stream_buffer
from manent.app.system import RandomIds, SystemClock
from manent.app.tracing import tracing
from manent.app.transparency import Transparency, provable
from manent.app.use_case_set import UseCases
from manent.app.usecases import build_use_cases
from manent.app.webhooks import WebhookCases, deliveries, webhook_cases
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.ports import InferenceEngine
from manent.domain.residency import MemoryBudget
from manent.domain.telemetry import NO_TELEMETRY, AllTelemetry
from manent.domain.usecases.deliver_webhooks import DeliverWebhooks
from manent.domain.usecases.project_contexts import ProjectContexts
from manent.domain.usecases.record_models import RecordModelEvents
from manent.domain.usecases.run_middleware import MiddlewareChain

ENGINE_CLOSE_S = 2.0
PREFIX_MEMORY_PART = 16
PREFIX_DISK_BYTES = 20 * BYTES_PER_GB
PREFIX_DISK_PART = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Manent:
    """A Manent, ready to be served."""

    settings: Settings
    use_cases: UseCases
    transparency: Transparency
    webhooks: WebhookCases
    deliveries: DeliverWebhooks
    middleware: MiddlewareChain
    identity: Identity
    monitoring: Monitoring
    limits: Limits
    projector: ProjectContexts | None = None

    def web_app(self) -> App:
        """The HTTP application over the use cases."""
        settings = self.settings
        services = self._services()
        if settings.metrics != "main":
            services = replace(services, scrape=None)
        return create_app(services, http_limits(settings))

    def monitoring_app(self) -> App:
        """The application of the port for monitoring alone: it answers to every name, since it tells no secrets."""
        services = replace(self._services(), telemetry=NO_TELEMETRY)
        return create_app(services, HttpLimits(hosts=None), monitoring_routes(ROUTES))

    def _services(self) -> HttpServices:
        settings, use_cases = self.settings, self.use_cases
        return http_services(
            use_cases,
            proofs=self.transparency.proofs,
            checkpoints=self.transparency.checkpoints,
            webhooks=self.webhooks,
            middleware=self.middleware,
            ids=RandomIds(),
            images=CheckedImages(ImageFetcher(settings.image_urls)),
            keys=self.identity.keys,
            authenticate=identified_by(
                self.identity.identify, store=use_cases.store, clock=SystemClock(), ids=RandomIds()
            ),
            health=self.monitoring.health.look,
            version=version("manent"),
            telemetry=self.monitoring.telemetry,
            scrape=self.monitoring.metrics.exposition.render,
        )

    def background(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What its server does beside answering, by name: loops that run until it has drained."""
        projecting = {} if self.projector is None else {"projecting contexts": self.projector.run}
        keeping = {} if self.limits.keep is None else {"keeping what running completions hold": self.limits.keep}
        return (
            projecting
            | keeping
            | {
                "closing what could not be recorded": self.use_cases.closing.keep_closing,
                "closing what a crash left open": self.use_cases.close_interrupted.keep_sweeping,
                "stopping what other servers were asked to cancel": self.use_cases.responses.watch.keep_watching,
                "expiring sessions": self.use_cases.expire_sessions.keep_sweeping,
                "warming conversations": self.use_cases.warm_prefixes.keep_warming,
                "delivering webhooks": self.deliveries.run,
                "recording failed logins": self.identity.failures.keep_recording,
                "sampling": self.monitoring.sampler.keep_sampling,
            }
        )

    async def who_may_come(self) -> str:
        """A sentence for the operator; raises NotOpenable where nobody may be let in as the settings have it."""
        return await check_opening(self.settings, self.identity, now_us=SystemClock().now_us())


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncGenerator[Manent, None]:
    """A Manent on the real adapters that the settings choose; everything is closed at the end, in order.

    Raises:
        PluginError: a plugin that the settings name cannot be used.
        RegistryError: models.toml is wrong.
        StoreUnavailable: the database does not answer.
        KeyUnusable: the log's signing key cannot be read or made.
        AccessSecretUnusable, NotOpenable: API keys or tokens cannot be judged.
        TracingUnavailable: traces are asked for, and what sends them is not installed.
    """
    plugins = load_plugins(settings.plugin_names)
    registry = load_registry(settings.models_file, settings.models_folder)
    store = await open_node(settings.database, clock=SystemClock(), ids=RandomIds())
    try:
        async with _over(settings, plugins, registry, store) as manent:
            yield manent
    finally:
        await store.aclose()


@asynccontextmanager
async def _over(
    settings: Settings, plugins: Plugins, registry: Registry, store: SQLEventStore
) -> AsyncGenerator[Manent, None]:
    """A Manent over ``store``."""
    clock, ids = SystemClock(), RandomIds()
    recorded = RecordModelEvents(store, tenant=LOCAL_OPERATOR.tenant)
    async with (
        provable(settings, store, clock) as transparency,
        shared_projections(settings, log_id := await transparency.kept.log_id(), clock) as projections,
        webhook_cases(settings, store, clock) as webhooks,
        counted(settings, log_id) as limits,
        stream_buffer(settings, log_id) as streams,
        _assembled_engine(settings, plugins, registry, recorded, clock) as engine,
        tracing(settings) as traces,
    ):
        cached, metrics = contexts(settings, projections), Metrics(engine.models())
        listeners = [*([metrics.recorder] if settings.measures else []), *traces]
        telemetry = AllTelemetry(*listeners, now_s=monotonic) if listeners else NO_TELEMETRY
        use_cases = build_use_cases(
            settings,
            store=store,
            engine=engine,
            clock=clock,
            ids=ids,
            cache=cached.cache,
            limiter=limits.limiter,
            streams=streams,
            telemetry=telemetry,
        )
        store.report_to(telemetry)
        recorded.observe(use_cases.warm_prefixes.observe)
        recorded.observe(metrics.recorder.model_event)
        parts = Parts(
            settings=settings,
            store=store,
            use_cases=use_cases,
            transparency=transparency,
            contexts=cached,
            projections=projections,
            limits=limits,
        )
        yield Manent(
            settings=settings,
            use_cases=use_cases,
            transparency=transparency,
            webhooks=webhooks,
            middleware=MiddlewareChain(plugins.middleware),
            deliveries=deliveries(settings, webhooks, store, clock),
            identity=await identity(settings, store, clock=clock, ids=ids),
            monitoring=watched(parts, metrics, telemetry),
            limits=limits,
            projector=None if projections is None else projector(settings, projections, store, clock),
        )


@asynccontextmanager
async def _assembled_engine(
    settings: Settings, plugins: Plugins, registry: Registry, recorded: RecordModelEvents, clock: SystemClock
) -> AsyncGenerator[InferenceEngine, None]:
    if settings.engine == "scripted":
        yield ScriptedEngine()
        return
    if settings.engine != "mlx":
        async with plugin_engine(settings, plugins) as engine:
            yield engine
        return
    engine = RunnerEngine(
        registry,
        settings=SupervisorSettings(
            digest_folder=settings.home / "cache",
            prefix=_prefix(settings),
            limits=RunnerLimits(load_timeout_s=settings.load_timeout_s, stall_timeout_s=settings.stall_timeout_s),
            admission=AdmissionLimits(
                running_max=settings.running_max,
                in_flight_max=settings.requests_max,
                wait_max_s=settings.queue_wait_s,
            ),
            budget=_budget(settings),
            memory_wait_s=settings.memory_wait_s,
            idle_timeout_s=settings.idle_timeout_s,
        ),
        clock=clock,
        on_event=recorded.record,
        recall=recorded.memory_of,
    )
    engine.start()
    try:
        yield engine
    finally:
        await engine.aclose(ENGINE_CLOSE_S)


def _prefix(settings: Settings) -> PrefixSettings:
    """The prefix caches' bounds; the secret of their names lies apart from them."""
    folder = settings.home / "cache" / "prefix"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory_bytes, disk_bytes = _bytes(settings.prefix_memory_gb), _bytes(settings.prefix_disk_gb)
    if memory_bytes is None:
        memory_bytes = _budget(settings)().total_bytes // PREFIX_MEMORY_PART
    if disk_bytes is None:
        disk_bytes = min(PREFIX_DISK_BYTES, shutil.disk_usage(folder).free // PREFIX_DISK_PART)
    tags = PrefixTags.of_file(settings.keys_folder / "prefix-cache.key")
    return PrefixSettings(folder=folder, memory_bytes=memory_bytes, disk_bytes=disk_bytes, tags=tags)


def _budget(settings: Settings) -> Callable[[], MemoryBudget]:
    """The budget, looked up for every decision: a container's limit may be changed while it runs."""

    def budget() -> MemoryBudget:
        return machine_budget(
            total_bytes=_bytes(settings.memory_total_gb),
            reserved_bytes=_bytes(settings.memory_reserved_gb),
            margin_bytes=_bytes(settings.memory_margin_gb),
        )

    return budget


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * BYTES_PER_GB)
