"""Traces: what spans say, which requests have them, and what a client's traceparent does."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from manent.adapters.inference.script import Script
from manent.adapters.traces.otlp import Tracing
from manent.app.settings import Settings
from manent.app.tracing import TracingUnavailable, tracing
from manent.domain.errors import GenerationFailed
from manent.domain.telemetry import AllTelemetry
from tests.support.http import Running, running_server
from tests.support.spans import TRACEPARENT, Spans

SLACK_NS = 5_000_000


@dataclass(frozen=True)
class Traced:
    """A server and its spans."""

    running: Running
    spans: Spans


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch processor does not wait for long."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


@asynccontextmanager
async def traced() -> AsyncGenerator[Traced, None]:
    """A server that is traced."""
    spans = Spans()
    traces = Tracing(version="1", exporter=spans)
    async with running_server(Script(), telemetry=AllTelemetry(traces, now_s=monotonic)) as running:
        yield Traced(running, spans)
    traces.close(1.0)


async def test_spans_say_where_the_time_went() -> None:
    """Request, completion and stages, one inside the other, in the trace of the client; events are found by it."""
    async with traced() as world:
        world.running.http.headers["traceparent"] = TRACEPARENT
        assert (await world.running.chat(session_id="ada")).status_code == 200
        world.running.engine.script = Script(failure=GenerationFailed("no"), fails_at=1)
        assert (await world.running.chat()).status_code == 500
        spans = await world.spans.of(9 + 8)
        entries = await world.running.log("CompletionGenerated")
    request = next(span for span in spans if span.name == "POST /v1/chat/completions")
    completion = next(span for span in spans if span.name == "chat scripted")
    stages = [span for span in spans if span.parent == completion.context]
    assert [span.name for span in stages] == ["turn", "queue", "context", "append", "prefill", "decode", "append"]
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACEPARENT.split("-")[1]}
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    assert completion.parent == request.context
    for outer, inner in ((request, completion), *((completion, stage) for stage in stages)):
        assert (outer.start_time or 0) - SLACK_NS <= (inner.start_time or 0) <= (inner.end_time or 0)
        assert (inner.end_time or 0) <= (outer.end_time or 0) + SLACK_NS
    attributes = dict(completion.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.usage.output_tokens"] == 6
    assert attributes["gen_ai.conversation.id"] == "ada"
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    failed = [span for span in spans if not span.status.is_unset]
    assert {dict(span.attributes or {})["error.type"] for span in failed} == {"generation_failed"}
    assert [entry.header.correlation_id for entry in entries] == [TRACEPARENT.split("-")[1]]


@pytest.mark.parametrize(
    ("traceparent", "begins_anew"),
    [
        (TRACEPARENT.removesuffix("01") + "00", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", True),
        ("nonsense", True),
        (TRACEPARENT + "-more", True),
        ("0" * 10_000, True),
    ],
)
async def test_what_a_client_says_of_its_trace_is_checked(*, traceparent: str, begins_anew: bool) -> None:
    """One that is not sampled is not; one that makes no sense begins a new trace."""
    async with traced() as world:
        for given in (traceparent, TRACEPARENT):
            answer = await world.running.http.get("/health/live", headers={"traceparent": given})
            assert answer.status_code == 200
        spans = await world.spans.of(1 + begins_anew)
    assert len(spans) == 1 + begins_anew
    assert (spans[0].parent is None) == begins_anew


async def test_a_busy_server_traces_some_of_its_requests() -> None:
    """So many a second, and all that a client wants traced."""
    async with traced() as world:
        for _ in range(40):
            await world.running.http.get("/health/live")
            await world.running.http.get("/health/live", headers={"traceparent": TRACEPARENT})
        spans = await world.spans.of(50)
    asked = [span for span in spans if span.parent is not None]
    assert len(asked) == 40
    assert 10 <= len(spans) - len(asked) <= 30


async def test_traces_without_the_extra_are_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for and not installed, or for a protocol that is not there: the start says what to do."""
    settings = Settings(home=tmp_path, traces="otlp", _env_file=None)
    with monkeypatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        with pytest.raises(TracingUnavailable, match="http/protobuf"):
            await tracing(settings).__aenter__()
    monkeypatch.setitem(sys.modules, "manent.adapters.traces.otlp", None)
    with pytest.raises(TracingUnavailable, match=r"manent\[tracing\]"):
        await tracing(settings).__aenter__()
