"""Runners that die, hang or cannot load: every request ends, the next one works, and no process is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.exchange import RunnerLimits
from manent.domain.errors import EngineUnavailable, ModelLoadError
from manent.domain.model_events import RunnerCrashed
from tests.support.engines import (
    MODEL,
    RecordedEvents,
    answer,
    eventually_gone,
    first_runners_of,
    parameters,
    request,
    runner_engine,
    running,
    user,
)
from tests.support.runners import runners_of

STORY = "Tell me a long story about a lighthouse."
SERVER = """
import asyncio, sys
from pathlib import Path
from tests.support.engines import MODEL, answer, parameters, request, runner_engine, running, user

async def main():
    async with runner_engine(Path(sys.argv[1])) as engine:
        print("starting", flush=True)
        prompt = await engine.render(MODEL, [user("Tell me a long story.")])
        print("loaded", flush=True)
        async for _ in engine.generate(request(prompt, parameters(max_tokens=2000))):
            print("token", flush=True)

asyncio.run(main())
"""


async def start_stream(engine: RunnerEngine, started: asyncio.Event, max_tokens: int = 400) -> None:
    """Generate, and say when the first token is there."""
    prompt = await engine.render(MODEL, [user(STORY)])
    async for _ in engine.generate(request(prompt, parameters(max_tokens=max_tokens))):
        started.set()


async def streams_under_way(engine: RunnerEngine, count: int) -> list[asyncio.Task[None]]:
    """Streams that all have their first token."""
    started = [asyncio.Event() for _ in range(count)]
    streams = [asyncio.create_task(start_stream(engine, event)) for event in started]
    for event in started:
        await asyncio.wait_for(event.wait(), 60)
    return streams


async def test_a_killed_runner_fails_what_it_had_and_is_replaced(starter_model: Path) -> None:
    """kill -9 in the middle of three streams: 503 for all three, and the next request gets a new runner."""
    events = RecordedEvents()
    async with runner_engine(starter_model, events=events) as engine:
        streams = await streams_under_way(engine, 3)
        killed = running(engine).pid
        os.kill(killed, signal.SIGKILL)
        ends = await asyncio.gather(*streams, return_exceptions=True)
        assert [isinstance(end, EngineUnavailable) for end in ends] == [True] * 3
        assert "SIGKILL" in str(ends[0])
        assert (await answer(engine, STORY, parameters(max_tokens=2))).usage.completion_tokens == 2
        assert running(engine).pid != killed
    assert events.names == ["ModelLoaded", "RunnerCrashed", "ModelLoaded", "ModelUnloaded"]
    crash = events[1]
    assert isinstance(crash, RunnerCrashed)
    assert crash.requests == 3


async def test_a_runner_that_hangs_is_killed(starter_model: Path) -> None:
    """No sign of life within the stall timeout: the request fails, and the next one gets a new runner."""
    events = RecordedEvents()
    limits = RunnerLimits(load_timeout_s=90, stall_timeout_s=2)
    async with runner_engine(starter_model, events=events, limits=limits) as engine:
        (stream,) = await streams_under_way(engine, 1)
        hung = running(engine).pid
        os.kill(hung, signal.SIGSTOP)
        with pytest.raises(EngineUnavailable, match="no sign of life for 2 s"):
            await stream
        assert await eventually_gone(hung)
        assert len((await engine.render(MODEL, [user("Hi")])).token_ids) > 0
    assert "RunnerCrashed" in events.names


async def test_closing_ends_the_runner_and_what_it_works_on(starter_model: Path) -> None:
    """A stream that runs while the engine closes ends with an error, and the process is gone."""
    async with runner_engine(starter_model) as engine:
        (stream,) = await streams_under_way(engine, 1)
        pid = running(engine).pid
        await engine.aclose(2.0)
        with pytest.raises(EngineUnavailable, match="was stopped"):
            await stream
        assert await eventually_gone(pid, within_s=0.5)
        with pytest.raises(EngineUnavailable, match="shutting down"):
            await engine.render(MODEL, [user("Hi")])


async def test_closing_while_a_model_loads_leaves_no_process(starter_model: Path) -> None:
    """The load is given up, those who wait for it are told, and its process is reaped."""
    async with runner_engine(starter_model) as engine:
        waiting = asyncio.create_task(engine.render(MODEL, [user("Hi")]))
        runners = await first_runners_of(os.getpid())
        await engine.aclose(2.0)
        with pytest.raises(EngineUnavailable, match="while it was being loaded"):
            await waiting
        assert [await eventually_gone(runner, within_s=0.5) for runner in runners] == [True]


async def test_a_load_that_takes_too_long_is_given_up(starter_model: Path) -> None:
    """The bound is named, and no process stays behind."""
    async with runner_engine(starter_model, limits=RunnerLimits(load_timeout_s=0.2, stall_timeout_s=60)) as engine:
        with pytest.raises(ModelLoadError, match=r"more than 0\.2 s"):
            await engine.render(MODEL, [user("Hi")])
        assert runners_of(os.getpid()) == []


@pytest.mark.parametrize("moment", ["starting", "loaded", "token"])
async def test_a_runner_does_not_outlive_its_server(starter_model: Path, moment: str) -> None:
    """kill -9 of the server while the model loads, after it, and in the middle of a stream."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(starter_model), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    while (await asyncio.wait_for(server.stdout.readline(), 60)).decode().strip() != moment:
        pass
    runners = await first_runners_of(server.pid)
    server.kill()
    await server.wait()
    assert [await eventually_gone(runner, within_s=3) for runner in runners] == [True]
    server._transport.close()  # type: ignore[attr-defined]  # the socket, as a crash leaves it


async def test_a_runner_that_cannot_be_started_is_a_load_error(
    starter_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the interpreter has vanished, say: the caller is told, and nothing leaks."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    async with runner_engine(starter_model) as engine:
        with pytest.raises(ModelLoadError, match="could not be started"):
            await engine.render(MODEL, [user("Hi")])


def test_the_runner_says_what_it_wants_on_its_command_line() -> None:
    """Started by hand without arguments it explains itself and exits with 2."""
    done = subprocess.run(
        [sys.executable, "-m", "manent.adapters.inference.runner"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--model" in done.stderr
