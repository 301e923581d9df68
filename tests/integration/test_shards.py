"""A model in several processes: it says what it says in one, and no process of it outlives another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.memory import process_bytes
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.errors import EngineUnavailable
from manent.domain.generation import GenerationResult, SamplingParameters
from tests.support.engines import (
    CARD,
    answer,
    engine_of,
    eventually_gone,
    parameters,
    running,
    supervisor_settings,
    until,
)
from tests.support.tiny_models import make_tiny_model

ASKED = (
    parameters(max_tokens=24),
    parameters(max_tokens=12, temperature=1.0, seed=7, stop_token_ids=[11]),
    parameters(max_tokens=8, n=2, temperature=1.0, logprobs=True, top_logprobs=2),
    parameters(max_tokens=30, temperature=0.8, frequency_penalty=0.5),
)


@pytest.fixture(scope="module")
def tiny(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers with four heads."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", starter=starter_model, seed=1)


@asynccontextmanager
async def sharded(folder: Path, tmp_path: Path, shards: int = 2) -> AsyncGenerator[RunnerEngine, None]:
    """An engine with this model in shards."""
    model = RegisteredModel(card=CARD, path=folder, shards=shards)
    async with engine_of([model], supervisor_settings(tmp_path)) as engine:
        yield engine


async def all_answers(engine: RunnerEngine) -> list[GenerationResult]:
    """Of requests that run together, of which one is given up half way."""

    async def ask(effective: SamplingParameters) -> GenerationResult:
        return await answer(engine, "Say something.", effective)

    dropped = asyncio.create_task(ask(parameters(max_tokens=400)))
    results = await asyncio.gather(*map(ask, ASKED))
    dropped.cancel()
    await asyncio.wait({dropped}, timeout=10)
    return [*results, await ask(ASKED[0])]


def written(file: Path) -> str:
    """What a file says."""
    return file.read_text(encoding="utf-8")


def processes(engine: RunnerEngine) -> list[int]:
    """All processes of the model, the runner first."""
    runner = running(engine)
    return [runner.pid, *(child.pid for child in psutil.Process(runner.pid).children())]


@pytest.fixture
def other_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for ssh, which runs commands on this machine, writes down the host that it was to reach."""
    said = tmp_path / "said"
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$3" >{said}\nshift 3\nexec sh -c "$*"\n', encoding="utf-8")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    return said


@pytest.mark.timeout(300)
async def test_a_model_on_two_hosts_says_what_it_says_on_one(tiny: Path, tmp_path: Path, other_host: Path) -> None:
    """Greedy and sampled, alone and in a batch, with choices and log probabilities; as mlx.launch's hostfile has it."""
    model = RegisteredModel(card=CARD, path=tiny)
    async with engine_of([model], supervisor_settings(tmp_path)) as engine:
        expected = await all_answers(engine)
    hosts = [{"ssh": "here", "ips": ["127.0.0.1"]}, {"ssh": "mac2.local", "ips": ["127.0.0.1"]}]
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"backend": "ring", "envs": ["A=b c"], "hosts": hosts}), encoding="utf-8")
    async with engine_of([replace(model, hosts=file)], supervisor_settings(tmp_path)) as engine:
        found = await all_answers(engine)
    assert written(other_host) == "mac2.local\n"
    for one, whole in zip(found, expected, strict=True):
        assert [choice.token_ids for choice in one.choices] == [choice.token_ids for choice in whole.choices]
        assert one.usage == whole.usage
        assert one.provenance.weights_digest == whole.provenance.weights_digest
        assert one.provenance.device == f"{whole.provenance.device}, 2 shards"


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_a_process_that_is_killed_takes_all_along_and_all_come_back(tiny: Path, tmp_path: Path) -> None:
    """The first one or another, at work; the next request is answered by new ones. The memory of both counts."""
    async with sharded(tiny, tmp_path) as engine:
        expected = (await answer(engine, "Hello.", ASKED[0])).token_ids
        for victim in (1, 0):
            pids = processes(engine)
            assert len(pids) == 2
            assert running(engine).held_bytes >= 0.9 * sum(map(process_bytes, pids))
            asking = asyncio.create_task(answer(engine, "Hello.", parameters(max_tokens=400)))
            await asyncio.sleep(0.3)
            os.kill(pids[victim], signal.SIGKILL)
            for pid in pids:
                assert await eventually_gone(pid)
            with pytest.raises(EngineUnavailable):
                await asking
            await until(lambda: engine.supervisor(CARD.model_id).runner is None)
            assert (await answer(engine, "Hello.", ASKED[0])).token_ids == expected


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_the_starter_model_in_three_processes(starter_model: Path, tmp_path: Path) -> None:
    """Its nine heads divide by three, and it knows what it knows in one process."""
    async with sharded(starter_model, tmp_path, shards=3) as engine:
        result = await answer(engine, "What is the capital of France?", parameters(max_tokens=7))
        assert result.text == "The capital of France is Paris."
