"""Starting and ending runners where the system does not play along: every wait has a bound, no process stays behind."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from manent.adapters.inference import process as process_module
from manent.adapters.inference.process import RunnerCommand, RunnerProcess
from manent.domain.errors import EngineUnavailable, ModelLoadError
from tests.support.engines import MODEL, eventually_gone, runner_engine, until, user
from tests.support.runners import runs

COMMAND = RunnerCommand(model_folder=Path("/none"), digest_folder=Path("/none"))


class HeldPopen:
    """``_popen`` that waits for ``go``, before or after it starts a process that would live for a minute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> None:
        self.go, self.asked = threading.Event(), threading.Event()
        self.started: list[subprocess.Popen[bytes]] = []
        self._after = after
        monkeypatch.setattr(process_module, "_popen", self)

    def __call__(self, *_: object) -> subprocess.Popen[bytes]:
        """Start, and wait."""
        if not self._after:
            self._hold()
        self.started.append(subprocess.Popen(["sleep", "60"]))
        if self._after:
            self._hold()
        return self.started[-1]

    def _hold(self) -> None:
        self.asked.set()
        assert self.go.wait(30)


def start_stubborn() -> subprocess.Popen[bytes]:
    """A process that does not heed SIGTERM."""
    return subprocess.Popen(["sh", "-c", "trap '' TERM; exec sleep 60"])


async def gone(held: HeldPopen) -> bool:
    """Whether what was started is reaped."""
    await asyncio.wait_for(until(lambda: len(held.started) == 1), 10)
    return await eventually_gone(held.started[0].pid)


async def test_a_start_that_the_system_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error after a bounded time; the process that comes after all is ended."""
    monkeypatch.setattr(process_module, "_START_S", 0.1)
    held = HeldPopen(monkeypatch)
    with pytest.raises(OSError, match=r"started no process within 0\.1 s"):
        await RunnerProcess.start(COMMAND)
    held.go.set()
    assert await gone(held)


@pytest.mark.parametrize("after", [False, True])
async def test_a_start_that_is_cancelled_leaves_no_process(monkeypatch: pytest.MonkeyPatch, after: bool) -> None:  # noqa: FBT001 (a parameter)
    """The cancellation does not wait for the system, whether there was a process already or not."""
    held = HeldPopen(monkeypatch, after=after)
    starting = asyncio.create_task(RunnerProcess.start(COMMAND))
    await asyncio.wait_for(until(held.asked.is_set), 10)
    starting.cancel()
    done, _ = await asyncio.wait({starting}, timeout=2)
    assert done
    assert starting.cancelled()
    held.go.set()
    assert await gone(held)


async def test_a_start_that_is_cancelled_at_any_moment_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the instant between the process's birth and the loop's hearing of it."""
    children: list[subprocess.Popen[bytes]] = []

    def quick(*_: object) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(["sleep", "60"]))
        return children[-1]

    monkeypatch.setattr(process_module, "_popen", quick)
    for number in range(40):
        starting = asyncio.create_task(RunnerProcess.start(COMMAND))
        until_s = time.monotonic() + number * 0.0005
        while time.monotonic() < until_s:  # noqa: ASYNC110 (finer than a timer)
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting}, timeout=5)
        assert starting.done()
        if not starting.cancelled():
            born, ours = starting.result()
            ours.close()
            await born.end(deadline_s=0)
    assert [child.pid for child in children if not await eventually_gone(child.pid)] == []


async def test_closing_does_not_wait_for_a_system_that_starts_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those who wait for the model are told, and the loop can end: the thread that hangs is nobody's business."""
    held = HeldPopen(monkeypatch)
    async with runner_engine(tmp_path / "model") as engine:
        waiting = asyncio.create_task(engine.render(MODEL, [user("Hi")]))
        await asyncio.wait_for(until(held.asked.is_set), 10)
        await asyncio.wait_for(engine.aclose(0.1), 10)
        with pytest.raises(EngineUnavailable, match="while it was being loaded"):
            await asyncio.wait_for(waiting, 1)
    held.go.set()
    assert await gone(held)


async def test_a_start_that_fails_late_is_a_load_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the system's reason was, it is named, and the next request tries again."""

    def refuse(*_: object) -> subprocess.Popen[bytes]:
        raise BlockingIOError(11, "no more processes")

    monkeypatch.setattr(process_module, "_popen", refuse)
    async with runner_engine(tmp_path / "model") as engine:
        with pytest.raises(ModelLoadError, match="no more processes"):
            await engine.render(MODEL, [user("Hi")])


async def test_the_end_of_a_process_goes_on_when_its_caller_is_cancelled() -> None:
    """A second cancellation during the first one's tidying leaves no process."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        running = RunnerProcess(start_stubborn(), ours)
        ending = asyncio.create_task(running.end(deadline_s=0.2))
        await asyncio.sleep(0.05)
        ending.cancel()
        await asyncio.wait({ending}, timeout=1)
        assert ending.cancelled()
        assert runs(running.pid)
        assert await eventually_gone(running.pid, within_s=8)


async def test_a_tail_that_never_closes_does_not_keep_an_end_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grandchild that inherited stderr holds it open; the end takes its bound and no longer."""
    monkeypatch.setattr(process_module, "_TAIL_S", 0.1)

    def with_grandchild(_: object, _theirs: object, stderr: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", "sleep 3 & exit 1"], stderr=stderr.fileno())

    monkeypatch.setattr(process_module, "_popen", with_grandchild)
    born, ours = await RunnerProcess.start(COMMAND)
    with ours:
        await asyncio.wait_for(born.end(deadline_s=1), 2.5)
    assert not runs(born.pid)
