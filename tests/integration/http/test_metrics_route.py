"""GET /metrics: whoever asks, however often and with whatever header, is answered, and nothing else waits."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry

from manent.adapters.inference.script import Script
from manent.adapters.metrics.exposition import Exposition
from manent.adapters.metrics.recorder import Recorder
from manent.domain.telemetry import AllTelemetry, NoTelemetry, OperationEnded
from tests.support.fakes import FakeClock
from tests.support.hooks import Held
from tests.support.http import running_server
from tests.support.scrapes import samples_of


class Counting(Exposition):
    """Counts how often the text is made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.made = 0
        registry.register(self)  # type: ignore[arg-type]  # a collector of nothing

    def collect(self) -> list[object]:
        """Nothing, once for each rendering."""
        self.made += 1
        return []


async def test_a_crowd_of_scrapers_gets_one_text() -> None:
    """A hundred at once cost hardly more than one."""
    exposition = Counting(CollectorRegistry())
    exposition.made = 0
    async with running_server(scrape=exposition.render) as running:
        answers = await asyncio.gather(*(running.http.get("/metrics") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert exposition.made < 20


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/openmetrics-text;version=x", "text/plain;version=;;=,,", "a" * 9999]
)
async def test_any_accept_header_has_an_answer(accept: str) -> None:
    """Also one that makes no sense."""
    registry = CollectorRegistry()
    Recorder(registry, ["scripted"])
    async with running_server(scrape=Exposition(registry).render) as running:
        answer = await running.http.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert "manent_commits_refused_total 0.0" in answer.text


async def test_metrics_that_are_off_are_not_there() -> None:
    """A 404 that says how to have them."""
    async with running_server() as running:
        answer = await running.http.get("/metrics")
    assert answer.status_code == 404
    assert "MANENT_METRICS" in answer.json()["error"]["message"]


async def test_a_clock_that_is_set_makes_no_request_longer_or_shorter() -> None:
    """A year back or forward in the middle of a completion: durations come from a clock that nobody sets."""
    registry, clock = CollectorRegistry(), FakeClock()
    telemetry = AllTelemetry(Recorder(registry, ["scripted", "default"]), now_s=monotonic)
    exposition = Exposition(registry)
    async with running_server(telemetry=telemetry, scrape=exposition.render, clock=clock) as running:
        for year in (-1, 1):
            hold = Held(1)
            running.engine.script = Script(before_delta=hold)
            asked = asyncio.create_task(running.chat())
            await hold.reached.wait()
            clock.advance(year * 365 * 86400)
            hold.released.set()
            assert (await asked).status_code == 200
        samples = samples_of((await running.http.get("/metrics")).text)
    for name in ("gen_ai_server_request_duration_seconds", "http_server_request_duration_seconds"):
        (total_s,) = samples[f"{name}_sum"].values()
        assert 0 < total_s < 10, name
    assert all(0 <= value < 10 for value in samples["manent_stage_duration_seconds_sum"].values())


class Broken(NoTelemetry):
    """A listener with a defect."""

    def operation_ended(self, ended: OperationEnded) -> None:
        """Fail."""
        raise RuntimeError(ended.operation_id)


async def test_a_listener_that_fails_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The others are told, the request is answered, and the log has it."""
    registry = CollectorRegistry()
    telemetry = AllTelemetry(Broken(), Recorder(registry, ["scripted"]), now_s=monotonic)
    async with running_server(telemetry=telemetry, scrape=Exposition(registry).render) as running:
        assert (await running.chat()).status_code == 200
        assert "manent_operations_total{" in (await running.http.get("/metrics")).text
    assert "a listener failed" in caplog.text
