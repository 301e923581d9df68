"""What is counted as it happens: requests, completions, commits, and what becomes of models."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from prometheus_client import CollectorRegistry

from manent.adapters.metrics.tallies import Tallies
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

TOLD_MAX = 16
UNKNOWN_MODEL = "unknown"
OTHER_METHOD = "_OTHER"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Recorder:
    """Implements ``manent.domain.telemetry.Telemetry``. Belongs to one event loop.

    What ended is counted many at a time, and before anybody reads the figures: done once for each request, between two
    steps of it, the same work takes more than twice as long.

    ``models`` are the names that may stand in a label: ids and aliases of the registry.
    """

    def __init__(self, registry: CollectorRegistry, models: Iterable[str]) -> None:
        self._models = frozenset(models)
        self._crashed: set[str] = set()
        self._told: list[RequestEnded | OperationEnded] = []
        tallies = Tallies(self.settle)
        registry.register(tallies)
        self._counts, self._distributions = tallies.counts, tallies.distributions
        self._requests = self._distributions["http_server_request_duration_seconds"]
        self._durations = self._distributions["gen_ai_server_request_duration_seconds"]
        self._stages = self._distributions["manent_stage_duration_seconds"]
        self._first_tokens = self._distributions["gen_ai_server_time_to_first_token_seconds"]
        self._later_tokens = self._distributions["gen_ai_server_time_per_output_token_seconds"]
        self._tokens = self._counts["manent_tokens_total"]

    def now_s(self) -> float:
        """See ``Telemetry.now_s``."""
        return monotonic()

    def request_began(self, traceparent: str | None) -> str | None:
        """See ``Telemetry.request_began``."""
        return None

    def request_ended(self, ended: RequestEnded) -> None:
        """See ``Telemetry.request_ended``."""
        self._keep(ended)

    def operation_ended(self, ended: OperationEnded) -> None:
        """See ``Telemetry.operation_ended``."""
        self._keep(ended)

    def settle(self) -> None:
        """Count what was told."""
        told, self._told = self._told, []
        for ended in told:
            if isinstance(ended, OperationEnded):
                self._count_operation(ended)
            else:
                self._count_request(ended)

    def _keep(self, ended: RequestEnded | OperationEnded) -> None:
        self._told.append(ended)
        if len(self._told) >= TOLD_MAX:
            self.settle()

    def _count_request(self, ended: RequestEnded) -> None:
        method = ended.method if ended.method in METHODS else OTHER_METHOD
        labels = (method, ended.route, str(ended.status), ended.error or "")
        self._requests.observe(ended.duration_s, labels)

    def _count_operation(self, ended: OperationEnded) -> None:
        asked, model = self._known(ended.model_asked), self._known(ended.model_id or ended.model_asked)
        error = ended.error or ""
        self._counts["manent_operations_total"].add((ended.operation, model, ended.outcome, error))
        if ended.outcome is Outcome.REPEATED:
            return
        durations, stages = self._durations, self._stages
        durations.observe(ended.ended_s - ended.began_s, (ended.operation, asked, model, error))
        for stage, began_s, ended_s in ended.laps:
            stages.observe(ended_s - began_s, (model, stage))
        if ended.usage is not None:
            self._used(model, ended.usage)
        if ended.outcome is Outcome.GENERATED:
            self._generated(model, ended)

    def committed(self, appends: int, duration_s: float, *, refused: bool) -> None:
        """See ``Telemetry.committed``."""
        if refused:
            self._counts["manent_commits_refused_total"].add()
            return
        self._distributions["manent_commit_duration_seconds"].observe(duration_s)
        self._distributions["manent_commit_appends"].observe(appends)

    def limited(self, limit: str) -> None:
        """See ``Telemetry.limited``."""
        self._counts["manent_rate_limit_refusals_total"].add((limit,))

    def model_event(self, event: ModelEvent) -> None:
        """Something became of a model."""
        model = self._known(event.model_id)
        match event:
            case ModelLoaded(load_s=load_s):
                self._counts["manent_model_loads_total"].add((model, "loaded"))
                self._distributions["manent_model_load_duration_seconds"].observe(load_s, (model,))
                if model in self._crashed:
                    self._crashed.discard(model)
                    self._counts["manent_runner_restarts_total"].add((model,))
            case ModelLoadFailed():
                self._counts["manent_model_loads_total"].add((model, "failed"))
            case ModelUnloaded(reason=reason):
                self._counts["manent_model_unloads_total"].add((model, reason))
            case RunnerCrashed():
                self._crashed.add(model)
                self._counts["manent_runner_crashes_total"].add((model,))

    def _generated(self, model: str, ended: OperationEnded) -> None:
        if ended.batch_size_max:
            self._distributions["manent_batch_size"].observe(ended.batch_size_max, (model,))
        if ended.cache is not None:
            self._counts["manent_prefix_cache_lookups_total"].add((model, _result(ended.cache)))
        first_s, decode_s = 0.0, 0.0
        for stage, began_s, ended_s in ended.laps:
            if stage is Stage.PREFILL:
                first_s = ended_s - ended.began_s
            elif stage is Stage.DECODE:
                decode_s = ended_s - began_s
        if first_s and ended.usage is not None and ended.usage.completion_tokens:
            self._first_tokens.observe(first_s, (model,))
            if (later_tokens := ended.usage.completion_tokens - 1) > 0:
                self._later_tokens.observe(decode_s / later_tokens, (model,))

    def _used(self, model: str, usage: Usage) -> None:
        for token_type, tokens in (
            ("input", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.completion_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if tokens:
                self._tokens.add((model, token_type), tokens)

    def _known(self, model: str) -> str:
        return model if model in self._models else UNKNOWN_MODEL


def _result(use: CacheUse) -> str:
    return use.source or use.miss or "hit"
