"""Every metric there is: its name, its kind, its labels and what it means. The reference page is made from this table.

Names follow OpenTelemetry's semantic conventions where these have one (``gen_ai.server.*``, ``http.server.*``), as
Prometheus writes them, and Prometheus's conventions for the rest. A label has few values: a model that the registry
does not know is ``unknown``, a path that is none of the API's ``unmatched``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

OPERATION = "gen_ai_operation_name"
ASKED = "gen_ai_request_model"
MODEL = "gen_ai_response_model"
ERROR = "error_type"

# The buckets that the conventions ask for, the longer ones ours: a machine with one model is no data center.
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
REQUEST_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 300.0)
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
OUTPUT_TOKEN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LOAD_BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SIZE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Kind(StrEnum):
    """What a metric is; ``info`` is a gauge that is always 1 and says what it says in its labels."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric, by the name that it has on the wire; a counter's ends in ``_total``, an info's in ``_info``.

    ``buckets`` are a histogram's: those that are counted as things happen have them. A metric that is ``read`` is
    looked up for every scrape.
    """

    name: str
    kind: Kind
    says: str
    labels: Sequence[str] = ()
    buckets: Sequence[float] = ()
    read: bool = False


def _counted(name: str, says: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, says=says, labels=labels)


def _measured(name: str, says: str, buckets: Sequence[float], *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, says=says, labels=labels, buckets=buckets)


def _read(name: str, says: str, *labels: str, kind: Kind = Kind.GAUGE) -> Metric:
    return Metric(name=name, kind=kind, says=says, labels=labels, read=True)


METRICS: Sequence[Metric] = (
    # Requests.
    _measured(
        "http_server_request_duration_seconds",
        "HTTP requests by route; a stream lasts until its end. `error_type` is the code of the error, empty for none.",
        HTTP_BUCKETS,
        "http_request_method",
        "http_route",
        "http_response_status_code",
        ERROR,
    ),
    _measured(
        "gen_ai_server_request_duration_seconds",
        "Completions and embeddings, from their arrival to the recorded end.",
        REQUEST_BUCKETS,
        OPERATION,
        ASKED,
        MODEL,
        ERROR,
    ),
    _measured(
        "gen_ai_server_time_to_first_token_seconds",
        "From a completion's arrival to its first token: queue, load, context and prefill included.",
        FIRST_TOKEN_BUCKETS,
        MODEL,
    ),
    _measured(
        "gen_ai_server_time_per_output_token_seconds",
        "Seconds for each token after a completion's first one, as their mean.",
        OUTPUT_TOKEN_BUCKETS,
        MODEL,
    ),
    _counted(
        "manent_operations_total",
        "Completions and embeddings by how they ended: generated, failed, cancelled, refused (before anything was "
        "recorded) or repeated (an idempotency key's answer told again). `error_type` is the code, or the reason.",
        OPERATION,
        MODEL,
        "outcome",
        ERROR,
    ),
    _measured(
        "manent_stage_duration_seconds",
        "Where completions spend their time: turn (of their session), queue (with the model's load), context, prefill, "
        "decode, append.",
        STAGE_BUCKETS,
        MODEL,
        "stage",
    ),
    _counted(
        "manent_tokens_total",
        "Tokens by type: input; cached, those of them that were not evaluated again; output; reasoning, those of them "
        "that were thoughts.",
        MODEL,
        "gen_ai_token_type",
    ),
    _read("manent_completions_active", "Completions that run or wait now."),
    _read("manent_completions_unrecorded", "Completions that ended, but whose end the store has not taken yet."),
    _read("manent_tails_open", "Readers that follow the log over HTTP."),
    _counted("manent_rate_limit_refusals_total", "Requests that a rate limit refused, by the limit.", "limit"),
    _read(
        "manent_rate_limit_fallbacks_total",
        "Checks of limits that this process counted alone, because Redis was away.",
        kind=Kind.COUNTER,
    ),
    # Models.
    _read("manent_model_phase", "1 for the phase that a model is in, 0 for the others.", MODEL, "phase"),
    _read("manent_model_requests", "Requests at a model: running, or waiting for a place.", MODEL, "state"),
    _read("manent_model_memory_bytes", "What a model's process holds.", MODEL),
    _read("manent_memory_budget_bytes", "What all models together may hold."),
    _measured("manent_batch_size", "The largest batch that a completion was part of.", SIZE_BUCKETS, MODEL),
    _counted(
        "manent_prefix_cache_lookups_total",
        "Prompts looked up in the prefix cache: memory or disk where it had something, else why not.",
        MODEL,
        "result",
    ),
    _read("manent_prefix_cache_bytes", "What a model's prefix cache keeps in memory, as of the last ping.", MODEL),
    _counted("manent_model_loads_total", "Loads of models: loaded or failed.", MODEL, "outcome"),
    _measured("manent_model_load_duration_seconds", "How long loads took.", LOAD_BUCKETS, MODEL),
    _counted(
        "manent_model_unloads_total", "Models that were unloaded; evictions have the reason evicted.", MODEL, "reason"
    ),
    _counted("manent_runner_crashes_total", "Runners that ended without being asked to.", MODEL),
    _counted("manent_runner_restarts_total", "Runners that were started again after a crash.", MODEL),
    _read(
        "manent_breaker_state",
        "1 for the state that a circuit breaker is in, 0 for the others; `breaker` is redis, or model with the model.",
        "breaker",
        MODEL,
        "state",
    ),
    # The log.
    _measured("manent_commit_duration_seconds", "Transactions of the event store.", COMMIT_BUCKETS),
    _measured("manent_commit_appends", "Appends that one transaction committed.", SIZE_BUCKETS),
    _counted("manent_commits_refused_total", "Transactions that the database refused."),
    _read("manent_commit_waiting", "Appends that wait for the next transaction."),
    _read("manent_log_position", "The log's last position."),
    _read("manent_checkpoint_position", "The position up to which a signed checkpoint covers the log."),
    _read("manent_checkpoint_timestamp_seconds", "When the last checkpoint was last found up to date, since 1970."),
    # Projections.
    _read("manent_projection_lag_events", "Events that a projection has not seen yet.", "projection"),
    _read(
        "manent_context_cache_lookups_total",
        "Sessions looked up in this process's context cache.",
        "result",
        kind=Kind.COUNTER,
    ),
    _read("manent_context_cache_bytes", "What this process's context cache keeps, by estimate."),
    _read("manent_redis_commands_total", "Round trips to Redis: answered or failed.", "result", kind=Kind.COUNTER),
    _read(
        "manent_webhook_deliveries_total",
        "Attempts of this process to deliver an event: taken, or failed; abandoned are those that made a dead letter.",
        "outcome",
        kind=Kind.COUNTER,
    ),
    # The process.
    _read("manent_ready", "1 if requests can be served, else 0."),
    _read("manent_degraded", "1 for each part that does not work as it should while requests are served.", "part"),
    _read("manent_disk_free_bytes", "Free on the disk of the data folder."),
    _read("manent_event_loop_lag_seconds", "How late the event loop woke a timer, as of the last look."),
    _read("manent_log_lines_dropped_total", "Log lines that nobody took in time.", kind=Kind.COUNTER),
    _read("manent_samples_failed_total", "Looks at a part that failed or took too long.", "part", kind=Kind.COUNTER),
    _read("manent_build_info", "The versions of Manent, Python and MLX.", "version", "python", "mlx", kind=Kind.INFO),
    _read("process_cpu_seconds_total", "Processor time of the server, without its runners.", kind=Kind.COUNTER),
    _read("process_resident_memory_bytes", "Memory of the server, without its runners."),
    _read("process_virtual_memory_bytes", "Address space of the server."),
    _read("process_start_time_seconds", "When the server was started, since 1970."),
    _read("process_open_fds", "Open file descriptors."),
    _read("process_max_fds", "How many file descriptors may be open."),
)

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
