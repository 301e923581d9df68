"""Runners with the real model: the tokens are mlx-lm's own, a seed repeats, cancelling costs at most a token."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from manent.adapters.inference.digests import DigestCache
from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.model_folder import weight_files
from manent.adapters.inference.openblas import runner_environment
from manent.domain.errors import EngineBusy, GenerationFailed, InvalidValue
from manent.domain.generation import FinishReason, RenderedPrompt, TextDelta
from manent.domain.messages import Role
from tests.support.engines import (
    MODEL,
    RecordedEvents,
    answer,
    collect,
    parameters,
    request,
    runner_engine,
    running,
    said,
    user,
)

STORY = "Tell me a long story about a lighthouse."
BARE = """
import json, sys
from mlx_lm import load, stream_generate
model, tokenizer = load(sys.argv[1])[:2]
ask = json.load(sys.stdin)
answers = [stream_generate(model, tokenizer, prompt, max_tokens=ask["max_tokens"]) for prompt in ask["prompts"]]
print(json.dumps([[step.token for step in steps] for steps in answers]))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(starter_model: Path) -> AsyncGenerator[RunnerEngine, None]:
    """An engine that no test here breaks."""
    async with runner_engine(starter_model) as engine:
        yield engine


pytestmark = pytest.mark.asyncio(loop_scope="module")


def bare_tokens(folder: Path, prompts: Sequence[RenderedPrompt], max_tokens: int) -> list[list[int]]:
    """What mlx-lm generates by itself, in a process with the same BLAS."""
    ask = json.dumps({"prompts": [prompt.token_ids for prompt in prompts], "max_tokens": max_tokens})
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(folder)],
        input=ask,
        env=runner_environment(os.environ),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    tokens: list[list[int]] = json.loads(done.stdout)
    return tokens


async def test_greedy_output_is_that_of_bare_mlx_lm(engine: RunnerEngine, starter_model: Path) -> None:
    """Same token ids, end of sequence included, also where the prompt is prefilled in several chunks."""
    texts = "What is the capital of France?", STORY + " Begin at the very beginning. " * 30
    prompts = [await engine.render(MODEL, [user(text)]) for text in texts]
    results = [(await collect(engine, request(prompt, parameters(max_tokens=24))))[1] for prompt in prompts]
    expected = await asyncio.to_thread(bare_tokens, starter_model, prompts, 24)
    assert [list(result.token_ids) for result in results] == expected


async def test_the_end_of_sequence_stops_and_is_counted_but_not_shown(engine: RunnerEngine) -> None:
    """The last token is the model's end of sequence; the text does not hold it."""
    result = await answer(engine, "What is the capital of France?", parameters(max_tokens=100))
    assert result.finish_reason is FinishReason.STOP
    assert "Paris" in result.text
    assert "<|" not in result.text
    assert result.token_ids[-1] == 2
    assert result.usage.completion_tokens == len(result.token_ids) < 100


async def test_a_seed_gives_the_same_tokens_alone_and_among_others(engine: RunnerEngine) -> None:
    """Three others run beside it, with other seeds and lengths."""
    sampled = parameters(max_tokens=20, temperature=0.8, top_p=0.95, seed=1234)
    alone = await answer(engine, STORY, sampled)
    others = [answer(engine, f"{STORY} {n}", parameters(max_tokens=30, temperature=1.0, seed=n)) for n in range(3)]
    among, *rest = await asyncio.gather(answer(engine, STORY, sampled), *others)
    assert among.token_ids == alone.token_ids
    assert among.provenance.batch_size_max == 4
    assert (alone.provenance.batch_size_max, alone.provenance.batch_sizes) == (1, {1: 20})
    assert sum(among.provenance.batch_sizes.values()) == 20
    assert among.provenance.batch_sizes[4] > 0
    assert len({result.token_ids for result in rest}) == 3
    differently = await answer(engine, STORY, parameters(max_tokens=20, temperature=0.8, top_p=0.95, seed=1235))
    assert differently.token_ids != alone.token_ids


async def test_a_stop_string_across_tokens_never_shows(engine: RunnerEngine) -> None:
    """Cut out of the middle of two neighbouring tokens' texts."""
    prompt = await engine.render(MODEL, [user(STORY)])
    deltas, whole = await collect(engine, request(prompt, parameters(max_tokens=20)))
    texts = [delta.text for delta in deltas]
    stop = texts[7][-2:] + texts[8][:2]
    deltas, result = await collect(engine, request(prompt, parameters(max_tokens=20, stop=[stop])))
    assert result.text == "".join(delta.text for delta in deltas) == whole.text[: whole.text.find(stop)]
    assert result.finish_reason is FinishReason.STOP
    assert result.token_ids == whole.token_ids[: len(result.token_ids)]
    assert all("\ufffd" not in delta.text for delta in deltas)


async def test_cancelling_costs_at_most_one_further_evaluation(engine: RunnerEngine) -> None:
    """After the stream is closed, the runner's step counter stands still at most one step later."""
    prompt = await engine.render(MODEL, [user(STORY)])
    stream = engine.generate(request(prompt, parameters(max_tokens=400)))
    for _ in range(3):
        assert isinstance(await anext(stream), TextDelta)
    before = (await running(engine).ping()).steps
    await stream.aclose()
    after = await running(engine).ping()
    assert after.active == 0
    assert after.steps - before <= 1
    await asyncio.sleep(0.3)
    assert (await running(engine).ping()).steps == after.steps


async def test_cancelling_takes_effect_during_prefill(engine: RunnerEngine) -> None:
    """A long prompt is dropped after the chunk that is being evaluated, not after the whole."""
    prompt = RenderedPrompt(token_ids=(504,) * 3000)
    asking = asyncio.ensure_future(anext(engine.generate(request(prompt, parameters()))))
    before = (await running(engine).ping()).steps
    while (pong := await running(engine).ping()).steps < before + 2:
        assert pong.active <= 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    after = await running(engine).ping()
    assert after.active == 0
    assert after.steps <= pong.steps + 1


async def test_token_ids_outside_the_vocabulary_fail_their_request_alone(engine: RunnerEngine) -> None:
    """Another request that runs meanwhile does not notice."""
    running_beside = asyncio.ensure_future(answer(engine, STORY, parameters(max_tokens=8)))
    with pytest.raises(GenerationFailed, match="49151"):
        await collect(engine, request(RenderedPrompt(token_ids=(1, 10**6)), parameters()))
    with pytest.raises(InvalidValue, match="empty"):
        await collect(engine, request(RenderedPrompt(token_ids=()), parameters()))
    assert (await running_beside).usage.completion_tokens == 8


async def test_the_system_prompt_is_rendered_by_the_models_template(engine: RunnerEngine) -> None:
    """The prompt holds the messages in the template's envelope and asks for the assistant; ids do not matter."""
    with_system = await engine.render(MODEL, [said(Role.SYSTEM, "Be brief."), user("Hi")])
    without = await engine.render(MODEL, [user("Hi")])
    assert with_system.token_ids[:2] == without.token_ids[:2]
    assert with_system.token_ids[-4:] == without.token_ids[-4:]
    assert with_system != without


async def test_as_many_requests_as_the_bound_allows(starter_model: Path) -> None:
    """The next one is refused at once, with the time after which to come back, and room is given back."""
    async with runner_engine(starter_model, in_flight_max=2) as engine:
        async with engine.place(MODEL), engine.place(MODEL):
            with pytest.raises(EngineBusy) as caught:
                async with engine.place(MODEL):
                    pass
            assert caught.value.retry_after_s == 2.0
            assert engine.supervisor(MODEL).leases == 2
        async with engine.place(MODEL):
            assert (await answer(engine, STORY, parameters(max_tokens=1))).usage.completion_tokens == 1


async def test_one_load_serves_all_who_wait_for_it(starter_model: Path) -> None:
    """Twenty callers, one of whom gives up: one runner, nineteen answers; the events say what happened."""
    events = RecordedEvents()
    async with runner_engine(starter_model, events=events) as engine:
        callers = [asyncio.ensure_future(engine.render(MODEL, [user("Hi")])) for _ in range(20)]
        await asyncio.sleep(0.1)
        callers[0].cancel()
        prompts = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(prompts[0], asyncio.CancelledError)
        assert prompts[1:] == [prompts[1]] * 19
        assert isinstance(prompts[1], RenderedPrompt)
        facts = running(engine).facts
        assert facts.context_length == 8192
        assert facts.memory_bytes > 100_000_000
        assert engine.supervisor(MODEL).leases == 0
    assert events.names == ["ModelLoaded", "ModelUnloaded"]


async def test_ctrl_c_does_not_reach_a_runner(engine: RunnerEngine) -> None:
    """When to stop is the server's decision: SIGINT leaves the runner as it is."""
    await engine.render(MODEL, [user("Hi")])
    runner = running(engine)
    os.kill(runner.pid, signal.SIGINT)
    assert (await answer(engine, STORY, parameters(max_tokens=2))).usage.completion_tokens == 2
    assert running(engine).pid == runner.pid
    assert os.getpgid(runner.pid) != os.getpgid(0)


@pytest.mark.asyncio(loop_scope="function")
async def test_digests_are_those_of_the_files(starter_model: Path, tmp_path: Path) -> None:
    """Whoever has the model's files can recompute what the log says about them."""
    async with runner_engine(starter_model) as engine:
        result = await answer(engine, "Hi", parameters(max_tokens=1))
    files = [*weight_files(starter_model), starter_model / "config.json"]
    assert result.provenance.weights_digest == DigestCache(tmp_path).digest_of_files(files)
    assert result.provenance.versions["mlx-lm"]


async def test_the_engine_works_on_uvloop(starter_model: Path) -> None:
    """Sanic's event loop is not asyncio's own. (In a thread, because this test has a loop already.)"""

    async def ask() -> str:
        async with runner_engine(starter_model) as engine:
            return (await answer(engine, "What is the capital of France?", parameters(max_tokens=20))).text

    assert "Paris" in await asyncio.to_thread(uvloop.run, ask())
