"""Runners that die, hang or cannot load: every request ends, the next one works, and no process is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manent.adapters.inference.connection import RunnerLimits
from manent.adapters.inference.engine import RunnerEngine
from manent.domain.errors import EngineUnavailable, InvalidValue, ModelLoadError
from manent.domain.events import ModelLoadFailed, RunnerCrashed
from manent.domain.messages import Role
from tests.support.engines import (
    MODEL,
    RecordedEvents,
    answer,
    children_of,
    collect,
    eventually_gone,
    first_children_of,
    parameters,
    request,
    runner_engine,
    running,
    said,
    user,
)

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
        assert {type(end) for end in ends} == {EngineUnavailable}
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
        children = await first_children_of(os.getpid())
        await engine.aclose(2.0)
        with pytest.raises(EngineUnavailable, match="while it was being loaded"):
            await waiting
        assert [await eventually_gone(child, within_s=0.5) for child in children] == [True] * len(children)


async def test_a_load_that_takes_too_long_is_given_up(starter_model: Path) -> None:
    """The bound is named, and no process stays behind."""
    async with runner_engine(starter_model, limits=RunnerLimits(load_timeout_s=0.2, stall_timeout_s=60)) as engine:
        with pytest.raises(ModelLoadError, match=r"more than 0\.2 s"):
            await engine.render(MODEL, [user("Hi")])
        assert children_of(os.getpid()) == []


@pytest.mark.parametrize("moment", ["starting", "loaded", "token"])
async def test_a_runner_does_not_outlive_its_server(starter_model: Path, moment: str) -> None:
    """kill -9 of the server while the model loads, after it, and in the middle of a stream."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(starter_model), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    while (await asyncio.wait_for(server.stdout.readline(), 60)).decode().strip() != moment:
        pass
    runners = await first_children_of(server.pid)
    server.kill()
    await server.wait()
    assert [await eventually_gone(runner, within_s=3) for runner in runners] == [True]
    server._transport.close()  # type: ignore[attr-defined]


@pytest.fixture
def copy(starter_model: Path, tmp_path: Path) -> Path:
    """A copy of the model's folder to break; weights are linked, not copied."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in starter_model.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def rewrite(file: Path, text: str | bytes) -> None:
    """Replace a link by a file of this content."""
    file.unlink()
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def change_config(folder: Path, **changes: object) -> None:
    """Change keys of config.json."""
    config = json.loads((folder / "config.json").read_text())
    rewrite(folder / "config.json", json.dumps(config | changes))


def cut_weights(folder: Path) -> None:
    """Cut the weights off, as an interrupted download does."""
    with (folder / "model.safetensors").open("rb") as stream:
        rewrite(folder / "model.safetensors", stream.read(1_000_000))


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "does not exist; download the model or correct its path"),
    "config broken": (lambda f: rewrite(f / "config.json", "{oops"), "config.json is not valid JSON"),
    "weights cut off": (cut_weights, "is cut off: it has 1000000 bytes"),
    "tokenizer broken": (lambda f: rewrite(f / "tokenizer.json", "{oops"), "tokenizer"),
    "unknown kind": (lambda f: change_config(f, model_type="no_such_model"), "no_such_model"),
    "other shape": (lambda f: change_config(f, num_hidden_layers=31), "could not be loaded"),
    "heads that do not divide": (lambda f: change_config(f, num_attention_heads=7, num_key_value_heads=2), "model"),
}


@pytest.mark.parametrize(("break_it", "says"), BREAKS.values(), ids=BREAKS)
async def test_a_broken_model_says_what_is_wrong(copy: Path, break_it: Callable[[Path], object], says: str) -> None:
    """The error names the cause, an event records it, and nothing is left running."""
    break_it(copy)
    events = RecordedEvents()
    async with runner_engine(copy, events=events) as engine:
        with pytest.raises(ModelLoadError, match=says) as caught:
            await engine.render(MODEL, [user("Hi")])
        assert children_of(os.getpid()) == []
    assert caught.value.code == "model_load_failed"
    (event,) = events
    assert isinstance(event, ModelLoadFailed)
    assert event.reason == caught.value.message


async def test_a_broken_model_is_not_loaded_again_and_again(copy: Path) -> None:
    """Callers within the failure memory share one attempt; a later one tries again, and works once it is mended."""
    config = (copy / "config.json").read_bytes()
    rewrite(copy / "config.json", "{oops")
    events = RecordedEvents()
    async with runner_engine(copy, events=events, failure_memory_s=0.5) as engine:
        for _ in range(3):
            ends = await asyncio.gather(*(engine.render(MODEL, [user("Hi")]) for _ in range(5)), return_exceptions=True)
            assert {type(end) for end in ends} == {ModelLoadError}
        assert events.names == ["ModelLoadFailed"]
        rewrite(copy / "config.json", config)
        await asyncio.sleep(0.6)
        await engine.render(MODEL, [user("Hi")])
    assert events.names == ["ModelLoadFailed", "ModelLoaded", "ModelUnloaded"]


async def test_a_template_that_refuses_is_the_clients_mistake(copy: Path) -> None:
    """What the template says reaches the client; counting falls back to an estimate; the runner goes on."""
    template = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('Conversations must start with the user') }}"
        "{% endif %}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    )
    set_template(copy, template)
    async with runner_engine(copy) as engine:
        with pytest.raises(InvalidValue, match="Conversations must start with the user") as caught:
            await engine.render(MODEL, [said(Role.ASSISTANT, "Hello")])
        assert caught.value.param == "messages"
        counts = await engine.count_tokens(MODEL, [user("a b c"), said(Role.ASSISTANT, "d e"), user("f")])
        assert all(3 <= count <= 12 for count in counts)
        prompt = await engine.render(MODEL, [user("Hello")])
        assert (await collect(engine, request(prompt, parameters(max_tokens=2))))[1].usage.completion_tokens == 2


def set_template(folder: Path, template: str) -> None:
    """Give a model another chat template, wherever it keeps its own."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    rewrite(folder / "tokenizer_config.json", json.dumps(config | {"chat_template": template}))
    if (folder / "chat_template.jinja").exists():
        rewrite(folder / "chat_template.jinja", template)


async def test_a_command_that_cannot_be_started_is_a_load_error(
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
