"""Spans made when what they describe has ended, and handed to OpenTelemetry's batch processor, which sends them.

A request is a server span; a completion in it is a span of OpenTelemetry's GenAI conventions, with one for each stage.
None holds content. Where to send them, how many, and under which name is said by the standard OTEL_* variables.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from manent.adapters.traces.attributes import operation_attributes, request_attributes
from manent.adapters.traces.sampling import PerSecond
from manent.domain.telemetry import OperationEnded, Outcome, RequestEnded

TRACES_PER_S = 10
SERVER_FAULT = 500
NS = 1_000_000_000
PROTOCOL = "http/protobuf"


class Tracing:
    """Implements ``manent.domain.telemetry.Telemetry``. Belongs to one event loop; spans are sent by a thread.

    Raises:
        ValueError: an OTEL_* variable asks for what is not there.
    """

    def __init__(self, *, version: str, exporter: SpanExporter | None = None) -> None:
        asked = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        if asked not in {None, "", PROTOCOL}:
            raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {asked}, and only {PROTOCOL} is supported")
        named = Resource.create({SERVICE_VERSION: version})
        if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            named = named.merge(Resource({SERVICE_NAME: "manent"}))
        # Of the provider only what it reads from the environment is used: the resource, the sampler, random ids.
        # Ours, unless OTEL_TRACES_SAMPLER names one: what a client traces, and of the rest so many a second.
        self._own = None if os.environ.get("OTEL_TRACES_SAMPLER") else PerSecond(TRACES_PER_S)
        sampler = None if self._own is None else ParentBased(self._own)
        provider = TracerProvider(resource=named, sampler=sampler, shutdown_on_exit=False)
        self._sampler, self._ids, self._resource = provider.sampler, provider.id_generator, named
        self._processor = BatchSpanProcessor(exporter or OTLPSpanExporter())
        self._scope = InstrumentationScope("manent", version)
        self._propagator = TraceContextTextMapPropagator()

    def now_s(self) -> float:
        """See ``Telemetry.now_s``."""
        return time.monotonic()

    def request_began(self, traceparent: str | None) -> str | None:
        """See ``Telemetry.request_began``; None for a request that is not sampled."""
        if not traceparent and self._own is not None and not self._own.has_room():
            return None  # as the sampler would say, at a fraction of the cost; under load nearly all come this way
        parent = self._extracted(traceparent)
        remote = get_current_span(parent).get_span_context()
        trace_id = remote.trace_id if remote.is_valid else self._ids.generate_trace_id()
        decision = self._sampler.should_sample(parent, trace_id, "request", SpanKind.SERVER)
        if decision.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        return f"00-{trace_id:032x}-{self._ids.generate_span_id():016x}-01"

    def request_ended(self, ended: RequestEnded) -> None:
        """See ``Telemetry.request_ended``."""
        if ended.scope is None or (span := _parsed(ended.scope.span)) is None:
            return
        now_ns = time.time_ns()
        remote = get_current_span(self._extracted(ended.scope.parent)).get_span_context()
        self._end(
            f"{ended.method} {ended.route}",
            span,
            parent=remote if remote.is_valid else None,
            kind=SpanKind.SERVER,
            times_ns=(now_ns - int(ended.duration_s * NS), now_ns),
            attributes=request_attributes(ended),
            failed=ended.status >= SERVER_FAULT,
        )

    def operation_ended(self, ended: OperationEnded) -> None:
        """See ``Telemetry.operation_ended``."""
        if ended.scope is None or (request := _parsed(ended.scope.span)) is None:
            return
        # A monotonic clock has a zero of its own: what it tells is how long ago something was.
        zero_ns = time.time_ns() - int(self.now_s() * NS)
        operation = self._child_of(request)
        for lap in ended.laps:
            self._end(
                lap.stage.value,
                self._child_of(operation),
                parent=operation,
                times_ns=(zero_ns + int(lap.began_s * NS), zero_ns + int(lap.ended_s * NS)),
            )
        self._end(
            f"{ended.operation} {ended.model_id or ''}".strip(),
            operation,
            parent=request,
            times_ns=(zero_ns + int(ended.began_s * NS), zero_ns + int(ended.ended_s * NS)),
            attributes=operation_attributes(ended),
            failed=ended.outcome is Outcome.FAILED,
        )

    def committed(self, appends: int, duration_s: float, *, refused: bool) -> None:
        """See ``Telemetry.committed``: a commit belongs to many requests, whose own spans have it as their append."""

    def limited(self, limit: str) -> None:
        """See ``Telemetry.limited``: the request's span has the refusal as its error."""

    def close(self, timeout_s: float) -> None:
        """Send what waits, within ``timeout_s``; a collector that hangs is left behind."""
        sending = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        sending.start()
        sending.join(timeout_s)

    def _end(
        self,
        name: str,
        span: SpanContext,
        *,
        parent: SpanContext | None,
        times_ns: tuple[int, int],
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int | float | Sequence[str]] | None = None,
        failed: bool = False,
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name=name,
                context=span,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                kind=kind,
                status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
                start_time=times_ns[0],
                end_time=times_ns[1],
                instrumentation_scope=self._scope,
            )
        )

    def _child_of(self, parent: SpanContext) -> SpanContext:
        return SpanContext(
            parent.trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=parent.trace_flags
        )

    def _extracted(self, traceparent: str | None) -> Context:
        return Context() if not traceparent else self._propagator.extract({"traceparent": traceparent}, Context())


def _parsed(traceparent: str | None) -> SpanContext | None:
    if traceparent is None:
        return None
    _, trace_id, span_id, _ = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(1))
