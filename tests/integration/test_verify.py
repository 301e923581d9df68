"""Reruns on a real runner: exact after a restart and beside others, refused with other weights, shown to part."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import mlx.core as mx
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from manent.adapters.store.memory import MemoryEventStore
from manent.app.cli.root import build_app
from manent.app.settings import Settings
from manent.app.use_case_set import UseCases
from manent.app.usecases import build_use_cases
from manent.domain.events import CompletionGenerated
from manent.domain.generation import RequestedParameters
from manent.domain.usecases.verify_completion import VerifyCommand
from manent.domain.verification import Verdict
from tests.support.commands import manent
from tests.support.conversation import ANN, user
from tests.support.engines import runner_engine
from tests.support.fakes import CountingIds, FakeClock
from tests.support.http import sse_events
from tests.support.manent import ask
from tests.support.server import Server, serving
from tests.support.tiny_models import make_tiny_model

REGISTRY = """
[[models]]
id = "tiny"
aliases = ["default"]
path = "{tiny}"

[[models]]
id = "mended"
path = "{mended}"
"""
TOPICS = ("a lighthouse", "the sea", "an apple", "two dogs", "the letter q")
SAMPLED = RequestedParameters(temperature=0.9, seed=11, max_tokens=16, deterministic=True)


@pytest.fixture(scope="module")
def tiny(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, whose answers depend on every bit of its noise."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", starter=starter_model, seed=3)


def bodies() -> list[dict[str, Any]]:
    """Fifty requests: greedy and sampled, filtered and penalized, several choices, streamed or not, in a session."""
    asked: list[dict[str, Any]] = []
    for number in range(50):
        text = f"Say {number} things about {TOPICS[number % len(TOPICS)]}. "
        body: dict[str, Any] = {
            "model": "default",
            "messages": [{"role": "user", "content": text * (1 if number % 5 == 4 else 1 + number % 7)}],
            "deterministic": True,
            "max_tokens": 4 + number % 9,
            "temperature": (0.0, 0.7, 1.3)[number % 3],
            "seed": number,
        }
        if number % 5 == 4:
            body |= {"session_id": "s"}
        elif number % 5 == 3:
            body |= {"n": 2, "store": True, "top_p": 0.9}
        else:
            body |= {"store": True, "repetition_penalty": 1.1, "logprobs": number % 2 == 0}
        asked.append(body | ({"stream": True} if number % 4 == 1 else {}))
    return asked


def completion_id(http: httpx.Client, body: dict[str, Any]) -> str:
    """The id of an answer, streamed or whole."""
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        return str(answer.json()["id"])
    assert answer.text.endswith("data: [DONE]\n\n")
    return str(json.loads(sse_events(answer.text)[0])["id"])


def verify(server: Server, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """``manent verify``: its exit code, and what it says of each completion."""
    done = manent("verify", *arguments, "--url", server.address, "--json", home=server.home)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(120)
@pytest.mark.long
def test_fifty_completions_are_exact_after_a_restart_and_one_with_another_weight_is_refused(
    tiny: Path, starter_model: Path, tmp_path: Path
) -> None:
    """Another process says every token again; where one number of a model changed, that is named."""
    mended = make_tiny_model(tmp_path / "mended", starter=starter_model, seed=4)
    home = tmp_path / "home"
    home.mkdir()
    (home / "models.toml").write_text(REGISTRY.format(tiny=tiny, mended=mended), encoding="utf-8")
    with serving(home) as server, httpx.Client(base_url=server.address, timeout=60) as http:
        ids = [completion_id(http, body) for body in bodies()]
        plain = completion_id(http, bodies()[0] | {"deterministic": False})
        other = completion_id(http, bodies()[0] | {"model": "mended"})
        server.stop()
    change_one_weight(mended / "model.safetensors")
    in_session = [one for one, body in zip(ids, bodies(), strict=True) if "session_id" in body]
    outside = [one for one in ids if one not in in_session]
    with serving(home) as server:
        code, answers = verify(server, *outside, "--session", "s")
        assert Counter(answer["verdict"] for answer in answers) == {"exact": 50}, answers
        assert (code, [answer["id"] for answer in answers]) == (0, [*outside, *in_session])
        assert sum(answer["compared_tokens"] for answer in answers) > 300
        code, (first, second) = verify(server, plain, other, "--other-versions")
        assert (code, first["obstacle"], second["obstacle"]) == (4, "not_deterministic", "other_weights")
        assert [part["name"] for part in second["changed"]] == ["weights"]
        shown = manent("verify", ids[0], plain, "chatcmpl-nothing", "--url", server.address, home=home)
        assert shown.stdout.startswith(f"EXACT {ids[0]} ")
        assert f"NOT_REPLAYABLE {plain} not_deterministic: " in shown.stdout
        assert (shown.returncode, "no completion 'chatcmpl-nothing'" in shown.stderr) == (1, True)
        page = httpx.get(f"{server.address}/v1/events?type=CompletionVerified&limit=1000").json()
        assert Counter(event["payload"]["verdict"] for event in page["data"]) == {"exact": 51, "not_replayable": 3}


def test_verify_wants_to_know_what() -> None:
    """Neither a completion nor a session is a wrong use of the command."""
    assert CliRunner().invoke(build_app("verify"), ["verify"]).exit_code == 2


def change_one_weight(file: Path) -> None:
    """Change the first number of the first tensor."""
    weights = dict(mx.load(str(file)))  # type: ignore[arg-type]  # safetensors are a dict
    name = min(weights)
    weights[name][..., 0] += 1
    mx.save_safetensors(str(file), weights, {"format": "mlx"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tiny: Path) -> AsyncGenerator[tuple[UseCases, MemoryEventStore], None]:
    """The use cases over a real runner."""
    clock, ids = FakeClock(), CountingIds()
    store = MemoryEventStore(clock=clock, ids=ids)
    async with runner_engine(tiny) as engine:
        yield build_use_cases(Settings(), store=store, engine=engine, clock=clock, ids=ids), store


async def told(manent: UseCases, text: str, parameters: RequestedParameters) -> CompletionGenerated:
    """An answer that is recorded with its content."""
    return await manent.complete_chat.start(ask(user(text), parameters=parameters, store_content=True)).generated()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_deterministic_completion_is_the_same_beside_eight_others(
    world: tuple[UseCases, MemoryEventStore],
) -> None:
    """It waits for them and they for it: alone in its batch, cold, the same tokens; they share theirs."""
    manent, _ = world
    text = "Tell me about the sea. " * 8
    asked = replace(SAMPLED, n=2, logprobs=True, top_logprobs=2)
    alone = await told(manent, text, asked)
    others = [
        asyncio.create_task(told(manent, f"{text}{number}", RequestedParameters(max_tokens=100, seed=number)))
        for number in range(8)
    ]
    await asyncio.sleep(0.1)
    among = await asyncio.gather(*(told(manent, text, asked) for _ in range(2)), *others)
    for generated in among[:2]:
        assert generated.token_ids == alone.token_ids
        assert generated.alternatives[0].token_ids == alone.alternatives[0].token_ids
        assert generated.logprobs == alone.logprobs
        assert (generated.usage.cached_tokens, generated.provenance.batch_size_max) == (0, 2)
        assert sum(generated.provenance.batch_sizes.values()) == generated.usage.completion_tokens
    assert max(generated.provenance.batch_size_max for generated in among[2:]) > 2
    for generated in (alone, *among[:2]):
        found = await manent.replays.verify.run(VerifyCommand(principal=ANN, completion_id=generated.completion_id))
        assert found.event.verdict is Verdict.EXACT


@pytest.mark.asyncio(loop_scope="module")
async def test_a_record_that_says_something_else_is_parted_from(world: tuple[UseCases, MemoryEventStore]) -> None:
    """The token, what was there, what is, and how near the two best lay, as the model tells it."""
    manent, store = world
    generated = await told(manent, "Tell me about two dogs.", replace(SAMPLED, logprobs=True, top_logprobs=2))
    assert generated.token_ids is not None
    assert generated.logprobs is not None
    wrong = (*generated.token_ids[:5], 77, *generated.token_ids[6:])
    stream = store._streams["acme", f"completion-{generated.completion_id}"]
    stream[1] = replace(stream[1], event=replace(generated, token_ids=wrong))
    found = await manent.replays.verify.run(VerifyCommand(principal=ANN, completion_id=generated.completion_id))
    parted = found.divergence
    assert parted is not None
    assert (found.event.verdict, found.event.position, found.event.compared_tokens) == (Verdict.DIVERGED, 5, 5)
    assert (parted.recorded_token, parted.rerun_token) == (77, generated.token_ids[5])
    best, second = generated.logprobs[5].top
    assert parted.logit_gap == pytest.approx(best.logprob - second.logprob, abs=1e-5)
    assert parted.rerun_text == generated.logprobs[5].chosen.token_bytes.decode("utf-8", "replace")
