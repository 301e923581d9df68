"""Metrics and traces put together: who is told of what happens, and what is read off when somebody scrapes."""

from __future__ import annotations

import asyncio
import platform
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import psutil
from prometheus_client import CollectorRegistry

from manent.adapters.logs.setup import dropped_lines
from manent.adapters.metrics.collector import Read, Reading, ReadingsCollector
from manent.adapters.metrics.exposition import Exposition
from manent.adapters.metrics.recorder import Recorder
from manent.adapters.store.sql import SQLEventStore
from manent.app.health import HealthCheck, free_for
from manent.app.home import data_folders
from manent.app.limits import Limits
from manent.app.projections import Contexts, Projections
from manent.app.sampling import Sampler
from manent.app.settings import Settings
from manent.app.transparency import Transparency
from manent.app.use_case_set import UseCases
from manent.domain.breaker import Circuit
from manent.domain.generation import ModelCard
from manent.domain.residency import Phase
from manent.domain.telemetry import Telemetry
from manent.domain.usecases.deliver_webhooks import DeliverWebhooks
from manent.domain.usecases.project_contexts import NAME as CONTEXTS

VERSIONS = (version("manent"), platform.python_version(), version("mlx"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What of a Manent is looked at."""

    settings: Settings
    store: SQLEventStore
    use_cases: UseCases
    transparency: Transparency
    contexts: Contexts
    projections: Projections | None
    limits: Limits
    deliveries: DeliverWebhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """What a server tells of itself, and who in it is told."""

    metrics: Metrics
    telemetry: Telemetry
    sampler: Sampler
    health: HealthCheck


class Metrics:
    """One server's metrics, in a registry of their own: what is counted from the start on, the rest by ``watch``."""

    def __init__(self, cards: Iterable[ModelCard]) -> None:
        self._registry = CollectorRegistry()
        names = [name for card in cards for name in (card.model_id, *card.aliases)]
        self.recorder = Recorder(self._registry, names)
        self.exposition = Exposition(self._registry)

    def watch(self, parts: Parts, sampler: Sampler, health: HealthCheck) -> None:
        """Have ``parts`` read for every scrape."""
        reads: Mapping[str, Read] = {
            "models": lambda: _models(parts.use_cases),
            "completions": lambda: _completions(parts.use_cases),
            "limits": lambda: _limits(parts.limits),
            "log": lambda: _log(parts, sampler),
            "contexts": lambda: _contexts(parts, sampler),
            "webhooks": lambda: _webhooks(parts.deliveries),
            "health": lambda: _health(health),
            "process": _process,
            "server": lambda: _server(sampler),
        }
        self._registry.register(ReadingsCollector(reads, sampler.failed))


def watched(parts: Parts, metrics: Metrics, telemetry: Telemetry) -> Monitoring:
    """Monitoring of ``parts``; its sampler is to be kept running."""
    asks: dict[str, Callable[[], Awaitable[float]]] = {
        "disk": lambda: _free_bytes(parts),
        "log": lambda: _head(parts),
        "health": lambda: _problems(health),
    }
    if (projections := parts.projections) is not None:
        asks["projection"] = lambda: projections.subscriptions.position(CONTEXTS)
    sampler = Sampler(asks)
    health = HealthCheck(
        folders=data_folders(parts.settings),
        use_cases=parts.use_cases,
        checkpoints=parts.transparency.checkpoints,
        checkpoint_interval_s=parts.settings.checkpoint_interval_s,
        contexts=parts.contexts,
        sampler=sampler,
    )
    metrics.watch(parts, sampler, health)
    return Monitoring(metrics=metrics, telemetry=telemetry, sampler=sampler, health=health)


async def _free_bytes(parts: Parts) -> float:
    return await asyncio.to_thread(free_for, data_folders(parts.settings))


async def _problems(health: HealthCheck) -> float:
    return len((await health.look()).problems)


async def _head(parts: Parts) -> float:
    return (await parts.store.head()).size


def _models(use_cases: UseCases) -> Iterator[Reading]:
    report = use_cases.engine.memory()
    yield Reading("manent_memory_budget_bytes", report.budget.models_bytes)
    for model in report.models:
        name = model.model_id
        for phase in Phase:
            yield Reading("manent_model_phase", model.phase is phase, (name, phase))
        for circuit in Circuit:
            yield Reading("manent_breaker_state", model.circuit is circuit, ("model", name, circuit))
        yield Reading("manent_model_requests", model.requests - model.waiting, (name, "running"))
        yield Reading("manent_model_requests", model.waiting, (name, "waiting"))
        yield Reading("manent_model_memory_bytes", model.memory_bytes, (name,))
        yield Reading("manent_prefix_cache_bytes", model.prefix_bytes, (name,))


def _completions(use_cases: UseCases) -> Iterator[Reading]:
    yield Reading("manent_completions_active", len(use_cases.live))
    yield Reading("manent_completions_unrecorded", use_cases.closing.kept)
    yield Reading("manent_tails_open", use_cases.follow_log.open_tails)


def _limits(limits: Limits) -> Iterator[Reading]:
    yield Reading("manent_rate_limit_fallbacks_total", limits.fallbacks)


def _webhooks(deliveries: DeliverWebhooks) -> Iterator[Reading]:
    for outcome, count in deliveries.outcomes.items():
        yield Reading("manent_webhook_deliveries_total", count, (outcome,))


def _log(parts: Parts, sampler: Sampler) -> Iterator[Reading]:
    yield Reading("manent_commit_waiting", parts.store.waiting)
    if (position := sampler.latest.get("log")) is not None:
        yield Reading("manent_log_position", position)
    checkpoints = parts.transparency.checkpoints
    if checkpoints.last is not None:
        yield Reading("manent_checkpoint_position", checkpoints.last.size)
    if checkpoints.confirmed_at_us is not None:
        yield Reading("manent_checkpoint_timestamp_seconds", checkpoints.confirmed_at_us / 1_000_000)


def _contexts(parts: Parts, sampler: Sampler) -> Iterator[Reading]:
    near = parts.contexts.near
    yield Reading("manent_context_cache_lookups_total", near.hits, ("hit",))
    yield Reading("manent_context_cache_lookups_total", near.misses, ("miss",))
    yield Reading("manent_context_cache_bytes", near.size_bytes)
    if parts.contexts.breaker is not None:
        for circuit in Circuit:
            state = parts.contexts.breaker.state is circuit
            yield Reading("manent_breaker_state", state, ("redis", "", circuit))
    if parts.projections is not None:
        yield Reading("manent_redis_commands_total", parts.projections.link.answers, ("answered",))
        yield Reading("manent_redis_commands_total", parts.projections.link.errors, ("failed",))
    if "projection" in sampler.latest and "log" in sampler.latest:
        lag_events = max(0.0, sampler.latest["log"] - sampler.latest["projection"])
        yield Reading("manent_projection_lag_events", lag_events, (CONTEXTS,))


def _health(health: HealthCheck) -> Iterator[Reading]:
    if (last := health.last) is not None:
        yield Reading("manent_ready", not last.problems)
        for part in last.degraded:
            yield Reading("manent_degraded", 1, (part,))


def _server(sampler: Sampler) -> Iterator[Reading]:
    if (free_bytes := sampler.latest.get("disk")) is not None:
        yield Reading("manent_disk_free_bytes", free_bytes)
    yield Reading("manent_event_loop_lag_seconds", sampler.loop_lag_s)
    yield Reading("manent_log_lines_dropped_total", dropped_lines())
    for part, count in Counter(sampler.failed).items():
        yield Reading("manent_samples_failed_total", count, (part,))
    yield Reading("manent_build_info", 1, VERSIONS)


def _process() -> Iterator[Reading]:
    process = psutil.Process()
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        yield Reading("process_cpu_seconds_total", times.user + times.system)
        yield Reading("process_resident_memory_bytes", memory.rss)
        yield Reading("process_virtual_memory_bytes", memory.vms)
        yield Reading("process_start_time_seconds", process.create_time())
        yield Reading("process_open_fds", process.num_fds())
    yield Reading("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
