"""What the server makes of runners that break the protocol, die early, stay silent or refuse to end."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from manent.adapters.inference.exchange import RunnerLimits
from manent.domain.errors import EngineUnavailable, InsufficientMemory, ModelLoadError
from manent.domain.generation import RenderedPrompt
from manent.domain.model_events import RunnerCrashed
from manent.domain.residency import Phase
from tests.support import odd_runner
from tests.support.engines import (
    MODEL,
    RecordedEvents,
    collect,
    parameters,
    request,
    runner_engine,
    running,
    until,
    user,
)
from tests.support.runners import python_with_runner, runners_of, runs

QUICK = RunnerLimits(load_timeout_s=20, stall_timeout_s=0.5)
PROMPT = RenderedPrompt(token_ids=(1,))


@pytest.fixture(autouse=True)
def odd_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start odd runners instead of real ones."""
    monkeypatch.setattr(sys, "executable", python_with_runner(tmp_path, odd_runner.__file__))


async def test_progress_is_a_sign_of_life(tmp_path: Path) -> None:
    """A request that takes four times the stall timeout is answered, since its runner says that it goes on."""
    async with runner_engine(tmp_path / "slow", limits=QUICK) as engine:
        _, result = await collect(engine, request(PROMPT, parameters()))
    assert result.timings.prefill_s == 2.0


async def test_silence_is_not(tmp_path: Path) -> None:
    """A runner that takes a request and says nothing is killed after the stall timeout, and the event says why."""
    events = RecordedEvents()
    async with runner_engine(tmp_path / "silent", limits=QUICK, events=events) as engine:
        with pytest.raises(EngineUnavailable, match=r"no sign of life for 0\.5 s"):
            await engine.render(MODEL, [user("Hi")])
        await until(lambda: len(events) == 2)
        assert runners_of(os.getpid()) == []
    crash = events[1]
    assert isinstance(crash, RunnerCrashed)
    assert (crash.requests, "no sign of life" in crash.reason) == (1, True)


@pytest.mark.parametrize(("behavior", "says"), [("garbage", "bound"), ("confused", "unexpected Delta")])
async def test_a_broken_protocol_is_an_error_and_not_a_hang(tmp_path: Path, behavior: str, says: str) -> None:
    """Whatever comes instead of an answer."""
    async with runner_engine(tmp_path / behavior, limits=QUICK) as engine:
        with pytest.raises(EngineUnavailable, match=says):
            await engine.render(MODEL, [user("Hi")])


async def test_the_last_words_of_a_runner_that_dies_early_are_kept(tmp_path: Path) -> None:
    """They are often the only thing that says why, as when a library is missing."""
    async with runner_engine(tmp_path / "dies", limits=QUICK) as engine:
        with pytest.raises(ModelLoadError, match=r"exit status 1 \(out of luck\)"):
            await engine.render(MODEL, [user("Hi")])


async def test_a_noisy_runner_is_neither_blocked_nor_remembered_whole(tmp_path: Path) -> None:
    """More on stderr than a pipe holds: it is read, and only its end is kept."""
    async with runner_engine(tmp_path / "noisy", limits=QUICK) as engine:
        with pytest.raises(ModelLoadError, match=r"\(the last word\)") as caught:
            await engine.render(MODEL, [user("Hi")])
    assert len(str(caught.value)) < 200


async def test_a_runner_that_refuses_to_end_is_ended(tmp_path: Path) -> None:
    """It ignores the frame and SIGTERM; SIGKILL it cannot ignore."""
    async with runner_engine(
        tmp_path / "stubborn", limits=RunnerLimits(load_timeout_s=20, stall_timeout_s=20)
    ) as engine:
        waiting = asyncio.create_task(engine.render(MODEL, [user("Hi")]))
        await until(lambda: engine.supervisor(MODEL).runner is not None)
        pid = running(engine).pid
        await engine.aclose(0.1)
        assert not runs(pid)
        with pytest.raises(EngineUnavailable):
            await waiting


async def test_a_runner_that_the_system_kills_is_replaced_and_the_request_repeated_once(tmp_path: Path) -> None:
    """Before there is output, nobody has to notice: unused models go, and a new runner answers."""
    events = RecordedEvents()
    async with runner_engine(tmp_path / "mortal", events=events) as engine:
        _, result = await collect(engine, request(PROMPT, parameters()))
        assert result.usage.completion_tokens == 0
    assert events.names == ["ModelLoaded", "RunnerCrashed", "ModelLoaded", "ModelUnloaded"]


async def test_a_kill_is_known_as_one_whatever_was_unread(tmp_path: Path) -> None:
    """A runner that dies with something to read resets its socket: how it ended is its exit status all the same."""
    events = RecordedEvents()
    async with runner_engine(tmp_path / "unread", events=events) as engine:
        asked = [
            asyncio.create_task(collect(engine, request(PROMPT, parameters(), completion_id=f"c{number}")))
            for number in (1, 2)
        ]
        await asyncio.wait(asked, timeout=15)
        assert [result.usage.completion_tokens for _, result in await asyncio.gather(*asked)] == [0, 0]
    (crash,) = [event for event in events if isinstance(event, RunnerCrashed)]
    assert "SIGKILL, as the system does" in crash.reason


async def test_once_and_not_more(tmp_path: Path) -> None:
    """Where it is killed again, the request ends in an error that says what the system does when memory runs out."""
    events = RecordedEvents()
    async with runner_engine(tmp_path / "doomed", events=events) as engine:
        with pytest.raises(EngineUnavailable, match="SIGKILL, as the system does when memory runs out"):
            await collect(engine, request(PROMPT, parameters()))
        await until(lambda: len(events) == 4)
    assert events.names == ["ModelLoaded", "RunnerCrashed"] * 2


async def test_a_load_that_the_system_kills_is_repeated_once(tmp_path: Path) -> None:
    """A runner that is killed while it loads ran out of memory, most likely."""
    async with runner_engine(tmp_path / "killed-while-loading") as engine, engine.place(MODEL):
        assert engine.status(MODEL).phase is Phase.LOADED


async def test_a_model_that_the_machine_has_no_memory_for_is_refused_as_that(tmp_path: Path) -> None:
    """What MLX says about memory is understood; the answer is 503 with a reason and a time, not a crash."""
    events = RecordedEvents()
    async with runner_engine(tmp_path / "too-large", events=events) as engine:
        with pytest.raises(InsufficientMemory, match=r"Unable to allocate 10 bytes.*tried twice") as caught:
            await engine.render(MODEL, [user("Hi")])
        assert caught.value.retry_after_s is not None
    assert events.names == ["ModelLoadFailed"]
