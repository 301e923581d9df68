"""What is counted as it happens: requests, completions, commits, and what becomes of models."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from time import monotonic
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from manent.adapters.metrics.catalog import METRICS, Kind
from manent.domain.caching import CacheUse
from manent.domain.generation import Usage
from manent.domain.model_events import (
    ModelEvent,
    ModelLoaded,
    ModelLoadFailed,
    ModelUnloaded,
    RunnerCrashed,
)
from manent.domain.telemetry import OperationEnded, Outcome, RequestEnded, Stage

UNKNOWN_MODEL = "unknown"
OTHER_METHOD = "_OTHER"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LABELS_MAX = 4096

_M = TypeVar("_M", bound=MetricWrapperBase)


class Recorder:
    """Implements ``manent.domain.telemetry.Telemetry``. Belongs to one event loop.

    ``models`` are the names that may stand in a label: ids and aliases of the registry.
    """

    def __init__(self, registry: CollectorRegistry, models: Iterable[str]) -> None:
        self._models = frozenset(models)
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._crashed: set[str] = set()
        for metric in METRICS:
            if metric.read:
                continue
            if metric.kind is Kind.HISTOGRAM:
                self._histograms[metric.name] = Histogram(
                    metric.name, metric.says, metric.labels, registry=registry, buckets=metric.buckets
                )
            else:
                self._counters[metric.name] = Counter(metric.name, metric.says, metric.labels, registry=registry)
        # The children by their labels: prometheus-client's own look-up takes a lock and checks each label again.
        self._counter = lru_cache(LABELS_MAX)(self._find_counter)
        self._histogram = lru_cache(LABELS_MAX)(self._find_histogram)

    def now_s(self) -> float:
        """See ``Telemetry.now_s``."""
        return monotonic()

    def request_began(self, traceparent: str | None) -> str | None:
        """See ``Telemetry.request_began``."""
        return None

    def request_ended(self, ended: RequestEnded) -> None:
        """See ``Telemetry.request_ended``."""
        method = ended.method if ended.method in METHODS else OTHER_METHOD
        labels = (method, ended.route, str(ended.status), ended.error or "")
        self._histogram("http_server_request_duration_seconds", *labels).observe(ended.duration_s)

    def operation_ended(self, ended: OperationEnded) -> None:
        """See ``Telemetry.operation_ended``."""
        asked, model = self._known(ended.model_asked), self._known(ended.model_id or ended.model_asked)
        error = ended.error or ""
        self._counter("manent_operations_total", ended.operation, model, ended.outcome, error).inc()
        if ended.outcome is Outcome.REPEATED:
            return
        duration = self._histogram("gen_ai_server_request_duration_seconds", ended.operation, asked, model, error)
        duration.observe(ended.ended_s - ended.began_s)
        for lap in ended.laps:
            self._histogram("manent_stage_duration_seconds", model, lap.stage).observe(lap.ended_s - lap.began_s)
        if ended.usage is not None:
            self._used(model, ended.usage)
        if ended.outcome is Outcome.GENERATED:
            self._generated(model, ended)

    def committed(self, appends: int, duration_s: float, *, refused: bool) -> None:
        """See ``Telemetry.committed``."""
        if refused:
            self._counter("manent_commits_refused_total").inc()
            return
        self._histogram("manent_commit_duration_seconds").observe(duration_s)
        self._histogram("manent_commit_appends").observe(appends)

    def limited(self, limit: str) -> None:
        """See ``Telemetry.limited``."""
        self._counter("manent_rate_limit_refusals_total", limit).inc()

    def model_event(self, event: ModelEvent) -> None:
        """Something became of a model."""
        model = self._known(event.model_id)
        match event:
            case ModelLoaded(load_s=load_s):
                self._counter("manent_model_loads_total", model, "loaded").inc()
                self._histogram("manent_model_load_duration_seconds", model).observe(load_s)
                if model in self._crashed:
                    self._crashed.discard(model)
                    self._counter("manent_runner_restarts_total", model).inc()
            case ModelLoadFailed():
                self._counter("manent_model_loads_total", model, "failed").inc()
            case ModelUnloaded(reason=reason):
                self._counter("manent_model_unloads_total", model, reason).inc()
            case RunnerCrashed():
                self._crashed.add(model)
                self._counter("manent_runner_crashes_total", model).inc()

    def _generated(self, model: str, ended: OperationEnded) -> None:
        if ended.batch_size_max:
            self._histogram("manent_batch_size", model).observe(ended.batch_size_max)
        if ended.cache is not None:
            self._counter("manent_prefix_cache_lookups_total", model, _result(ended.cache)).inc()
        first_s, decode_s = 0.0, 0.0
        for lap in ended.laps:
            if lap.stage is Stage.PREFILL:
                first_s = lap.ended_s - ended.began_s
            elif lap.stage is Stage.DECODE:
                decode_s = lap.ended_s - lap.began_s
        if first_s and ended.usage is not None and ended.usage.completion_tokens:
            self._histogram("gen_ai_server_time_to_first_token_seconds", model).observe(first_s)
            if (later_tokens := ended.usage.completion_tokens - 1) > 0:
                per_token = self._histogram("gen_ai_server_time_per_output_token_seconds", model)
                per_token.observe(decode_s / later_tokens)

    def _used(self, model: str, usage: Usage) -> None:
        for token_type, tokens in (
            ("input", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.completion_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if tokens:
                self._counter("manent_tokens_total", model, token_type).inc(tokens)

    def _known(self, model: str) -> str:
        return model if model in self._models else UNKNOWN_MODEL

    def _find_counter(self, name: str, *labels: str) -> Counter:
        return _child(self._counters[name], labels)

    def _find_histogram(self, name: str, *labels: str) -> Histogram:
        return _child(self._histograms[name], labels)


def _child(metric: _M, labels: tuple[str, ...]) -> _M:
    return metric.labels(*labels) if labels else metric


def _result(use: CacheUse) -> str:
    return use.source or use.miss or "hit"
